"""Message threads: only what is new travels, and whatever becomes of a thread costs nothing."""

from __future__ import annotations

import logging
import time
from contextlib import aclosing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langswarm_session import (
    AnthropicProviderSession,
    BaseSession,
    MockProviderSession,
    ProviderStreamError,
    SessionManager,
    Tool,
)
from langswarm_session.blocks import ImageBlock, TextBlock
from langswarm_session.formats.anthropic import to_messages
from langswarm_session.models import SessionMessage
from langswarm_session.providers.anthropic import threads
from langswarm_session.providers.anthropic.threads import _most_tokens, is_own

MODEL = "claude-test-1"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ADD = Tool("add", "Adds.", SCHEMA, lambda a: a)
POST = "POST /v1/messages"
LONG = "Tell me about the sea, and do not leave anything out. " * 40


@pytest.fixture
async def provider(world):
    """A provider that has been told that this server knows threads."""
    provider = AnthropicProviderSession(
        world.key,
        base_url=world.anthropic_url,
        mode="threads",
        dialect="anthropic",
        timeout=20,
    )
    provider._threads._knows_threads = True
    yield provider
    await provider.close()


@pytest.fixture
async def manager(provider):
    manager = SessionManager("memory", {"anthropic": provider, "mock": MockProviderSession()})
    yield manager
    await manager.close()


@pytest.fixture
async def session(manager):
    return await manager.create_session("ann", "anthropic", MODEL)


def bodies(world):
    return [request["body"] for request in world.requests(POST)]


def kinds(world):
    """How each request stood to a thread."""
    return [(body.get("thread") or {}).get("type", "plain") for body in bodies(world)]


async def streamed(session: BaseSession, text, **options):
    """A reply in pieces, which must be the whole of it."""
    pieces, reply = "", None
    async with aclosing(session.stream_message(text, **options)) as events:
        async for event in events:
            pieces += event.text
            reply = event.message or reply
    assert reply is not None
    assert pieces == reply.text
    return reply


async def sent(session: BaseSession, text, **options):
    return await session.send_message(text, **options)


both = pytest.mark.parametrize("ask", [sent, streamed])


@both
async def test_only_what_is_new_travels(session, world, ask):
    replies = [await ask(session, f"message {i}") for i in range(4)]
    assert replies[-1].text == "I see 7 messages. The last says: message 3"
    first, *others = bodies(world)
    assert first["thread"] == {"type": "create"}
    for number, (body, before) in enumerate(zip(others, replies, strict=False), 1):
        assert body["thread"] == {
            "type": "continue",
            "previous_message_id": before.provider_message_id,
        }
        text = {"type": "text", "text": f"message {number}"}
        assert body["messages"] == [{"role": "user", "content": [text]}]
    assert all(reply.metadata["langswarm"].keys() == {"made_under"} for reply in replies)
    assert replies[-1].usage.cached_tokens > 0


async def test_a_hundred_turns_send_each_message_once(session, world):
    await session.send_message("x" * 1000)
    for _ in range(9):
        await session.send_message("y" * 1000)
    assert max(request["bytes"] for request in world.requests(POST)) < 1600


class TestItBeginsAnew:
    """Each of these leaves the model with the whole conversation, in one new thread."""

    async def goes_on(self, session, world, ask=sent, seen=3, **options):
        reply = await ask(session, "two", **options)
        assert reply.text == f"I see {seen} messages. The last says: two"
        (last,) = bodies(world)[-1:]
        assert last["thread"] == {"type": "create"}
        assert len(last["messages"]) == seen
        after = await session.send_message("three", **options)
        assert after.text == f"I see {seen + 2} messages. The last says: three"
        assert kinds(world)[-1] == "continue"

    @both
    async def test_when_the_server_lost_it(self, session, world, ask):
        await session.send_message("one")
        assert world.lose("thread") == 1
        await self.goes_on(session, world, ask)
        assert kinds(world) == ["create", "continue", "create", "continue"]

    @both
    async def test_when_it_expired_there(self, session, world, ask):
        await session.send_message("one")
        world.set(thread_ttl=0)
        reply = await ask(session, "two")
        assert reply.text == "I see 3 messages. The last says: two"
        assert kinds(world) == ["create", "continue", "create"]

    async def test_when_it_must_have_expired(self, session, world, monkeypatch):
        await session.send_message("one")
        later = time.time() + threads.HELD_SECONDS
        monkeypatch.setattr(threads.time, "time", lambda: later)
        await self.goes_on(session, world)
        assert kinds(world) == ["create", "create", "continue"]

    async def test_when_it_was_continued_by_somebody_else(self, session, world, manager):
        await session.send_message("one")
        other = await manager.create_session("bob", "anthropic", MODEL)
        await other.record([SessionMessage(role="user", content="one")])
        state = session.context
        await other.update_context(provider_context=state.provider_context)
        await other.send_message("mine")
        await self.goes_on(session, world)
        assert world.requests(POST)[-3]["status"] == 400

    @pytest.mark.parametrize(
        "code", ["thread_continue_in_flight", "thread_already_continued", "thread_new_in_2027"]
    )
    @both
    async def test_when_it_is_refused(self, session, world, ask, code):
        await session.send_message("one")
        error = {"type": "invalid_request_error", "message": "no", "details": {"error_code": code}}
        world.fail(POST, "status", status=400, body={"type": "error", "error": error})
        await self.goes_on(session, world, ask)

    @both
    async def test_when_its_fingerprint_is_another(self, session, world, ask):
        world.set(thread_fixed=["stop_sequences"])
        await session.send_message("one", stop_sequences=["A"])
        await self.goes_on(session, world, ask, stop_sequences=["B"])

    @both
    async def test_after_a_refusal(self, session, world, ask):
        world.reply({"refusal": "not that"})
        refused = await ask(session, "one") if ask is sent else await session.send_message("one")
        assert (refused.finish_reason, refused.text) == ("refusal", "not that")
        await self.goes_on(session, world, ask)
        assert kinds(world) == ["create", "create", "continue"]

    @pytest.mark.parametrize("work", [True, False])
    @pytest.mark.parametrize("at", [0, 1, 3])
    async def test_a_stream_that_breaks_before_its_first_piece(self, session, world, at, work):
        await session.send_message("one")
        world.fail(POST, "cut_stream", at=at, work=work)
        assert (await streamed(session, "two")).text == "I see 3 messages. The last says: two"
        # Where the server took the first request, the thread has moved on without us.
        moved_on = ["continue", "create"]
        assert kinds(world)[:2] == ["create", "continue"]
        assert kinds(world)[2:] in (["continue"], moved_on)
        assert (await session.send_message("three")).text.startswith("I see 5 messages")

    @pytest.mark.parametrize("work", [True, False])
    @pytest.mark.parametrize("at", [6])
    async def test_after_a_broken_stream(self, session, world, at, work):
        await session.send_message("one")
        world.fail(POST, "cut_stream", at=at, work=work)
        with pytest.raises(ProviderStreamError):
            await streamed(session, "lost")
        reply = await session.send_message("two")
        texts = [message.text for message in await session.get_messages()]
        kept = [text for text in texts if text.startswith("I se") or text == "I"]
        assert reply.text == "I see 5 messages. The last says: two", (texts, kept)
        assert kinds(world) == ["create", "continue", "create"]

    async def test_after_a_turn_that_failed(self, session, world):
        await session.send_message("one")
        world.fail(POST, "status", status=400)
        world.fail(POST, "status", status=400)
        with pytest.raises(Exception, match="refused the request"):
            await session.send_message("lost")
        await self.goes_on(session, world)

    async def test_after_a_turn_that_was_cancelled(self, session, world):
        await session.send_message("one")
        async with aclosing(session.stream_message("left")) as events:
            async for event in events:
                if event.text:
                    break
        await self.goes_on(session, world, seen=5)

    async def test_after_messages_of_others(self, session, world):
        await session.send_message("one")
        await session.record(
            [
                SessionMessage(role="user", content="aside"),
                SessionMessage(role="assistant", content="indeed"),
            ]
        )
        await self.goes_on(session, world, seen=5)

    async def test_after_another_provider(self, session, world):
        await session.send_message("one")
        await session.switch_provider("mock", "echo")
        await session.send_message("aside")
        await session.switch_provider("anthropic", MODEL)
        await self.goes_on(session, world, seen=5)

    async def test_with_another_system(self, session, world):
        await session.send_message("one", system="Be brief.")
        await self.goes_on(session, world, system="Be long.")
        assert bodies(world)[1]["system"] == "Be long."

    async def test_with_another_system_message_that_must_come_first(self, session, world):
        await session.update_context(model="claude-sonnet-4-6")
        await session.send_message("one")
        await session.add_system_message("Be brief.")
        await self.goes_on(session, world)
        assert bodies(world)[1]["system"] == "Be brief."
        assert "system" not in bodies(world)[2]

    async def test_with_other_tools_that_cannot_be_added(self, session, world):
        await session.update_context(model="claude-sonnet-4-6")
        await session.send_message("one")
        await self.goes_on(session, world, tools=[ADD])
        assert "tools" not in bodies(world)[2]

    async def test_with_another_model(self, session, world):
        await session.send_message("one")
        await session.update_context(model="claude-test-2")
        await self.goes_on(session, world)

    async def test_with_a_budget_that_it_has_outgrown(self, session, world):
        await session.update_context(max_input_tokens=60)
        for _ in range(4):
            await session.send_message("x" * 60)
        assert kinds(world)[0] == "create"
        assert "create" in kinds(world)[1:]
        assert max(len(body["messages"]) for body in bodies(world)) <= 3


@both
async def test_a_request_that_no_thread_takes(session, world, ask):
    world.set(thread_unsupported=["hipaa"])
    await ask(session, "one")
    reply = await ask(session, "two")
    assert reply.text == "I see 3 messages. The last says: two"
    assert kinds(world) == ["create", "plain", "plain"]
    world.set(thread_unsupported=None)
    await ask(session, "three", stop_sequences=["A"])
    assert kinds(world)[-1] == "create"


async def test_a_retried_turn_is_not_doubled(session, world):
    await session.send_message("one")
    world.fail(POST, "cut_after", times=1)
    reply = await session.send_message("two")
    assert reply.text == "I see 3 messages. The last says: two"
    assert kinds(world) == ["create", "continue", "continue", "create"]
    assert len(await session.get_messages()) == 4


async def test_tools_of_the_past_are_not_called_in_a_thread(session, world):
    call = await session.send_message('call add {"a": 1}', tools=[ADD])
    await session.send_message(await session.call_tools(call, [ADD]), tools=[ADD])
    assert kinds(world) == ["create", "continue"]
    for _ in range(2):
        reply = await session.send_message('call add {"a": 2}')
        assert reply.text.startswith("I see")
    assert kinds(world)[2:] == ["continue", "continue"]
    removal = {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "add"}}
    assert [body["messages"][-1]["role"] for body in bodies(world)[2:]] == ["system", "user"]
    assert bodies(world)[2]["messages"][-1]["content"] == [removal]


async def test_tools_that_are_added_later_do_not_end_the_thread(session, world):
    await session.send_message("one")
    call = await session.send_message('call add {"a": 1}', tools=[ADD])
    assert call.blocks[0].name == "add"
    reply = await session.send_message(await session.call_tools(call, [ADD]), tools=[ADD])
    assert reply.text == "I see 5 messages. The last says: 1"
    assert kinds(world) == ["create", "continue", "continue"]
    roles = [message["role"] for message in bodies(world)[1]["messages"]]
    assert roles == ["user", "system"]


async def test_two_results_of_two_calls(session, world):
    calls = [{"name": "add", "arguments": {"a": i}} for i in range(2)]
    world.reply({"tool_calls": calls})

    call = await session.send_message("one", tools=[ADD])
    reply = await session.send_message(await session.call_tools(call, [ADD]), tools=[ADD])
    assert reply.text == "I see 3 messages. The last says: 1"
    assert [block["type"] for block in bodies(world)[1]["messages"][0]["content"]] == [
        "tool_result",
        "tool_result",
    ]


async def test_a_question_in_place_of_a_result(session, world):
    world.reply({"tool_calls": [{"name": "add", "arguments": {}}]})
    tools = [{"name": "add", "input_schema": {"type": "object"}}]
    await session.send_message("one", tools=tools)
    reply = await session.send_message("never mind", tools=tools)
    assert reply.text == "I see 3 messages. The last says: never mind"
    assert kinds(world) == ["create", "continue"]
    assert [each["kind"] for each in reply.metadata["langswarm"]["repairs"]] == ["call_answered"]


@both
async def test_a_pause_is_gone_on_from_in_the_thread(session, world, ask):
    world.reply(
        {"text": "first, ", "finish": "pause_turn"},
        {"text": "second, ", "finish": "pause_turn"},
        {"text": "third"},
    )
    reply = await ask(session, "one")
    assert (reply.text, reply.finish_reason) == ("first, second, third", "stop")
    assert kinds(world) == ["create", "continue", "continue"]
    assert bodies(world)[1]["messages"] == []
    after = await ask(session, "two")
    assert after.text == "I see 3 messages. The last says: two"
    assert kinds(world)[-1] == "continue"


async def test_a_pause_that_is_lost(session, world):
    world.reply({"text": "first, ", "finish": "pause_turn"})
    error = {
        "type": "not_found_error",
        "message": "gone",
        "details": {"error_code": "thread_not_found"},
    }
    world.fail(POST, "status", status=404, body={"type": "error", "error": error}, after=1)
    with pytest.raises(Exception, match="gone"):
        await streamed(session, "one")
    reply = await session.send_message("two")
    assert reply.text == "I see 3 messages. The last says: two"


@pytest.fixture
async def unknown(world):
    """A manager whose provider knows nothing of the server."""
    options = {"api_key": world.key, "base_url": world.anthropic_url, "mode": "threads"}
    manager = SessionManager("memory", {"anthropic": options})
    yield manager
    await manager.close()


class TestAServerThatMayIgnoreThreads:
    @both
    async def test_is_caught_before_anything_wrong_is_shown(self, unknown, world, ask, caplog):
        world.set(ignores_threads=True)
        session = await unknown.create_session("ann", "anthropic", MODEL)
        await ask(session, LONG)
        with caplog.at_level(logging.WARNING):
            reply = await ask(session, "two")
        assert reply.text == "I see 3 messages. The last says: two"
        assert "does not know message threads" in caplog.text
        assert (await ask(session, "three")).text.startswith("I see 5 messages.")
        assert kinds(world) == ["create", "continue", "plain", "plain"]

    @both
    async def test_is_gone_on_with_when_it_does_not(self, unknown, world, ask):
        session = await unknown.create_session("ann", "anthropic", MODEL)
        await ask(session, LONG)
        for number in range(1, 4):
            reply = await ask(session, LONG)
            assert reply.text.startswith(f"I see {2 * number + 1} messages.")
        assert kinds(world)[:2] == ["create", "create"]
        assert world.requests(POST)[-1]["status"] == 200
        provider = unknown.core.providers.of("anthropic", "")
        assert provider._threads._knows_threads is not False
        await ask(session, "short")
        assert kinds(world)[-1] == "continue"
        assert provider._threads._knows_threads is True

    @both
    async def test_that_refuses_them(self, unknown, world, ask, caplog):
        error = {
            "type": "invalid_request_error",
            "message": "thread: Extra inputs are not permitted",
        }
        world.fail(POST, "status", status=400, body={"type": "error", "error": error})
        session = await unknown.create_session("ann", "anthropic", MODEL)
        await ask(session, "one")
        assert (await ask(session, "two")).text == "I see 3 messages. The last says: two"
        assert kinds(world) == ["create", "plain", "plain"]
        assert "does not know message threads" in caplog.text

    async def test_that_does_not_count(self, unknown, world):
        world.set(ignores_threads=True)
        session = await unknown.create_session("ann", "anthropic", MODEL)
        await session.send_message(LONG)
        world.reply({"text": "what?", "usage": {"input_tokens": 0}})
        assert (await session.send_message("two")).text == "I see 3 messages. The last says: two"
        assert kinds(world) == ["create", "continue", "plain"]

    async def test_pauses(self, unknown, world):
        world.set(ignores_threads=True)
        world.reply({"text": "first, ", "finish": "pause_turn"}, {"text": "second"})
        session = await unknown.create_session("ann", "anthropic", MODEL)
        assert (await session.send_message("one")).text == "first, second"
        assert (await session.send_message("two")).text == "I see 3 messages. The last says: two"
        assert kinds(world) == ["create", "plain", "create"]

    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        sizes=st.lists(st.integers(1, 4000) | st.integers(1, 40), min_size=2, max_size=5),
        ignores=st.booleans(),
        is_streamed=st.booleans(),
        frame=st.sampled_from([0, 10, 3000]),
    )
    async def test_of_whatever_sizes(self, provider_server, sizes, ignores, is_streamed, frame):
        world = provider_server.world()
        world.set(ignores_threads=ignores)
        options = {"api_key": world.key, "base_url": world.anthropic_url, "mode": "threads"}
        ask = streamed if is_streamed else sent
        async with SessionManager("memory", {"anthropic": options}) as manager:
            session = await manager.create_session("ann", "anthropic", MODEL)
            for number, size in enumerate(sizes):
                said = {"system": "s" * frame} if frame else {}
                reply = await ask(session, "x" * size, **said)
                assert reply.text.startswith(f"I see {2 * number + 1} messages.")
            knows = manager.core.providers.of("anthropic", "")._threads._knows_threads
            assert knows in (None, not ignores)


def test_media_have_no_upper_bound():
    picture = ImageBlock(base64="aGk=", mime_type="image/png")
    text = TextBlock(text='{"source":1} äöü')
    plain = to_messages([SessionMessage(role="user", content=[text])])
    assert len('{"source":1} äöü'.encode()) <= _most_tokens(plain) < 1000
    assert _most_tokens(to_messages([SessionMessage(role="user", content=[picture])])) == float(
        "inf"
    )


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://api.anthropic.com", True),
        ("https://api.anthropic.com.example.org/", False),
        ("http://127.0.0.1:8080/anthropic", False),
    ],
)
async def test_whose_server_it_is(url, own):
    provider = AnthropicProviderSession("sk-ant-xxxxxxxx", base_url=url)
    try:
        assert is_own(provider._sdk.client.base_url) is own
        assert provider.mode == ("threads" if own else "messages")
    finally:
        await provider.close()

"""Managed agents: the agent's session is what the record is, or is made anew."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from types import SimpleNamespace

import anthropic
import pytest

from langswarm_session import (
    AnthropicProviderSession,
    BaseSession,
    InvalidInputError,
    MockProviderSession,
    ProviderCapabilityError,
    ProviderRequestError,
    ProviderResponseError,
    ProviderSessionError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SessionManager,
    UnknownModelError,
)
from langswarm_session.blocks import (
    FileBlock,
    ImageBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.models import SessionMessage
from langswarm_session.providers import sdk
from langswarm_session.providers.anthropic import agent_sessions
from langswarm_session.providers.anthropic.agents import _Turn

MODEL = "claude-test-1"
ADD = {
    "type": "custom",
    "name": "add",
    "description": "Adds.",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
AGENT = {"name": "helper", "model": MODEL, "system": "Help.", "tools": [ADD]}
SEND = "POST /v1/sessions/*/events"
LIST = "GET /v1/sessions/*/events"
STREAM = "GET /v1/sessions/*/events/stream"
SESSIONS = "POST /v1/sessions"


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    wait = "_calculate_retry_timeout"
    monkeypatch.setattr(anthropic.AsyncAnthropic, wait, lambda *given, **options: 0.01)
    for module in (agent_sessions, sdk):
        monkeypatch.setattr(module, "delay", lambda attempt, error: 0.01)


@pytest.fixture
async def make(world):
    """Makes managers with a provider of managed agents."""
    managers = []

    def make(**options):
        given = {
            "mode": "managed_agents",
            "agent": AGENT,
            "environment": {"name": "home"},
            "timeout": 20,
            **options,
        }
        provider = AnthropicProviderSession(world.key, base_url=world.anthropic_url, **given)
        manager = SessionManager("memory", {"anthropic": provider, "mock": MockProviderSession()})
        managers.append(manager)
        return manager

    yield make
    for manager in managers:
        await manager.close()


@pytest.fixture
async def session(make):
    return await make().create_session("ann", "anthropic", MODEL)


def provider_of(session: BaseSession) -> AnthropicProviderSession:
    return session.manager.core.providers.of("anthropic", "")


def seen(world):
    """What the model of the one session there is was sent, as texts."""
    (held,) = world.state()["sessions"].values()
    return [
        "".join(block.get("text", "") for block in message["content"])
        for message in held["messages"]
        if message["role"] == "user"
    ]


def of_user(world):
    """The user's events of the one session there is."""
    (held,) = world.state()["sessions"].values()
    return [event for event in held["events"] if event["type"] == "user.message"]


async def streamed(session: BaseSession, text):
    pieces, reply = "", None
    async with aclosing(session.stream_message(text)) as events:
        async for event in events:
            pieces += event.text
            reply = event.message or reply
    assert reply is not None
    assert pieces == reply.text
    return reply


async def sent(session: BaseSession, text):
    return await session.send_message(text)


async def until(is_so):
    """Wait for something at the server, which is another process and tells nobody."""
    while not is_so():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def is_any(world, what, value):
    return any(held[what] == value for held in world.state()["sessions"].values())


both = pytest.mark.parametrize("ask", [sent, streamed])


def repairs(reply):
    return [each["kind"] for each in reply.metadata.get("langswarm", {}).get("repairs", [])]


class TestTurns:
    @both
    async def test_only_what_is_new_is_sent(self, session, world, ask):
        replies = [await ask(session, f"message {i}") for i in range(3)]
        assert replies[-1].text == "I see 5 messages. The last says: message 2"
        assert seen(world) == ["message 0", "message 1", "message 2"]
        assert all(reply.metadata == {} for reply in replies)
        assert replies[-1].usage.input_tokens > 0
        assert replies[-1].usage.cached_tokens > 0
        assert {reply.finish_reason for reply in replies} == {"stop"}

    async def test_agent_and_environment_are_made_once(self, make, world):
        for _ in range(2):
            manager = make()
            sessions = [await manager.create_session("ann", "anthropic", MODEL) for _ in range(3)]
            await asyncio.gather(*(each.send_message("x") for each in sessions))
        state = world.state()
        assert [each["name"] for each in state["agents"].values()] == ["helper"]
        assert [each["name"] for each in state["environments"].values()] == ["home"]
        assert len(state["sessions"]) == 6

    async def test_or_named_by_their_ids(self, make, world, session):
        await session.send_message("x")
        (agent,), (environment,) = world.state()["agents"], world.state()["environments"]
        other = await make(agent=agent, environment=environment).create_session(
            "ann", "anthropic", MODEL
        )
        asked = len(world.requests())
        await other.send_message("x")
        assert {request["path"] for request in world.requests()[asked:]} >= {"/v1/sessions"}
        assert "/v1/agents" not in {request["path"] for request in world.requests()[asked:]}

    async def test_system_messages_go_with_the_users(self, session, world):
        await session.add_system_message("Be kind.")
        reply = await session.send_message("one")
        assert reply.text == "I see 1 messages. The last says: one"
        await session.add_system_message("Be brief.")
        await session.send_message("two")
        (held,) = world.state()["sessions"].values()
        said = [e["content"][0]["text"] for e in held["events"] if e["type"] == "system.message"]
        assert said == ["Be kind.", "Be brief."]

    async def test_pictures_and_documents(self, session, world):
        blocks = [
            TextBlock(text="look"),
            ImageBlock(base64="aGk=", mime_type="image/png"),
            ImageBlock(url="https://example.org/a.png"),
            ImageBlock(file_id="file_1"),
            FileBlock(text="the text", filename="a.txt"),
            FileBlock(base64="aGk="),
        ]
        await session.send_message(blocks)
        (event,) = of_user(world)
        kinds = [block["type"] for block in event["content"]]
        assert kinds == ["text", "image", "image", "image", "document", "document"]

    @pytest.mark.parametrize("replays", [True, False])
    async def test_streams_that_play_old_events_again(self, session, world, replays):
        world.set(replays_events=replays, agent_delay=0.1)
        for number in range(3):
            reply = await streamed(session, f"message {number}")
            assert reply.text == f"I see {2 * number + 1} messages. The last says: message {number}"

    async def test_a_refusal(self, session, world):
        world.reply({"refusal": "no"})
        refused = await session.send_message("one")
        assert refused.finish_reason == "refusal"
        assert refused.text == "The model refused."
        assert (await session.send_message("two")).text == "I see 3 messages. The last says: two"

    async def test_options_are_refused(self, session, world):
        with pytest.raises(ProviderCapabilityError, match="take no max_tokens"):
            await session.send_message("one", max_tokens=5)
        with pytest.raises(ProviderCapabilityError, match="takes no tools"):
            await session.send_message("one", tools=[ADD])
        assert world.requests() == []
        assert (await session.send_message("two")).text == "I see 1 messages. The last says: two"


class TestTools:
    async def test_results_of_several_calls_at_once(self, session, world):
        calls = [{"name": "add", "arguments": {"a": i}} for i in range(2)]
        world.reply({"text": "wait", "tool_calls": calls})
        pieces = [event async for event in session.stream_message("one")]
        assert [event.block.args for event in pieces if event.block] == [{"a": 0}, {"a": 1}]
        reply = pieces[-1].message
        assert reply.finish_reason == "tool_calls"
        results = [
            ToolResultBlock(tool_call_id=block.id, content=f"result {block.args['a']}")
            for block in reply.blocks
            if isinstance(block, ToolCallBlock)
        ]
        after = await session.send_message(results, role="tool")
        assert after.text == "I see 3 messages. The last says: result 1"
        assert after.metadata == {}
        again = await session.send_message('call add {"a": 7}')
        assert [block.args for block in again.blocks] == [{"a": 7}]
        difference = await session.reconcile()
        assert difference.is_equal, difference

    async def test_results_that_are_errors_pictures_or_nothing(self, session, world):
        world.reply({"tool_calls": [{"name": "add", "arguments": {}}] * 3})
        reply = await session.send_message("one")
        contents = ["went wrong", " ", [ImageBlock(base64="aGk=")]]
        results = [
            ToolResultBlock(
                tool_call_id=block.id, content=content, is_error=content == "went wrong"
            )
            for block, content in zip(reply.blocks, contents, strict=True)
        ]
        await session.send_message(results, role="tool")
        (held,) = world.state()["sessions"].values()
        events = [e for e in held["events"] if e["type"] == "user.custom_tool_result"]
        assert [event.get("is_error", False) for event in events] == [True, False, False]
        assert [[block["type"] for block in event["content"]] for event in events] == [
            ["text"],
            [],
            ["image"],
        ]

    async def test_a_message_in_place_of_a_result(self, session, world):
        await session.send_message('call add {"a": 1}')
        reply = await session.send_message("never mind")
        assert reply.text == "I see 4 messages. The last says: never mind"
        assert repairs(reply) == ["call_answered"]

    async def test_a_result_after_messages_of_others(self, session, world):
        call = await session.send_message('call add {"a": 1}')
        await session.record(SessionMessage(role="user", content="meanwhile"))
        await session.record(SessionMessage(role="assistant", content="indeed"))
        result = ToolResultBlock(tool_call_id=call.blocks[0].id, content="it is 3")
        reply = await session.send_message([result], role="tool")
        assert reply.finish_reason == "stop"
        assert "history_as_text" in repairs(reply)
        (held,) = world.state()["sessions"].values()
        results = [e for e in held["events"] if e["type"] == "user.custom_tool_result"]
        assert [event["content"][0]["text"] for event in results] == ["it is 3"]
        assert "assistant: indeed" in seen(world)[-1]

    @both
    async def test_a_result_whose_session_is_lost(self, session, world, ask):
        call = await session.send_message('call add {"a": 1}')
        world.lose("session")
        result = ToolResultBlock(tool_call_id=call.blocks[0].id, content="it is 3")
        reply = await session.send_message([result], role="tool")
        assert repairs(reply) == ["history_as_text"]
        (said,) = seen(world)
        assert "[calls add with {'a': 1}]" in said
        assert "[result: it is 3]" in said
        assert (await ask(session, "two")).text.startswith("I see 3 messages.")

    async def test_a_confirmation_is_not_given(self, make, world):
        tools = [
            {
                "type": "agent_toolset_20260401",
                "default_config": {"permission_policy": {"type": "always_ask"}},
            }
        ]
        agent = {"name": "asker", "model": MODEL, "tools": tools}
        session = await make(agent=agent).create_session("ann", "anthropic", MODEL)
        world.reply({"tool_calls": [{"name": "bash", "arguments": {"command": "ls"}}]})
        with pytest.raises(ProviderCapabilityError, match="always_allow"):
            await session.send_message("one")
        assert (await session.send_message("two")).text == "I see 1 messages. The last says: two"

    async def test_the_agents_own_tools_are_kept_as_they_are(self, make, world):
        agent = {"name": "own", "model": MODEL, "tools": [{"type": "agent_toolset_20260401"}]}
        session = await make(agent=agent).create_session("ann", "anthropic", MODEL)
        world.reply(
            {"tool_calls": [{"name": "bash", "arguments": {"command": "ls"}}]}, {"text": "done"}
        )
        reply = await session.send_message("one")
        assert [block.type for block in reply.blocks] == ["non_standard", "non_standard", "text"]
        assert reply.finish_reason == "stop"


class TestCancelling:
    @pytest.mark.parametrize("streams", [True, False])
    async def test_interrupts_the_agent(self, session, world, streams):
        await session.send_message("one")
        world.set(agent_delay=30)
        begun = asyncio.create_task((streamed if streams else sent)(session, "left"))
        await until(lambda: is_any(world, "status", "running"))
        begun.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begun
        (held,) = world.state()["sessions"].values()
        assert held["status"] == "idle"
        assert [e["type"] for e in held["events"]].count("user.interrupt") == 1
        world.set(agent_delay=0)
        reply = await session.send_message("two")
        assert repairs(reply) == ["history_as_text"]
        assert "left" not in seen(world)[0]
        assert seen(world)[0].endswith("two")

    async def test_by_a_reader_who_leaves(self, session, world):
        world.reply({"text": "much", "tool_calls": [{"name": "add", "arguments": {}}]})
        async with aclosing(session.stream_message("one")) as events:
            async for event in events:
                assert event.text == "much"
                break
        reply = await session.send_message("two")
        assert reply.finish_reason == "stop"
        assert len(world.state()["sessions"]) == 1

    async def test_while_the_message_is_on_its_way(self, session, world):
        await session.send_message("one")
        (first,) = world.state()["sessions"]
        world.fail(SEND, "slow", seconds=30)
        begun = asyncio.create_task(session.send_message("left"))
        await until(lambda: len(world.requests(SEND)) == 2)
        begun.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begun
        reply = await session.send_message("two")
        assert repairs(reply) == ["history_as_text"]
        assert first not in world.state()["sessions"]


class TestLosses:
    @both
    async def test_a_lost_session_is_made_again(self, session, world, ask):
        for number in range(3):
            await session.send_message(f"message {number}")
        world.lose("session")
        reply = await ask(session, "now")
        assert reply.text.startswith("I see 1 messages.")
        assert repairs(reply) == ["history_as_text"]
        (said,) = seen(world)
        for number in range(3):
            assert f"user: message {number}" in said
        assert said.count("message 2") == 2  # the user's, and the reply that repeats it
        assert (await ask(session, "then")).text.startswith("I see 3 messages.")
        assert (await session.reconcile()).only_remote == []

    @both
    async def test_an_archived_one_is_left_alone(self, session, world, ask):
        await session.send_message("one")
        old = session.context.provider_session_id
        await provider_of(session).archive_provider_session(old)
        reply = await ask(session, "two")
        assert repairs(reply) == ["history_as_text"]
        assert session.context.provider_session_id != old
        assert old in world.state()["sessions"]

    async def test_one_that_ended(self, session, world):
        world.reply({"text": "bye", "finish": "terminated"})
        with pytest.raises(ProviderSessionError, match="has ended"):
            await session.send_message("one")
        assert (await session.send_message("two")).text == "I see 1 messages. The last says: two"

    async def test_lost_while_the_agent_works(self, session, world):
        await session.send_message("one")
        world.set(agent_delay=30)
        begun = asyncio.create_task(session.send_message("left"))
        await until(lambda: is_any(world, "streams", 1))
        world.lose("session")
        with pytest.raises(ProviderRequestError, match="not found"):
            await begun
        world.set(agent_delay=0)
        assert repairs(await session.send_message("two")) == ["history_as_text"]

    async def test_after_messages_of_others_they_are_told(self, session, world):
        await session.send_message("one")
        old = session.context.provider_session_id
        await session.record(
            [
                SessionMessage(role="user", content="aside"),
                SessionMessage(role="assistant", content="indeed"),
            ]
        )
        reply = await session.send_message("two")
        assert session.context.provider_session_id == old
        assert repairs(reply) == ["history_as_text"]
        assert "assistant: indeed" in seen(world)[-1]
        assert "one" not in seen(world)[-1]

    async def test_after_another_provider(self, session, world):
        await session.send_message("one")
        await session.switch_provider("mock", "echo")
        await session.send_message("aside")
        await session.switch_provider("anthropic", MODEL)
        assert repairs(await session.send_message("two")) == ["history_as_text"]
        assert "You said: aside" in seen(world)[-1]

    async def test_a_user_who_said_something_elsewhere(self, session, world):
        """What only the provider has is pulled in, and the session is gone on with."""
        await session.send_message("one")
        native = session.context.provider_session_id
        client = provider_of(session)._sdk.client
        content = [{"type": "text", "text": "elsewhere"}]
        await client.beta.sessions.events.send(
            native, events=[{"type": "user.message", "content": content}]
        )
        await until(lambda: of_user(world)[-1]["processed_at"] and is_any(world, "status", "idle"))
        difference = await session.reconcile(pull=True)
        assert [m.text for m in difference.pulled] == [
            "elsewhere",
            "I see 3 messages. The last says: elsewhere",
        ]
        assert (await session.reconcile()).is_equal
        assert (await session.send_message("two")).text == "I see 5 messages. The last says: two"


class TestTheProvidersSessions:
    async def test_are_made_listed_archived_and_deleted(self, make, world):
        manager = make()
        provider = manager.core.providers.of("anthropic", "x")
        made = [await provider.create_provider_session("ann", title=str(i)) for i in range(3)]
        assert [each["id"] for each in await provider.list_provider_sessions(2)] == made[:0:-1]
        assert (await provider.get_provider_session(made[0]))["metadata"]["user_id"] == "ann"
        await provider.archive_provider_session(made[0])
        assert (await provider.get_provider_session(made[0]))["archived_at"]
        assert await provider.get_messages(made[1]) == []
        for each in made:
            await provider.delete_provider_session(each)
            await provider.delete_provider_session(each)
        assert world.state()["sessions"] == {}

    async def test_a_copy_is_read_newest_first(self, session):
        for number in range(2):
            await session.send_message(f"message {number}")
        provider, native = provider_of(session), session.context.provider_session_id
        texts = [message.text for message in await provider.get_messages(native, 3)]
        assert texts == [
            "I see 1 messages. The last says: message 0",
            "message 1",
            "I see 3 messages. The last says: message 1",
        ]
        assert await provider.get_messages(native, 0) == []

    async def test_one_that_runs_is_stopped_and_deleted(self, session, world):
        world.set(agent_delay=30)
        provider = provider_of(session)
        native = await provider.create_provider_session("ann")
        content = [{"type": "text", "text": "x"}]
        client = provider._sdk.client
        await client.beta.sessions.events.send(
            native, events=[{"type": "user.message", "content": content}]
        )
        await provider.delete_provider_session(native)
        assert world.state()["sessions"] == {}

    async def test_clearing_and_deleting_leave_nothing(self, session, world):
        await session.send_message("one")
        await session.clear_messages()
        assert world.state()["sessions"] == {}
        assert (await session.send_message("two")).text == "I see 1 messages. The last says: two"
        await session.manager.delete_session(session.session_id)
        assert world.state()["sessions"] == {}

    @pytest.mark.parametrize(
        ("on", "kind"),
        [
            ("POST /v1/agents", "cut_after"),
            ("POST /v1/agents", "server_error"),
            ("POST /v1/environments", "cut_after"),
            ("POST /v1/sessions", "cut_after"),
            ("POST /v1/sessions", "status_after"),
            ("GET /v1/agents", "overloaded"),
        ],
    )
    async def test_nothing_is_made_twice(self, session, world, on, kind):
        world.fail(on, kind, **({"status": 500} if kind == "status_after" else {}))
        assert (await session.send_message("one")).text == "I see 1 messages. The last says: one"
        state = world.state()
        assert [len(state[what]) for what in ("agents", "environments", "sessions")] == [1, 1, 1]

    @pytest.mark.parametrize(
        "options",
        [
            {"agent": "a"},
            {"environment": "e"},
            {"mode": "managed_agents", "agent": "a"},
            {"mode": "messages", "agent": "a", "environment": "e"},
            {"mode": "assistants"},
        ],
    )
    def test_what_cannot_be_made(self, options):
        with pytest.raises(InvalidInputError):
            AnthropicProviderSession("sk-ant-xxxxxxxx", **options)

    async def test_other_modes_keep_none(self, world):
        provider = AnthropicProviderSession(world.key, base_url=world.anthropic_url)
        await provider.delete_provider_session("x")  # one of another mode, and gone
        for call in (
            provider.create_provider_session("ann"),
            provider.get_provider_session("x"),
            provider.get_messages("x"),
            provider.archive_provider_session("x"),
            provider.list_provider_sessions(),
            provider.interrupt("x"),
        ):
            with pytest.raises(ProviderCapabilityError, match="managed_agents"):
                await call
        await provider.close()


FAULTS = [
    # on, kind, options, what is raised (None: the turn recovers)
    (SEND, "rate_limit", {"retry_after": 0}, None),
    (SEND, "overloaded", {}, None),
    (SEND, "server_error", {}, None),
    (SEND, "cut_before", {}, None),
    (SEND, "cut_after", {}, None),
    (SEND, "status_after", {"status": 500}, None),
    (SEND, "garbage", {}, ProviderResponseError),
    (SEND, "html", {}, ProviderResponseError),
    (SEND, "status", {"status": 400}, ProviderRequestError),
    (LIST, "server_error", {}, None),
    (LIST, "cut_after", {}, None),
    (STREAM, "server_error", {}, None),
    (STREAM, "cut_before", {}, None),
    (STREAM, "html", {}, ProviderResponseError),
    (STREAM, "garbage", {}, ProviderResponseError),
    *((STREAM, "cut_stream", {"at": at}, None) for at in range(5)),
    *((STREAM, "stream_error", {"at": at}, None) for at in (0, 2)),
    (STREAM, "slow", {"each": 0.02}, None),
    (SESSIONS, "overloaded", {}, None),
    (SESSIONS, "cut_after", {}, None),
    (SESSIONS, "html", {}, ProviderResponseError),
    (SESSIONS, "status", {"status": 404}, ProviderRequestError),
]


class TestFaults:
    @both
    @pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
    @pytest.mark.parametrize(
        ("on", "kind", "options", "error"),
        FAULTS,
        ids=[
            f"{on.split('/')[-1]}-{kind}-{options.get('at', '')}" for on, kind, options, _ in FAULTS
        ],
    )
    async def test_nothing_is_lost_or_doubled(
        self, session, world, ask, first, on, kind, options, error
    ):
        if not first:
            await session.send_message("zero")
            if on == SESSIONS:
                world.lose("session")
        world.set(agent_delay=0.03)
        world.fail(on, kind, **options)
        if error is None:
            await ask(session, "one")
        else:
            with pytest.raises(error) as caught:
                await ask(session, "one")
            assert world.key not in str(caught.value)
            assert caught.value.provider == "anthropic"
        await ask(session, "two")
        whole = "\n".join(seen(world))
        assert whole.count("user: one") + sum(said == "one" for said in seen(world)) <= 1
        assert seen(world)[-1].endswith("two")
        texts = [message.text for message in await session.get_messages()]
        assert [text for text in texts if text in ("zero", "one", "two")] == (
            ["one", "two"] if first else ["zero", "one", "two"]
        )
        if error is None:
            assert "one" in whole
            assert len(texts) == (4 if first else 6)
        if not first:
            assert "zero" in whole
        assert len(world.state()["sessions"]) == 1

    @both
    async def test_an_answer_that_takes_too_long(self, make, world, ask):
        manager = make(timeout=anthropic.Timeout(30, read=1), max_retries=0)
        session = await manager.create_session("ann", "anthropic", MODEL)
        await session.send_message("one")
        old = session.context.provider_session_id
        world.fail(SEND, "slow", seconds=3)
        with pytest.raises(ProviderTimeoutError):
            await ask(session, "late")
        reply = await ask(session, "two")
        assert repairs(reply) == ["history_as_text"]
        assert old not in world.state()["sessions"]
        assert "late" not in "".join(seen(world))

    @both
    async def test_a_stream_that_stalls(self, make, world, ask):
        manager = make(timeout=anthropic.Timeout(30, read=1))
        session = await manager.create_session("ann", "anthropic", MODEL)
        world.fail(STREAM, "stall_stream", at=0)
        world.set(agent_delay=0.2)
        assert (await ask(session, "one")).text == "I see 1 messages. The last says: one"

    @both
    async def test_streams_that_never_hold(self, session, world, ask):
        world.set(agent_delay=30)
        world.fail(STREAM, "cut_before", times=4 * 3)
        with pytest.raises(ProviderUnavailableError):
            await ask(session, "left")
        assert world.state()["faults_left"] == []
        world.set(agent_delay=0)
        assert (await ask(session, "two")).text == "I see 1 messages. The last says: two"
        assert len(world.state()["sessions"]) == 1

    async def test_a_model_that_fails(self, session, world):
        world.reply({"finish": "retries_exhausted", "text": ""})
        with pytest.raises(ProviderUnavailableError, match="could not be asked"):
            await session.send_message("one")
        assert (await session.send_message("two")).text == "I see 1 messages. The last says: two"

    async def test_an_agent_that_says_nothing(self, session, world):
        world.reply({"text": ""})
        with pytest.raises(ProviderSessionError, match="said nothing"):
            await session.send_message("one")
        assert (await session.send_message("two")).text == "I see 1 messages. The last says: two"

    @pytest.mark.parametrize(
        "faults",
        [
            [(SEND, "status", 400)],
            [(STREAM, "status", 400)],
            [(SESSIONS, "status", 400)],
            [(SEND, "cut_after", 0), (LIST, "status", 400)],
            [(SEND, "cut_before", 0), (LIST, "status", 400)],
        ],
        ids=["send", "stream", "session", "sent-unseen", "unsent-unseen"],
    )
    async def test_a_retried_turn_is_not_doubled(self, session, world, faults):
        """The same message with its key, after the turn has failed."""
        await session.send_message("one")
        for on, kind, status in faults:
            if on == SESSIONS:
                world.lose("session")
            world.fail(on, kind, status=status)
        with pytest.raises(ProviderSessionError):
            await session.send_message("two", idempotency_key="k")
        await session.send_message("two", idempotency_key="k")
        assert "".join(seen(world)).count("two") == 1
        assert len(world.state()["sessions"]) == 1
        texts = [message.text for message in await session.get_messages()]
        assert texts.count("two") == 1

    async def test_an_unknown_model(self, make, world):
        agent = {"name": "odd", "model": "claude-unknown-1"}
        session = await make(agent=agent).create_session("ann", "anthropic", MODEL)
        with pytest.raises(UnknownModelError, match="claude-unknown-1"):
            await session.send_message("one")


class Replaying:
    """Sessions of a server that gives new events no time, and plays the old ones again.

    As open-managed-agents does; a session's first event is an idle state of its creation.
    """

    def __init__(self, old, new):
        self.sdk = SimpleNamespace(provider="anthropic")
        self._old, self._new = old, new

    async def events(self, session):
        yield {}
        for event in [*self._old, SENT, *self._new]:
            yield event

    async def events_after(self, session, last):
        listed = [*self._old, SENT]
        return listed if last is None else []


SENT = {"type": "user.message", "id": "sent", "processed_at": None}


@pytest.mark.parametrize("times", ["2026-11-30T20:00:00Z", None])
async def test_what_is_played_again_of_earlier_turns_is_not_taken_for_this_one(times):
    old = [
        {"type": "session.status_idle", "id": "made", "processed_at": times},
        {"type": "agent.message", "id": "before", "processed_at": times, "content": []},
        {"type": "session.status_idle", "id": "idle", "processed_at": times},
    ]
    new = [
        {"type": "agent.message", "id": "said", "processed_at": None, "content": []},
        {"type": "session.status_idle", "id": "over", "processed_at": None},
    ]
    turn = _Turn(Replaying(old, new), 0, None)
    followed = [event["id"] async for event in turn._follow(SENT)]
    assert followed == ["said", "over"]


async def test_a_session_that_cannot_be_removed_fails_no_turn(make, world, monkeypatch):
    """A key may lack the permission: https://platform.claude.com/docs/en/api/errors (403)."""
    manager = make()
    session = await manager.create_session("ann", "anthropic", MODEL)
    await session.send_message("one")
    before = session.context.provider_session_id

    async def never(turn, known):
        return False

    with monkeypatch.context() as patch:
        patch.setattr(_Turn, "_stands", never)
        world.fail("DELETE /v1/sessions/*", "status", times=1, status=403)
        await session.send_message("two")
    assert session.context.provider_context["left_behind"] == [before]
    await manager.delete_session(session.session_id)
    assert not world.state()["sessions"]

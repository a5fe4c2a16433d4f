from __future__ import annotations

import asyncio
from contextlib import aclosing
from inspect import signature

import pytest
from openai import Timeout
from openai.resources.responses import AsyncResponses

from langswarm_session import (
    FileBlock,
    ImageBlock,
    InMemorySessionStorage,
    MessageRole,
    MockProviderSession,
    OpenAIProviderSession,
    OtherBlock,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderResponseError,
    ProviderSessionError,
    ProviderStreamError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ReasoningBlock,
    RefusalBlock,
    SessionError,
    SessionManager,
    SessionMessage,
    SQLiteSessionStorage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.providers import sdk
from langswarm_session.providers.openai import copies

MAKE = "POST /v1/conversations"
ADD = "POST /v1/conversations/*/items"
LIST = "GET /v1/conversations/*/items"
REMOVE = "DELETE /v1/conversations/*/items/*"
DROP = "DELETE /v1/conversations/*"
ASK = "POST /v1/responses"
FETCH = "GET /v1/responses/*"

# Only the wait for an answer is short: a busy machine may be slow to connect.
SHORT = Timeout(30, read=0.5)

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Retries that do not wait."""
    monkeypatch.setattr(sdk, "FIRST_DELAY", 0.001)


@pytest.fixture
async def open_manager(world):
    """Makes managers whose OpenAI is the stand-in, on storages of their own unless given one."""
    managers = []

    def make(storage=None, *, providers=None, **options):
        openai = OpenAIProviderSession(
            world.key, base_url=world.openai_url, mode="conversations", **options
        )
        storage = InMemorySessionStorage() if storage is None else storage
        manager = SessionManager(storage, providers={"openai": openai, **(providers or {})})
        managers.append(manager)
        return manager

    yield make
    for manager in managers:
        await manager.close()


@pytest.fixture
async def session(open_manager):
    return await open_manager().create_session("u", "openai", "gpt-5.4")


def user(text):
    return SessionMessage(role=MessageRole.USER, content=text)


def said(text):
    return SessionMessage(role=MessageRole.ASSISTANT, content=text)


def exchanges(count):
    return [m for n in range(count) for m in (user(f"question {n}"), said(f"answer {n}"))]


def text_of(item):
    return "".join(part.get("text") or part.get("refusal") or "" for part in item["content"])


def items_of(world, session):
    return world.state()["conversations"][session.context.provider_session_id]["items"]


def spoken(world, session):
    """What was said in the provider's copy."""
    return [
        (item["role"], text_of(item))
        for item in items_of(world, session)
        if item["type"] == "message"
    ]


async def window(session):
    """What was said in the record, but for turns without an answer."""
    messages = await session.core.storage.get_messages(session.ref, answered_only=True)
    return [(m.role.value, m.text) for m in messages if m.role is not MessageRole.SYSTEM]


async def shown_by(session, text, **options):
    shown = ""
    async for event in session.stream_message(text, **options):
        shown += event.text
        if event.message is not None:
            # Nothing was shown that is not in the reply, and nothing is missing.
            assert shown == event.message.text
            return event.message
    raise AssertionError("a stream ends with its message")


async def try_turn(session, text="hello", *, streaming=False, **options):
    """The error of a turn, None if there was none."""
    ask = shown_by if streaming else type(session).send_message
    try:
        await ask(session, text, **options)
    except SessionError as error:
        caught = error
    else:
        return None
    assert caught.session_id == session.session_id
    return type(caught)


async def check_next_turn(world, session, *texts):
    """The next turn works, the model sees all of the conversation, nothing is lost or doubled."""
    assert world.state()["faults_left"] == []
    reply = await session.send_message("and now?")
    seen = await window(session)
    assert reply.text == f"I see {len(seen) - 1} messages. The last says: and now?"
    assert spoken(world, session) == seen
    log = [m.text for m in await session.get_messages() if m.role is MessageRole.USER]
    assert log[len(log) - len(texts) - 1 :] == [*texts, "and now?"]
    state = world.state()
    native = session.context.provider_session_id
    assert [c for id_, c in state["conversations"].items() if id_ != native and c["items"]] == []
    assert state["orphan_items"] == []


FAULTS = {
    "429": ("rate_limit", {"retry_after": 0}),
    "429 for an hour": ("rate_limit", {"retry_after": 3600}),
    "500": ("server_error", {}),
    "503": ("overloaded", {}),
    "400": ("status", {"status": 400}),
    "cut before": ("cut_before", {}),
    "cut after": ("cut_after", {}),
    "500 after": ("status_after", {"status": 500}),
    "garbage": ("garbage", {}),
    "a web page": ("html", {}),
    "locked": ("conversation_locked", {}),
}
ENDINGS = {
    "429 for an hour": ProviderRateLimitError,
    "400": ProviderRequestError,
    "garbage": ProviderResponseError,
    "a web page": ProviderResponseError,
}
"""How a turn ends in which one request fails so; the others recover from it."""

faults = pytest.mark.parametrize("fault", FAULTS)
both_ways = pytest.mark.parametrize("streaming", [False, True], ids=["plain", "streamed"])


def plan(world, on, fault, **options):
    kind, more = FAULTS[fault]
    world.fail(on, kind, **more, **options)


async def all_arrived(world):
    """Wait until the server has done what it was asked, though nobody waits for the answer."""
    while any(request["status"] is None for request in world.requests(ASK)):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


class TestOneFault:
    @faults
    async def test_as_the_conversation_is_made(self, world, session, fault):
        plan(world, MAKE, fault)
        assert await try_turn(session) is ENDINGS.get(fault)
        await check_next_turn(world, session, "hello")

    @faults
    @pytest.mark.parametrize("chunk", [0, 1, 2])
    async def test_as_an_old_session_is_copied(self, world, session, fault, chunk):
        await session.record(exchanges(25))
        plan(world, ADD, fault, after=chunk)
        assert await try_turn(session) is ENDINGS.get(fault)
        await check_next_turn(world, session, "hello")

    @pytest.mark.parametrize("fault", ["cut after", "500 after"])
    @pytest.mark.parametrize("chunk", [0, 2])
    @pytest.mark.parametrize("stored", [0, 1, 7, 20])
    async def test_as_a_chunk_arrives_in_part(self, world, session, fault, chunk, stored):
        await session.record(exchanges(25))
        plan(world, ADD, fault, after=chunk, stored=stored)
        assert await try_turn(session) is None
        await check_next_turn(world, session, "hello")

    @faults
    async def test_as_the_copy_is_looked_at(self, world, session, fault):
        await session.send_message("one")
        await session.record([user("elsewhere"), said("answered")])
        plan(world, LIST, fault)
        assert await try_turn(session) is None  # what cannot be mended is made again
        await check_next_turn(world, session, "hello")

    @faults
    async def test_as_what_is_left_of_a_turn_is_removed(self, world, session, fault):
        await leave_strays(world, session)
        plan(world, REMOVE, fault)
        assert await try_turn(session) is None
        await check_next_turn(world, session, "lost", "hello")

    @faults
    @both_ways
    async def test_as_the_model_is_asked(self, world, session, fault, streaming):
        await session.send_message("one")
        plan(world, ASK, fault)
        assert await try_turn(session, streaming=streaming) is ENDINGS.get(fault)
        await check_next_turn(world, session, "one", "hello")

    @faults
    async def test_as_a_broken_stream_is_looked_for(self, world, session, fault):
        await session.send_message("one")
        world.fail(ASK, "cut_stream", at=6, work=True)
        plan(world, FETCH, fault)
        # The items of the conversation tell as well.
        assert await try_turn(session, streaming=True) is None
        await check_next_turn(world, session, "one", "hello")

    @faults
    async def test_as_a_lost_answer_is_looked_for(self, world, session, fault):
        await session.send_message("one")
        world.fail(ASK, "cut_after")
        plan(world, LIST, fault)
        # A 400 may be for what is asked for by name, so it is asked again without.
        is_final = fault in ENDINGS and fault != "400"
        assert await try_turn(session) is (ProviderUnavailableError if is_final else None)
        await check_next_turn(world, session, "one", "hello")


async def leave_strays(world, session):
    """A turn that failed here and was done there."""
    await session.send_message("one")
    world.fail(ASK, "cut_after")
    world.fail(LIST, "status", status=400, times=2)  # with what is asked for by name, and without
    assert await try_turn(session, "lost") is ProviderUnavailableError
    assert spoken(world, session)[-2:] == [
        ("user", "lost"),
        ("assistant", "I see 3 messages. The last says: lost"),
    ]


class TestFaultsThatGoOn:
    @pytest.mark.parametrize(
        ("fault", "ending"),
        [
            ("429", ProviderRateLimitError),
            ("500", ProviderUnavailableError),
            ("503", ProviderUnavailableError),
            ("cut before", ProviderUnavailableError),
        ],
    )
    @both_ways
    async def test_retries_end(self, world, session, fault, ending, streaming):
        await session.send_message("one")
        plan(world, ASK, fault, times=3)
        assert await try_turn(session, streaming=streaming) is ending
        await check_next_turn(world, session, "one", "hello")

    @pytest.mark.parametrize("on", [MAKE, ADD])
    async def test_the_first_turn_may_fail(self, world, session, on):
        await session.record(exchanges(25))
        plan(world, on, "503", times=3)
        assert await try_turn(session) is ProviderUnavailableError
        await check_next_turn(world, session, "hello")

    async def test_no_retries(self, world, open_manager):
        session = await open_manager(max_retries=0).create_session("u", "openai", "gpt-5.4")
        plan(world, ASK, "500")
        assert await try_turn(session) is ProviderUnavailableError
        await check_next_turn(world, session, "hello")

    async def test_a_lost_answer_is_found_without_retries(self, world, open_manager):
        session = await open_manager(max_retries=0).create_session("u", "openai", "gpt-5.4")
        plan(world, ASK, "cut after")
        assert await try_turn(session) is None
        assert len(world.requests(ASK)) == 1
        await check_next_turn(world, session, "hello")

    async def test_a_turn_is_asked_for_once_if_its_answer_was_lost(self, world, session):
        plan(world, ASK, "cut after")
        assert await try_turn(session) is None
        assert len(world.requests(ASK)) == 1

    async def test_a_lock_that_stays(self, world, session, monkeypatch):
        monkeypatch.setattr(sdk, "LOCK_WAIT", 0.0)
        await session.send_message("one")
        plan(world, ASK, "locked")
        with pytest.raises(ProviderRequestError, match="busy with another request") as caught:
            await session.send_message("hello")
        assert caught.value.retriable
        await check_next_turn(world, session, "one", "hello")


class TestStreamsThatBreakOff:
    @pytest.mark.parametrize("at", range(17))
    @pytest.mark.parametrize("kind", ["cut_stream", "stream_error", "nested"])
    @pytest.mark.parametrize("work", [False, True], ids=["lost", "finished"])
    async def test_at_each_place(self, world, session, at, kind, work):
        await session.send_message("one")
        nested = {"nested": True} if kind == "nested" else {}
        kind = "stream_error" if nested else kind
        world.fail(ASK, kind, at=at, work=work, **nested)
        broken = ProviderStreamError if kind == "cut_stream" else ProviderUnavailableError
        # What was not finished is tried again, unless a reader has seen some of it.
        ending = broken if 5 <= at <= 15 and not work else None
        assert await try_turn(session, streaming=True) is ending
        await check_next_turn(world, session, "one", "hello")

    @pytest.mark.parametrize("at", [0, 2, 6])
    @pytest.mark.parametrize("work", [False, True], ids=["lost", "finished"])
    async def test_silence(self, world, session, at, work):
        await session.send_message("one")
        world.fail(ASK, "stall_stream", at=at, work=work)
        ending = ProviderTimeoutError if at == 6 and not work else None
        assert await try_turn(session, streaming=True, timeout=SHORT) is ending
        await check_next_turn(world, session, "one", "hello")

    async def test_calls_are_shown_once(self, world, session):
        world.reply({"tool_calls": [{"name": "weather", "arguments": {"city": c}} for c in "ab"]})
        world.fail(ASK, "cut_stream", at=8, work=True)  # behind the first call
        calls = []
        async for event in session.stream_message("both?", tools=[WEATHER]):
            calls += [event.block.args] if event.block is not None else []
        assert calls == [{"city": "a"}, {"city": "b"}]

    @pytest.mark.parametrize("work", [False, True], ids=["lost", "finished"])
    async def test_a_reader_who_leaves(self, world, session, work):
        await session.send_message("one")
        world.fail(ASK, "stall_stream", at=7, work=work)
        async with aclosing(session.stream_message("hello")) as events:
            async for event in events:
                if "see" in event.text:
                    break
        assert (await session.get_turns())[-1].status == "cancelled"
        assert (await session.get_messages())[-1].text == "I see"
        await check_next_turn(world, session, "one", "hello")

    async def test_the_reply_is_complete_though_the_stream_is_not(self, world, session):
        world.fail(ASK, "cut_stream", at=17, work=True)
        world.reply({"text": "a b c d e f"})  # 15 events
        assert (await shown_by(session, "hello")).text == "a b c d e f"


class TestSlowness:
    @both_ways
    async def test_a_reply_that_comes_after_the_time_is_over(self, world, session, streaming):
        await session.send_message("one")
        world.fail(ASK, "slow", seconds=1.6, times=3)
        await try_turn(session, streaming=streaming, timeout=SHORT)
        faults = world.state()["faults_left"]
        for _ in range(sum(fault["times"] for fault in faults)):
            await try_turn(session, "using up a fault")
        await all_arrived(world)
        await check_next_turn(world, session)

    async def test_a_request_that_still_runs_is_waited_for(self, world, session):
        await session.send_message("one")
        world.set(model_seconds=2.0)
        assert await try_turn(session, timeout=SHORT) is None
        refused = world.state()["refused"]
        assert {one["error"]["error"]["code"] for one in refused} == {"conversation_locked"}
        world.set(model_seconds=None)
        assert spoken(world, session) == await window(session)
        await check_next_turn(world, session, "one", "hello")

    async def test_a_request_that_arrives_after_all_is_noticed_in_the_next_turn(
        self, world, session
    ):
        await session.send_message("one")
        world.fail(ASK, "slow", seconds=2.0)
        assert await try_turn(session, timeout=SHORT) is None
        await all_arrived(world)
        assert len(spoken(world, session)) == 6
        await check_next_turn(world, session, "one", "hello")


class TestLostState:
    @both_ways
    async def test_a_conversation_that_is_gone_is_made_anew(
        self, world, session, caplog, streaming
    ):
        await session.send_message("one")
        gone = session.context.provider_session_id
        world.lose("conversation")
        assert await try_turn(session, streaming=streaming) is None
        assert gone in caplog.text
        assert session.context.provider_session_id != gone
        await check_next_turn(world, session, "one", "hello")

    async def test_it_may_be_gone_when_the_turn_begins_with_a_look(self, world, session):
        await session.send_message("one")
        await session.record([user("elsewhere"), said("answered")])
        world.lose("conversation")
        assert await try_turn(session) is None
        await check_next_turn(world, session, "elsewhere", "hello")

    async def test_it_may_be_lost_while_it_is_copied(self, world, session):
        await session.record(exchanges(25))
        world.fail(ADD, "status", status=404, after=1)
        assert await try_turn(session) is ProviderRequestError
        await check_next_turn(world, session, "hello")

    async def test_the_last_item_is_gone(self, world, session):
        await session.send_message("one")
        world.lose("item", items_of(world, session)[-1]["id"])
        await session.record([user("elsewhere"), said("answered")])
        assert await try_turn(session) is None
        await check_next_turn(world, session, "elsewhere", "hello")

    async def test_a_call_is_gone_when_its_result_is_sent(self, world, session):
        reply = await session.send_message('call weather {"city": "Oslo"}', tools=[WEATHER])
        (call,) = [item for item in items_of(world, session) if item["type"] == "function_call"]
        world.lose("item", call["id"])
        result = ToolResultBlock(tool_call_id=reply.blocks[0].id, content="snow")
        reply = await session.send_message([result], role="tool", tools=[WEATHER])
        assert reply.text == "I see 1 messages. The last says: snow"
        kinds = [item["type"] for item in items_of(world, session)]
        assert kinds == ["message", "function_call", "function_call_output", "message"]
        assert world.state()["orphan_items"] == []

    async def test_a_request_that_nothing_helps_is_not_sent_for_ever(self, world, session):
        await session.send_message("one")
        image = ImageBlock(url="https://example.org/a.png")
        await session.update_context(model="novision-1")
        with pytest.raises(ProviderRequestError, match="does not support image"):
            await session.send_message([image])
        await check_next_turn(world, session, "one", "")

    async def test_an_unknown_model_leaves_the_conversation_alone(self, world, session):
        await session.send_message("one")
        with pytest.raises(ProviderSessionError, match="no model 'unknown-1'"):
            await session.switch_provider("openai", "unknown-1")
            await session.send_message("hello")
        await session.switch_provider("openai", "gpt-5.4")
        await check_next_turn(world, session, "one", "hello")


class TestReturning:
    async def test_after_other_turns(self, world, open_manager):
        manager = open_manager(providers={"mock": MockProviderSession()})
        session = await manager.create_session("u", "openai", "gpt-5.4")
        await leave_strays(world, session)
        await session.switch_provider("mock", "echo")
        await session.send_message("to another")
        await session.record([user("elsewhere"), said("answered")])
        await session.switch_provider("openai", "gpt-5.4")
        asked = len(world.requests(ADD))
        await check_next_turn(world, session, "lost", "to another", "elsewhere")
        assert len(world.requests(ADD)) == asked  # nothing was copied again

    async def test_a_failed_turn_is_tried_again_with_its_key(self, world, session):
        await session.send_message("one")
        world.fail(ASK, "cut_after")
        world.fail(LIST, "status", status=400, times=2)
        with pytest.raises(ProviderUnavailableError):
            await session.send_message("hello", idempotency_key="k")
        reply = await session.send_message("hello", idempotency_key="k")
        assert reply.text == "I see 3 messages. The last says: hello"
        again = await session.send_message("hello", idempotency_key="k")
        assert again.id == reply.id
        await check_next_turn(world, session, "one", "hello")

    async def test_two_at_once(self, world, open_manager, db_path):
        first = open_manager(SQLiteSessionStorage(db_path))
        one = await first.create_session("u", "openai", "gpt-5.4")
        other = await open_manager(SQLiteSessionStorage(db_path)).get_session(one.session_id)
        world.fail(ASK, "cut_after", times=2)
        world.fail(ASK, "overloaded", times=2, after=1)
        await asyncio.gather(
            *(
                session.send_message(f"{name} {n}")
                for n in range(4)
                for name, session in (("one", one), ("other", other))
            )
        )
        await one.refresh()
        assert len(await window(one)) == 16
        assert spoken(world, one) == await window(one)
        assert len(world.state()["conversations"]) == 1

    async def test_another_process_goes_on(self, world, open_manager, db_path):
        manager = open_manager(SQLiteSessionStorage(db_path))
        session = await manager.create_session("u", "openai", "gpt-5.4")
        await session.send_message("one")
        await manager.close()
        manager = open_manager(SQLiteSessionStorage(db_path))
        session = await manager.get_session(session.session_id)
        requests = len(world.requests())
        await session.send_message("two")
        assert [r["path"] for r in world.requests()[requests:]] == ["/v1/responses"]
        await check_next_turn(world, session, "one", "two")

    @pytest.mark.parametrize("arrives", ["before", "during"])
    async def test_cancelled_while_it_is_asked(self, world, session, arrives):
        await session.send_message("one")
        world.set(model_seconds=0.2)
        task = asyncio.create_task(session.send_message("hello"))
        while len(world.requests(ASK)) < 2:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        world.set(model_seconds=None)
        if arrives == "before":
            await all_arrived(world)
        else:
            await session.send_message("meanwhile")
        await check_next_turn(world, session, *(["meanwhile"] if arrives == "during" else []))


class TestSmallRequests:
    async def test_only_what_is_new_travels(self, world, session):
        for n in range(3):
            await session.send_message(f"turn {n}")
        paths = [r["path"] for r in world.requests()]
        assert paths == ["/v1/conversations", *["/v1/responses"] * 3]
        assert [len(r["body"]["input"]) for r in world.requests(ASK)] == [1, 1, 1]
        (conversation,) = world.state()["conversations"].values()
        assert conversation["metadata"] == {"session_id": session.session_id}

    async def test_instructions_travel_each_time(self, world, session):
        await session.add_system_message("Be brief.")
        await session.send_message("one")
        await session.send_message("two", instructions="In French.")
        sent = [r["body"]["instructions"] for r in world.requests(ASK)]
        assert sent == ["Be brief.", "Be brief.\n\nIn French."]
        assert {item["role"] for item in items_of(world, session)} == {"user", "assistant"}

    async def test_an_old_session_is_copied_in_chunks(self, world, session):
        await session.update_context(max_messages=200)
        await session.record(exchanges(65))
        reply = await session.send_message("hello")
        assert reply.text == "I see 131 messages. The last says: hello"
        assert [len(r["body"]["items"]) for r in world.requests(ADD)] == [20] * 6 + [10]
        provider = session.manager.core.providers.of("openai", None)
        copy = await provider.get_messages(session.context.provider_session_id)
        assert [(m.role.value, m.text) for m in copy] == await window(session)
        newest = await provider.get_messages(session.context.provider_session_id, limit=3)
        assert [m.text for m in newest] == [m.text for m in copy[-3:]]
        assert (await session.reconcile()).is_equal

    async def test_compaction_is_passed_through(self, world, session):
        if "context_management" not in signature(AsyncResponses.create).parameters:
            pytest.skip("this version of the openai package knows no compaction")
        await session.send_message("one " * 100)
        rules = [{"type": "compaction", "compact_threshold": 10}]
        reply = await session.send_message("two", context_management=rules)
        assert [block.value["type"] for block in reply.blocks if isinstance(block, OtherBlock)] == [
            "compaction"
        ]
        reply = await session.send_message("three")
        assert reply.text == "I see 2 messages. The last says: three"
        world.lose("conversation")
        assert (await session.send_message("four")).text.endswith("The last says: four")


class TestContents:
    async def test_parallel_calls(self, world, session):
        world.reply({"text": "Looking.", "tool_calls": [
            {"name": "weather", "arguments": {"city": "Oslo"}},
            {"name": "weather", "arguments": {"city": "Rome"}},
        ]})  # fmt: skip
        reply = await session.send_message("Both?", tools=[WEATHER])
        assert reply.finish_reason == "tool_calls"
        calls = [block for block in reply.blocks if isinstance(block, ToolCallBlock)]
        assert [call.args for call in calls] == [{"city": "Oslo"}, {"city": "Rome"}]
        results = [ToolResultBlock(tool_call_id=c.id, content=c.args["city"]) for c in calls]
        reply = await session.send_message(results, role="tool", tools=[WEATHER])
        assert reply.text == "I see 2 messages. The last says: Rome"
        assert world.state()["refused"] == []
        world.lose("conversation")
        await session.send_message("And now?", tools=[WEATHER])
        assert (await session.reconcile()).is_equal

    async def test_a_call_without_result_is_answered(self, world, session):
        await session.send_message('call weather {"city": "Oslo"}', tools=[WEATHER])
        reply = await session.send_message("Never mind.")
        assert reply.text == "I see 2 messages. The last says: Never mind."
        assert reply.metadata["langswarm"]["repairs"][0]["kind"] == "call_answered"
        assert world.state()["refused"] == []

    @pytest.mark.parametrize("lost", [False, True])
    async def test_custom_tools(self, world, session, lost):
        item = {"type": "custom_tool_call", "call_id": "call_1", "name": "sql", "input": "SELECT 1"}
        world.reply({"items": [item]})
        tools = [{"type": "custom", "name": "sql"}]
        reply = await session.send_message("Count.", tools=tools)
        (call,) = reply.blocks
        assert (call.id, call.name, call.args) == ("call_1", "sql", {"input": "SELECT 1"})
        if lost:
            world.lose("conversation")
        result = ToolResultBlock(tool_call_id="call_1", content="1")
        reply = await session.send_message([result], role="tool", tools=tools)
        assert world.requests(ASK)[-1]["body"]["input"] == [
            {"type": "custom_tool_call_output", "call_id": "call_1", "output": "1"}
        ]
        kinds = [item["type"] for item in items_of(world, session)]
        assert kinds == ["message", "custom_tool_call", "custom_tool_call_output", "message"]

    async def test_arguments_that_are_no_json(self, world, session):
        world.reply({"tool_calls": [{"name": "weather", "arguments": '{"city": "Os'}]})
        reply = await session.send_message("Oslo?", tools=[WEATHER])
        (call,) = reply.blocks
        assert call.args == {}
        assert call.extras["arguments"] == '{"city": "Os'
        world.lose("conversation")
        result = ToolResultBlock(tool_call_id=call.id, content="that is no JSON", is_error=True)
        await session.send_message([result], role="tool", tools=[WEATHER])

    async def test_hosted_tools(self, world, session):
        action = {"type": "search", "query": "snow"}
        search = {"type": "web_search_call", "status": "completed", "action": action}
        world.reply({"items": [search], "text": "It snows."})
        reply = await session.send_message("Weather?", tools=[{"type": "web_search"}])
        assert reply.blocks[0].value["action"]["query"] == "snow"
        world.lose("conversation")
        reply = await session.send_message("And?")
        assert reply.text == "I see 3 messages. The last says: And?"
        kinds = [item["type"] for item in items_of(world, session)]
        assert kinds == ["message", "web_search_call", "message", "message", "message"]

    @pytest.mark.parametrize(
        ("image", "sent"),
        [
            (ImageBlock(url="https://example.org/a.png"), "https://example.org/a.png"),
            (ImageBlock(base64=PIXEL, mime_type="image/png"), f"data:image/png;base64,{PIXEL}"),
            (ImageBlock(url=f"data:image/png;base64,{PIXEL}"), f"data:image/png;base64,{PIXEL}"),
        ],
        ids=["address", "base64", "data address"],
    )
    async def test_images(self, world, session, image, sent):
        reply = await session.send_message([TextBlock(text="What is it?"), image])
        assert reply.text == "I see 1 messages. The last says: What is it?"
        (item, _) = items_of(world, session)
        assert item["content"][1]["image_url"] == sent
        provider = session.manager.core.providers.of("openai", None)
        (message, _) = await provider.get_messages(session.context.provider_session_id)
        assert message.blocks[1].url == sent
        assert (await session.reconcile()).is_equal

    async def test_files(self, world, session):
        blocks = [
            ImageBlock(file_id="file-1"),
            FileBlock(file_id="file-2"),
            FileBlock(url="https://example.org/a.pdf"),
            FileBlock(base64="JVBERi0=", mime_type="application/pdf", filename="a.pdf"),
        ]
        await session.send_message([TextBlock(text="Read."), *blocks])
        parts = items_of(world, session)[0]["content"][1:]
        assert parts[0]["file_id"] == "file-1"
        assert parts[1:] == [
            {"type": "input_file", "file_id": "file-2"},
            {"type": "input_file", "file_url": "https://example.org/a.pdf"},
            {
                "type": "input_file",
                "filename": "a.pdf",
                "file_data": "data:application/pdf;base64,JVBERi0=",
            },
        ]

    @both_ways
    async def test_reasoning(self, world, session, streaming):
        world.set(reasoning=True)
        options = {"reasoning": {"effort": "low"}, "include": ["message.output_text.logprobs"]}
        ask = shown_by if streaming else type(session).send_message
        reply = await ask(session, "one", **options)
        assert isinstance(reply.blocks[0], ReasoningBlock)
        assert reply.blocks[0].encrypted
        assert reply.usage.reasoning_tokens > 0
        assert world.requests(ASK)[0]["body"]["include"] == [
            "reasoning.encrypted_content",
            "message.output_text.logprobs",
        ]
        await ask(session, "two", **options)
        world.lose("conversation")
        reply = await ask(session, "three", **options)
        assert reply.text == "I see 5 messages. The last says: three"
        kinds = [item["type"] for item in items_of(world, session)]
        assert kinds == ["message", "reasoning", "message"] * 3

    async def test_reasoning_of_an_answer_that_was_lost(self, world, session):
        world.set(reasoning=True)
        world.fail(ASK, "cut_after")
        reply = await session.send_message("one", reasoning={"effort": "low"})
        assert reply.blocks[0].encrypted
        assert reply.text == "I see 1 messages. The last says: one"

    async def test_another_model_in_mid_conversation(self, world, session):
        world.set(reasoning=True)
        await session.send_message("one", reasoning={"effort": "low"})
        await session.switch_provider("openai", "o9-mini")
        reply = await session.send_message("two", reasoning={"effort": "low"})
        assert reply.text == "I see 3 messages. The last says: two"
        world.set(reasoning=None)
        await check_next_turn(world, session, "one", "two")

    @both_ways
    async def test_refusals(self, world, session, streaming):
        world.reply({"refusal": "I will not."})
        ask = shown_by if streaming else type(session).send_message
        reply = await ask(session, "Do it.")
        assert reply.blocks[0].refusal == "I will not."
        assert isinstance(reply.blocks[0], RefusalBlock)
        assert reply.finish_reason == "refusal"
        await check_next_turn(world, session, "Do it.")
        world.lose("conversation")
        await session.send_message("And now?")

    @both_ways
    async def test_replies_that_are_cut_short(self, world, session, streaming):
        ask = shown_by if streaming else type(session).send_message
        reply = await ask(session, "Tell me all.", max_output_tokens=2)
        assert (reply.text, reply.finish_reason) == ("I see 1 ", "length")
        await check_next_turn(world, session, "Tell me all.")

    async def test_a_cut_reply_whose_answer_was_lost(self, world, session):
        world.fail(ASK, "cut_after")
        reply = await session.send_message("Tell me all.", max_output_tokens=2)
        assert (reply.text, reply.finish_reason) == ("I see 1 ", "incomplete")

    async def test_a_reply_that_openai_does_not_keep(self, world, session):
        world.reply({"text": "Half of", "finish": "content_filter"})
        reply = await session.send_message("hello")
        assert (reply.text, reply.finish_reason) == ("Half of", "content_filter")
        await check_next_turn(world, session, "hello")

    async def test_a_failed_response(self, world, session):
        world.reply(*[{"finish": "failed"}] * 3)
        with pytest.raises(ProviderUnavailableError, match="The model failed to answer"):
            await session.send_message("hello")
        await check_next_turn(world, session, "hello")

    async def test_usage(self, world, session):
        await session.send_message("one " * 20)
        reply = await session.send_message("two")
        usage = reply.usage
        assert usage.input_tokens > usage.cached_tokens > 0
        assert usage.output_tokens > 0
        assert session.metrics.cached_tokens == usage.cached_tokens


class TestRemoving:
    async def test_clearing(self, world, session):
        await session.record(exchanges(60))
        await session.send_message("one")
        await session.clear_messages()
        assert world.state()["conversations"] == {}
        assert world.state()["orphan_items"] == []
        await check_next_turn(world, session)

    @pytest.mark.parametrize("fault", [f for f in FAULTS if f not in ENDINGS])
    @pytest.mark.parametrize("on", [LIST, REMOVE, DROP])
    async def test_deleting(self, world, session, on, fault):
        await session.send_message("one")
        plan(world, on, fault)
        await session.manager.delete_session(session.session_id)
        assert world.state()["conversations"] == {}
        assert world.state()["orphan_items"] == []

    @pytest.mark.parametrize("fault", ENDINGS)
    @pytest.mark.parametrize("on", [LIST, REMOVE, DROP])
    async def test_nothing_is_forgotten_that_could_not_be_deleted(self, world, session, on, fault):
        await session.send_message("one")
        plan(world, on, fault)
        with pytest.raises(ENDINGS[fault]):
            await session.manager.delete_session(session.session_id)
        assert len(await session.get_messages()) == 2
        await session.manager.delete_session(session.session_id)
        assert world.state()["conversations"] == {}
        assert world.state()["orphan_items"] == []

    async def test_one_that_is_gone_already(self, world, session):
        await session.send_message("one")
        world.lose("conversation")
        await session.manager.delete_session(session.session_id)

    async def test_long_ones(self, world, session, monkeypatch):
        monkeypatch.setattr(copies, "PAGE", 7)
        await session.record(exchanges(10))
        await session.send_message("one")
        assert (await session.reconcile()).is_equal
        await session.manager.delete_session(session.session_id)
        assert world.state()["orphan_items"] == []


class TestConversationsOfOthers:
    """A caller may name one; what is in it may be nowhere else."""

    @pytest.fixture
    async def given(self, world, session):
        provider = session.manager.core.providers.of("openai", None)
        native = await provider.create_provider_session("u")
        client = provider._sdk.client
        await client.conversations.items.create(
            native, items=[{"type": "message", "role": "user", "content": "before"}]
        )
        await session.update_context(provider_session_id=native)
        return session

    async def test_it_is_gone_on_with(self, world, given):
        reply = await given.send_message("one")
        assert reply.text == "I see 2 messages. The last says: one"
        reply = await given.send_message("two")
        assert reply.text == "I see 4 messages. The last says: two"
        assert world.state()["conversations"][given.context.provider_session_id]["metadata"] == {
            "user_id": "u"
        }

    async def test_what_only_it_has_can_be_pulled(self, given):
        await given.send_message("one")
        found = await given.reconcile(pull=True)
        assert [m.text for m in found.only_remote] == ["before"]
        assert (await given.get_messages())[-1].text == "before"

    async def test_nothing_is_removed_from_it(self, world, given):
        native = given.context.provider_session_id
        await given.send_message("one")
        await given.update_context(model="novision-2")
        assert await try_turn(given, [ImageBlock(url="https://example.org/a.png")]) is (
            ProviderRequestError
        )
        world.fail(ASK, "cut_after")
        await given.send_message("two")
        await given.record([user("elsewhere"), said("answered")])
        await given.send_message("three")
        assert given.context.provider_session_id == native
        assert spoken(world, given)[0] == ("user", "before")
        assert [text for role, text in spoken(world, given) if role == "user"] == [
            "before",
            "one",
            "two",
            "elsewhere",
            "three",
        ]
        assert world.requests("DELETE **") == []


UNLINK = "DELETE /v1/responses/*"


class TestLimits:
    """What the model is given stays within the limits, though OpenAI keeps the conversation."""

    @pytest.mark.parametrize("limits", [{"max_messages": 4}, {"max_input_tokens": 120}])
    async def test_the_copy_is_made_again_when_it_outgrows_them(self, world, open_manager, limits):
        session = await open_manager().create_session("u", "openai", "gpt-5.4", **limits)
        for n in range(8):
            await session.send_message(f"{n} " + "word " * 20)
            assert len(spoken(world, session)) <= 6
        assert len(await session.get_messages()) == 16

    @both_ways
    async def test_a_refusal_for_size_is_the_end_of_the_copy_not_of_the_session(
        self, world, session, streaming
    ):
        await session.record(exchanges(6))
        await session.send_message("one")
        before = session.context.provider_session_id
        world.fail(ASK, "status", status=400, code="context_length_exceeded", times=2,
                   message="Your input exceeds the context window of this model.")  # fmt: skip
        assert await try_turn(session, "two", streaming=streaming) is None
        assert session.context.provider_session_id != before
        assert 2 <= len(spoken(world, session)) < 16
        assert (await session.send_message("three")).text.endswith("The last says: three")

    async def test_one_of_somebody_else_that_is_too_long_is_left_alone(self, world, session):
        provider = session.manager.core.providers.of("openai", "s")
        given = await provider.create_provider_session("u")
        await session.update_context(provider_session_id=given)
        await session.send_message("one")
        world.fail(ASK, "status", status=400, code="context_length_exceeded",
                   message="Your input exceeds the context window of this model.")  # fmt: skip
        await session.send_message("two")
        assert session.context.provider_session_id != given
        assert len(world.state()["conversations"][given]["items"]) == 2
        assert spoken(world, session)[-2][1] == "two"


class TestResponseObjects:
    """They outlive their conversation: https://community.openai.com/t/1356136"""

    async def test_they_go_with_the_session(self, world, session):
        await session.send_message("one")
        await shown_by(session, "two")
        assert len(world.state()["responses"]) == 2
        await session.delete()
        assert world.state()["responses"] == {}

    async def test_they_go_with_the_messages(self, world, session):
        await session.send_message("one")
        await session.clear_messages()
        assert world.state()["responses"] == {}

    async def test_that_of_a_stream_nobody_read_to_its_end_goes_with_the_next_turn(
        self, world, session
    ):
        await session.send_message("one")
        async with aclosing(session.stream_message("two")) as pieces:
            async for _ in pieces:
                break
        await all_arrived(world)
        await session.send_message("three")
        assert len(world.state()["responses"]) == 2

    async def test_what_cannot_be_removed_is_said(self, world, session, caplog):
        reply = await session.send_message("one")
        world.fail(UNLINK, "status", status=405, times=-1)
        report = await session.manager.erase_user("u")
        assert report.left_at_providers == [("openai", reply.provider_message_id)]
        assert not report.complete
        assert reply.provider_message_id in caplog.text

    async def test_a_fault_leaves_all_as_it_is(self, world, session):
        await session.send_message("one")
        world.fail(UNLINK, "server_error", times=-1)
        with pytest.raises(ProviderUnavailableError):
            await session.delete()
        assert len(await session.get_messages()) == 2


class TestServersThatRefuseInclude:
    """As vLLM's gateway does for the items of a conversation."""

    async def test_they_are_asked_without(self, world, session):
        await session.send_message("one")
        world.fail(LIST, "status", status=400, message="Unknown query parameter: include")
        assert (await session.reconcile()).is_equal
        asked = len(world.requests(LIST))
        assert (await session.reconcile()).is_equal
        assert len(world.requests(LIST)) == asked + 1


@both_ways
async def test_a_conversation_that_is_gone_is_made_again(world, session, streaming):
    await session.send_message("one")
    provider = session.manager.core.providers.of("openai", "s")
    await provider.delete_provider_session(session.context.provider_session_id)
    assert await try_turn(session, "two", streaming=streaming) is None
    await check_next_turn(world, session, "one", "two")


async def test_one_that_is_gone_as_only_the_stream_says(world, session):
    await session.send_message("one")
    gone = session.context.provider_session_id
    world.fail(ASK, "stream_error", at=1, code="not_found",
               message=f"Conversation with id '{gone}' not found.")  # fmt: skip
    assert await try_turn(session, "two", streaming=True) is None
    assert session.context.provider_session_id != gone
    await check_next_turn(world, session, "one", "two")


class TestCopiesThatCannotBeRemoved:
    """A key may lack the permission to delete (403), a server the method (405: vLLM's gateway)."""

    @pytest.mark.parametrize("on", [DROP, REMOVE])
    @pytest.mark.parametrize("status", [403, 405, 500])
    async def test_an_outgrown_copy_is_left_behind(self, world, open_manager, on, status):
        manager = open_manager(max_retries=0)
        session = await manager.create_session("u", "openai", "gpt-5.4", max_messages=4)
        world.fail(on, "status", times=-1, status=status)
        for number in range(5):
            assert await try_turn(session, f"turn {number}") is None
        assert spoken(world, session)[-2] == ("user", "turn 4")
        kept = set(world.state()["conversations"])
        left = session.context.provider_context["left_behind"]
        assert {*left, session.context.provider_session_id} == kept

    async def test_what_is_left_is_removed_with_the_session(self, world, open_manager):
        manager = open_manager(max_retries=0)
        session = await manager.create_session("u", "openai", "gpt-5.4", max_messages=4)
        world.fail(DROP, "status", times=1, status=403)
        for number in range(3):
            await session.send_message(f"turn {number}")
        assert len(world.state()["conversations"]) == 2
        await manager.delete_session(session.session_id)
        assert not world.state()["conversations"]

    async def test_what_is_left_is_removed_when_the_copy_is_made_again(self, world, open_manager):
        manager = open_manager(max_retries=0)
        session = await manager.create_session("u", "openai", "gpt-5.4", max_messages=4)
        world.fail(DROP, "status", times=1, status=403)
        for number in range(8):
            await session.send_message(f"turn {number}")
        assert [*world.state()["conversations"]] == [session.context.provider_session_id]
        assert "left_behind" not in session.context.provider_context

    async def test_a_turn_behind_a_failed_one_goes_on(self, world, session):
        await leave_strays(world, session)
        world.fail(REMOVE, "status", times=-1, status=403)
        assert await try_turn(session) is None
        assert ("user", "hello") in spoken(world, session)


async def test_a_compaction_leaves_a_conversation_that_was_given(world, open_manager):
    manager = open_manager()
    given = await manager.provider("openai").create_provider_session("u")
    session = await manager.create_session("u", "openai", "gpt-5.4", provider_session_id=given)
    await session.send_message("one")
    await session.compact()
    await session.send_message("two")
    assert given in world.state()["conversations"]
    assert session.context.provider_session_id != given


async def test_a_compaction_replaces_the_copy(world, session):
    await session.send_message("one")
    before = session.context.provider_session_id
    world.fail(DROP, "status", status=403, times=1)
    await session.compact()
    await session.send_message("two")
    assert session.context.provider_context["left_behind"] == [before]
    assert "compaction" in [item["type"] for item in items_of(world, session)]


@pytest.mark.parametrize("fails", [REMOVE, DROP])
async def test_a_copy_that_was_removed_in_part_is_made_again(world, open_manager, fails):
    session = await open_manager(max_retries=0).create_session("u", "openai", "gpt-5.4")
    await session.send_message("one")
    world.fail(fails, "status", times=1, status=500, after=1 if fails == REMOVE else 0)
    with pytest.raises(ProviderUnavailableError):
        await session.clear_messages()
    await session.send_message("two")
    assert [text for role, text in spoken(world, session) if role == "user"] == ["one", "two"]
    assert len(world.state()["conversations"]) == 1


@pytest.mark.parametrize("mode", ["conversations", "responses"])
async def test_compactions_follow_each_other(world, mode):
    """What a compaction repeats of users has ids, which may not be sent back."""
    openai = OpenAIProviderSession(world.key, base_url=world.openai_url, mode=mode, max_retries=0)
    async with SessionManager(InMemorySessionStorage(), providers={"openai": openai}) as manager:
        session = await manager.create_session("u", "openai", "gpt-5.4")
        for number in range(2):
            await session.send_message(f"question {number}")
            await session.compact()
        await session.send_message("last")
    assert not world.refused()

"""What a call of a chain leaves in its session: middleware, failures, repeated calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import RunnableConfig
from langchain_langswarm import RunnableWithSession, SessionChatMessageHistory

from langswarm_session import (
    IdempotencyConflictError,
    InMemorySessionStorage,
    ISession,
    ISessionLifecycleHook,
    ISessionMiddleware,
    MessageRefusedError,
    MiddlewareError,
    SessionInactiveError,
    SessionManager,
    SessionMessage,
    SessionStorageError,
)
from langswarm_session.records import Appended, SessionRef, TurnEnd
from langswarm_session.requests.normalize.pairing import NO_RESULT

Remember = Callable[..., RunnableWithSession]
Call = Callable[..., Any]
Log = Callable[..., list[tuple[str, str]]]
Statuses = Callable[[], list[str]]

TWO_TURNS = [("human", "hi"), ("ai", "1:hi"), ("human", "again"), ("ai", "3:again")]


class ChainError(Exception):
    pass


def fail(value: Any) -> Any:
    raise ChainError("out of order")


def listed(output: Any) -> Any:
    """The output as it comes when the record gives it: tuples are lists."""
    return list(output) if isinstance(output, tuple) else output


# Middleware and hooks


async def test_redaction_reaches_everything(
    shape: Any,
    remember: Remember,
    new_chain: Callable[..., Any],
    redacting: SessionManager,
    call: Call,
    config: RunnableConfig,
    log: Log,
) -> None:
    chain = new_chain(lambda text: shape.give(f"{text} secret"))
    output = await call(remember(chain, **shape.keys), "a secret", config)
    assert output == listed(shape.give("1:a *** ***")), "what the caller gets"
    assert chain.seen == [["a ***"]], "what the chain sees"
    assert log() == [("human", "a ***"), ("ai", "1:a *** ***")], "what is stored"


@pytest.mark.parametrize(
    "given",
    [
        lambda text: text,
        HumanMessage,
        lambda text: [SystemMessage("plain"), HumanMessage(text)],
        lambda text: ChatPromptValue(messages=[HumanMessage(text)]),
    ],
    ids=["str", "message", "list", "prompt"],
)
@pytest.mark.parametrize("history_key", [None, "history"])
def test_redacted_input_keeps_its_shape(
    given: Callable[[str], Any],
    history_key: str | None,
    remember: Remember,
    redacting: SessionManager,
    config: RunnableConfig,
) -> None:
    seen: list[Any] = []
    memory = remember(
        lambda value: seen.append(value) or "ok",
        input_messages_key="question",
        history_messages_key=history_key,
    )
    memory.invoke({"question": given("a secret")}, config)
    part, value = seen[0]["question"], given("")
    kept = history_key and isinstance(value, str | BaseMessage)
    assert type(part) is (type(value) if kept else list)
    assert "a ***" in repr(part)
    assert "secret" not in repr(seen)


def test_redaction_reaches_blocks_too(
    remember: Remember, redacting: SessionManager, config: RunnableConfig
) -> None:
    content = [{"type": "text", "text": "a secret"}, {"type": "image", "url": "https://secret.eu"}]
    seen: list[Any] = []
    memory = remember(lambda messages: seen.append(messages) or AIMessage(content))
    output = memory.invoke(HumanMessage(content), config)
    assert "secret" not in repr(seen)
    assert "secret" not in repr(output)
    assert "secret" not in repr(SessionChatMessageHistory("chat", redacting).messages)


async def test_redaction_keeps_what_an_agent_was_passed(
    remember: Remember, redacting: SessionManager, call: Call, config: RunnableConfig
) -> None:
    memory = remember(lambda messages: [*messages, AIMessage("secret")])
    output = await call(memory, "hi", config)
    assert [(message.type, message.text) for message in output] == [("human", "hi"), ("ai", "***")]


class Refuse(ISessionMiddleware):
    """Refuses what has the word ``bad``."""

    async def process_outgoing_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        if "bad" in message.text:
            raise MessageRefusedError("not that")
        return message

    process_incoming_message = process_outgoing_message


async def test_a_refused_input_never_reaches_the_chain(
    memory: RunnableWithSession,
    chain: Any,
    manager: SessionManager,
    call: Call,
    config: RunnableConfig,
    log: Log,
) -> None:
    manager.add_global_middleware(Refuse())
    with pytest.raises(MessageRefusedError, match="not that"):
        await call(memory, "bad", config)
    assert chain.seen == []
    assert log() == []


async def test_a_refused_answer_fails_the_call(
    remember: Remember,
    manager: SessionManager,
    call: Call,
    config: RunnableConfig,
    statuses: Statuses,
    log: Log,
) -> None:
    manager.add_global_middleware(Refuse())
    with pytest.raises(MessageRefusedError, match="not that"):
        await call(remember(lambda _: "bad"), "hi", config)
    assert (statuses(), log()) == (["failed"], [("human", "hi")])


def test_a_broken_middleware_fails_the_call(
    memory: RunnableWithSession, manager: SessionManager, config: RunnableConfig
) -> None:
    class Broken(ISessionMiddleware):
        async def process_incoming_message(
            self, session: ISession, message: SessionMessage
        ) -> SessionMessage:
            raise RuntimeError("oh")

    manager.add_global_middleware(Broken())
    with pytest.raises(MiddlewareError, match="Broken failed: RuntimeError"):
        memory.invoke("hi", config)


async def test_hooks_see_the_turn(
    memory: RunnableWithSession,
    remember: Remember,
    manager: SessionManager,
    call: Call,
    config: RunnableConfig,
) -> None:
    seen: list[str] = []

    class Watch(ISessionLifecycleHook):
        async def on_message_sent(self, session: ISession, message: SessionMessage) -> None:
            seen.append(f"sent {message.text}")

        async def on_message_received(self, session: ISession, message: SessionMessage) -> None:
            seen.append(f"received {message.text}")

        async def on_error(self, session: ISession, error: BaseException) -> None:
            seen.append(f"error {error}")

    manager.add_global_hook(Watch())
    await call(memory, "hi", config)
    with pytest.raises(ChainError):
        await call(remember(fail), "again", config)
    assert seen == ["sent hi", "received 1:hi", "sent again", "error out of order"]


# Failures


async def test_a_chain_that_raises_leaves_a_failed_turn(
    memory: RunnableWithSession,
    chain: Any,
    remember: Remember,
    call: Call,
    config: RunnableConfig,
    statuses: Statuses,
    log: Log,
) -> None:
    await call(memory, "hi", config)
    with pytest.raises(ChainError):
        await call(remember(fail), "lost", config)
    assert statuses() == ["complete", "failed"]
    await call(memory, "again", config)
    assert chain.seen[-1] == ["hi", "1:hi", "again"], "the chain does not see the failed turn"
    assert log() == [*TWO_TURNS[:2], ("human", "lost"), *TWO_TURNS[2:]], "the record does"


class FullStorage(InMemorySessionStorage):
    """A storage that cannot store how a turn went well."""

    async def end_turn(
        self, ref: SessionRef, end: TurnEnd, messages: Sequence[SessionMessage]
    ) -> Appended:
        if end.status == "complete":
            raise SessionStorageError("disk full")
        return await super().end_turn(ref, end, messages)


async def test_a_failed_write_fails_the_call(
    chain: Any, call: Call, config: RunnableConfig
) -> None:
    async with SessionManager(FullStorage()) as manager:
        with pytest.raises(SessionStorageError, match="disk full"):
            await call(RunnableWithSession(chain, manager), "hi", config)
        (turn,) = await (await manager.get_session("chat")).get_turns()
        assert (turn.status, turn.error) == ("failed", "SessionStorageError: disk full")


def test_an_interrupt_leaves_a_cancelled_turn(
    remember: Remember, config: RunnableConfig, statuses: Statuses
) -> None:
    def interrupt(_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remember(interrupt).invoke("hi", config)
    assert statuses() == ["cancelled"]


async def test_an_archived_session_takes_no_call(
    memory: RunnableWithSession,
    chain: Any,
    manager: SessionManager,
    call: Call,
    config: RunnableConfig,
) -> None:
    await call(memory, "hi", config)
    await manager.archive_session("chat")
    with pytest.raises(SessionInactiveError):
        await call(memory, "again", config)
    assert len(chain.seen) == 1


async def test_a_session_that_was_deleted_begins_anew(
    memory: RunnableWithSession, manager: SessionManager, call: Call, config: RunnableConfig
) -> None:
    await call(memory, "hi", config)
    await manager.delete_session("chat")
    assert await call(memory, "again", config) == AIMessage("1:again")


def test_a_retry_is_a_turn_of_its_own(
    remember: Remember, chain: Any, config: RunnableConfig, statuses: Statuses
) -> None:
    tries = iter([fail, chain])
    memory = remember(lambda messages: next(tries)(messages))
    retrying = memory.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    assert retrying.invoke("hi", config) == AIMessage("1:hi")
    assert statuses() == ["failed", "complete"]
    assert chain.seen == [["hi"]]


# What a provider accepts


def called(call_id: str) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": call_id}])


@pytest.fixture(params=[None, "history"])
def seeing(request: pytest.FixtureRequest, remember: Remember) -> tuple[Any, list[Any]]:
    """A chain, with its history apart or not, and what it is given in all."""
    seen: list[BaseMessage] = []

    def chain(value: Any) -> str:
        question = value["question"]
        new = [HumanMessage(question)] if isinstance(question, str) else question
        seen[:] = [*value.get("history", []), *new]
        return "ok"

    keys = {"input_messages_key": "question", "history_messages_key": request.param}
    return remember(chain, **keys), seen


async def test_a_call_without_a_result_is_answered_in_the_request(
    seeing: tuple[Any, list[Any]],
    call: Call,
    manager: SessionManager,
    config: RunnableConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory, seen = seeing
    history = SessionChatMessageHistory("chat", manager, user_id="ann")
    before = [HumanMessage("hi"), called("c1"), ToolMessage("late", tool_call_id="other")]
    history.add_messages(before)
    with caplog.at_level(logging.INFO, logger="langchain_langswarm"):
        await call(memory, {"question": "again"}, config)
    assert [message.type for message in seen] == ["human", "ai", "tool", "human"]
    assert (seen[2].tool_call_id, seen[2].content) == ("c1", NO_RESULT)
    assert seen[3].content == "again"
    assert "session 'chat': changed in the request" in caplog.text
    assert history.messages == [*before, HumanMessage("again"), AIMessage("ok")]


def test_a_call_whose_result_is_the_input_is_left_as_it_is(
    seeing: tuple[Any, list[Any]], manager: SessionManager, config: RunnableConfig
) -> None:
    memory, seen = seeing
    history = SessionChatMessageHistory("chat", manager, user_id="ann")
    history.add_messages([HumanMessage("hi"), called("c1"), HumanMessage("so?"), called("c2")])
    new = [ToolMessage("21", tool_call_id="c2"), HumanMessage("and?")]
    memory.invoke({"question": new}, config)
    texts = [message.text for message in seen]
    assert texts == ["hi", "", NO_RESULT, "so?", "", "21", "and?"]
    assert [message.model_copy(update={"id": None}) for message in seen[-2:]] == new


# Repeated calls


def keyed(key: str, session_id: str = "chat") -> RunnableConfig:
    return {"configurable": {"session_id": session_id, "idempotency_key": key}}


async def test_a_repeated_key_is_given_the_stored_answer(
    shape: Any, remember: Remember, new_chain: Callable[..., Any], call: Call, log: Log
) -> None:
    chain = new_chain(shape.give)
    memory = remember(chain, **shape.keys)
    first = listed(await call(memory, "hi", keyed("k1")))
    if isinstance(first, dict):  # only the entry that has the answer is stored
        first = {key: value for key, value in first.items() if key not in ("more", "b")}
    assert await call(memory, "hi", keyed("k1")) == first
    assert len(chain.seen) == 1
    assert log() == TWO_TURNS[:2]


async def test_a_repeated_key_is_given_all_messages_of_the_answer(
    remember: Remember, call: Call
) -> None:
    answer = [
        AIMessage("", id="1", tool_calls=[{"name": "look", "args": {}, "id": "c"}]),
        ToolMessage("21", tool_call_id="c", artifact=(1,)),
        AIMessage("21", response_metadata={"id": "r"}),
    ]
    assert await call(remember(lambda _: answer), "hi", keyed("k1")) == answer
    assert await call(remember(fail), "hi", keyed("k1")) == answer


async def test_a_repeated_key_is_given_an_answer_whose_id_was_stored(
    remember: Remember, call: Call
) -> None:
    answer = AIMessage("same", id="1")
    await call(remember(lambda _: answer), "hi", keyed("k1"))
    await call(remember(lambda _: answer), "again", keyed("k2"))
    assert await call(remember(fail), "again", keyed("k2")) == answer


@pytest.mark.parametrize("key", [None, "messages"])
def test_a_chain_that_gave_no_answer_is_called_again(
    key: str | None, remember: Remember, log: Log
) -> None:
    silent: Any = [] if key is None else {key: []}
    memory = remember(lambda _: silent, output_messages_key=key)
    assert memory.invoke("hi", keyed("k1")) == silent
    answer: Any = [AIMessage("yo")] if key is None else {key: [AIMessage("yo")]}
    given = remember(lambda _: answer, output_messages_key=key).invoke("hi", keyed("k1"))
    assert given == answer
    assert log() == [("human", "hi"), ("ai", "yo")]


async def test_a_repeated_key_is_given_what_another_door_stored(
    remember: Remember, manager: SessionManager
) -> None:
    session = await manager.get_or_create_session("chat")
    turn = await session.begin_turn("hi", idempotency_key="k1")
    await turn.complete([SessionMessage(role=r, content=r) for r in ("assistant", "system")])
    output = await remember(fail).ainvoke("hi", keyed("k1"))
    assert (output.type, output.content) == ("ai", "assistant")


async def test_a_repeated_key_is_given_the_redacted_answer(
    remember: Remember, redacting: SessionManager, call: Call
) -> None:
    assert await call(remember(lambda _: "secret"), "hi", keyed("k1")) == "***"
    assert await call(remember(fail), "hi", keyed("k1")) == "***"


async def test_a_failed_call_is_tried_again_with_its_key(
    remember: Remember, memory: RunnableWithSession, chain: Any, call: Call, log: Log
) -> None:
    with pytest.raises(ChainError):
        await call(remember(fail), "hi", keyed("k1"))
    assert await call(memory, "hi", keyed("k1")) == AIMessage("1:hi")
    assert chain.seen == [["hi"]]
    assert log() == TWO_TURNS[:2]


def test_a_key_used_for_another_message_is_refused(memory: RunnableWithSession) -> None:
    memory.invoke("hi", keyed("k1"))
    with pytest.raises(IdempotencyConflictError):
        memory.invoke("other", keyed("k1"))


def test_keys_are_the_sessions_own(memory: RunnableWithSession, chain: Any) -> None:
    memory.invoke("hi", keyed("k1", "one"))
    memory.invoke("hi", keyed("k1", "two"))
    assert len(chain.seen) == 2


async def test_a_repeated_message_is_given_the_stored_answer(
    shape: Any, remember: Remember, new_chain: Callable[..., Any], config: RunnableConfig
) -> None:
    chain = new_chain(shape.give)
    memory = remember(chain, **shape.keys)
    first = memory.invoke(HumanMessage("hi", id="1"), config)
    again = memory.invoke(HumanMessage("hi", id="1"), config)
    assert type(again) is type(listed(first))
    assert len(chain.seen) == 1


@pytest.mark.parametrize("whole", [True, False], ids=["all of the talk", "the same beginning"])
def test_new_messages_after_known_ones_are_answered(
    whole: bool, remember: Remember, config: RunnableConfig, log: Log
) -> None:
    seen: list[list[str]] = []

    def chain(messages: list[BaseMessage]) -> AIMessage:
        seen.append([str(message.text) for message in messages])
        return AIMessage("hello", id=f"answer {len(seen)}")

    memory = remember(chain)
    start = [SystemMessage("be brief", id="system"), HumanMessage("hi", id="question 1")]
    answer = memory.invoke(start, config)
    known = [*start, answer] if whole else start[:1]
    memory.invoke([*known, HumanMessage("again", id="question 2")], config)
    assert seen == [["be brief", "hi"], ["be brief", "hi", "hello", "again"]]
    assert [text for _, text in log()] == ["be brief", "hi", "hello", "again", "hello"]


class Nameless:
    def __repr__(self) -> str:
        raise ChainError


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        (AIMessageChunk("half", id="1"), [("ai", "half")]),
        (AIMessageChunk("half", id="x" * 1000), [("ai", "half")]),
        ({"a": 1}, [("ai", '{"a":1}')]),
        (Nameless(), []),
    ],
    ids=["known id", "long id", "data", "nameless"],
)
def test_a_partial_answer_keeps_no_session_busy(
    part: Any,
    kept: list[tuple[str, str]],
    remember: Remember,
    config: RunnableConfig,
    statuses: Statuses,
    log: Log,
) -> None:
    def chain(_: Any) -> Any:
        yield part
        raise ChainError

    remember(lambda _: AIMessage("whole", id="1")).invoke("hi", config)
    with pytest.raises(ChainError):
        list(remember(chain).stream("again", config))
    assert statuses() == ["complete", "failed"]
    assert log()[3:] == kept

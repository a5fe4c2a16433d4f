"""The stand-in server's Anthropic side, tried with Anthropic's own SDK."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import (
    ThreadAlreadyContinuedError,
    ThreadContinueInFlightError,
    ThreadFingerprintMismatchError,
    ThreadNotFoundError,
    ThreadUnsupportedRequestError,
)

from .client import ProviderServer, ServerWorld

MODEL = "claude-test-1"
ADD: dict[str, Any] = {"name": "add", "input_schema": {"type": "object", "properties": {}}}
CUSTOM: dict[str, Any] = ADD | {"type": "custom", "description": "adds"}
THREADS = "message-threads-2026-08-12"


@pytest.fixture(scope="module")
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def world(server: ProviderServer) -> ServerWorld:
    return server.world()


@pytest.fixture
def client(world: ServerWorld) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        api_key=world.key, base_url=world.anthropic_url, max_retries=0, timeout=10
    ) as client:
        yield client


def user(content: Any) -> Any:
    return {"role": "user", "content": content}


def said(content: Any) -> Any:
    return {"role": "assistant", "content": content}


def ask(client: anthropic.Anthropic, *messages: Any, **more: Any) -> Any:
    given: Any = {"model": MODEL, "max_tokens": 100, "messages": list(messages)} | more
    return client.messages.create(**given)


def refusal(client: anthropic.Anthropic, *messages: Any, **more: Any) -> str:
    with pytest.raises(anthropic.APIStatusError) as caught:
        ask(client, *messages, **more)
    assert caught.value.status_code in {400, 404}
    return str(caught.value)


CALL = {"type": "tool_use", "id": "t1", "name": "add", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "3"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
FORGED = {"type": "thinking", "thinking": "x", "signature": "forged"}
ON = {"type": "enabled", "budget_tokens": 1024}
MARK = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}


# Messages


def test_a_reply_says_what_was_seen(client: anthropic.Anthropic, world: ServerWorld) -> None:
    reply = ask(client, user("one"), said("two"), user("three"), system="be brief")
    assert reply.content[0].text == "I see 3 messages. The last says: three"
    assert reply.usage.input_tokens == -(-len("be briefonetwothree") // 4)
    assert reply.stop_reason == "end_turn"
    assert reply._request_id
    assert world.requests("POST /v1/messages")[0]["status"] == 200


def test_a_tool_call_there_and_back(client: anthropic.Anthropic) -> None:
    first = ask(client, user('call add {"a": 1}'), tools=[ADD])
    (call,) = first.content
    assert (first.stop_reason, call.name, call.input) == ("tool_use", "add", {"a": 1})
    result = RESULT | {"tool_use_id": call.id}
    second = ask(client, user("go"), said(first.content), user([result]), tools=[ADD])
    assert second.content[0].text == "I see 3 messages. The last says: 3"


def test_scripted_replies(client: anthropic.Anthropic, world: ServerWorld) -> None:
    world.reply(
        {"text": "hm", "finish": "length", "usage": {"output_tokens": 77}},
        {"refusal": "no", "category": "bio"},
        {"blocks": [{"type": "redacted_thinking"}, {"type": "text", "text": "a"}]},
        {"text": "one STOP two"},
    )
    cut = ask(client, user("x"))
    assert (cut.content[0].text, cut.stop_reason, cut.usage.output_tokens) == (
        "hm",
        "max_tokens",
        77,
    )
    refused = ask(client, user("x"))
    assert (refused.content, refused.stop_reason) == ([], "refusal")
    assert (refused.stop_details.explanation, refused.stop_details.category) == ("no", "bio")
    redacted = ask(client, user("x"))
    assert (
        ask(
            client, user("x"), said(redacted.content), user("y"), stop_sequences=["STOP"]
        ).stop_sequence
        == "STOP"
    )


def test_a_stream_is_the_message(client: anthropic.Anthropic, world: ServerWorld) -> None:
    world.reply(
        {
            "text": "some words",
            "reasoning": "so",
            "tool_calls": [{"name": "add", "arguments": {"a": [1]}}],
        }
    )
    with client.messages.stream(
        model=MODEL, max_tokens=50, messages=[user("x")], tools=[ADD]
    ) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_message()
    assert {"message_start", "content_block_delta", "thinking", "message_stop"} <= kinds
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert message.content[2].input == {"a": [1]}
    assert message.usage.output_tokens > 1


async def test_an_async_stream(world: ServerWorld) -> None:
    async with (
        anthropic.AsyncAnthropic(
            api_key=world.key, base_url=world.anthropic_url, max_retries=0
        ) as client,
        client.beta.messages.stream(model=MODEL, max_tokens=50, messages=[user("x")]) as stream,
    ):
        texts = [text async for text in stream.text_stream]
    assert "".join(texts) == "I see 1 messages. The last says: x"


def test_the_cache(client: anthropic.Anthropic) -> None:
    first = ask(client, user("a" * 400), cache_control={"type": "ephemeral"})
    assert first.usage.cache_creation_input_tokens == 100
    more = (user("a" * 400), said("b" * 40), user([MARK]))
    second = ask(client, *more)
    assert second.usage.cache_read_input_tokens == 100
    assert second.usage.cache_creation_input_tokens == 11
    assert second.usage.input_tokens == 0


REFUSED: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("first message must", [said("x"), user("y")], {}),
    ("at least one message", [], {}),
    ("does not support assistant message prefill", [user("x"), said("y")], {}),
    ("trailing whitespace", [user("x"), said("y ")], {}),
    ("non-empty", [user([{"type": "text", "text": ""}])], {}),
    ("non-whitespace", [user(" \n")], {}),
    ("must have non-empty content", [user("x"), said([]), user("y")], {}),
    ("messages.1: `tool_use` ids were found", [user("x"), said([CALL]), user("y")], {"tools": [ADD]}),
    ("unexpected `tool_use_id`", [user([RESULT])], {"tools": [ADD]}),
    ("multiple `tool_result`", [user("x"), said([CALL]), user([RESULT, RESULT])], {"tools": [ADD]}),
    ("must come first in a `user`",
     [user("x"), said([CALL]), user([{"type": "text", "text": "t"}, RESULT])], {"tools": [ADD]}),
    ("must define `tools`", [user("x"), said([CALL]), user([RESULT])], {}),
    ("should match pattern", [user("x"), said([CALL | {"id": "a b"}]), user("y")], {"tools": [ADD]}),
    ("should match pattern", [user("x")], {"tools": [ADD | {"name": "a.b"}]}),
    ("must be unique", [user("x")], {"tools": [ADD, ADD]}),
    ("Invalid `signature`", [user("x"), said([FORGED]), user("y")], {}),
    ("greater than or equal to 1024", [user("x")], {"thinking": ON | {"budget_tokens": 5}}),
    ("must be greater than `thinking", [user("x")], {"thinking": ON}),
    ("invalid base64", [user([IMAGE | {"source": IMAGE["source"] | {"data": "??"}}])], {}),
    ("does not support image", [user([IMAGE])], {"model": "claude-novision-1"}),
    ("does not support tools", [user("x")], {"tools": [ADD], "model": "claude-notools-1"}),
    ("does not support thinking", [user("x")],
     {"thinking": {"type": "adaptive"}, "model": "claude-nothinking-1"}),
    ("Found 5", [user([MARK] * 5)], {}),
    ("Found 5", [user([MARK] * 5)], {"cache_control": {"type": "ephemeral"}}),
    ("not_found_error", [user("x")], {"model": "gpt-5"}),
    ("not_found_error", [user("x")], {"model": "claude-unknown-1"}),
    ("Extra inputs are not permitted", [user("x") | {"name": "me"}], {}),
    ("temperature: Extra inputs", [user("x")], {"extra_body": {"temperature": 1}}),
    ("thread: Extra inputs", [user("x")], {"extra_body": {"thread": {"type": "create"}}}),
    ("media_type: Input should be", [user([IMAGE | {"source": IMAGE["source"] | {"media_type": "image/bmp"}}])], {}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "messages", "more"), REFUSED)
def test_what_is_refused(
    client: anthropic.Anthropic,
    world: ServerWorld,
    words: str,
    messages: list[Any],
    more: dict[str, Any],
) -> None:
    assert words in refusal(client, *messages, **more)
    assert len(world.state()["refused"]) == 1


def test_what_is_taken(client: anthropic.Anthropic) -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "aGk="}
    blocks = [IMAGE, {"type": "document", "source": pdf}, {"type": "text", "text": "last"}]
    assert "last" in ask(client, user(blocks)).content[0].text
    assert ask(client, user([MARK] * 4), cache_control={"type": "ephemeral"}).content
    both = ask(client, user("x"), {"role": "system", "content": "hush"})
    assert both.content[0].text == "I see 1 messages. The last says: x"


def test_a_context_too_long(client: anthropic.Anthropic, world: ServerWorld) -> None:
    world.set(max_input_tokens=10)
    assert "prompt is too long: 11 tokens > 10 maximum" in refusal(client, user("a" * 41))


def test_a_paused_turn_goes_on(client: anthropic.Anthropic, world: ServerWorld) -> None:
    world.reply({"text": "wait", "finish": "pause_turn"})
    paused = ask(client, user("x"))
    assert paused.stop_reason == "pause_turn"
    assert ask(client, user("x"), said(paused.content)).content


def test_counting_and_models(client: anthropic.Anthropic) -> None:
    count = client.messages.count_tokens(model=MODEL, messages=[user("a" * 9)])
    assert count.input_tokens == 3
    with pytest.raises(anthropic.BadRequestError, match="thread"):
        client.beta.messages.count_tokens(
            model=MODEL, messages=[user("x")], extra_body={"thread": {"type": "create"}}
        )
    assert len(list(client.models.list(limit=2))) == 4
    assert client.models.retrieve("claude-novision-9").id == "claude-novision-9"
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("nobody")


def test_a_bad_key(server: ProviderServer) -> None:
    world = server.world("bad-key")
    with (
        anthropic.Anthropic(api_key=world.key, base_url=world.anthropic_url) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        ask(client, user("x"))


# Faults

FAULTS: list[tuple[str, dict[str, Any], type[Exception]]] = [
    ("status", {"status": 403, "type": "permission_error"}, anthropic.PermissionDeniedError),
    ("status_after", {"status": 500}, anthropic.InternalServerError),
    ("cut_before", {}, anthropic.APIConnectionError),
    ("cut_after", {}, anthropic.APIConnectionError),
    ("rate_limit", {"retry_after": 7}, anthropic.RateLimitError),
    ("overloaded", {}, anthropic.InternalServerError),
    ("server_error", {}, anthropic.InternalServerError),
    ("garbage", {}, Exception),
    ("html", {"status": 502}, anthropic.InternalServerError),
    ("slow", {"seconds": 3}, anthropic.APITimeoutError),
]


@pytest.mark.parametrize(("kind", "options", "error"), FAULTS)
def test_faults(
    client: anthropic.Anthropic,
    world: ServerWorld,
    kind: str,
    options: dict[str, Any],
    error: type[Exception],
) -> None:
    world.fail("POST /v1/messages", kind, **options)
    with pytest.raises(error) as caught:
        ask(client.with_options(timeout=1), user("x"))
    if kind == "rate_limit":
        assert caught.value.response.headers["retry-after"] == "7"  # type: ignore[attr-defined]
    assert ask(client, user("x")).content


@pytest.mark.parametrize("work", [True, False])
def test_a_cut_stream_keeps_all_or_nothing(
    client: anthropic.Anthropic, world: ServerWorld, work: bool
) -> None:
    first = thread_turn(client, None, user("one"))
    world.fail("POST /v1/messages", "cut_stream", at=4, work=work)
    with (
        pytest.raises(Exception),  # noqa: B017, PT011 - httpx2's own errors come through
        client.beta.messages.stream(**turn(first.id, user("two")), betas=[THREADS]) as stream,
    ):
        stream.until_done()
    threads = world.state()["threads"]
    assert len(threads) == (2 if work else 1)
    assert bool(threads[first.id]["continued_by"]) is work
    assert threads[first.id]["in_flight"] is False


def test_a_stalled_stream(client: anthropic.Anthropic, world: ServerWorld) -> None:
    world.fail("POST /v1/messages", "stall_stream", at=3)
    with (
        pytest.raises(Exception),  # noqa: B017, PT011 - httpx2's own errors come through
        client.messages.stream(
            model=MODEL,
            max_tokens=9,
            messages=[user("x")],
            timeout=anthropic.Timeout(30, read=0.5),
        ) as stream,
    ):
        stream.until_done()
    assert world.state()["threads"] == {}


def test_an_error_in_the_stream(client: anthropic.Anthropic, world: ServerWorld) -> None:
    world.fail("POST /v1/messages", "stream_error", at=3)
    with (
        pytest.raises(anthropic.APIStatusError, match="Overloaded"),
        client.messages.stream(model=MODEL, max_tokens=9, messages=[user("x")]) as stream,
    ):
        stream.until_done()


# Threads


def turn(previous: str | None, *messages: Any, **more: Any) -> Any:
    thread = (
        {"type": "continue", "previous_message_id": previous} if previous else {"type": "create"}
    )
    given = {"model": MODEL, "max_tokens": 100, "messages": list(messages), "thread": thread}
    return given | more


def thread_turn(
    client: anthropic.Anthropic, previous: str | None, *messages: Any, **more: Any
) -> Any:
    return client.beta.messages.create(**turn(previous, *messages, **more), betas=[THREADS])


def test_a_thread(client: anthropic.Anthropic, world: ServerWorld) -> None:
    first = thread_turn(client, None, user("one"), system="s", tools=[ADD])
    second = thread_turn(client, first.id, user('call add {"a": 2}'))
    assert second.usage.cache_read_input_tokens > 0
    result = RESULT | {"tool_use_id": second.content[0].id}
    third = thread_turn(client, second.id, user([result]))
    assert third.content[0].text == "I see 5 messages. The last says: 3"
    kept = world.state()["threads"]
    assert len(kept[third.id]["messages"]) == 6
    assert kept[first.id]["continued_by"] == second.id
    with pytest.raises(ThreadAlreadyContinuedError):
        thread_turn(client, first.id, user("again"))
    with pytest.raises(ThreadNotFoundError):
        thread_turn(client, "msg_none", user("x"))


def test_what_a_thread_refuses(client: anthropic.Anthropic, world: ServerWorld) -> None:
    first = thread_turn(client, None, user("one"), system="s", tools=[ADD])
    with pytest.raises(ThreadFingerprintMismatchError):
        thread_turn(client, first.id, user("x"), system="other")
    with pytest.raises(anthropic.BadRequestError, match="may not be given"):
        thread_turn(client, first.id, user("x"), system="s")
    with pytest.raises(anthropic.BadRequestError, match="at least one message"):
        thread_turn(client, first.id)
    world.set(thread_unsupported=["thinking"])
    with pytest.raises(ThreadUnsupportedRequestError) as caught:
        thread_turn(client, None, user("x"), thinking={"type": "adaptive"})
    assert caught.value.details.unsupported == ["thinking"]
    assert thread_turn(client, first.id, user("two")).content


def test_a_thread_goes(client: anthropic.Anthropic, world: ServerWorld) -> None:
    first = thread_turn(client, None, user("one"))
    world.set(thread_ttl=0)
    with pytest.raises(ThreadNotFoundError):
        thread_turn(client, first.id, user("two"))
    world.set(thread_ttl=None)
    assert world.lose("thread", first.id) == 1
    with pytest.raises(ThreadNotFoundError):
        thread_turn(client, first.id, user("two"))


def test_a_continue_in_flight(client: anthropic.Anthropic, world: ServerWorld) -> None:
    first = thread_turn(client, None, user("one"))
    world.set(model_seconds=0.5)
    other = threading.Thread(target=thread_turn, args=(client, first.id, user("two")))
    other.start()
    while not world.state()["threads"][first.id]["in_flight"]:
        time.sleep(0.01)
    with pytest.raises(ThreadContinueInFlightError):
        thread_turn(client, first.id, user("three"))
    other.join()
    assert world.state()["threads"][first.id]["continued_by"]


def test_the_sdks_own_thread(client: anthropic.Anthropic, world: ServerWorld) -> None:
    thread = client.beta.messages.thread(model=MODEL, max_tokens=100, system="s")
    thread.send(user("one"))
    world.lose("thread")
    assert thread.send(user("two")).content[0].text == "I see 3 messages. The last says: two"
    world.reply({"refusal": "no"})
    thread.send(user("three"))
    with thread.stream(user("four")) as stream:
        assert "I see 5 messages" in stream.get_final_text()
    world.reply({"text": "wait", "finish": "pause_turn"}, {"text": " done"})
    thread.send(user("five"))
    assert thread.send().content[0].text == " done"
    assert thread.send(user("six")).content[0].text == "I see 9 messages. The last says: six"


def test_a_server_that_ignores_threads(client: anthropic.Anthropic, world: ServerWorld) -> None:
    world.set(ignores_threads=True)
    first = thread_turn(client, None, user("one"))
    second = thread_turn(client, first.id, user("two"))
    assert second.content[0].text == "I see 1 messages. The last says: two"
    assert (second.usage.input_tokens, second.usage.cache_read_input_tokens) == (1, 0)
    assert world.state()["threads"] == {}


# Managed agents


def told(text: str) -> Any:
    return {"type": "user.message", "content": [{"type": "text", "text": text}]}


def new_session(client: anthropic.Anthropic, **more: Any) -> str:
    agent = client.beta.agents.create(model=MODEL, name="a", tools=[CUSTOM])
    environment = client.beta.environments.create(name="e")
    given: Any = {"agent": agent.id, "environment_id": environment.id} | more
    return client.beta.sessions.create(**given).id


def run(client: anthropic.Anthropic, session: str, *events: Any) -> list[Any]:
    """Send events and read the stream until the agent is idle."""
    seen = []
    with client.beta.sessions.events.stream(session) as stream:
        client.beta.sessions.events.send(session, events=list(events))
        for event in stream:
            seen.append(event)
            if event.type == "session.status_idle":
                break
    return seen


def test_a_turn_of_a_session(client: anthropic.Anthropic, world: ServerWorld) -> None:
    session = new_session(client)
    world.set(reasoning=True)
    kinds = [event.type for event in run(client, session, told("hello"))]
    assert kinds == [
        "user.message", "session.status_running", "span.model_request_start", "agent.thinking",
        "agent.message", "span.model_request_end", "session.status_idle",
    ]  # fmt: skip
    seen = run(client, session, told("again"))
    assert seen[4].content[0].text == "I see 3 messages. The last says: again"
    assert seen[5].model_usage.cache_read_input_tokens > 0
    assert seen[-1].stop_reason.type == "end_turn"
    listed = list(client.beta.sessions.events.list(session, limit=3, types=["agent.message"]))
    assert len(listed) == 2
    assert len(list(client.beta.sessions.events.list(session, limit=4))) == 14


def test_a_session_waits_for_a_tool(client: anthropic.Anthropic) -> None:
    session = new_session(client)
    idle = run(client, session, told('call add {"a": 1}'))[-1]
    (wanted,) = idle.stop_reason.event_ids
    with pytest.raises(anthropic.BadRequestError, match="waiting on responses"):
        run(client, session, told("x"))
    answer = {"type": "user.custom_tool_result", "custom_tool_use_id": wanted}
    answer["content"] = [{"type": "text", "text": "3"}]
    seen = run(client, session, answer)
    assert seen[3].content[0].text == "I see 3 messages. The last says: 3"
    with pytest.raises(anthropic.BadRequestError, match="no pending"):
        run(client, session, answer)


def test_several_tools_and_a_partial_answer(
    client: anthropic.Anthropic, world: ServerWorld
) -> None:
    session = new_session(client)
    world.reply({"tool_calls": [{"name": "add"}, {"name": "add"}]})
    first, second = run(client, session, told("x"))[-1].stop_reason.event_ids
    result = {"type": "user.custom_tool_result", "custom_tool_use_id": first}
    assert run(client, session, result)[-1].stop_reason.event_ids == [second]
    kinds = [e.type for e in run(client, session, result | {"custom_tool_use_id": second})]
    assert "agent.message" in kinds


def test_an_interrupt(client: anthropic.Anthropic, world: ServerWorld) -> None:
    session = new_session(client)
    world.set(agent_delay=30)
    client.beta.sessions.events.send(session, events=[told("long")])
    assert client.beta.sessions.retrieve(session).status == "running"
    with pytest.raises(anthropic.BadRequestError, match="is running"):
        client.beta.sessions.archive(session)
    kinds = [e.type for e in run(client, session, {"type": "user.interrupt"})]
    assert kinds == ["user.interrupt", "span.model_request_end", "session.status_idle"]
    world.set(agent_delay=0)
    assert "I see 2 messages" in run(client, session, told("short"))[3].content[0].text


def test_replayed_events_and_the_first_ones(
    client: anthropic.Anthropic, world: ServerWorld
) -> None:
    session = new_session(client, initial_events=[told("first")], metadata={"k": "v"}, title="t")
    while client.beta.sessions.retrieve(session).status == "running":
        time.sleep(0.01)
    world.set(replays_events=True)
    with client.beta.sessions.events.stream(session) as stream:
        old = [event.type for event in itertools.islice(stream, 6)]
    assert (old[0], old[-1]) == ("user.message", "session.status_idle")
    shape: Any = {"agent": "agent_none", "environment_id": "env_none"}
    with pytest.raises(anthropic.BadRequestError, match="at most 50"):
        new_session(client, initial_events=[told("x")] * 51)
    with pytest.raises(anthropic.NotFoundError):
        client.beta.sessions.create(**shape)


def test_a_refused_and_a_broken_run(client: anthropic.Anthropic, world: ServerWorld) -> None:
    session = new_session(client)
    world.reply({"refusal": "no"}, {"finish": "retries_exhausted", "text": ""})
    refused = run(client, session, told("x"))[-1]
    assert (refused.stop_reason.type, refused.stop_details.explanation) == ("refusal", "no")
    broken = run(client, session, told("y"))
    assert broken[-2].type == "session.error"
    assert broken[-1].stop_reason.type == "retries_exhausted"
    world.reply({"finish": "terminated", "text": ""})
    with client.beta.sessions.events.stream(session) as stream:
        client.beta.sessions.events.send(session, events=[told("z")])
        assert [event.type for event in stream][-1] == "session.status_terminated"


def test_sessions_and_agents_are_kept(client: anthropic.Anthropic, world: ServerWorld) -> None:
    session = new_session(client, metadata={"k": "v"})
    sessions = client.beta.sessions
    updated: Any = {"title": "new", "metadata": {"k": None, "l": "w"}}
    assert sessions.update(session, **updated).metadata == {"l": "w"}
    other = new_session(client)
    assert [one.id for one in sessions.list(limit=1)] == [other, session]
    sessions.archive(session)
    assert [one.id for one in sessions.list()] == [other]
    with pytest.raises(anthropic.BadRequestError, match="archived"):
        sessions.events.send(session, events=[told("x")])
    assert sessions.delete(session).type == "session_deleted"
    with pytest.raises(anthropic.NotFoundError):
        sessions.events.list(session)
    assert world.lose("session") == 1
    with pytest.raises(anthropic.NotFoundError):
        sessions.retrieve(other)
    agents = client.beta.agents
    agent = agents.list().data[0]
    assert agents.update(agent.id, name="b").version == 2
    assert agents.retrieve(agent.id, version=1).name == "a"
    assert agents.archive(agent.id).archived_at
    assert len(agents.list().data) == 1
    assert len(client.beta.environments.list().data) == 2
    environment = client.beta.environments.list().data[0]
    assert client.beta.environments.retrieve(environment.id).config.type == "cloud"

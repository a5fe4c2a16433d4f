"""The stand-in for OpenAI, asked with the real SDK."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI, OpenAI, Timeout
from openai import APIError as OpenAIError
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.conversations import ConversationItem
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from .client import ProviderServer, ServerWorld

MODEL = "gpt-6-astra"
USER = {"role": "user", "content": "hello"}
CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "3"}
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": False}
PNG = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture(scope="module")
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


@pytest.fixture
def world(server: ProviderServer) -> ServerWorld:
    return server.world()


@pytest.fixture
def api(world: ServerWorld) -> Iterator[Any]:
    client = OpenAI(api_key=world.key, base_url=world.openai_url, max_retries=0, timeout=10)
    with client as one:
        yield one


def ask(api: Any, given: Any = "hello", **options: Any) -> Any:
    return api.responses.create(**({"model": MODEL, "input": given} | options))


def refused(call: Any, status: int = 400) -> APIStatusError:
    with pytest.raises(APIStatusError) as caught:
        call()
    assert caught.value.status_code == status, caught.value
    return caught.value


def items_of(api: Any, id_: str, **options: Any) -> list[Any]:
    return list(api.conversations.items.list(id_, order="asc", **options))


# The process


def test_the_server_ends_with_its_parent(tmp_path: Path) -> None:
    code = "from provider_server.client import ProviderServer as P; s = P().start(); print(s.port)"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True)
    port = int(done.stdout)
    deadline = time.monotonic() + 5
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            break
        assert time.monotonic() < deadline


# Conversations


def test_a_conversation_is_made_changed_and_deleted(api: Any, world: ServerWorld) -> None:
    made = api.conversations.create(items=[USER], metadata={"session": "s1"})
    assert api.conversations.retrieve(made.id).metadata == {"session": "s1"}
    assert api.conversations.update(made.id, metadata={"a": "b"}).metadata == {"a": "b"}
    assert api.conversations.delete(made.id).deleted
    gone = refused(lambda: api.conversations.retrieve(made.id), 404)
    assert f"Conversation with id '{made.id}' not found." in gone.message
    assert [item["content"][0]["text"] for item in world.state()["orphan_items"]] == ["hello"]


def test_metadata_and_chunks_have_limits(api: Any, world: ServerWorld) -> None:
    create = api.conversations.create
    refused(lambda: create(metadata={"a": "x" * 513}))
    refused(lambda: create(metadata={"a" * 65: "x"}))
    refused(lambda: create(metadata={f"k{n}": "x" for n in range(17)}))
    assert refused(lambda: create(items=[USER] * 21)).code == "array_above_max_length"
    made = create(items=[USER] * 20, metadata={"a" * 64: "x" * 512})
    refused(lambda: api.conversations.items.create(made.id, items=[USER] * 21))
    assert len(world.state()["refused"]) == 5


def test_items_are_listed_retrieved_and_deleted(api: Any) -> None:
    made = api.conversations.create()
    texts = [f"m{n}" for n in range(45)]
    for start in range(0, 45, 20):
        chunk = [{"role": "user", "content": text} for text in texts[start : start + 20]]
        api.conversations.items.create(made.id, items=chunk)
    first = api.conversations.items.list(made.id)
    assert len(first.data) == 20
    assert first.has_more
    assert first.data[0].content[0].text == "m44"
    everything = items_of(api, made.id)
    assert [item.content[0].text for item in everything] == texts
    refused(lambda: api.conversations.items.list(made.id, limit=101))
    one = api.conversations.items.retrieve(everything[3].id, conversation_id=made.id)
    assert one.content[0].text == "m3"
    api.conversations.items.delete(one.id, conversation_id=made.id)
    assert len(items_of(api, made.id, limit=100)) == 44
    refused(lambda: api.conversations.items.retrieve(one.id, conversation_id=made.id), 404)


def test_an_item_comes_once_in_a_conversation(api: Any) -> None:
    made = api.conversations.create(items=[{"type": "message", "id": "msg_1", **_said("x")}])
    again = {"type": "message", "id": "msg_1", **_said("x")}
    error = refused(lambda: api.conversations.items.create(made.id, items=[again]))
    assert "Duplicate item found with id msg_1" in error.message


def _said(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"role": "assistant", "status": "completed", "content": [part]}


def test_a_chunk_that_is_stored_in_part(api: Any, world: ServerWorld) -> None:
    made = api.conversations.create()
    world.fail("POST /v1/conversations/*/items", "cut_after", stored=2)
    with pytest.raises(APIConnectionError):
        api.conversations.items.create(made.id, items=[USER] * 5)
    assert len(items_of(api, made.id)) == 2


def test_things_get_lost(api: Any, world: ServerWorld) -> None:
    made = api.conversations.create(items=[USER, USER])
    item = items_of(api, made.id)[0]
    assert world.lose("item", item.id) == 1
    assert len(items_of(api, made.id)) == 1
    assert world.lose("conversation") == 1
    refused(lambda: ask(api, conversation=made.id), 404)


# Responses


def test_a_conversation_remembers(api: Any) -> None:
    made = api.conversations.create(items=[USER, {"role": "assistant", "content": "hi"}])
    first = ask(api, "one", conversation=made.id)
    assert first.output_text == "I see 3 messages. The last says: one"
    second = ask(api, "two", conversation={"id": made.id}, instructions="be brief")
    assert second.output_text == "I see 5 messages. The last says: two"
    assert second.usage.input_tokens > first.usage.input_tokens
    assert first.conversation.id == made.id
    assert len(items_of(api, made.id)) == 6


def test_cached_tokens_are_those_sent_before(api: Any) -> None:
    made = api.conversations.create()
    first = ask(api, "x" * 400, conversation=made.id)
    second = ask(api, "y" * 400, conversation=made.id)
    assert first.usage.input_tokens_details.cached_tokens == 0
    assert first.usage.input_tokens == 100
    assert second.usage.input_tokens_details.cached_tokens == 100


def test_responses_follow_each_other(api: Any) -> None:
    first = ask(api, "one")
    second = ask(api, "two", previous_response_id=first.id)
    assert second.output_text.startswith("I see 3 messages")
    assert api.responses.retrieve(second.id).output_text == second.output_text
    assert api.responses.input_items.list(second.id).data[0].content[0].text == "two"
    api.responses.delete(first.id)
    refused(lambda: api.responses.retrieve(first.id), 404)
    error = refused(lambda: ask(api, previous_response_id=first.id))
    assert error.code == "previous_response_not_found"
    made = api.conversations.create()
    refused(lambda: ask(api, previous_response_id=second.id, conversation=made.id))
    unstored = ask(api, "three", store=False)
    refused(lambda: api.responses.retrieve(unstored.id), 404)


def test_two_at_once_on_a_conversation(api: Any, world: ServerWorld) -> None:
    made = api.conversations.create()
    world.set(model_seconds=0.5)
    slow = threading.Thread(target=ask, args=(api, "one"), kwargs={"conversation": made.id})
    slow.start()
    deadline = time.monotonic() + 5
    while not world.state()["conversations"][made.id]["busy"]:
        assert time.monotonic() < deadline
    assert refused(lambda: ask(api, conversation=made.id)).code == "conversation_locked"
    slow.join()
    world.set(model_seconds=None)
    ask(api, conversation=made.id)


def test_tools_are_called_and_answered(api: Any) -> None:
    made = api.conversations.create()
    first = ask(api, 'call add {"a": 1}', conversation=made.id, tools=[TOOL])
    call = first.output[0]
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "add", {"a": 1})
    error = refused(lambda: ask(api, conversation=made.id))
    assert error.message.endswith(f"No tool output found for function call {call.call_id}.")
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "3"}
    assert ask(api, [output], conversation=made.id).output_text.endswith("The last says: 3")
    error = refused(lambda: ask(api, [OUTPUT]))
    assert "No tool call found for function call output with call_id c1." in error.message


@pytest.mark.parametrize(
    "bad",
    [
        USER | {"extra": 1},
        USER | {"content": None},
        {"role": "user", "content": [{"type": "output_text", "text": "x"}]},
        {"role": "assistant", "content": [{"type": "input_text", "text": "x"}]},
        {"role": "user", "content": [{"type": "input_image", "image_url": "nowhere"}]},
        {"role": "user", "content": [{"type": "input_image", "detail": "auto"}]},
        CALL | {"call_id": "c" * 65},
        CALL | {"name": "a b"},
        CALL | {"name": "a" * 65},
        CALL | {"arguments": "{"},
        CALL | {"status": None},
        CALL | {"id": "abc"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "status": None},
        {"type": "web_search_call", "status": "completed", "action": {"type": "search"}},
    ],
)
def test_wrong_items_are_refused(api: Any, bad: dict[str, Any]) -> None:
    refused(lambda: ask(api, [bad, OUTPUT] if bad.get("call_id") else [bad]))
    refused(lambda: api.conversations.create(items=[bad]))


def test_wrong_requests_are_refused(api: Any) -> None:
    refused(lambda: ask(api, []))
    refused(lambda: ask(api, ""))
    refused(lambda: ask(api, extra_body={"colour": "blue"}))
    refused(lambda: ask(api, include=["everything"]))
    refused(lambda: ask(api, tools=[TOOL | {"name": "a b"}]))
    refused(lambda: ask(api, model="unknown-1"), 404)
    refused(lambda: ask(api, model="notools-1", tools=[TOOL]))
    refused(lambda: ask(api, model="noreason-1", reasoning={"effort": "low"}))
    image = {"role": "user", "content": [{"type": "input_image", "image_url": PNG}]}
    refused(lambda: ask(api, [image], model="novision-1"))
    assert ask(api, [image]).usage.input_tokens > 50
    refused(lambda: api.get("/threads/thread_1", cast_to=object), 404)


def test_reasoning_needs_its_partner_and_its_model(api: Any, world: ServerWorld) -> None:
    world.set(reasoning=True)
    options = {"store": False, "include": ["reasoning.encrypted_content"]}
    first = ask(api, "one", **options)
    reasoning, message = (item.to_dict(mode="json") for item in first.output)
    assert reasoning["summary"][0]["text"] == "Thinking about: one"
    assert first.usage.output_tokens_details.reasoning_tokens
    history = [USER, reasoning, message, USER]
    assert ask(api, history, **options).output_text.startswith("I see 3")
    error = refused(lambda: ask(api, [USER, reasoning, USER]))
    assert "without its required following item" in error.message
    assert refused(lambda: ask(api, history, model="other")).code == "invalid_encrypted_content"
    error = refused(lambda: ask(api, history, model="noreason-1"))
    assert "can only be provided to a reasoning" in error.message
    del reasoning["encrypted_content"]
    assert "not found" in refused(lambda: ask(api, [reasoning, message, USER]), 404).message
    kept = ask(api, "stored")
    again = [item.to_dict(mode="json") for item in kept.output] + [USER]
    ask(api, again)
    assert refused(lambda: ask(api, again, model="other")).code == "invalid_encrypted_content"
    alone = kept.output[1].to_dict(mode="json")
    assert "required 'reasoning' item" in refused(lambda: ask(api, [alone, USER])).message


def test_encrypted_content_is_shown_where_asked_for(api: Any, world: ServerWorld) -> None:
    world.set(reasoning=True)
    made = api.conversations.create()
    ask(api, conversation=made.id)
    assert items_of(api, made.id)[1].encrypted_content is None
    include = ["reasoning.encrypted_content"]
    assert items_of(api, made.id, include=include)[1].encrypted_content
    assert "invalid_encrypted_content" in str(
        refused(lambda: ask(api, conversation=made.id, model="other")).code
    )
    world.set(stored_reasoning="drop")
    assert ask(api, conversation=made.id, model="other").status == "completed"


def test_compaction_begins_the_context_anew(api: Any) -> None:
    made = api.conversations.create()
    ask(api, "x" * 4000, conversation=made.id)
    rule = [{"type": "compaction", "compact_threshold": 500}]
    second = ask(api, "two", conversation=made.id, context_management=rule)
    assert [item.type for item in second.output] == ["compaction", "message"]
    third = ask(api, "three", conversation=made.id, context_management=rule)
    assert third.usage.input_tokens < 100
    assert [item.type for item in third.output] == ["message"]


def test_scripted_replies(api: Any, world: ServerWorld) -> None:
    made = api.conversations.create()
    search = {"type": "web_search_call", "status": "completed"}
    search |= {"action": {"type": "search", "query": "q"}}
    world.reply(
        {"text": "found", "items": [search], "usage": {"output_tokens": 77}},
        {"refusal": "no"},
        {"text": "half", "finish": "length"},
        {"finish": "failed", "error": {"message": "broken"}},
        {"tool_calls": [{"name": "add", "arguments": {"a": 1}, "id": "c9"}]},
    )
    first = ask(api, conversation=made.id)
    assert [item.type for item in first.output] == ["web_search_call", "message"]
    assert first.usage.output_tokens == 77
    assert ask(api).output[0].content[0].refusal == "no"
    short = ask(api, conversation=made.id)
    assert (short.status, short.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    before = len(items_of(api, made.id))
    failed = ask(api, conversation=made.id)
    assert (failed.status, failed.error.message) == ("failed", "broken")
    assert len(items_of(api, made.id)) == before
    assert ask(api).output[0].call_id == "c9"
    assert ask(api, max_output_tokens=2).status == "incomplete"


def test_streams_have_the_vendors_events(api: Any, world: ServerWorld) -> None:
    made = api.conversations.create()
    world.reply({"reasoning": "hm", "text": "a b"}, {"refusal": "no"}, {"finish": "failed"})
    world.reply({"tool_calls": [{"name": "add", "arguments": {"a": 1}}]})
    kinds: list[list[str]] = []
    for _ in range(4):
        events = list(ask(api, conversation=made.id, stream=True))
        assert [event.sequence_number for event in events] == list(range(len(events)))
        kinds.append([event.type.removeprefix("response.") for event in events])
    thought = ["reasoning_summary_part.added", "reasoning_summary_text.delta"]
    thought += ["reasoning_summary_text.done", "reasoning_summary_part.done"]
    text = ["content_part.added", "output_text.delta", "output_text.delta", "output_text.done"]
    begin, item = ["created", "in_progress"], ["output_item.added"]
    assert kinds[0] == [
        *begin, *item, *thought, "output_item.done",
        *item, *text, "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert {"refusal.delta", "refusal.done"} <= set(kinds[1])
    assert kinds[2] == [*begin, "failed"]
    assert "function_call_arguments.done" in kinds[3]
    assert len(items_of(api, made.id)) == 7
    with pytest.raises(APIStatusError, match="No tool output"):
        ask(api, conversation=made.id, stream=True)


async def test_the_async_client_streams(world: ServerWorld) -> None:
    async with (
        AsyncOpenAI(api_key=world.key, base_url=world.openai_url) as api,
        api.responses.stream(model=MODEL, input="hello") as stream,
    ):
        final = await stream.get_final_response()
    assert final.output_text == "I see 1 messages. The last says: hello"


def test_all_that_is_sent_is_of_the_sdks_types(api: Any, world: ServerWorld) -> None:
    world.set(reasoning=True)
    include = ["reasoning.encrypted_content"]
    calls = {"text": "hi", "tool_calls": [{"name": "add", "arguments": {"a": 1}}]}
    made = api.conversations.create(items=[USER])
    for script in ({"text": "hi"}, {"refusal": "no"}, {"finish": "length"}, calls):
        world.reply(script)
        options = {"tools": [TOOL], "include": include, "conversation": made.id}
        for event in ask(api, stream=True, **options):
            adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
            adapter.validate_python(event.to_dict(mode="json"))
    for item in items_of(api, made.id, include=include):
        TypeAdapter(ConversationItem).validate_python(item.to_dict(mode="json"))
    world.reply(calls, calls)
    ChatCompletion.model_validate(chat(api, USER).to_dict(mode="json"))
    for chunk in chat(api, USER, stream=True, stream_options={"include_usage": True}):
        ChatCompletionChunk.model_validate(chunk.to_dict(mode="json"))


# Chat completions


def chat(api: Any, *messages: Any, **options: Any) -> Any:
    return api.chat.completions.create(
        model=options.pop("model", MODEL), messages=list(messages), **options
    )


CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
CHAT_TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALLED = {"role": "assistant", "tool_calls": [CHAT_CALL]}
ANSWERED = {"role": "tool", "tool_call_id": "c1", "content": "3"}


def test_chat_completions(api: Any, world: ServerWorld) -> None:
    reply = chat(api, {"role": "system", "content": "be brief"}, USER)
    assert reply.choices[0].message.content == "I see 1 messages. The last says: hello"
    assert reply.usage.prompt_tokens == 4
    reply = chat(api, USER | {"content": "call add {}"}, tools=[CHAT_TOOL])
    assert reply.choices[0].finish_reason == "tool_calls"
    assert reply.choices[0].message.tool_calls[0].function.name == "add"
    assert chat(api, USER, CALLED, ANSWERED).choices[0].message.content.endswith(": 3")
    world.reply({"refusal": "no", "reasoning": "hm"}, {"text": "a", "finish": "length"})
    reply = chat(api, USER)
    assert reply.choices[0].message.refusal == "no"
    assert reply.usage.completion_tokens_details.reasoning_tokens == 1
    assert chat(api, USER).choices[0].finish_reason == "length"


def test_chat_streams(api: Any, world: ServerWorld) -> None:
    world.reply({"text": "a b c", "tool_calls": [{"name": "add", "arguments": {"a": "x" * 20}}]})
    chunks = list(chat(api, USER, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == "a b c"
    calls = [c.choices[0].delta.tool_calls[0] for c in chunks[:-1] if c.choices[0].delta.tool_calls]
    assert json.loads("".join(call.function.arguments for call in calls)) == {"a": "x" * 20}
    assert (calls[0].function.name, chunks[-2].choices[0].finish_reason) == ("add", "tool_calls")
    assert chunks[-1].usage.total_tokens


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [USER | {"name": "a b"}],
        [USER | {"extra": 1}],
        [{"role": "assistant"}],
        [{"role": "assistant", "content": None}],
        [{"role": "assistant", "content": "x", "tool_calls": []}],
        [{"role": "assistant", "content": "x", "tool_calls": None}],
        [ANSWERED],
        [CALLED, USER],
        [CALLED],
        [CALLED, ANSWERED, ANSWERED],
        [{"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "captain", "content": "x"}],
    ],
)
def test_wrong_messages_are_refused(api: Any, messages: list[Any]) -> None:
    refused(lambda: chat(api, *messages))


def test_a_compatible_server_has_less(api: Any, world: ServerWorld) -> None:
    world.set(compat=True)
    usage = chat(api, USER).usage
    assert usage.prompt_tokens_details is None
    assert usage.completion_tokens_details is None
    refused(lambda: ask(api), 404)
    refused(api.conversations.create, 404)


def test_models_and_keys(api: Any, server: ProviderServer) -> None:
    assert MODEL in [model.id for model in api.models.list()]
    assert api.models.retrieve("gpt-9").id == "gpt-9"
    assert refused(lambda: api.models.retrieve("unknown-2"), 404).code == "model_not_found"
    bad = server.world("bad-key")
    with OpenAI(api_key=bad.key, base_url=bad.openai_url, max_retries=0) as client:
        assert refused(lambda: ask(client), 401).code == "invalid_api_key"
    assert "bad-key" not in json.dumps(bad.requests())


# Faults

ON = "POST /v1/responses"


def turns(world: ServerWorld, id_: str) -> int:
    return len(world.state()["conversations"][id_]["items"]) // 2


@pytest.mark.parametrize(
    ("kind", "options", "status", "done"),
    [
        ("status", {"status": 418, "code": "teapot"}, 418, 0),
        ("status_after", {"status": 502}, 502, 1),
        ("rate_limit", {"retry_after": 7}, 429, 0),
        ("overloaded", {}, 503, 0),
        ("server_error", {}, 500, 0),
        ("conversation_locked", {}, 400, 0),
    ],
)
def test_faults_with_a_status(
    api: Any, world: ServerWorld, kind: str, options: dict[str, Any], status: int, done: int
) -> None:
    made = api.conversations.create()
    world.fail(ON, kind, **options)
    error = refused(lambda: ask(api, conversation=made.id), status)
    assert turns(world, made.id) == done
    if kind == "rate_limit":
        assert error.response.headers["retry-after"] == "7"
    if kind == "conversation_locked":
        assert error.code == kind
    ask(api, conversation=made.id)
    assert [(one["status"], one["fault"]) for one in world.requests(ON)] == [
        (status, kind),
        (200, None),
    ]


@pytest.mark.parametrize(("kind", "done"), [("cut_before", 0), ("cut_after", 1)])
def test_connections_are_dropped(api: Any, world: ServerWorld, kind: str, done: int) -> None:
    made = api.conversations.create()
    world.fail(ON, kind)
    with pytest.raises(APIConnectionError):
        ask(api, conversation=made.id)
    assert turns(world, made.id) == done
    assert world.requests(ON)[0]["status"] is None


@pytest.mark.parametrize("work", [True, False])
@pytest.mark.parametrize("at", [0, 4, 15])
def test_streams_are_dropped(api: Any, world: ServerWorld, work: bool, at: int) -> None:
    made = api.conversations.create()
    world.fail(ON, "cut_stream", at=at, work=work)
    seen = []
    with pytest.raises(APIConnectionError):
        for event in ask(api, conversation=made.id, stream=True):
            seen.append(event.type)
    assert len(seen) == at
    assert "response.completed" not in seen
    deadline = time.monotonic() + 5
    while world.state()["conversations"][made.id]["busy"]:
        assert time.monotonic() < deadline
    assert turns(world, made.id) == work


def test_streams_fail_and_stall(api: Any, world: ServerWorld) -> None:
    made = api.conversations.create()
    world.fail(ON, "stream_error", at=5)
    *_, last = ask(api, conversation=made.id, stream=True)
    assert (last.type, last.code, last.sequence_number) == ("error", "server_error", 5)
    world.fail(ON, "stream_error", at=5, nested=True, message="overloaded")
    with pytest.raises(OpenAIError, match="overloaded"):
        list(ask(api, conversation=made.id, stream=True))
    world.fail("POST /v1/chat/completions", "stream_error", at=2)
    with pytest.raises(OpenAIError):
        list(chat(api, USER, stream=True))
    world.fail(ON, "stall_stream", at=3)
    with pytest.raises(APITimeoutError):
        list(ask(api, conversation=made.id, stream=True, timeout=Timeout(30, read=0.5)))
    assert turns(world, made.id) == 0
    ask(api, conversation=made.id)


def test_answers_are_slow_or_no_answers(api: Any, world: ServerWorld) -> None:
    world.fail(ON, "slow", seconds=2)
    with pytest.raises(APITimeoutError):
        ask(api, timeout=Timeout(30, read=0.5))
    world.fail(ON, "slow", each=0.02)
    start = time.monotonic()
    assert len(list(ask(api, stream=True))) > 10
    assert time.monotonic() - start > 0.2
    world.fail(ON, "garbage")
    with pytest.raises(Exception, match=r".+"):
        ask(api)
    world.fail(ON, "html")
    answer = ask(api)
    assert "Bad Gateway" in str(answer)


def test_faults_wait_and_repeat(api: Any, world: ServerWorld) -> None:
    world.fail("* /v1/models/*", "server_error", times=2, after=1)
    api.models.retrieve("a")
    refused(lambda: api.models.retrieve("a"), 500)
    refused(lambda: api.models.retrieve("a"), 500)
    api.models.retrieve("a")
    api.models.list()
    with pytest.raises(RuntimeError, match="no such fault"):
        world.fail("*", "meteor")

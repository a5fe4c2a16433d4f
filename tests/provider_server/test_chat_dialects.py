"""The stand-in's dialects of Chat Completions, asked with OpenAI's SDK."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openai import APIStatusError, OpenAI

from .chat_dialects import DIALECTS
from .client import ProviderServer, ServerWorld

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
Connect = Callable[..., tuple[Any, ServerWorld]]


@pytest.fixture(scope="module")
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


@pytest.fixture
def connect(server: ProviderServer) -> Iterator[Connect]:
    clients = []

    def make(chat: str, **settings: Any) -> tuple[Any, ServerWorld]:
        world = server.world(chat=chat, **settings)
        clients.append(OpenAI(api_key=world.key, base_url=world.openai_url, max_retries=0))
        return clients[-1], world

    yield make
    for client in clients:
        client.close()


def user(text: str = "hello") -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str | None = "yes", *calls: Any, **more: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text} | more
    return message | ({"tool_calls": list(calls)} if calls else {})


def call(id_: str = "abcdefghi", **more: Any) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": "add", "arguments": "{}"}} | more


def result(id_: str = "abcdefghi") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_, "content": "3"}


SYSTEM = {"role": "system", "content": "Be brief."}
DEVELOPER = SYSTEM | {"role": "developer"}
LOOP = [user(), said(None, call()), result()]
SIGNED = call(extra_content={"google": {"thought_signature": "s"}})


def ask(client: Any, messages: list[Any], **more: Any) -> Any:
    given = {"model": "some-model", "messages": messages, "tools": [TOOL]} | more
    return client.chat.completions.create(**given)


REFUSED: list[tuple[str, list[Any], dict[str, Any], str]] = [
    ("deepseek-v4", LOOP, {}, "must be passed back"),
    ("deepseek-v4", [user(), said(None, call(), reasoning_content=None), result()], {}, "must be passed"),
    ("deepseek-v4", [DEVELOPER, user()], {}, "unknown variant `developer`"),
    ("deepseek-reasoner", [user(), said(reasoning_content="a"), user()], {}, "not allowed"),
    ("deepseek-reasoner", [user(), user()], {}, "successive user or assistant"),
    ("kimi", LOOP, {}, "reasoning_content is missing in assistant tool call message at index 1"),
    ("mistral", [*LOOP, user()], {}, "Unexpected role 'user' after role 'tool'"),
    ("mistral", [user(), said(), SYSTEM, user()], {}, "Unexpected role 'system' after role 'assistant'"),
    ("mistral", [user(), said(None, call("call_1")), result("call_1")], {}, "must be a-z, A-Z, 0-9"),
    ("mistral", [user(), said()], {}, "Expected last role User or Tool"),
    ("mistral", [user()], {"stream_options": {"include_usage": True}, "stream": True}, "Extra inputs"),
    ("mistral", [user(), said(reasoning_content="a"), user()], {}, "extra_forbidden"),
    ("gemini-openai", LOOP, {}, "missing a thought_signature"),
    ("gemini-openai", [user()], {"prompt_cache_key": "k"}, "Unknown name \"prompt_cache_key\""),
    ("gemini-openai", [user(), said(), said(None, SIGNED), result()], {}, "comes immediately after"),
    ("groq", [user(), said(reasoning_content="a"), user()], {}, "property 'reasoning_content' is unsupported"),
    ("fireworks", [user(), said(reasoning="a"), user()], {}, "messages[1].reasoning"),
    ("vllm-qwen", [user(), SYSTEM, user()], {}, "System message must be at the beginning"),
    ("vllm-qwen", [SYSTEM, SYSTEM, user()], {}, "System message must be at the beginning"),
    ("llamacpp-qwen", [SYSTEM], {}, "No user query found"),
    ("vllm-gemma", [user(), user()], {}, "Conversation roles must alternate"),
    ("vllm-gemma", [said(), user()], {}, "Conversation roles must alternate"),
    ("llamacpp-mistral", [SYSTEM, user(), user()], {}, "After the optional system message"),
    ("litellm", [user()], {"parallel_tool_calls": True}, "UnsupportedParamsError"),
]  # fmt: skip


@pytest.mark.parametrize(("chat", "messages", "more", "words"), REFUSED)
def test_what_a_server_refuses(
    connect: Connect, chat: str, messages: list[Any], more: dict[str, Any], words: str
) -> None:
    client, world = connect(chat)
    with pytest.raises(APIStatusError) as caught:
        ask(client, messages, **more)
    assert caught.value.status_code in {400, 422}
    assert words in caught.value.response.text.replace('\\"', '"')
    assert len(world.refused()) == 1


TAKEN: list[tuple[str, list[Any]]] = [
    ("deepseek-v4", [user(), said("", call(), reasoning_content=""), result()]),
    ("deepseek-v4", [SYSTEM, user(), said(), user()]),
    ("deepseek-reasoner", [SYSTEM, user(), said(), user()]),
    ("kimi", [user(), said("", call(), reasoning_content="a"), result()]),
    ("mistral", [SYSTEM, *LOOP, said(), user()]),
    ("mistral", [user(), said([{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}]), user()]),  # type: ignore[arg-type]
    ("gemini-openai", [user(), said(None, SIGNED), result()]),
    ("gemini-openai", [*LOOP, said(), user()]),
    ("groq", [user(), said(reasoning="a"), user()]),
    ("openrouter", [user(), said(reasoning="a", reasoning_details=[]), user()]),
    ("vllm-qwen", [SYSTEM, *LOOP, user()]),
    ("vllm-gemma", [SYSTEM, user(), said(), user()]),
    ("llamacpp-mistral", [SYSTEM, *LOOP, said(), user()]),
    *((name, [user()]) for name in DIALECTS),
]  # fmt: skip


@pytest.mark.parametrize(("chat", "messages"), TAKEN)
def test_what_a_server_takes(connect: Connect, chat: str, messages: list[Any]) -> None:
    client, world = connect(chat)
    assert ask(client, messages).choices[0].message.content
    assert world.refused() == []


@pytest.mark.parametrize("chat", [name for name, one in DIALECTS.items() if one.reasoning])
def test_reasoning_in_the_servers_own_field(connect: Connect, chat: str) -> None:
    client, _ = connect(chat, reasoning=True)
    message = ask(client, [user()]).choices[0].message
    chunks = list(ask(client, [user()], stream=True))
    field = DIALECTS[chat].reasoning
    if field == "chunks":
        assert [part["type"] for part in message.content] == ["thinking", "text"]
        streamed = [chunk.choices[0].delta.content for chunk in chunks]
        assert any(isinstance(content, list) for content in streamed)
        return
    whole = "".join(getattr(chunk.choices[0].delta, field, None) or "" for chunk in chunks)
    assert getattr(message, field) == whole == "Thinking about: hello"
    assert hasattr(message, "reasoning_details") is (field == "reasoning")


def test_calls_in_the_servers_own_way(connect: Connect) -> None:
    calls = {"tool_calls": [{"name": "add"}, {"name": "add"}]}
    for chat, dialect in DIALECTS.items():
        client, world = connect(chat)
        world.reply(calls, calls)
        whole = ask(client, [user()]).choices[0].message.tool_calls
        assert hasattr(whole[0], "extra_content") is dialect.signs_calls
        chunks = list(ask(client, [user()], stream=True))
        indexes = {
            one.index for c in chunks for one in c.choices[0].delta.tool_calls or () if one.id
        }
        assert indexes == ({0} if dialect.call_index == "zero" else {0, 1})


def test_messages_of_any_shape(connect: Connect) -> None:
    client, world = connect("openrouter")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    world.reply({"message": {"content": "Here.", "images": [image]}})
    assert ask(client, [user()]).choices[0].message.images == [image]
    legacy = {"content": None, "function_call": {"name": "add", "arguments": "{}"}}
    world.reply({"message": legacy, "finish": "function_call"})
    choice = ask(client, [user()]).choices[0]
    assert (choice.finish_reason, choice.message.function_call.name) == ("function_call", "add")
    world.reply({"deltas": [{"content": "a"}, {"content": "b"}], "finish": "error"})
    chunks = list(ask(client, [user()], stream=True))
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, "error"]


def test_errors_inside_a_200(connect: Connect) -> None:
    client, world = connect("openrouter")
    error = {"message": "Rate limit exceeded", "code": 429}
    world.reply({"error": error})
    raw = client.chat.completions.with_raw_response.create(model="m", messages=[user()])
    assert raw.http_response.status_code == 200
    assert json.loads(raw.text) == {"error": error}
    world.reply({"text": "a b", "error": error})
    with pytest.raises(Exception, match="Rate limit exceeded"):
        list(ask(client, [user()], stream=True))

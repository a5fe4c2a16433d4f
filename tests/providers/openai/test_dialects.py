"""Servers that refuse what the named server refuses, each rule from a page or a report."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from provider_server import chat_dialects

from langswarm_session import (
    ImageBlock,
    InvalidInputError,
    OpenAIProviderSession,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderSessionError,
    ProviderUnavailableError,
    SessionManager,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.formats.dialects import OPENAI, Dialect
from langswarm_session.providers import sdk
from langswarm_session.providers.openai.dialects import DIALECTS, STRICT, corrected, dialect_of
from langswarm_session.requests.normalize import SystemPlacement

Body = dict[str, Any]
Rule = Callable[[Body], str | None]

NINE = re.compile(r"[a-zA-Z0-9]{9}")


def look(at: str) -> str:
    """Look."""
    return f"seen {at}"


def roles(body: Body) -> list[str]:
    return [message["role"] for message in body["messages"]]


def with_calls(body: Body) -> list[Body]:
    return [message for message in body["messages"] if message.get("tool_calls")]


# What servers refuse


def system_first(body: Body) -> str | None:
    """https://github.com/vllm-project/vllm/issues/41114, llama.cpp/issues/20733 (Qwen 3.5 on)."""
    said = roles(body)
    return "System message must be at the beginning." if "system" in said[1:] else None


def alternation(body: Body) -> str | None:
    """https://github.com/suitenumerique/conversations/issues/197 (Gemma 3 with vLLM)."""
    spoken = [role for role in roles(body) if role in ("user", "assistant")]
    steps = [a for a, b in itertools.pairwise(spoken) if a == b == "user"]
    if steps or spoken[0] != "user":
        return "Conversation roles must alternate user/assistant/user/assistant/..."
    return None


def nine_characters(body: Body) -> str | None:
    """mistral_common's validator; https://github.com/anomalyco/opencode/issues/1680."""
    for message in with_calls(body):
        for call in message["tool_calls"]:
            if not NINE.fullmatch(call["id"]):
                return (
                    f"Tool call id was {call['id']} but must be a-z, A-Z, 0-9, with a length of 9."
                )
    return None


def no_user_behind_tool(body: Body) -> str | None:
    """https://github.com/BerriAI/litellm/issues/6323."""
    if ("tool", "user") in itertools.pairwise(roles(body)):
        return "Unexpected role 'user' after role 'tool'"
    return None


def reasoning_wanted(body: Body) -> str | None:
    """https://github.com/deepseek-ai/deepseek-harness/discussions/739: an empty one as well."""
    if any("reasoning_content" not in message for message in with_calls(body)):
        return "The `reasoning_content` in the thinking mode must be passed back to the API."
    return None


def reasoning_missing(body: Body) -> str | None:
    """https://github.com/continuedev/continue/issues/11600 (Kimi)."""
    for number, message in enumerate(body["messages"]):
        if message.get("tool_calls") and "reasoning_content" not in message:
            return (
                "thinking is enabled but reasoning_content is missing in assistant tool call "
                f"message at index {number}"
            )
    return None


def reasoning_refused(body: Body) -> str | None:
    """https://github.com/NousResearch/hermes-agent/issues/11089 (Groq)."""
    for number, message in enumerate(body["messages"]):
        for name in ("reasoning_content", "reasoning", "name"):
            if name in message:
                return (
                    f"'messages.{number}' : for 'role:{message['role']}' the following must be "
                    f"satisfied[('messages.{number}' : property '{name}' is unsupported)]"
                )
    return None


def signatures(body: Body) -> str | None:
    """https://github.com/openai/openai-agents-python/issues/2137 (Gemini 3)."""
    for message in with_calls(body):
        first = message["tool_calls"][0]
        if not first.get("extra_content", {}).get("google", {}).get("thought_signature"):
            return (
                f"Unable to submit request because function call `default_api:"
                f"{first['function']['name']}` in the 2. content block is missing a "
                "`thought_signature`."
            )
    return None


def no_null(body: Body) -> str | None:
    """https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/261."""
    if any(message["content"] is None for message in body["messages"]):
        return "Invalid 'content': 'content' field must be a string or an array of objects."
    return None


def no_nil(body: Body) -> str | None:
    """https://github.com/SAIL-Research-Lab/cheetahclaws/pull/72 (Ollama)."""
    is_nil = any(message["content"] is None for message in body["messages"])
    return "invalid message content type: <nil>" if is_nil else None


def extra_forbidden(body: Body) -> str | None:
    """https://github.com/Gage-Technologies/mistral-go/pull/2 (Mistral)."""
    known = {"role", "content", "tool_calls", "tool_call_id"}
    for number, message in enumerate(body["messages"]):
        for name in message.keys() - known:
            at = ["body", "messages", number, message["role"], name]
            error = {"type": "extra_forbidden", "loc": at, "msg": "Extra inputs are not permitted"}
            return str([error])
    return None


def old_reasoner(body: Body) -> str | None:
    """https://github.com/OpenHands/benchmarks/issues/353 (deepseek-reasoner since it has tools)."""
    for number, message in enumerate(body["messages"]):
        if message.get("tool_calls") and "reasoning_content" not in message:
            return (
                "Missing `reasoning_content` field in the assistant message at message index "
                f"{number}"
            )
    return None


def strings_only(body: Body) -> str | None:
    """https://github.com/cline/cline/issues/247 (DeepSeek)."""
    if any(isinstance(message["content"], list) for message in body["messages"]):
        return "Failed to deserialize: messages[0]: invalid type: sequence, expected a string"
    return None


def no_stream_options(body: Body) -> str | None:
    """https://github.com/mistralai/platform-docs-public/issues/7: unknown fields are errors."""
    if "stream_options" in body:
        return "body -> stream_options: Extra inputs are not permitted"
    return None


def details_unchanged(body: Body) -> str | None:
    """https://openrouter.ai/docs/use-cases/reasoning-tokens: unmodified."""
    for message in body["messages"]:
        if message["role"] == "assistant" and message.get("reasoning_details") != DETAILS:
            return "Invalid `signature` in `thinking` block"
    return None


DETAILS = [
    {"type": "reasoning.text", "text": "Hm.", "signature": "s", "index": 0, "format": "x"},
    {"type": "reasoning.encrypted", "data": "e", "id": "r", "index": 1, "format": "x"},
]
OF_GOOGLE = {"extra_content": {"google": {"thought_signature": "sig"}}}


class Server:
    """A server with rules, which calls a tool once in each turn."""

    def __init__(self, *rules: Rule, status: int = 400, said: Body | None = None) -> None:
        self.rules = rules
        self.status = status
        self.said = said or {}
        self.asked: list[Body] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.asked.append(body)
        for rule in self.rules:
            wrong = rule(body)
            if wrong is not None:
                error = {"message": wrong, "type": "invalid_request_error", "code": None}
                return httpx.Response(self.status, json={"error": error})
        message = self.message(roles(body)[-1] != "tool" and bool(body.get("tools")))
        reason = "tool_calls" if "tool_calls" in message else "stop"
        if body.get("stream"):
            return streamed(message, reason)
        return httpx.Response(200, json=completion(message, reason))

    def message(self, calls: bool) -> Body:
        more = {name: value for name, value in self.said.items() if name != "call"}
        if not calls:
            return {"role": "assistant", "content": "Done.", **more}
        function = {"name": "look", "arguments": '{"at": "it"}'}
        call = {"id": f"call_{len(self.asked)}", "type": "function", "function": function}
        call |= self.said.get("call", {})
        return {"role": "assistant", "content": None, "tool_calls": [call], **more}

    @property
    def refused(self) -> int:
        return sum(any(rule(body) for rule in self.rules) for body in self.asked)


def completion(message: Body, reason: str) -> Body:
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


def streamed(message: Body, reason: str) -> httpx.Response:
    deltas = [{name: value} for name, value in message.items() if value is not None]
    ends = [(delta, None) for delta in deltas] + [({}, reason)]
    lines = [
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
         "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
        for delta, end in ends
    ]  # fmt: skip
    text = "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n"
    return httpx.Response(200, content=text, headers={"content-type": "text/event-stream"})


def manager_of(server: Server, base_url: str, **options: Any) -> SessionManager:
    client = openai.AsyncOpenAI(
        api_key="key-12345678",
        base_url=base_url,
        max_retries=0,
        http_client=httpx.AsyncClient(transport=httpx.MockTransport(server)),
    )
    provider = OpenAIProviderSession(client=client, mode="chat", max_retries=0, **options)
    return SessionManager("memory", providers={"openai": provider})


FOREIGN = [
    SessionMessage(role="user", content="Elsewhere.", name="ann"),
    SessionMessage(
        role="assistant",
        content=[TextBlock(text="I look."), ToolCallBlock(id="toolu_1", name="look", args={})],
        provider="anthropic",
        model="claude-opus-5-5",
    ),
    SessionMessage(role="tool", content=[ToolResultBlock(tool_call_id="toolu_1", content="seen")]),
    SessionMessage(role="user", content="Never mind."),
]
"""What another provider answered, and a user who spoke before it could go on."""


async def converse(
    server: Server, base_url: str, model: str, *, streaming: bool, **options: Any
) -> None:
    """A conversation with all that the record may have."""
    async with manager_of(server, base_url, **options) as manager:
        session = await manager.create_session("u", "openai", model)
        await session.record(FOREIGN)
        await session.add_system_message("Be terse.")
        for text in ("One.", [TextBlock(text="Two."), TextBlock(text="And more.")]):
            content: Any = text
            while True:
                if streaming:
                    events = [e async for e in session.stream_message(content, tools=[look])]
                    reply = events[-1].message
                    assert reply is not None
                else:
                    reply = await session.send_message(content, tools=[look])
                if reply.finish_reason != "tool_calls":
                    break
                content = await session.call_tools(reply, [look])
            assert reply.text == "Done."
            await session.add_system_message("In blue.")


REASONS = {"reasoning_content": "Hm."}

# Where, which model, and what a server there refuses and gives.
KNOWN: list[tuple[str, str, Sequence[Rule], Body]] = [
    ("https://api.deepseek.com", "deepseek-v4-pro", [reasoning_wanted, strings_only], REASONS),
    ("https://api.moonshot.ai/v1", "kimi-k2.6", [reasoning_missing], REASONS),
    ("https://api.z.ai/api/paas/v4", "glm-5.1", [], REASONS),
    (
        "https://generativelanguage.googleapis.com/v1beta/openai/",
        "gemini-3-pro-preview",
        [signatures],
        {"call": OF_GOOGLE},
    ),
    (
        "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/endpoints/openapi",
        "google/gemini-3-flash-preview",
        [signatures],
        {"call": OF_GOOGLE},
    ),
    (
        "https://api.mistral.ai/v1",
        "magistral-medium-2509",
        [nine_characters, no_user_behind_tool, extra_forbidden],
        {},
    ),
    ("https://api.groq.com/openai/v1", "openai/gpt-oss-120b", [reasoning_refused],
     {"reasoning": "Hm."}),
    ("https://openrouter.ai/api/v1", "qwen/qwen3.5-27b", [system_first, alternation], REASONS),
    ("http://localhost:8000/v1", "Qwen/Qwen3.6-27B-FP8", [system_first, alternation],
     {"reasoning": "Hm."}),
    ("http://localhost:8000/v1", "google/gemma-3-27b-it", [system_first, alternation], {}),
    (
        "http://localhost:8080/v1",
        "mistralai/Ministral-8B-Instruct-2410",
        [system_first, alternation, nine_characters, no_user_behind_tool],
        {},
    ),
    ("http://localhost:11434/v1", "llama3.2", [system_first, alternation, no_nil], {}),
    ("http://localhost:4000/v1", "claude-sonnet-5-5", [system_first, alternation],
     {"thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}]}),
    ("https://somewhere.example/v1", "some-model", [system_first, alternation], {}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries that do not wait."""
    monkeypatch.setattr(sdk, "FIRST_DELAY", 0.001)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("base_url", "model", "rules", "said"), KNOWN)
async def test_a_server_that_is_known_refuses_nothing(
    base_url: str, model: str, rules: Sequence[Rule], said: Body, streaming: bool
) -> None:
    server = Server(*rules, said=said)
    await converse(server, base_url, model, streaming=streaming)
    assert server.refused == 0


@pytest.mark.parametrize("streaming", [False, True])
async def test_what_a_router_gave_of_reasoning_goes_back_unchanged(streaming: bool) -> None:
    server = Server(details_unchanged, said={"reasoning": "Hm.", "reasoning_details": DETAILS})
    async with manager_of(server, "https://openrouter.ai/api/v1") as manager:
        session = await manager.create_session("u", "openai", "anthropic/claude-sonnet-5-5")
        for text in ("One.", "Two."):
            if streaming:
                shown = [e.reasoning async for e in session.stream_message(text)]
                assert "".join(shown) == "Hm."
            else:
                await session.send_message(text)
        assert [b.type for b in (await session.get_messages())[-1].blocks] == ["reasoning", "text"]
    assert server.refused == 0


LENIENT = Dialect("lenient", system=SystemPlacement.ANYWHERE, alternates=False)

# The same at the stand-in server, over HTTP

STAND_INS: dict[str, str | Dialect] = {
    "openai": "openai",
    "deepseek-v4": "deepseek",
    "deepseek-reasoner": "deepseek-reasoner",
    "kimi": "kimi",
    "glm": "glm",
    "mistral": "mistral",
    "gemini-openai": "gemini",
    "groq": "groq",
    "fireworks": "strict",
    "openrouter": "openrouter",
    "vllm-qwen": "vllm",
    "vllm-gemma": replace(DIALECTS["vllm"], takes_calls=False),
    "vllm-mistral": "mistral",
    "llamacpp-qwen": "llama.cpp",
    "llamacpp-mistral": dialect_of("http://localhost:8080/v1", "Ministral-3-14B-Reasoning-2512"),
    "ollama": "ollama",
    "litellm": "litellm",
}


async def converse_at(world: Any, *, streaming: bool, dialect: str | Dialect | None) -> None:
    """A conversation with all that the record may have, at the stand-in server."""
    provider = OpenAIProviderSession(
        world.key, mode="chat", base_url=world.openai_url, max_retries=0, dialect=dialect
    )
    async with SessionManager("memory", providers={"openai": provider}) as manager:
        session = await manager.create_session("u", "openai", "some-model")
        await session.record(FOREIGN)
        await session.add_system_message("Be terse.")
        world.reply(
            {"reasoning": "I look.", "tool_calls": [{"name": "look", "arguments": {"at": "it"}}]}
        )
        content: Any = "Look."
        for _ in range(4):
            if streaming:
                events = [e async for e in session.stream_message(content, tools=[look])]
                reply = events[-1].message
                assert reply is not None
            else:
                reply = await session.send_message(content, tools=[look])
            content = "And now?"
            if reply.finish_reason == "tool_calls":
                content = await session.call_tools(reply, [look])
            else:
                await session.add_system_message("In blue.")


def test_the_stand_in_speaks_as_many_dialects_as_are_tried() -> None:
    assert sorted(STAND_INS) == sorted(chat_dialects.DIALECTS)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("chat", STAND_INS)
async def test_the_stand_in_refuses_nothing(world: Any, chat: str, streaming: bool) -> None:
    world.set(chat=chat)
    await converse_at(world, streaming=streaming, dialect=STAND_INS[chat])
    assert world.state()["refused"] == []


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("chat", STAND_INS)
@pytest.mark.parametrize("dialect", [None, "openai", LENIENT])
async def test_the_stand_in_is_learned_from(
    world: Any, chat: str, streaming: bool, dialect: Dialect | str | None
) -> None:
    world.set(chat=chat)
    await converse_at(world, streaming=streaming, dialect=dialect)


# What a refusal teaches

TEACHING: list[tuple[str, Sequence[Rule], Body]] = [
    ("system", [system_first], {}),
    ("alternation", [alternation, system_first], {}),
    ("ids", [nine_characters, no_user_behind_tool], {}),
    ("reasoning wanted", [reasoning_wanted], {}),
    ("reasoning missing", [reasoning_missing], {}),
    ("reasoning refused", [reasoning_refused], REASONS),
    ("signatures", [signatures], {"call": OF_GOOGLE}),
    ("extra fields", [extra_forbidden], REASONS),
    ("reasoner", [old_reasoner], REASONS),
    ("null", [no_null], {}),
    ("nil", [no_nil], {}),
    ("lists", [strings_only], {}),
    ("stream options", [no_stream_options], {}),
]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("name", "rules", "said"), TEACHING)
async def test_a_refusal_that_names_its_reason_is_learned_from(
    name: str, rules: Sequence[Rule], said: Body, streaming: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(*rules, said=said)
    with caplog.at_level(logging.WARNING, "langswarm_session.providers.openai.dialects"):
        await converse(server, "https://some.example/v1", "m", streaming=streaming, dialect=LENIENT)
    expected = 0 if name == "stream options" and not streaming else len(rules)
    lessons = [r for r in caplog.records if "is corrected" in r.getMessage()]
    assert expected <= len(lessons) + (name == "alternation")
    assert server.refused == len(lessons)
    # It is kept: the last turn was refused nothing.
    assert not any(rule(body) for rule in rules for body in server.asked[-2:])


@pytest.mark.parametrize("status", [400, 404, 422, 500])
async def test_templates_fail_with_any_status(status: int) -> None:
    """https://github.com/nathaninline/ajean/issues/26 (500), tailcallhq/forgecode/issues/3128."""
    server = Server(system_first, status=status)
    await converse(server, "https://some.example/v1", "m", streaming=False, dialect=LENIENT)
    assert server.refused == 1


async def test_a_refusal_that_teaches_nothing_is_told() -> None:
    server = Server(lambda body: "The temperature of the room is too high.")
    async with manager_of(server, "https://some.example/v1") as manager:
        session = await manager.create_session("u", "openai", "m")
        with pytest.raises(ProviderRequestError, match="temperature of the room"):
            await session.send_message("Hi")
    assert len(server.asked) == 1


async def test_a_server_that_contradicts_itself_is_asked_a_few_times() -> None:
    answers = itertools.cycle(
        [
            "The `reasoning_content` in the thinking mode must be passed back to the API.",
            "property 'reasoning_content' is unsupported",
        ]
    )
    server = Server(lambda body: next(answers))
    async with manager_of(server, "https://some.example/v1") as manager:
        session = await manager.create_session("u", "openai", "m")
        with pytest.raises(ProviderRequestError, match="reasoning_content"):
            await session.send_message("Hi")
    assert len(server.asked) == 6


async def test_a_lesson_that_did_not_help_is_not_kept() -> None:
    """A server may quote what a user said."""
    said: list[str] = []
    server = Server(lambda body: said[0] if said else None)
    async with manager_of(server, "https://some.example/v1", dialect=LENIENT) as manager:
        session = await manager.create_session("u", "openai", "m")
        await session.send_message("Hi")
        said.append("temperature: 3 is not allowed (in: System message must be first)")
        with pytest.raises(ProviderRequestError, match="temperature"):
            await session.send_message("System message must be first")
        said.clear()
        await session.add_system_message("Be terse.")
        await session.send_message("So?")
    assert roles(server.asked[-1]) == ["user", "assistant", "system", "user"]


def test_a_lesson_that_is_known_teaches_nothing() -> None:
    said = "System message must be at the beginning."
    better = corrected(LENIENT, said)
    assert better is not None
    assert better.system is SystemPlacement.FIRST
    assert corrected(better, said) is None


# Pictures in the record of a model that sees none

SEES_NOTHING = [
    # https://github.com/rikkahub/rikkahub/issues/1433, https://github.com/1jehuang/jcode/issues/848
    (400, "messages[1]: unknown variant `image_url`, expected `text` at line 1 column 679289"),
    # https://github.com/ollama/ollama/issues/17301, https://github.com/github/app/issues/2163
    (400, "this model does not support image input (ref: b8bd630e)"),
    (404, "No endpoints found that support image input"),
    (400, "Invalid content type. image_url is only supported by certain models."),
    # llama.cpp, tools/server; https://github.com/vllm-project/vllm/issues/23402
    (500, "image input is not supported - hint: you may need to provide the mmproj"),
    (400, "/models/x is not a multimodal model"),
    (400, "Model does not support images."),  # lmstudio-ai/lmstudio-bug-tracker/issues/473
    # https://github.com/Wei-Shaw/sub2api/issues/6899
    (400, "\u6b64\u6a21\u578b\u4e0d\u652f\u6301\u56fe\u50cf\u8f93\u5165"),
    (400, "messages[0].content must be a string"),
]  # fmt: skip
PICTURE = ImageBlock(url="https://example.org/a.png")


def pictures_refused(said: str) -> Rule:
    def rule(body: Body) -> str | None:
        parts = [part for each in body["messages"] if isinstance(each["content"], list)
                 for part in each["content"]]  # fmt: skip
        return said if any(part["type"] == "image_url" for part in parts) else None

    return rule


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("status", "said"), SEES_NOTHING)
async def test_a_model_that_sees_nothing(status: int, said: str, streaming: bool) -> None:
    server = Server(pictures_refused(said), status=status)
    async with manager_of(server, "https://some.example/v1") as manager:
        session = await manager.create_session("u", "openai", "m")
        await session.record([SessionMessage(role="user", content=[PICTURE, TextBlock(text="See")]),
                              SessionMessage(role="assistant", content="I see.")])  # fmt: skip
        for text in ("What was it?", "And now?"):
            if streaming:
                events = [event async for event in session.stream_message(text)]
                reply = events[-1].message
                assert reply is not None
            else:
                reply = await session.send_message(text)
            kinds = [each["kind"] for each in reply.metadata["langswarm"]["repairs"]]
            assert "block_converted" in kinds
    assert server.refused <= 2  # it is kept


async def test_who_shows_a_picture_is_told_that_nobody_sees_it() -> None:
    server = Server(pictures_refused("this model does not support image input"))
    async with manager_of(server, "https://some.example/v1") as manager:
        session = await manager.create_session("u", "openai", "m")
        with pytest.raises(ProviderRequestError, match="image input"):
            await session.send_message([PICTURE])
        assert (await session.send_message("So?")).text == "Done."


# Refusals that come inside an answer that began well


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("as_json", [False, True])
async def test_a_refusal_inside_an_answer_is_learned_from(streaming: bool, as_json: bool) -> None:
    """https://github.com/agentscope-ai/QwenPaw/issues/5573: streams tell it later than answers."""

    class Inside(Server):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            response = super().__call__(request)
            if response.status_code == 200:
                return response
            error = {"error": {**response.json()["error"], "code": 400}}
            if not streaming or as_json:
                return httpx.Response(200, json=error)
            kind = {"content-type": "text/event-stream"}
            return httpx.Response(200, content=f"data: {json.dumps(error)}\n\n", headers=kind)

    server = Inside(reasoning_wanted)
    await converse(server, "https://some.example/v1", "m", streaming=streaming)
    assert server.refused == 1


@pytest.mark.parametrize("status", [401, 402, 403, 429, 503, 529])
async def test_only_a_refusal_teaches(status: int) -> None:
    server = Server(lambda body: "reasoning is not supported in the free tier", status=status)
    async with manager_of(server, "https://some.example/v1") as manager:
        session = await manager.create_session("u", "openai", "m")
        with pytest.raises(ProviderSessionError):
            await session.send_message("Hi")
    assert len(server.asked) == 1


async def test_a_server_that_does_not_stream() -> None:
    message = {"role": "assistant", "content": "Whole."}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=completion(message, "stop"))

    async with manager_of(answer, "https://some.example/v1") as manager:  # type: ignore[arg-type]
        session = await manager.create_session("u", "openai", "m")
        events = [event async for event in session.stream_message("Hi")]
    assert "".join(event.text for event in events) == "Whole."
    assert events[-1].message is not None


async def test_an_error_in_place_of_a_stream() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"error": {"code": 429, "message": "slow down"}})

    async with manager_of(answer, "https://some.example/v1") as manager:  # type: ignore[arg-type]
        session = await manager.create_session("u", "openai", "m")
        with pytest.raises(ProviderRateLimitError, match="slow down"):
            _ = [event async for event in session.stream_message("Hi")]


# Which dialect is spoken where


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://my.openai.azure.com/openai/v1", "openai"),
        ("https://api.anthropic.com/v1/", "anthropic"),
        ("https://api.deepseek.com/beta", "deepseek"),
        ("https://api.moonshot.cn/v1", "kimi"),
        ("https://open.bigmodel.cn/api/paas/v4", "glm"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1", "bedrock"),
        ("https://bedrock-mantle.us-east-1.api.aws/v1", "bedrock"),
        ("https://aiplatform.googleapis.com/v1/projects/p", "vertex"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "qwen"),
        ("http://localhost:11434/v1", "ollama"),
        ("http://127.0.0.1:4000", "litellm"),
        ("http://localhost:8000/v1", "strict"),
        ("https://notopenai.com/v1", "strict"),
        ("https://api.openai.com.evil.example/v1", "strict"),
    ],
)
def test_addresses(base_url: str, name: str) -> None:
    assert dialect_of(base_url, "m").name == name


def test_a_model_before_v4_refuses_its_reasoning() -> None:
    """https://api-docs.deepseek.com/guides/reasoning_model."""
    old = dialect_of("https://api.deepseek.com", "deepseek-reasoner")
    assert (old.returns_reasoning, old.needs_reasoning, old.alternates) == (False, None, True)
    new = dialect_of("https://api.deepseek.com", "deepseek-v4-flash")
    assert (new.returns_reasoning, new.needs_reasoning) == (True, "reasoning_content")


@pytest.mark.parametrize("choice", ["vllm", DIALECTS["vllm"]])
async def test_a_dialect_may_be_chosen(choice: str | Dialect) -> None:
    server = Server(system_first)
    await converse(server, "https://api.openai.com/v1", "m", streaming=False, dialect=choice)
    assert server.refused == 0


@pytest.mark.parametrize("choice", ["klingon", 3])
def test_a_dialect_that_is_none(choice: Any) -> None:
    with pytest.raises(InvalidInputError, match="dialect"):
        OpenAIProviderSession("key", dialect=choice)


async def test_the_key_for_the_cache_is_sent_to_openai_alone() -> None:
    for base_url, sent in (("https://api.openai.com/v1", True), ("https://e.org/v1", False)):
        server = Server()
        async with manager_of(server, base_url) as manager:
            session = await manager.create_session("u", "openai", "m")
            for text in ("One.", "Two."):
                await session.send_message(text)
        keys = {body.get("prompt_cache_key") for body in server.asked}
        assert len(keys) == 1
        assert (keys != {None}) is sent


async def test_other_fields_of_the_body_are_sent_as_well() -> None:
    server = Server()
    async with manager_of(server, "https://e.org/v1") as manager:
        session = await manager.create_session("u", "openai", "m")
        await session.send_message("Hi", extra_body={"top_k": 4, "messages": "mine"})
    assert server.asked[0]["top_k"] == 4
    assert server.asked[0]["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_failure_behind_a_200(streaming: bool) -> None:
    """https://openrouter.ai/docs/api/reference/errors-and-debugging: it ends with `error`."""
    asked = []

    def failing(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        message = {"role": "assistant", "content": "" if streaming else "So"}
        body = json.loads(request.content)
        return (
            streamed(message, "error")
            if body.get("stream")
            else httpx.Response(200, json=completion(message, "error"))
        )

    server: Any = failing
    async with manager_of(server, "https://openrouter.ai/api/v1") as manager:
        session = await manager.create_session("u", "openai", "m")
        with pytest.raises(ProviderUnavailableError, match="the model failed"):
            if streaming:
                [event async for event in session.stream_message("Hi")]
            else:
                await session.send_message("Hi")
    assert len(asked) == 1


async def test_ids_go_back_to_the_model_that_gave_them() -> None:
    """https://github.com/MoonshotAI/K2-Vendor-Verifier: Kimi reads its own ``functions.look:0``."""
    server = Server(said={"call": {"id": "functions.look:0"}})
    async with manager_of(server, "https://somewhere.example/v1") as manager:
        session = await manager.create_session("u", "openai", "Kimi-K2-Instruct")
        reply = await session.send_message("Look.", tools=[look])
        await session.send_message(await session.call_tools(reply, [look]), tools=[look])
        assert with_calls(server.asked[-1])[0]["tool_calls"][0]["id"] == "functions.look:0"
        await session.update_context(model="another")
        await session.send_message("And?")
    assert with_calls(server.asked[-1])[0]["tool_calls"][0]["id"] == "functions_look_0"


BOUND = {"reasoning_details": DETAILS, "thinking_blocks": [{"type": "thinking", "signature": "s"}]}


@pytest.mark.parametrize(
    ("model", "kept"), [("anthropic/claude-opus-5-5", False), ("deepseek/deepseek-v4-pro", True)]
)
async def test_bound_reasoning_is_left_out_behind_what_changed(model: str, kept: bool) -> None:
    """https://docs.litellm.ai/docs/providers/anthropic_preserved_thinking."""
    server = Server(said=BOUND)
    async with manager_of(server, "https://openrouter.ai/api/v1") as manager:
        session = await manager.create_session("u", "openai", model)
        for text in ("One.", "Two."):
            await session.send_message(text, instructions="Be terse.")
        first = server.asked[-1]["messages"][2]
        assert first.items() >= BOUND.items()
        await session.send_message("Three.", instructions="Be kind.")
    replies = [each for each in server.asked[-1]["messages"] if each["role"] == "assistant"]
    assert [each.items() >= BOUND.items() for each in replies] == [kept, kept]


def test_the_documentation_has_every_dialect() -> None:
    page = (Path(__file__).parents[3] / "docs" / "dialects.md").read_text()
    rows = re.findall(r"^\| `([\w.-]+)` \|", page, re.MULTILINE)
    assert sorted(rows) == sorted(DIALECTS)
    assert DIALECTS["openai"] is OPENAI
    assert DIALECTS["strict"] is STRICT

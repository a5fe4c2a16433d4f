"""Chat Completions as other servers speak it (setting `chat`): what each refuses, and how it answers.

A world without the setting speaks OpenAI's own. Each rule names the report or page that it is from;
a server's own sentence is quoted, since clients learn from it. What is not known is not refused.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from .openai_errors import ApiError
from .worlds import Json

Rule = Callable[[Json], None]
"""Refuses a body, or does nothing."""


@dataclass(frozen=True)
class Dialect:
    """One server's way."""

    rules: tuple[Rule, ...] = ()
    ignores: frozenset[str] = frozenset()
    """Parameters of others that it takes and does nothing with; "*" for every one."""
    message_extras: frozenset[str] = frozenset()
    """Keys of messages beyond OpenAI's that it takes; "*" for every one."""
    reasoning: str = ""
    """The field that its reasoning is in: a key of the message, or "chunks" of the content."""
    call_index: str = "own"
    """The `index` of streamed calls: "own", "zero" for all, or "none"."""
    whole_calls: bool = False
    """Whether a call is streamed in one piece."""
    signs_calls: bool = False
    arguments_as_object: bool = False
    usage_details: bool = True
    extras: dict[str, object] = field(default_factory=dict)


def _refuse(message: str, *, status: int = 400, kind: str = "invalid_request_error",
            code: str | None = None, param: str | None = None) -> None:  # fmt: skip
    raise ApiError(message, status=status, kind=kind, code=code, param=param)


def _thinks(body: Json) -> bool:
    """Whether thinking is on, as it is by default."""
    return (body.get("thinking") or {}).get("type") != "disabled"


def _assistants(body: Json) -> list[tuple[int, Json]]:
    return [(n, m) for n, m in enumerate(body["messages"]) if m["role"] == "assistant"]


# DeepSeek


def deepseek_reasoning_back(body: Json) -> None:
    """V4: a turn with calls brings its reasoning back, as a string, an empty one too.

    https://api-docs.deepseek.com/guides/thinking_mode ("Tool Calls"); null and a missing field are
    refused alike (measured 2026-09-22, in openAiMessages of a client's `passReasoning`).
    """
    for _, message in _assistants(body):
        given = message.get("reasoning_content")
        if _thinks(body) and message.get("tool_calls") and not isinstance(given, str):
            _refuse("The `reasoning_content` in the thinking mode must be passed back to the API.",
                    code="invalid_request_error")  # fmt: skip


def deepseek_reasoning_refused(body: Json) -> None:
    """deepseek-reasoner: "if the `reasoning_content` field is included in the sequence of input
    messages, the API will return a 400 error" (https://api-docs.deepseek.com/guides/reasoning_model)."""
    for number, message in _assistants(body):
        if "reasoning_content" in message:
            _refuse(f"messages[{number}]: `reasoning_content` is not allowed in input messages")


def deepseek_interleaves(body: Json) -> None:
    """https://github.com/deepseek-ai/DeepSeek-R1/issues/21."""
    roles = [message["role"] for message in body["messages"]]
    for number, (one, other) in enumerate(itertools.pairwise(roles)):
        if one == other and one in {"user", "assistant"}:
            _refuse(
                f"deepseek-reasoner does not support successive user or assistant messages "
                f"(messages[{number}] and messages[{number + 1}] in your input). You should "
                "interleave the user/assistant messages in the message sequence."
            )


def rust_schema(body: Json) -> None:
    """Roles and keys of a server that deserializes strictly: no `developer`, and `content` is there.

    DeepSeek and gateways: "unknown variant `developer`, expected one of ..." (many reports, e.g.
    https://github.com/CopilotKit/CopilotKit/issues), "missing field `content`" (an empty tool result
    whose key was left out).
    """
    into = "Failed to deserialize the JSON body into the target type"
    for number, message in enumerate(body["messages"]):
        if message["role"] not in {"system", "user", "assistant", "tool"}:
            _refuse(
                f"{into}: messages[{number}].role: unknown variant `{message['role']}`, expected "
                "one of `system`, `user`, `assistant`, `tool`, `latest_reminder`"
            )
        if "content" not in message:
            _refuse(f"{into}: messages[{number}]: missing field `content`", status=422)


# Kimi


def kimi_reasoning_back(body: Json) -> None:
    """https://github.com/zeroclaw-labs/zeroclaw/issues/5600, https://github.com/charmbracelet/crush."""
    for number, message in _assistants(body):
        if _thinks(body) and message.get("tool_calls") and "reasoning_content" not in message:
            _refuse(
                "thinking is enabled but reasoning_content is missing in assistant tool call "
                f"message at index {number}"
            )


# Mistral

AFTER = {
    "system": {"user", "assistant", "system"},
    "user": {"assistant", "system", "user"},
    "assistant": {"assistant", "user", "tool"},
    "tool": {"assistant", "tool"},
}


def mistral_order(body: Json) -> None:
    """https://github.com/mistralai/mistral-common, protocol/instruct/validator.py: message order,
    as many answers as calls, and a last message of the user's or a tool's."""
    order = {"kind": "invalid_request_message_order", "code": "3230"}
    roles = [message["role"] for message in body["messages"]]
    for one, other in itertools.pairwise(roles):
        if other not in AFTER.get(one, set()):
            _refuse(f"Unexpected role '{other}' after role '{one}'", **order)
    expected = answered = 0
    for message in [*body["messages"], {"role": "assistant"}]:
        if message["role"] == "tool":
            answered += 1
            continue
        if message["role"] == "assistant":
            if expected != answered:
                _refuse("Not the same number of function calls and responses", **order)
            expected, answered = len(message.get("tool_calls") or ()), 0
    if roles[-1] not in {"user", "tool"}:
        _refuse("Expected last role User or Tool (or Assistant with prefix True) for serving but "
                f"got {roles[-1]}", **order)  # fmt: skip


def mistral_ids(body: Json) -> None:
    """https://github.com/mistralai/mistral-common (TekkenValidator); Venice passes it on."""
    for message in body["messages"]:
        ids = [call["id"] for call in message.get("tool_calls") or ()]
        ids += [message["tool_call_id"]] if message["role"] == "tool" else []
        for id_ in ids:
            if not re.fullmatch(r"[a-zA-Z0-9]{9}", id_):
                _refuse(f"Tool call id was {id_} but must be a-z, A-Z, 0-9, with a length of 9.",
                        kind="invalid_function_call", code="3280")  # fmt: skip


def _forbidden(*loc: str | int) -> None:
    """Pydantic's 422, as Mistral answers it: https://github.com/BerriAI/litellm/issues/30835."""
    what = {"type": "extra_forbidden", "loc": list(loc), "msg": "Extra inputs are not permitted"}
    error = ApiError("Extra inputs are not permitted", status=422)
    error.body = {"object": "error", "message": {"detail": [what]}, "detail": [what]}
    raise error


def mistral_fields(body: Json) -> None:
    """Parameters and keys of messages that Mistral's API does not have
    (https://docs.mistral.ai/api/endpoint/chat)."""
    for name in body:
        if name not in MISTRAL:
            _forbidden("body", name)
    for number, message in enumerate(body["messages"]):
        role = message["role"]
        for name in message.keys() - OWN[role] - {"prefix"} | message.keys() & {"reasoning"}:
            _forbidden("body", "messages", number, role, name)


# Gemini


def gemini_names(body: Json) -> None:
    """Google refuses the whole request over a name it does not know:
    "Invalid JSON payload received. Unknown name \\"prompt_cache_key\\": Cannot find field."."""
    known = GENERAL | {"extra_body", "reasoning_effort", "tools", "tool_choice", "response_format"}
    for name in body:
        if name not in known:
            text = f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
            raise ApiError(text, code="400", kind="INVALID_ARGUMENT")


def gemini_signatures(body: Json) -> None:
    """Within the current turn, the first call of each step has its signature
    (https://ai.google.dev/gemini-api/docs/thought-signatures)."""
    users = [n for n, message in enumerate(body["messages"]) if message["role"] == "user"]
    for number, message in _assistants(body):
        calls = message.get("tool_calls") or ()
        if not calls or (users and number < users[-1]):
            continue
        google = (calls[0].get("extra_content") or {}).get("google") or {}
        if not google.get("thought_signature"):
            name = calls[0]["function"]["name"]
            _refuse(
                "Function call is missing a thought_signature in functionCall parts. This is "
                f"required for tools to work correctly. function call `default_api:{name}`, "
                f"position {number + 1}.",
                kind="INVALID_ARGUMENT",
            )


def gemini_turns(body: Json) -> None:
    """Calls follow a user's turn or results (many reports of litellm and the AI SDK)."""
    said = [
        message for message in body["messages"] if message["role"] not in {"system", "developer"}
    ]
    for number, message in enumerate(said):
        before = said[number - 1]["role"] if number else None
        if (
            message["role"] == "assistant"
            and message.get("tool_calls")
            and before not in {"user", "tool"}
        ):
            _refuse(
                "Please ensure that function call turn comes immediately after a user turn or "
                "after a function response turn.",
                kind="INVALID_ARGUMENT",
            )


# Groq, Fireworks

OWN = {
    "system": {"role", "content", "name"},
    "developer": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "tool_calls", "reasoning", "function_call"},
    "tool": {"role", "content", "name", "tool_call_id"},
}


def groq_properties(body: Json) -> None:
    """https://github.com/NousResearch/hermes-agent/issues/11089; `refusal` and others alike."""
    for number, message in enumerate(body["messages"]):
        for name in message.keys() - OWN[message["role"]]:
            _refuse(
                f"'messages.{number}' : for 'role:{message['role']}' the following must be satisfied"
                f"[('messages.{number}' : property '{name}' is unsupported)]"
            )


def fireworks_fields(body: Json) -> None:
    """https://github.com/earendil-works/pi/issues/4514: keys of messages that are of others."""
    for number, message in enumerate(body["messages"]):
        extra = message.keys() - OWN[message["role"]] - {"reasoning_content"} | (
            message.keys() & {"reasoning"}
        )
        for name in extra:
            _refuse(f"Extra inputs are not permitted, field: 'messages[{number}].{name}'")
        for at, part in enumerate(
            message["content"] if isinstance(message.get("content"), list) else ()
        ):
            if "cache_control" in part:
                field_ = f"messages[{number}].***.list[ChatMessageContent][{at}].cache_control"
                _refuse(f"Extra inputs are not permitted, field: '{field_}'")


# Templates on vLLM, llama.cpp, Ollama


def template(message: str) -> None:
    """An error of a chat template, as vLLM answers it."""
    raise ApiError(message, kind="BadRequestError", code="400")


def qwen_template(body: Json) -> None:
    """Qwen3.5 and later: one system message, at the beginning, and a user's somewhere
    (https://github.com/anomalyco/opencode/issues/16560, /20785, /20813)."""
    roles = [message["role"] for message in body["messages"]]
    if {"system", "developer"} & set(roles[1:]):
        template("System message must be at the beginning.")
    if "user" not in roles:
        template("No user query found in messages.")


def gemma_template(body: Json) -> None:
    """Gemma 3: `(message['role'] == 'user') != (loop.index0 % 2 == 0)` behind a first system message
    (its chat template at https://huggingface.co/google/gemma-3-27b-it)."""
    messages = body["messages"]
    rest = messages[1:] if messages[0]["role"] == "system" else messages
    for number, message in enumerate(rest):
        if (message["role"] == "user") != (number % 2 == 0):
            template("Conversation roles must alternate user/assistant/user/assistant/...")


def mistral_template(body: Json) -> None:
    """Ministral and Devstral: as Gemma's, but that calls and their results are not counted
    (measured on llama.cpp with Ministral-3-14B-Reasoning-2512)."""
    messages = body["messages"]
    rest = messages[1:] if messages[0]["role"] == "system" else messages
    counted = [
        m
        for m in rest
        if m["role"] == "user" or (m["role"] == "assistant" and not m.get("tool_calls"))
    ]
    if any((m["role"] == "user") != (n % 2 == 0) for n, m in enumerate(counted)):
        template("After the optional system message, conversation roles must alternate user and "
                 "assistant roles except for tool calls and results.")  # fmt: skip


# Routers


def litellm_params(body: Json) -> None:
    """https://docs.litellm.ai/docs/completion/drop_params: a parameter the model behind does not have."""
    for name in sorted(body.keys() & {"parallel_tool_calls", "prompt_cache_key", "service_tier"}):
        _refuse(
            f"litellm.UnsupportedParamsError: {body['model']} does not support parameters: "
            f"['{name}'], for model={body['model']}. To drop these, set `litellm.drop_params=True`",
            code="400",
        )


GENERAL = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens"),
        *("max_completion_tokens", "stop", "n", "seed", "presence_penalty", "frequency_penalty"),
    }
)
MISTRAL = (GENERAL - {"max_completion_tokens", "seed", "stream_options"}) | {
    *("random_seed", "response_format", "tools", "tool_choice", "prediction", "prompt_mode"),
    *("parallel_tool_calls", "safe_prompt", "metadata", "reasoning_effort", "prompt_cache_key"),
}
REASONING = frozenset({"reasoning_content"})
ALL = frozenset({"*"})

DIALECTS: dict[str, Dialect] = {
    "openai": Dialect(),
    "deepseek-v4": Dialect(
        (rust_schema, deepseek_reasoning_back), ALL, ALL, reasoning="reasoning_content"
    ),
    "deepseek-reasoner": Dialect(
        (rust_schema, deepseek_reasoning_refused, deepseek_interleaves),
        ALL,
        ALL,
        reasoning="reasoning_content",
    ),
    "kimi": Dialect((kimi_reasoning_back,), ALL, ALL, reasoning="reasoning_content"),
    "glm": Dialect((), ALL, ALL, reasoning="reasoning_content"),
    "mistral": Dialect(
        (mistral_fields, mistral_order, mistral_ids), ALL, ALL, reasoning="chunks", whole_calls=True
    ),
    "gemini-openai": Dialect(
        (gemini_names, gemini_turns, gemini_signatures),
        ALL,
        ALL,
        signs_calls=True,
        call_index="zero",
        whole_calls=True,
    ),
    "groq": Dialect((groq_properties,), ALL, ALL, reasoning="reasoning", whole_calls=True),
    "fireworks": Dialect((fireworks_fields,), ALL, ALL, reasoning="reasoning_content"),
    "openrouter": Dialect((), ALL, ALL, reasoning="reasoning"),
    "vllm-qwen": Dialect((qwen_template,), ALL, ALL, reasoning="reasoning_content"),
    "vllm-gemma": Dialect((gemma_template,), ALL, ALL),
    "vllm-mistral": Dialect((mistral_order, mistral_ids), ALL, ALL),
    "llamacpp-qwen": Dialect((qwen_template,), ALL, ALL, reasoning="reasoning_content"),
    "llamacpp-mistral": Dialect((mistral_template,), ALL, ALL),
    "ollama": Dialect((), ALL, ALL, reasoning="reasoning", call_index="zero", whole_calls=True),
    "litellm": Dialect((litellm_params,), ALL, ALL, reasoning="reasoning_content"),
}


def check_dialect(dialect: Dialect, body: Json) -> None:
    """Refuse what the server refuses."""
    for rule in dialect.rules:
        rule(body)


def as_openai(dialect: Dialect, body: Json) -> Json:
    """The body as OpenAI's rules can check it: without what only this server takes."""
    if "*" not in dialect.message_extras:
        return body
    known = GENERAL | {"tools", "tool_choice", "response_format", "parallel_tool_calls"}
    kept = {key: value for key, value in body.items() if key in known}
    kept["messages"] = [_plain_message(message) for message in body["messages"]]
    return kept


ROLE_KEYS = {role: keys - {"reasoning"} | {"refusal"} for role, keys in OWN.items()}


def _plain_message(message: Json) -> Json:
    """A message with OpenAI's keys alone."""
    if not isinstance(message, dict):
        return message
    keys = ROLE_KEYS.get(message.get("role", ""), set())
    plain = {key: value for key, value in message.items() if key in keys}
    if message.get("role") != "assistant":
        plain.pop("refusal", None)
    calls = plain.get("tool_calls")
    if calls:
        plain["tool_calls"] = [_plain_call(call) for call in calls]
    content = plain.get("content")
    if isinstance(content, list):
        texts = [part for part in content if part.get("type") != "thinking"]
        plain["content"] = [
            {k: v for k, v in part.items() if k != "cache_control"} for part in texts
        ]
        if message.get("role") == "assistant" and not plain["content"]:
            plain["content"] = ""
    if message.get("role") == "assistant" and not calls and plain.get("content") is None:
        plain["content"] = ""
    return plain


def _plain_call(call: Json) -> Json:
    return {key: call[key] for key in ("id", "type", "function") if key in call}

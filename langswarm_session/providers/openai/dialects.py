"""The dialects of servers that speak Chat Completions: which one speaks which, and how they learn.

A server is known by its address, a model's template by the model's name. What is known of neither
gets the strictest dialect. A refusal that names its reason corrects the dialect, for as long as
the provider lives. Each row names the page or the report that it is from.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from langswarm_session.blocks import AudioBlock, Block, FileBlock, ImageBlock
from langswarm_session.errors import InvalidInputError
from langswarm_session.formats.dialects import OPENAI, Dialect
from langswarm_session.requests.normalize.target import SystemPlacement

logger = logging.getLogger(__name__)

_ANYWHERE = SystemPlacement.ANYWHERE
_LOOSE: dict[str, Any] = {"system": _ANYWHERE, "alternates": False}

STRICT = Dialect()
"""What every server takes that is known: one system message, first; speakers in turn."""

SKIP_SIGNATURE = "skip_thought_signature_validator"
"""What Google takes for the signature of a call that Gemini did not make
(https://ai.google.dev/gemini-api/docs/thought-signatures)."""

_ALL = (
    OPENAI,
    # Anthropic's own: system and developer messages are hoisted and joined, most fields ignored.
    # https://platform.claude.com/docs/en/api/openai-sdk
    Dialect("anthropic", returns_reasoning=False, echoes=False),
    # Gemini, also at Vertex: a call without the signature that it came with is refused.
    # https://ai.google.dev/gemini-api/docs/thought-signatures
    # https://docs.cloud.google.com/vertex-ai/generative-ai/docs/thought-signatures
    Dialect("gemini", call_signature=SKIP_SIGNATURE),
    # https://api-docs.deepseek.com/guides/thinking_mode; an empty one is missed as well:
    # https://github.com/deepseek-ai/deepseek-harness/discussions/739; no lists:
    # https://github.com/BerriAI/litellm/issues/6642
    Dialect(
        "deepseek",
        **_LOOSE,
        needs_reasoning="reasoning_content",
        echoes=False,
        takes_parts=False,
    ),
    # The model before V4 refused its own reasoning (https://api-docs.deepseek.com/guides/
    # reasoning_model), until it could call tools and missed it: that is learned. Two of a speaker
    # in a row: https://github.com/BerriAI/litellm/issues/8018.
    Dialect("deepseek-reasoner", returns_reasoning=False, echoes=False),
    # "thinking is enabled but reasoning_content is missing in assistant tool call message":
    # https://github.com/continuedev/continue/issues/11600
    Dialect(
        "kimi",
        **_LOOSE,
        any_call_id=True,
        needs_reasoning="reasoning_content",
    ),
    # https://docs.z.ai/guides/capabilities/thinking-mode: "explicitly preserved and returned
    # together with the tool results", unmodified.
    Dialect("glm", **_LOOSE),
    # The rules of roles and ids: mistral_common/protocol/instruct/validator.py in
    # https://github.com/mistralai/mistral-common; a user behind a tool:
    # https://github.com/BerriAI/litellm/issues/6323. Thinking is a chunk of the content:
    # https://docs.mistral.ai/studio-api/conversations/reasoning. No field that is not in the API,
    # names among them: https://github.com/Gage-Technologies/mistral-go/pull/2; streams have usage
    # without being asked.
    Dialect(
        "mistral",
        alternates=False,
        answers_results=True,
        needs_user=True,
        call_id_exact=9,
        echoes=False,
        content_of_calls="",
        takes_names=False,
        streams_usage=False,
    ),
    # No names: https://console.groq.com/docs/openai; "property 'reasoning_content' is unsupported":
    # https://github.com/NousResearch/hermes-agent/issues/11089
    Dialect(
        "groq",
        **_LOOSE,
        returns_reasoning=False,
        echoes=False,
        takes_names=False,
    ),
    # https://openrouter.ai/docs/use-cases/reasoning-tokens: `reasoning_details` go back unmodified.
    Dialect("openrouter", **_LOOSE, any_call_id=True),
    # The field is `reasoning`, and was `reasoning_content`; a server takes the one that it gives.
    # https://docs.vllm.ai/en/stable/features/reasoning_outputs/
    Dialect("vllm"),
    # "invalid message content type: <nil>":
    # https://github.com/SAIL-Research-Lab/cheetahclaws/pull/72
    Dialect("ollama", content_of_calls=""),
    # "System message must be at the beginning": https://github.com/ggml-org/llama.cpp/issues/20733
    Dialect("llama.cpp"),
    # `thinking_blocks` and `provider_specific_fields` go back as they came:
    # https://docs.litellm.ai/docs/reasoning_content
    Dialect("litellm"),
    # https://docs.aws.amazon.com/bedrock/latest/userguide/inference-chat-completions.html
    Dialect("bedrock", returns_reasoning=False, echoes=False),
    # https://docs.cloud.google.com/vertex-ai/generative-ai/docs/start/openai
    Dialect("vertex"),
    # https://www.alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope
    Dialect("qwen"),
    STRICT,
)

DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in _ALL}
"""By name."""

_HOSTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"(^|\.)api\.openai\.com$|\.openai\.azure\.com$", "openai"),
        (r"(^|\.)api\.anthropic\.com$", "anthropic"),
        (r"^generativelanguage\.googleapis\.com$", "gemini"),
        (r"aiplatform\.googleapis\.com$", "vertex"),
        (r"(^|\.)api\.deepseek\.com$", "deepseek"),
        (r"(^|\.)moonshot\.(ai|cn)$|(^|\.)kimi\.com$", "kimi"),
        (r"(^|\.)z\.ai$|(^|\.)bigmodel\.cn$", "glm"),
        (r"(^|\.)api\.mistral\.ai$", "mistral"),
        (r"(^|\.)api\.groq\.com$", "groq"),
        (r"(^|\.)openrouter\.ai$", "openrouter"),
        (r"(^|\.)bedrock(-\w+)*\.[\w-]+\.(amazonaws\.com|api\.aws)$", "bedrock"),
        (r"(^|\.)dashscope(-\w+)?\.aliyuncs\.com$", "qwen"),
    )
)
"""Which dialect is spoken at which address."""

_PORTS = {4000: "litellm", 11434: "ollama"}
"""The ports of servers at home, where no other is used for the same: litellm's and Ollama's."""


class _Template(NamedTuple):
    """What a model's template asks for, whatever serves it.

    Attributes:
        model: Fits the model's name.
        but: The dialects that are not served by templates, or that say so themselves.
        changes: What the template changes of a dialect.
    """

    model: re.Pattern[str]
    but: tuple[str, ...]
    changes: Mapping[str, Any]


_AT_START = {"system": SystemPlacement.FIRST, "alternates": True}

_TEMPLATES = (
    # https://huggingface.co/Qwen/Qwen3.5-27B/blob/main/chat_template.jinja; seen through vLLM,
    # Fireworks and llama.cpp: https://github.com/vllm-project/vllm/issues/41114,
    # https://github.com/BerriAI/litellm/pull/39852. Gemma: https://github.com/dnakov/anon-kode/
    # issues/60; Mistral's models elsewhere: https://github.com/microsoft/autogen/issues/1037.
    _Template(
        re.compile(r"qwen|gemma|mi[sx]tral|magistral|devstral|ministral"), ("mistral",), _AT_START
    ),
    _Template(
        re.compile(r"mi[sx]tral|magistral|devstral|ministral"),
        ("mistral", "openrouter", "bedrock", "vertex", "groq"),
        {"answers_results": True, "call_id_exact": 9},
    ),
    # Routers pass the rules of the model on: https://github.com/anomalyco/opencode/issues/24722.
    _Template(
        re.compile(r"deepseek[-/.]?v([4-9]|\d\d)"),
        ("openrouter", "groq", "bedrock"),
        {"needs_reasoning": "reasoning_content"},
    ),
    _Template(
        re.compile(r"deepseek-reasoner"),
        (),
        {"returns_reasoning": False, "needs_reasoning": None, **_AT_START},
    ),
    _Template(
        re.compile(r"gemini-([3-9]|\d\d)"), ("openrouter",), {"call_signature": SKIP_SIGNATURE}
    ),
)


def dialect_of(base_url: str, model: str) -> Dialect:
    """Return the dialect of a model at a server; the strict one where neither is known."""
    parts = urlsplit(base_url)
    host = (parts.hostname or "").lower()
    name = next((name for pattern, name in _HOSTS if pattern.search(host)), None)
    dialect = DIALECTS[name or _PORTS.get(parts.port or 0, STRICT.name)]
    lowered = model.lower()
    for template in _TEMPLATES:
        if template.model.search(lowered) and dialect.name not in template.but:
            dialect = replace(dialect, **template.changes)
    return dialect


MEDIA: Mapping[str, type[Block]] = {
    "takes_images": ImageBlock,
    "takes_audio": AudioBlock,
    "takes_files": FileBlock,
}
"""The kinds of blocks other than text, by whether a dialect takes them."""


class _Lesson(NamedTuple):
    """What a refusal teaches.

    Attributes:
        said: Fits the refusal.
        changes: What of a dialect it corrects.
    """

    said: re.Pattern[str]
    changes: Mapping[str, Any]


_REFUSED = (
    r"(unsupported|not support(?:ed)?|not permitted|not allowed|unexpected|unknown|unrecogni[sz]ed"
    r"|forbidden)"
)


def _refused(name: str) -> tuple[str, str]:
    """Return what fits a refusal of a field, whether it is named before or behind that."""
    return rf"{_REFUSED}.{{0,80}}{name}", rf"{name}.{{0,80}}{_REFUSED}"


def _lesson(*said: str, **changes: Any) -> _Lesson:
    return _Lesson(re.compile("|".join(said), re.IGNORECASE | re.DOTALL), changes)


_LESSONS = (
    # Reasoning is wanted: DeepSeek, Kimi; https://github.com/OpenHands/benchmarks/issues/353. Or it
    # is refused: Groq, Cerebras, Mistral ("Extra inputs are not permitted").
    _lesson(
        r"reasoning_content.{0,60}(must be passed back|is missing)",
        r"missing .{0,2}reasoning_content",
        returns_reasoning=True,
        needs_reasoning="reasoning_content",
    ),
    _lesson(
        *_refused(r"\b(reasoning|thinking)(_content|_details|_blocks)?\b"),
        returns_reasoning=False,
        needs_reasoning=None,
        echoes=False,
    ),
    _lesson(r"missing an? .{0,2}thought_signature", call_signature=SKIP_SIGNATURE),
    # Templates of Qwen, Gemma, Mistral and others, at whatever serves them.
    _lesson(
        r"system (message|role|prompt).{0,40}(beginning|first|start)",
        r"multiple system messages",
        r"only one system",
        r"unexpected role '?system'?",
        system=SystemPlacement.FIRST,
    ),
    _lesson(
        r"roles must alternate",
        r"only user and assistant roles",
        r"successive (user|assistant)",
        r"multiple .{0,20}(user|assistant).{0,20} in a row",
        r"must start with a user",
        **_AT_START,
    ),
    _lesson(
        r"unexpected role '?user'? after role '?tool'?",
        r"alternate user and assistant roles except for tool calls and results",
        answers_results=True,
    ),
    _lesson(r"a-z, A-Z, 0-9, with a length of 9", call_id_exact=9),
    _lesson(r"expected last role user or tool", needs_user=True),
    # A model that sees nothing: https://github.com/rikkahub/rikkahub/issues/1433 (DeepSeek),
    # https://github.com/ollama/ollama/issues/17301, https://github.com/github/app/issues/2163
    # (OpenRouter), https://github.com/vllm-project/vllm/issues/23402, OpenAI, llama.cpp
    # (tools/server), https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/473,
    # https://github.com/Wei-Shaw/sub2api/issues/6899.
    _lesson(
        r"unknown variant `?image(_url)?`?, expected",
        r"support\w*( for)? image",
        r"image_url.{0,60}(only supported|not supported|unsupported)",
        r"image input.{0,20}(is|are) not supported",
        r"does not support (images?|vision|multimodal)",
        r"is not a multimodal model",
        r"at most 0 image",
        "\u4e0d\u652f\u6301\u56fe\u50cf",
        takes_images=False,
    ),
    _lesson(
        r"unknown variant `?input_audio`?, expected",
        r"support\w*( for)? audio",
        r"(input_audio|audio input).{0,60}(not supported|unsupported)",
        r"at most 0 audio",
        takes_audio=False,
    ),
    _lesson(
        r"unknown variant `?file`?, expected",
        r"support\w*( for)? (file|pdf|document)s?( content)?( input)?\b",
        r"unknown (part|content) type:? .?file",
        takes_files=False,
    ),
    # What is asked for beside the messages.
    _lesson(*_refused("stream_options"), streams_usage=False),
    _lesson(*_refused("prompt_cache_key"), takes_cache_key=False),
    _lesson(rf"'name'.{{0,40}}{_REFUSED}", takes_names=False),
    # The shape of content: LM Studio (https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/
    # 261), Ollama, and lists that are refused (https://github.com/cline/cline/issues/247).
    _lesson(
        r"content.{0,80}(none is not an allowed|got null|was null|null value|invalid type: null)",
        r"content' field must be a string or an array",
        r"invalid message content type: <nil>",
        content_of_calls="",
    ),
    _lesson(
        r"invalid type: sequence",
        r"content.{0,60}(must be a string|should be a valid string)",
        takes_parts=False,
        content_of_calls="",
    ),
)


def corrected(dialect: Dialect, said: str) -> Dialect | None:
    """Return the dialect as a refusal corrects it; None if it names nothing to correct.

    Args:
        dialect: The dialect of the request that was refused.
        said: What the server said.
    """
    changes: dict[str, Any] = {}
    for lesson in _LESSONS:
        if lesson.said.search(said):
            changes |= lesson.changes
    if "alternates" in changes and all(getattr(dialect, k) == v for k, v in changes.items()):
        # The template counts results as speakers: it knows no tools, as that of Gemma 3
        # (https://huggingface.co/google/gemma-3-27b-it).
        changes["takes_calls"] = False
    if "takes_parts" in changes and not dialect.takes_parts:
        # What is still a list has more than text in it.
        changes |= dict.fromkeys(MEDIA, False)
    better = replace(dialect, **changes)
    return None if better == dialect else better


class Dialects:
    """The dialects of one provider, by model: chosen, known, or learned.

    Args:
        choice: The dialect for every model: its name, or a dialect. None: what the address and the
            model's name say.
        address: Tells where requests go.

    Raises:
        InvalidInputError: If there is no dialect of that name.
    """

    def __init__(self, choice: str | Dialect | None, address: Callable[[], str]) -> None:
        if isinstance(choice, str):
            if choice not in DIALECTS:
                raise InvalidInputError(
                    f"there is no dialect {choice!r}; there are: {', '.join(sorted(DIALECTS))}. "
                    "Describe another with Dialect(...)"
                )
            choice = DIALECTS[choice]
        elif choice is not None and not isinstance(choice, Dialect):
            raise InvalidInputError(
                f"dialect must be a name or a Dialect, not {type(choice).__name__}"
            )
        self._choice = choice
        self._address = address
        self._by_model: dict[str, Dialect] = {}

    def of(self, model: str) -> Dialect:
        """Return the dialect of a model, as far as it is known by now."""
        known = self._by_model.get(model) or self._choice
        if known is None:
            known = self._by_model[model] = dialect_of(self._address(), model)
        return known

    def keep(self, model: str, dialect: Dialect) -> None:
        """Speak to a model in a dialect from now on."""
        self._by_model[model] = dialect

    def learn(self, dialect: Dialect, model: str, said: str) -> bool:
        """Take in a refusal.

        Args:
            dialect: The dialect of the request that was refused.
            model: The model.
            said: What the server said.

        Returns:
            Whether the request may be made again in another way.
        """
        # Another turn may have learned something meanwhile.
        better = corrected(self._by_model.get(model, dialect), said)
        if better is None:
            return False
        self._by_model[model] = better
        logger.warning(
            "the dialect %r of the model %r is corrected, as the server refused a request: %s",
            dialect.name,
            model,
            ", ".join(_differences(dialect, better)),
        )
        return True


def _differences(before: Dialect, after: Dialect) -> Iterator[str]:
    """Return what was corrected, in words."""
    for each in fields(Dialect):
        value = getattr(after, each.name)
        if value != getattr(before, each.name):
            yield f"{each.name}={value!r}"

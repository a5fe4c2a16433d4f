"""What servers say when they give no reply, in the shapes of many vendors and gateways.

The HTTP status alone does not tell: routers answer 200 with an error inside, gateways wrap the
error of the server behind them, and a request that is too long is a 400, 413, 429 or 500. This
module reads all of these without I/O; `langswarm_session.providers.sdk` raises what it finds.

The page or the report that a pattern comes from is named beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

from pydantic_core import from_json


class Kind(StrEnum):
    """What a failure is, whatever its status."""

    LOCKED = "locked"
    QUOTA = "quota"
    LENGTH = "length"
    REASONING = "reasoning"
    KEY = "key"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    MODEL = "model"
    ABSENT = "absent"
    RATE_LIMIT = "rate_limit"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    REFUSED = "refused"


LOCKED = "conversation_locked"
"""The code of an error that says that another request holds the conversation."""

_DEPTH = 8
"""How deep an error may be wrapped: by a gateway, a router and a provider, with room to spare."""

_QUOTA_CODES = re.compile(
    # OpenAI: platform.openai.com/docs/guides/error-codes; `credit_balance_exhausted` and the spend
    # limits share the type `insufficient_quota`. Anthropic: `billing_error` and the error codes of
    # anthropic/types/shared/*_spend_limit_reached_error.py. Moonshot: its page of errors
    # (platform.moonshot.ai/docs/api/errors).
    r"insufficient_quota|billing|spend_limit|usage_limit_exceeded|credit_balance"
    r"|exceeded_current_quota|insufficient_balance|payment_required"
)

_QUOTA_WORDS = re.compile(
    # Anthropic says so with a 400 (github.com/anthropics/claude-code/issues/66314), DeepSeek in
    # these words (api-docs.deepseek.com/quick_start/error_codes). "You exceeded your current
    # quota" is not here: Gemini says that for limits of a minute as well.
    r"credit balance is too low|insufficient balance|insufficient credits"
)

_LENGTH_CODES = re.compile(
    # OpenAI, Azure, Cerebras, OpenRouter; llama.cpp (tools/server/README.md); Anthropic's 413
    # (docs.claude.com/en/api/errors); OpenAI's limit of messages in a request; GitHub
    # Models and Copilot (github.com/microsoft/vscode/issues/289514).
    r"context_length_exceeded|exceed_context_size|request_too_large|contextwindowexceeded"
    r"|request_body_too_large|array_above_max_length"
    r"|tokens_limit_reached|model_max_prompt_tokens_exceeded"
)

_LENGTH_WORDS = re.compile(
    # In the order of: Anthropic and Bedrock's Claude; OpenAI, DeepSeek, OpenRouter, vLLM, SGLang;
    # OpenAI's Responses; Gemini; Mistral; Groq and Cerebras; OpenAI's and Groq's minute limits that
    # one request breaks alone (github.com/TheR1D/shell_gpt/issues/653); llama.cpp; Ollama; LM
    # Studio; Bedrock; Together and SGLang; TGI; xAI; Kimi; MiniMax; Qwen; Zhipu; Cohere; Poolside;
    # Anthropic's limit of pictures. Collected by litellm (exception_mapping_utils.py) and pi
    # (packages/ai/src/utils/overflow.ts).
    r"prompt is too long|exceed context limit"
    r"|maximum context length|maximum context limit|maximum model length"
    r"|exceeds? the context window|context window of this model"
    r"|input token count.{0,40}exceeds the maximum|exceeds the maximum number of tokens allowed"
    r"|too large for model with \d+ maximum context"
    r"|reduce the length of the messages"
    r"|request too large for"
    r"|exceeds? the available context size|context size has been exceeded"
    r"|prompt too long|input length exceeds the context length"
    r"|greater than the context length"
    r"|input is too long for requested model"
    r"|longer than the model'?s context length"
    r"|`inputs` tokens \+ `max_new_tokens` must be"
    r"|maximum prompt length is \d+"
    r"|exceeded model token limit"
    r"|context window exceeds limit"
    r"|range of input length should be"
    r"|prompt exceeds max length"
    r"|too many tokens: "
    r"|maximum (?:allowed )?input length (?:is|of) [\d,]+ tokens|input tokens exceed the configured"
    r"|too much media|contextwindowexceedederror"
    # LM Studio (github.com/lmstudio-ai/lmstudio-bug-tracker/issues/546); llama-cpp-python
    # (github.com/abetlen/llama-cpp-python/issues/462); Copilot without a code
    # (github.com/microsoft/vscode-copilot-release/issues/6700); Bedrock's Nova and Cohere, Vertex,
    # watsonx, Cloudflare, TabbyAPI and TensorRT-LLM, whose words differ by the verb alone. OpenAI's
    # limit of characters in a text, not in an option. Anthropic's limit of pixels where there are
    # many pictures, each of which it took while they were few
    # (github.com/anthropics/claude-code/issues/34120).
    r"|context length of only \d+"
    r"|exceed(?:s|ed)? (?:the |this )?(?:model )?context (?:window|length)"
    r"|token count of [\d,]+ exceeds|token limit exceeded|number of input tokens exceeds"
    r"|input tokens? (?:exceeded|count is \d+ but)|too many input tokens"
    r"|input tokens \d+ cannot exceed|(?:prompt|input) length \(?\d+\)? (?:exceeds|is greater than)"
    r"|'(?:input|messages)\[\d+\].{0,60}string too long|for many-image requests"
)

_REASONING_CODES = re.compile(r"invalid_encrypted_content|thinking_signature")

_REASONING_WORDS = re.compile(
    # Anthropic: platform.claude.com/docs/en/build-with-claude/preserved-thinking/
    # fix-bound-to-a-different-conversation and .../thinking-troubleshooting. OpenAI:
    # github.com/openai/codex/issues/8119; reasoning items that lost their partner, or are not
    # stored there: github.com/openai/openai-agents-python/issues/1660. Gemini:
    # ai.google.dev/gemini-api/docs/thought-signatures.
    r"bound to a different conversation"
    r"|invalid `?signature`? in `?(?:redacted_)?thinking"
    r"|thinking\.signature: "
    r"|compaction_signature_invalid|content\.0: invalid `signature`"
    r"|thinking`? (?:or `?redacted_thinking`? )?blocks.{0,60}cannot be modified"
    r"|encrypted[ _]content.{0,120}(?:verif|decrypt|pars|match)"
    r"|decrypt.{0,40}encrypted[ _]content"
    r"|of type 'reasoning' was provided without"
    r"|item with id '?rs_"
    r"|thought[ _]?signature"
)

_MODEL_CODES = re.compile(r"model_not_found|invalid_model|model_not_exist|unknown_model")

_MODEL_WORDS = re.compile(
    # OpenRouter, DeepSeek, Mistral, litellm, Ollama, vLLM.
    r"not a valid model|model not exist|invalid model(?: name|: )|no such model"
    r"|model .{0,80}(?:does not exist|not found)"
)

_KEY_WORDS = re.compile(r"api key not valid|api_key_invalid|invalid api key|incorrect api key")
"""Gemini says so with a 400: ai.google.dev/gemini-api/docs/troubleshooting."""

_WORDS = (
    # What codes and types mean where no status says it. The first that is found counts.
    (429, re.compile(r"rate_?limit|too_many_requests|resource_exhausted|throttl|slow_down")),
    (504, re.compile(r"timeout|deadline_exceeded")),
    (529, re.compile(r"overloaded|unavailable|capacity_exceeded")),
    (401, re.compile(r"authentication|unauthori[sz]ed|unauthenticated|invalid_api_key")),
    (403, re.compile(r"permission|forbidden|access_denied")),
    (500, re.compile(r"server_error|api_error|internal|upstream")),
    (404, re.compile(r"not_?found")),
)

_LATER = (409, 425)
"""Statuses that time may mend though they tell of no outage: the vendors' SDKs ask again after 409
(`_should_retry` in their ``_base_client.py``)."""

_UNCERTAIN = (Kind.RATE_LIMIT, Kind.TIMEOUT, Kind.UNAVAILABLE, Kind.REFUSED)
"""Kinds of which the server may say itself whether to ask again."""

_READ = 8000
"""How much of what a server says is searched, in characters: megabytes would hold up the loop."""

_STATUS = re.compile(r"[45][0-9]{2}")

_FOREVER = 1e9
"""The longest wait that is told, in seconds: thirty years."""

_HEADERS = (("retry-after-ms", 0.001), ("retry-after", 1.0))


@dataclass(frozen=True)
class Failure:
    """What a server said in place of a reply.

    Args:
        status: The HTTP status, if there was one; 200 where the error came inside an answer.
        body: The body, as far as it was JSON; else its text or None.
        text: What the SDK says of it; used where the body says nothing.
        headers: The answer's headers.
    """

    status: int | None
    body: object
    text: str = ""
    headers: Mapping[str, str] | None = None

    @cached_property
    def parts(self) -> list[Mapping[str, Any]]:
        """The objects that the error is told in, the outermost first."""
        return list(_parts(self.body))

    @cached_property
    def message(self) -> str:
        """What was said, from the outermost to the innermost, each text once."""
        said: list[str] = []
        for part in self.parts:
            text = part.get("message")
            # What has another inside was JSON, and is told by its own parts.
            if isinstance(text, str) and text and _inner(text) is None and text not in said:
                said.append(text)
        return ": ".join(said) or self.text

    @cached_property
    def codes(self) -> str:
        """The codes and types of all parts, in lower case, a space between."""
        words = []
        for part in self.parts:
            details = part.get("details")
            named = [part.get(key) for key in ("code", "type", "status", "error_type", "reason")]
            if isinstance(details, Mapping):
                named.append(details.get("error_code"))
            elif isinstance(details, list):
                named += [each.get("reason") for each in details if isinstance(each, Mapping)]
            words += [word for word in named if isinstance(word, str) and not word.isdigit()]
        return " ".join(words).lower()

    @cached_property
    def effective_status(self) -> int:
        """The status that fits what was said: a code in the body where HTTP says 200."""
        if self.status is not None and self.is_of_request:
            return self.status
        for part in self.parts:
            for key in ("code", "status", "status_code"):
                code = part.get(key)
                if _STATUS.fullmatch(str(code)) and isinstance(code, int | str):
                    return int(code)
        return next((status for status, words in _WORDS if words.search(self.codes)), 400)

    @cached_property
    def kind(self) -> Kind:
        """What it is."""
        return self._by_name() or self._by_status()

    @property
    def is_of_request(self) -> bool:
        """Whether it is the answer to the request, and did not come inside one that had begun."""
        return self.status is not None and self.status >= 400

    @property
    def is_of_no_api(self) -> bool:
        """Return whether this is a web server's page for an address that it does not serve.

        A text or a page, or ``{"detail": "Not Found"}`` of FastAPI's router.
        """
        if self.kind is not Kind.NOT_FOUND or self.status != 404:
            return False
        return not isinstance(self.body, Mapping | list) or self.body == {"detail": "Not Found"}

    def _by_name(self) -> Kind | None:
        """Return what the codes and the words say, whatever the status."""
        codes, status = self.codes[:_READ], self.effective_status
        words = excerpt(self.message).lower()
        if LOCKED in codes:
            return Kind.LOCKED
        if _QUOTA_CODES.search(codes) or _QUOTA_WORDS.search(words) or status == 402:
            # OpenRouter's 402 with Retry-After is a budget of requests under way, and passes
            # (openrouter.ai/docs/api/reference/errors-and-debugging, "Handling 402 errors").
            return Kind.QUOTA if self.retry_after is None else Kind.RATE_LIMIT
        if status == 413 or _LENGTH_CODES.search(codes) or _LENGTH_WORDS.search(words):
            return Kind.LENGTH
        if _REASONING_CODES.search(codes) or _REASONING_WORDS.search(words):
            return Kind.REASONING
        if status in (400, 404, 422) and (_MODEL_CODES.search(codes) or _MODEL_WORDS.search(words)):
            return Kind.MODEL
        return Kind.KEY if status == 400 and _KEY_WORDS.search(f"{codes} {words}") else None

    def _by_status(self) -> Kind:
        status = self.effective_status
        named = {
            401: Kind.KEY,
            403: Kind.FORBIDDEN,
            404: Kind.NOT_FOUND,
            405: Kind.ABSENT,
            408: Kind.TIMEOUT,
            429: Kind.RATE_LIMIT,
            501: Kind.ABSENT,
            504: Kind.TIMEOUT,
        }
        if status in named:
            return named[status]
        return Kind.UNAVAILABLE if status >= 500 or status == 498 else Kind.REFUSED

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later.

        A server's own ``x-should-retry`` goes before the status, as in the vendors' SDKs.
        """
        if self.kind not in _UNCERTAIN:
            return self.kind is Kind.LOCKED
        said = (self.headers or {}).get("x-should-retry")
        if said in ("true", "false"):
            return said == "true"
        return self.kind is not Kind.REFUSED or self.effective_status in _LATER

    @cached_property
    def retry_after(self) -> float | None:
        """The seconds that the server asks to wait, if it does."""
        waits = [_of_headers(self.headers or {}), *map(_of_part, self.parts)]
        return next((seconds for seconds in waits if seconds is not None), None)


def excerpt(text: str) -> str:
    """Return the beginning and the end of a long text."""
    return text if len(text) <= _READ else f"{text[:_READ]} {text[-_READ // 4 :]}"


def _parts(body: object, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Return the objects that an error is told in, wherever gateways put them.

    ``{"error": {...}}`` (OpenAI, Anthropic), ``{"error": "text"}`` (Ollama), ``[{"error": ...}]``
    (Gemini's OpenAI endpoint), ``{"object": "error", "message": ...}`` (vLLM), ``{"detail": ...}``
    (FastAPI), ``metadata.raw`` (OpenRouter: what the provider behind it said), JSON inside a
    message (proxies).
    """
    if depth > _DEPTH:
        return
    if isinstance(body, Mapping):
        yield body
    for inside in _insides(body):
        yield from _parts(inside, depth + 1)


def _insides(body: object) -> list[object]:
    """Return what of a body may have an error in it; a text is an object with a message."""
    if isinstance(body, list):
        return body[:3]
    if isinstance(body, Mapping):
        told = [body.get(name) for name in ("error", "errors", "detail", "metadata", "raw", "msg")]
        message = body.get("message")
        if not isinstance(message, str) or _inner(message) is not None:
            told.append(message)
        return [each for each in told if each]
    if isinstance(body, str) and body.strip() and "<html" not in body.lower():
        return [_inner(body) or {"message": body.strip()}]
    return []


def _inner(text: str) -> object | None:
    """Return the error that a text has in JSON, alone or at its end."""
    start = min((place for place in (text.find("{"), text.find("[{")) if place >= 0), default=-1)
    if start < 0:
        return None
    try:
        found = from_json(text[start:])  # `json` raises RecursionError for what is too deep
    except ValueError:
        return None
    first = found[0] if isinstance(found, list) and found else found
    tells = isinstance(first, dict) and ("error" in first or "message" in first)
    return found if tells else None


def _of_headers(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that headers ask to wait (RFC 9110, section 10.2.3)."""
    for name, unit in _HEADERS:
        try:
            return _seconds(float(headers.get(name, "")) * unit)
        except ValueError:
            continue
    try:
        until = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, OverflowError):
        return None
    return _seconds((until - datetime.now(UTC)).total_seconds()) if until.tzinfo else None


def _seconds(value: float) -> float:
    """Return the seconds as a number that can be added to a time."""
    return min(max(0.0, value), _FOREVER)


_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")


def _of_part(part: Mapping[str, Any]) -> float | None:
    """Return the seconds that a body asks to wait.

    Gemini names them in a ``google.rpc.RetryInfo`` and sends no header
    (github.com/AtomicBot-ai/atomic-agent/issues/106), others in a field.
    """
    for name in ("retry_after_seconds", "retry_after"):
        value = part.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
            return _seconds(min(value, _FOREVER))
    details = part.get("details")
    for each in details if isinstance(details, list) else ():
        asked = each.get("retryDelay") if isinstance(each, Mapping) else None
        match = _DURATION.fullmatch(asked) if isinstance(asked, str) else None
        if match:
            return _seconds(float(match[1]))
    return None

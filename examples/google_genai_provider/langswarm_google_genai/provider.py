"""Gemini by the google-genai SDK: the window travels with each request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, ClassVar

from langswarm_google_genai import wire
from langswarm_session import (
    InvalidInputError,
    IProviderSession,
    MissingDependencyError,
    ProviderAuthenticationError,
    ProviderCapability,
    ProviderRateLimitError,
    ProviderReply,
    ProviderRequest,
    ProviderRequestError,
    ProviderResponseError,
    ProviderSessionError,
    ProviderStreamError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SessionContext,
    SessionError,
    StreamEvent,
    Target,
    ToolCallBlock,
    UnknownModelError,
)
from langswarm_session.tools import as_tools

NO_CALLS = {"automatic_function_calling": {"disable": True}}
"""The SDK would call functions by itself; here a session's user does."""

WRONG_SERVER = "gave no answer of its API; check the base_url"


class GoogleProviderSession(IProviderSession):
    """Gemini.

    Args:
        api_key: The key; what ``GOOGLE_API_KEY`` or ``GEMINI_API_KEY`` holds when None.
        max_retries: How often to try again what failed and may be tried again.
        http_options: Those of the SDK (``base_url``, ``timeout``...).
        **options: Other keywords of ``google.genai.Client``.
    """

    name: ClassVar[str] = wire.PROVIDER
    capabilities = frozenset({ProviderCapability.STREAMING, ProviderCapability.TOOLS})

    def __init__(
        self,
        api_key: str | None = None,
        *,
        max_retries: int = 2,
        http_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._key = api_key
        self._retries = max_retries
        self._options = {"http_options": dict(http_options or {}), **options}
        self._client: Any = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def target(self, context: SessionContext, options: Mapping[str, Any]) -> Target:
        """See `IProviderSession.target`."""
        return Target(
            provider=self.name,
            model=context.model,
            strict=True,
            takes=wire.takes,
            alternates=True,
            needs_user=True,
        )

    async def send_message(self, request: ProviderRequest) -> ProviderReply:
        """See `IProviderSession.send_message`."""
        model = request.context.model
        arguments = self._arguments(request)
        with self._errors(model):
            answer = _plain(await self._models.generate_content(**arguments))
        return ProviderReply([wire.from_answer(answer, self._finished(answer), model)])

    async def stream_message(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """See `IProviderSession.stream_message`."""
        model = request.context.model
        arguments = self._arguments(request)
        parts: list[wire.Part] = []
        answer: dict[str, Any] = {}
        with self._errors(model):
            answers = await self._models.generate_content_stream(**arguments)
            async with aclosing(answers):
                async for each in answers:
                    piece = _plain(each)
                    answer |= piece
                    for part in wire.parts_of(piece):
                        parts.append(part)
                        yield _shown(part)
        if not wire.is_finished(answer):
            raise ProviderStreamError(
                "the stream of google ended before the reply was complete; send the message again",
                provider=self.name,
            )
        yield ProviderReply([wire.from_answer(answer, parts, model)])

    async def count_tokens(self, request: ProviderRequest) -> int:
        """See `IProviderSession.count_tokens`; the contents are counted, and nothing else."""
        arguments = self._arguments(request)
        with self._errors(request.context.model):
            counted = await self._models.count_tokens(
                model=arguments["model"], contents=arguments["contents"]
            )
        return int(counted.total_tokens or 0)

    async def close(self) -> None:
        """See `IProviderSession.close`."""
        client, self._client = self._client, None
        if client is not None:
            await client.aio.aclose()
            client.close()

    @property
    def _models(self) -> Any:
        if self._client is None:
            self._client = self._made()
        return self._client.aio.models

    def _made(self) -> Any:
        try:
            from google.genai import Client
        except ImportError as error:
            raise MissingDependencyError(
                "google-genai is missing: pip install google-genai"
            ) from error
        try:
            return Client(api_key=self._key, **self._options)
        except TypeError as error:
            raise InvalidInputError(f"the provider 'google' cannot be made so: {error}") from None
        except ValueError:
            raise ProviderAuthenticationError(
                "the provider 'google' has no key, or options that do not fit: give a key in "
                "providers={'google': key} or in GOOGLE_API_KEY",
                provider=self.name,
            ) from None

    def _arguments(self, request: ProviderRequest) -> dict[str, Any]:
        """Keywords of ``generate_content``."""
        options = dict(request.options)
        said = [options.pop(key, None) for key in ("instructions", "system_instruction")]
        tools = wire.to_tools(as_tools(options.pop("tools", None) or []))
        retries = self._retries if request.retries is None else request.retries
        retry = {"retry_options": {"attempts": retries + 1, "initial_delay": 0.25}}
        model = request.context.model
        config = {
            **options,
            **NO_CALLS,
            "http_options": retry,
            "system_instruction": wire.system(request.messages, *said),
            **({"tools": tools} if tools else {}),
        }
        contents = wire.to_contents(request.messages, model)
        return {"model": model, "contents": contents, "config": config}

    def _finished(self, answer: Mapping[str, Any]) -> list[wire.Part]:
        if not wire.is_finished(answer):
            raise self._error(ProviderResponseError, WRONG_SERVER)
        return wire.parts_of(answer)

    @contextmanager
    def _errors(self, model: str) -> Iterator[None]:
        """Turns what the SDK raises into errors of langswarm-session.

        None has the SDK's as its cause: that may show the key.
        """
        try:
            yield
        except (SessionError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - all of them are translated
            raise self._translated(error, model) from None

    def _translated(self, error: Exception, model: str) -> SessionError:
        code, kind = getattr(error, "code", None), type(error).__name__
        said = self._clean(getattr(error, "message", None) or str(error))
        if isinstance(code, int):
            if "error" not in (getattr(error, "details", None) or {}):
                return self._error(ProviderResponseError, f"{WRONG_SERVER} ({code})")
            return self._of_status(code, said, model)
        if "Timeout" in kind:
            return self._error(ProviderTimeoutError, "gave no answer in time")
        if type(error).__module__.startswith(("httpx", "httpcore", "anyio", "aiohttp")):
            return self._error(ProviderUnavailableError, f"cannot be reached ({kind})")
        if kind == "UnknownApiResponseError":
            return self._error(ProviderResponseError, WRONG_SERVER)
        if isinstance(error, ValueError | TypeError):
            return InvalidInputError(f"the provider 'google' does not take this: {said}")
        return self._error(ProviderSessionError, f"failed: {kind}: {said}")

    def _of_status(self, code: int, said: str, model: str) -> ProviderSessionError:
        if code in (401, 403) or "API key" in said:
            return self._error(ProviderAuthenticationError, f"refused the key; check it ({said})")
        if code == 404 and model in said:
            return self._error(UnknownModelError, f"has no model {model!r}, or not for this key")
        if code == 429:
            return self._error(ProviderRateLimitError, f"takes no more requests for now: {said}")
        if code in (408, 504):
            return self._error(ProviderTimeoutError, f"gave no answer in time: {said}")
        if code >= 500:
            return self._error(ProviderUnavailableError, f"is down ({code}): {said}")
        return self._error(ProviderRequestError, f"refused the request: {said}")

    def _error(self, kind: type[ProviderSessionError], said: str) -> ProviderSessionError:
        return kind(f"{self.name} {said}", provider=self.name)

    def _clean(self, text: str) -> str:
        return (text.replace(self._key, "***") if self._key else text)[:500]


def _plain(answer: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = answer.model_dump(
        mode="json", exclude_none=True, exclude={"sdk_http_response"}
    )
    return dumped


def _shown(part: wire.Part) -> StreamEvent:
    if part.get("thought"):
        return StreamEvent(reasoning=part.get("text") or "")
    if "text" in part:
        return StreamEvent(text=part["text"])
    block = wire.from_part(part)
    return StreamEvent(block=block if isinstance(block, ToolCallBlock) else None)

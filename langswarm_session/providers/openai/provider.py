"""OpenAI: conversations that it keeps, or requests that carry the window, there and elsewhere."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol
from urllib.parse import urlsplit

from langswarm_session.errors import InvalidInputError, MissingDependencyError
from langswarm_session.formats import openai_responses
from langswarm_session.formats.dialects import Dialect
from langswarm_session.formats.openai_items import USER_BLOCKS
from langswarm_session.interfaces import IProviderSession, ProviderCapability
from langswarm_session.models import SessionContext, SessionMessage
from langswarm_session.providers.openai.chat import Chat
from langswarm_session.providers.openai.conversations import STALE, Conversations
from langswarm_session.providers.openai.copies import Copies
from langswarm_session.providers.openai.dialects import Dialects
from langswarm_session.providers.openai.responses import Responses
from langswarm_session.providers.sdk import Sdk, client_options, secrets_of
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.requests.normalize import Target
from langswarm_session.requests.normalize.target import SystemPlacement
from langswarm_session.requests.provider_state import LEFT_BEHIND

HOSTS = ("api.openai.com",)
"""The hosts of OpenAI's own API; those of its regions end with one of them."""

AZURE_HOSTS = ("openai.azure.com", "services.ai.azure.com", "cognitiveservices.azure.com")
"""Hosts at which Azure serves the same API."""

MODES = ("conversations", "responses", "chat")


class _Mode(Protocol):
    async def send(self, request: ProviderRequest) -> ProviderReply: ...

    def stream(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]: ...


class OpenAIProviderSession(IProviderSession):
    """OpenAI, or any server that speaks one of its APIs.

    Modes: ``conversations`` (Conversations and Responses: OpenAI keeps the conversation, and only
    what is new travels), ``responses`` (Responses, nothing stored there, the window travels) and
    ``chat`` (Chat Completions, likewise; what most compatible servers speak). Sessions whose
    backend is a local one are answered with ``responses`` in place of ``conversations``.

    Args:
        api_key: The key; what ``OPENAI_API_KEY`` holds when None.
        mode: One of the modes; when None ``conversations`` at OpenAI's own address and ``chat`` at
            any other.
        max_retries: How often to try again what failed and may be tried again.
        dialect: How the server speaks Chat Completions: a name of
            `langswarm_session.providers.openai.dialects.DIALECTS`, or a `Dialect`. None: what the
            address and the model's name say, and what the server's refusals teach.
        client: An ``openai.AsyncOpenAI`` of your own, in place of one made from the options.
        **options: Keywords of ``openai.AsyncOpenAI`` (``base_url``, ``timeout``...).

    Raises:
        InvalidInputError: If there is no such mode or dialect.
    """

    name: ClassVar[str] = "openai"
    capabilities = frozenset(ProviderCapability)

    def __init__(
        self,
        api_key: str | None = None,
        *,
        mode: str | None = None,
        max_retries: int = 2,
        dialect: str | Dialect | None = None,
        client: Any = None,
        **options: Any,
    ) -> None:
        if mode is not None and mode not in MODES:
            raise InvalidInputError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
        secrets = secrets_of((api_key,), options)
        options = client_options(options)
        self._sdk = Sdk(self.name, lambda: _client(api_key, options), secrets, client)
        self._mode = mode
        self._base_url = getattr(client, "base_url", None) or options.get("base_url")
        if mode in ("responses", "chat"):
            self.capabilities = self.capabilities - {ProviderCapability.NATIVE}
        conversations = Conversations(self._sdk, max_retries, self._is_vendor)
        self._copies = conversations.copies
        self._responses = Responses(self._sdk, max_retries, self._is_vendor)
        self._chat = Chat(self._sdk, max_retries, Dialects(dialect, lambda: self._address))
        self._modes: dict[str, _Mode] = {
            "conversations": conversations,
            "responses": self._responses,
            "chat": self._chat,
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in mode {self._mode or 'automatic'}>"

    @property
    def mode(self) -> str:
        """The mode: the one asked for, or the one that the server's address decides."""
        if self._mode is None:
            self._mode = "conversations" if self._is_at(HOSTS) else "chat"
        return self._mode

    @property
    def _address(self) -> str:
        """Where requests go: as the SDK decides it, without importing it."""
        return str(self._base_url or os.environ.get("OPENAI_BASE_URL") or f"https://{HOSTS[0]}/v1")

    def _is_vendor(self) -> bool:
        """Return whether the server is one of OpenAI's."""
        return self._is_at((*HOSTS, *AZURE_HOSTS))

    def _is_at(self, hosts: Iterable[str]) -> bool:
        host = urlsplit(self._address).hostname or ""
        return any(host == name or host.endswith("." + name) for name in hosts)

    def target(self, context: SessionContext, options: Mapping[str, Any]) -> Target:
        """See `IProviderSession.target`."""
        if self._mode_for(context) == "chat":
            return self._chat.target(context.model)
        vendor = self._is_vendor()
        return Target(
            provider=self.name,
            model=context.model,
            strict=True,
            takes=openai_responses.takes,
            takes_back=(
                openai_responses.takes_back if vendor else openai_responses.takes_back_readable
            ),
            compactions=openai_responses.NAME if vendor else None,
            system=SystemPlacement.ANYWHERE if vendor else SystemPlacement.FIRST,
            user_blocks=USER_BLOCKS,
            call_id_length=openai_responses.CALL_ID_LENGTH,
        )

    async def send_message(self, request: ProviderRequest) -> ProviderReply:
        """See `IProviderSession.send_message`."""
        return await self._modes[self._mode_for(request.context)].send(request)

    async def stream_message(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """See `IProviderSession.stream_message`."""
        async for event in self._modes[self._mode_for(request.context)].stream(request):
            yield event

    async def count_tokens(self, request: ProviderRequest) -> int:
        """See `IProviderSession.count_tokens`."""
        return await self._responses.count(request)

    async def compact(self, request: ProviderRequest) -> ProviderReply:
        """See `IProviderSession.compact`."""
        if self._mode_for(request.context) == "chat":
            return await super().compact(request)
        return await self._responses.compact(request)

    async def create_provider_session(self, user_id: str, **options: Any) -> str:
        """See `IProviderSession.create_provider_session`.

        Args:
            user_id: Kept in the conversation's metadata.
            **options: Keywords of ``conversations.create``.
        """
        metadata = {"user_id": user_id, **(options.pop("metadata", None) or {})}
        return await self._kept("create_provider_session").create(metadata, **options)

    async def get_provider_session(self, provider_session_id: str) -> dict[str, Any]:
        """See `IProviderSession.get_provider_session`."""
        return await self._kept("get_provider_session").retrieve(provider_session_id)

    async def get_messages(
        self, provider_session_id: str, limit: int | None = None
    ) -> list[SessionMessage]:
        """See `IProviderSession.get_messages`."""
        return await self._kept("get_messages").messages(provider_session_id, limit)

    def pulled(self, provider_context: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `IProviderSession.pulled`. The newest item is asked for in the next turn."""
        return {**provider_context, "last_item": None} if provider_context else {}

    def outdated(self, provider_context: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `IProviderSession.outdated`. A conversation that was given stays as it is."""
        given = provider_context.get("given", not provider_context)
        left = provider_context.get(LEFT_BEHIND)
        known = STALE | ({"given": True} if given else {})
        return known | ({LEFT_BEHIND: left} if left else {})

    @property
    def keeps_replies(self) -> bool:
        """See `IProviderSession.keeps_replies`: responses are objects of their own.

        They are kept for 30 days and more, whatever becomes of the conversation:
        https://developers.openai.com/api/docs/guides/conversation-state
        """
        return self.mode == "conversations"

    async def delete_replies(self, provider_message_ids: Sequence[str]) -> list[str]:
        """See `IProviderSession.delete_replies`."""
        return await self._copies.delete_responses(provider_message_ids)

    async def delete_provider_session(self, provider_session_id: str) -> None:
        """See `IProviderSession.delete_provider_session`. Its items are deleted one by one."""
        await self._copies.delete(provider_session_id)

    async def close(self) -> None:
        """See `IProviderSession.close`."""
        await self._sdk.close()

    def _kept(self, operation: str) -> Copies:
        if ProviderCapability.NATIVE not in self.capabilities:
            raise self._keeps_nothing(operation)
        return self._copies

    def _mode_for(self, context: SessionContext) -> str:
        mode = self.mode
        return "responses" if mode == "conversations" and not context.backend.is_native else mode


def _client(api_key: str | None, options: Mapping[str, Any]) -> Any:
    try:
        from openai import AsyncOpenAI
    except ImportError as error:
        raise MissingDependencyError(
            'openai is missing: pip install "langswarm-session[openai]"'
        ) from error
    return AsyncOpenAI(api_key=api_key, **options)

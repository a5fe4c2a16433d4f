"""Anthropic: threads that it holds for minutes, requests that carry the window, managed agents."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar

from langswarm_session.errors import (
    InvalidInputError,
    MissingDependencyError,
    ProviderAuthenticationError,
    ProviderCapabilityError,
)
from langswarm_session.formats import anthropic_events
from langswarm_session.interfaces import IProviderSession, ProviderCapability
from langswarm_session.models import SessionContext, SessionMessage
from langswarm_session.providers.anthropic.agent_sessions import AgentSessions
from langswarm_session.providers.anthropic.agents import Agents
from langswarm_session.providers.anthropic.dialects import (
    Dialect,
    Server,
    dialect_at,
    dialect_named,
    dialect_of,
)
from langswarm_session.providers.anthropic.messages import MAX_TOKENS, Messages
from langswarm_session.providers.anthropic.requests import Wishes
from langswarm_session.providers.anthropic.threads import OWN_HOST, Threads, is_own
from langswarm_session.providers.sdk import Sdk, client_options, secrets_of
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.requests.normalize import Target

MODES = ("threads", "messages", "managed_agents")


class AnthropicProviderSession(IProviderSession):
    """Anthropic, or any server that speaks its API.

    Modes: ``threads`` (message threads: the server holds the conversation between turns that
    follow each other within minutes, and only what is new travels), ``messages`` (plain Messages,
    the window travels and is read from the cache) and ``managed_agents`` (an agent that runs at
    Anthropic). Sessions whose backend is a local one are answered with ``messages`` in place of
    ``threads``.

    Args:
        api_key: The key; what ``ANTHROPIC_API_KEY`` holds when None.
        mode: One of the modes; when None ``threads`` at Anthropic's own address and ``messages``
            at any other: a server that does not know threads ignores them without a word. Where
            ``threads`` is asked for elsewhere, its answers are checked for that.
        max_retries: How often to try again what failed and may be tried again.
        max_tokens: How long a reply may be, in tokens, unless a call says.
        cache: Whether what was sent before is to be read from the cache, in the way that the server
            takes; ``"5m"`` or ``"1h"`` says for how long it is kept. Writing to it costs 1.25 or 2
            times what plain input does, reading a tenth.
        dialect: What the server takes: the name of one of `anthropic_dialects.DIALECTS`
            (``anthropic``, ``hosted``, ``bedrock``, ``vertex``, ``foundry``, ``compatible``), or a
            `Dialect`. When None its address decides; what it refuses is left out from then on.
        block_binding: What the API is to do about thinking that is not valid any more because
            something before it changed: ``"drop_block"`` or ``"error"``. Such thinking is left out
            before it is sent, so this is a net beneath. When None the API's default holds, but for
            models that check every account. Setting it turns the check on for accounts made before
            2026-08-31.
        compact_above: Have Anthropic compact what was before a turn once the conversation is longer
            than this many tokens; its summary stands for all of that from then on.
        agent: For managed agents: the id of one, or keywords of ``beta.agents.create`` to make one
            at the first use; an agent of that name is used as it is.
        environment: For managed agents: the id of one, or keywords of
            ``beta.environments.create``, in the same way.
        client: An ``anthropic.AsyncAnthropic`` of your own, in place of one made from the options.
        **options: Keywords of ``anthropic.AsyncAnthropic`` (``base_url``, ``timeout``...).

    Raises:
        InvalidInputError: If there is no such mode, or managed agents lack theirs.
    """

    name: ClassVar[str] = "anthropic"
    capabilities = frozenset(ProviderCapability)

    def __init__(
        self,
        api_key: str | None = None,
        *,
        mode: str | None = None,
        max_retries: int = 2,
        max_tokens: int = MAX_TOKENS,
        cache: bool | str = True,
        dialect: str | Dialect | None = None,
        block_binding: str | None = None,
        compact_above: int | None = None,
        agent: str | Mapping[str, Any] | None = None,
        environment: str | Mapping[str, Any] | None = None,
        client: Any = None,
        **options: Any,
    ) -> None:
        if mode is not None and mode not in MODES:
            raise InvalidInputError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
        given = [each is not None for each in (agent, environment)]
        if any(given) != (mode == "managed_agents") or any(given) != all(given):
            raise InvalidInputError(
                "managed agents need an agent and an environment, each an id or what to make it "
                "from, and mode='managed_agents'"
            )
        secrets = secrets_of((api_key, options.get("auth_token")), options)
        options = client_options(options)
        self._sdk = Sdk(self.name, lambda: _client(api_key, max_retries, options), secrets, client)
        self._mode = mode
        lacking = ProviderCapability.TOOLS if agent is not None else ProviderCapability.NATIVE
        self.capabilities = self.capabilities - {lacking}
        if block_binding not in (None, "drop_block", "error"):
            raise InvalidInputError(
                f"block_binding must be 'drop_block' or 'error', got {block_binding!r}"
            )
        wishes = Wishes(max_tokens, cache, block_binding)
        server = Server(dialect_named(dialect) or _dialect(client, options))
        self._messages = Messages(self._sdk, server, max_retries, wishes, compact_above)
        self._threads = Threads(self._sdk, server, max_retries, wishes, compact_above)
        # A session of an agent can be deleted in any mode: the session may have had another once.
        self._sessions = AgentSessions(self._sdk, max_retries, agent or "", environment or "")
        self._agents = None if agent is None else Agents(self._sessions, max_retries)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in mode {self._mode or 'automatic'}>"

    @property
    def mode(self) -> str:
        """The mode: the one asked for, or the one that the server's address decides.

        Raises:
            ProviderAuthenticationError, MissingDependencyError: If no client can be made.
        """
        if self._mode is None:
            self._mode = "threads" if is_own(self._sdk.client.base_url) else "messages"
        return self._mode

    def target(self, context: SessionContext, options: Mapping[str, Any]) -> Target:
        """See `IProviderSession.target`."""
        if self._agents is None:
            return self._messages.target(context.model)
        return Target(
            provider=self.name,
            model=context.model,
            strict=True,
            takes=anthropic_events.takes,
            needs_user=True,
        )

    async def send_message(self, request: ProviderRequest) -> ProviderReply:
        """See `IProviderSession.send_message`."""
        return await self._for(request.context).send(request)

    async def stream_message(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """See `IProviderSession.stream_message`."""
        async with aclosing(self._for(request.context).stream(request)) as events:
            async for event in events:
                yield event

    async def count_tokens(self, request: ProviderRequest) -> int:
        """See `IProviderSession.count_tokens`."""
        return await self._messages.count(request)

    async def compact(self, request: ProviderRequest) -> ProviderReply:
        """See `IProviderSession.compact`."""
        if self._agents is not None:
            return await super().compact(request)
        return await self._messages.compact(request)

    async def create_provider_session(self, user_id: str, **options: Any) -> str:
        """See `IProviderSession.create_provider_session`. Managed agents only.

        Args:
            user_id: Kept in the session's metadata.
            **options: Keywords of ``beta.sessions.create``.
        """
        metadata = {"user_id": user_id, **(options.pop("metadata", None) or {})}
        return await self._managed("create_provider_session").create(metadata, **options)

    async def get_provider_session(self, provider_session_id: str) -> dict[str, Any]:
        """See `IProviderSession.get_provider_session`. Managed agents only."""
        return await self._managed("get_provider_session").retrieve(provider_session_id)

    async def list_provider_sessions(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return what Anthropic says of the newest sessions of the agent. Managed agents only.

        Args:
            limit: How many at most.
        """
        return await self._managed("list_provider_sessions").list(limit)

    async def archive_provider_session(self, provider_session_id: str) -> None:
        """Archive a session: it can be read, and takes no more. Managed agents only."""
        await self._managed("archive_provider_session").archive(provider_session_id)

    async def interrupt(self, provider_session_id: str) -> None:
        """Stop what the agent is doing in a session. Managed agents only."""
        await self._managed("interrupt").interrupt(provider_session_id)

    async def get_messages(
        self, provider_session_id: str, limit: int | None = None
    ) -> list[SessionMessage]:
        """See `IProviderSession.get_messages`. Managed agents only."""
        return await self._managed("get_messages").messages(provider_session_id, limit)

    async def delete_provider_session(self, provider_session_id: str) -> None:
        """See `IProviderSession.delete_provider_session`; in any mode."""
        await self._sessions.delete(provider_session_id)

    async def close(self) -> None:
        """See `IProviderSession.close`."""
        await self._sdk.close()

    def _for(self, context: SessionContext) -> Messages | Threads | Agents:
        if self._agents is not None:
            return self._agents
        native = self.mode == "threads" and context.backend.is_native
        return self._threads if native else self._messages

    def _managed(self, operation: str) -> AgentSessions:
        if self._agents is None:
            raise ProviderCapabilityError(
                f"{operation}: Anthropic keeps conversations with mode='managed_agents' only; a "
                "thread is a cache of minutes, and the record is the local one",
                provider=self.name,
            )
        return self._sessions


def _dialect(client: Any, options: Mapping[str, Any]) -> Dialect:
    """Return the dialect of the server that a client speaks to, before there is one."""
    if client is not None:
        return dialect_of(client)
    address = options.get("base_url") or os.environ.get("ANTHROPIC_BASE_URL")
    return dialect_at(str(address or f"https://{OWN_HOST}"))


def _client(api_key: str | None, max_retries: int, options: Mapping[str, Any]) -> Any:
    try:
        from anthropic import AsyncAnthropic
    except ImportError as error:
        raise MissingDependencyError(
            'anthropic is missing: pip install "langswarm-session[anthropic]"'
        ) from error
    client = AsyncAnthropic(api_key=api_key, max_retries=max_retries, **options)
    keys = (client.api_key, client.auth_token, client.credentials)
    if not (any(keys) or options.get("default_headers")):
        raise ProviderAuthenticationError(
            "the provider 'anthropic' has no key: give one in providers={'anthropic': key} or in "
            "the environment variable ANTHROPIC_API_KEY",
            provider="anthropic",
        )
    return client

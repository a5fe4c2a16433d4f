"""A manager as its sessions see it."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from langswarm_session.interfaces import ISessionManager

if TYPE_CHECKING:
    from langswarm_session.interfaces import (
        IProviderSession,
        ISessionLifecycleHook,
        ISessionMiddleware,
        ISessionStorage,
    )
    from langswarm_session.turns.core import ManagerCore


class SessionOwner(ISessionManager):
    """The manager that a session came from; see `SessionManager`.

    Attributes:
        core: What all of its sessions share.
    """

    core: ManagerCore

    @property
    @abstractmethod
    def storage(self) -> ISessionStorage:
        """Where the sessions live."""

    @abstractmethod
    def provider(self, name: str) -> IProviderSession:
        """Return a provider, made if it was not before."""

    @abstractmethod
    def add_provider_session(self, provider: str, provider_session: IProviderSession) -> None:
        """Use this provider for the sessions that name it."""

    @abstractmethod
    def add_global_middleware(self, middleware: ISessionMiddleware) -> None:
        """Let a middleware see the messages of all sessions that are got from now on."""

    @abstractmethod
    def add_global_hook(self, hook: ISessionLifecycleHook) -> None:
        """Let a hook observe all sessions that are got from now on."""

    @abstractmethod
    async def close(self, *, wait: float = 0) -> None:
        """End the open turns and close what the manager opened."""

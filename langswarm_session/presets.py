"""Managers and sessions in one call, and the one manager that a whole program may share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from threading import Lock
from typing import Any, TypeVar

from langswarm_session.hooks.metrics import MetricsHook
from langswarm_session.interfaces import IProviderSession, ISession, ISessionStorage
from langswarm_session.manager import SessionManager
from langswarm_session.middleware.logging import LoggingMiddleware
from langswarm_session.models import SessionBackend
from langswarm_session.providers.factory import ProviderSessionFactory
from langswarm_session.providers.registry import ProviderOptions
from langswarm_session.session import BaseSession
from langswarm_session.storage.factory import StorageFactory

AnySession = TypeVar("AnySession", bound=ISession)

PRODUCTION_DB_PATH = "/var/lib/langswarm/sessions.db"
"""Where `configure_production_sessions` keeps sessions unless told otherwise."""


def create_session_manager(
    storage: str | ISessionStorage = "sqlite",
    storage_config: Mapping[str, Any] | None = None,
    providers: Mapping[str, ProviderOptions] | None = None,
    *,
    fallback: str | None = None,
    lease_seconds: float = 30.0,
    turn_wait: float | None = 60.0,
    stall_seconds: float | None = 600.0,
) -> SessionManager:
    """A manager. Does no I/O: the first use opens the storage.

    Args:
        storage: ``sqlite`` (one file), ``memory``, a plug-in's name, a URL or a storage.
        storage_config: What the storage takes, such as ``{"db_path": "chat.db"}``.
        providers: Keys, options or providers, by name.
        fallback: See `SessionManager`, as for the others.
        lease_seconds: See `SessionManager`.
        turn_wait: See `SessionManager`.
        stall_seconds: See `SessionManager`.

    Raises:
        UnknownStorageError, UnknownProviderError, InvalidInputError
    """
    return SessionManager(
        storage,
        providers,
        storage_config=storage_config,
        fallback=fallback,
        lease_seconds=lease_seconds,
        turn_wait=turn_wait,
        stall_seconds=stall_seconds,
    )


async def create_simple_session(
    user_id: str,
    provider: str = "mock",
    model: str = "gpt-4o",
    api_key: str | None = None,
    storage: str | ISessionStorage = "memory",
) -> BaseSession:
    """A session with a manager of its own (``session.manager``), for a quick try.

    Args:
        user_id: Whose it is.
        provider: Who generates replies.
        model: The model's name.
        api_key: The provider's key.
        storage: Where it lives.
    """
    providers = {provider: api_key} if api_key else None
    manager = create_session_manager(storage, providers=providers)
    backend = SessionBackend.PROVIDER_NATIVE if api_key else SessionBackend.LOCAL_MEMORY
    return await manager.create_session(user_id, provider, model, backend)


def create_provider_session(
    provider: str, api_key: str | None = None, **options: Any
) -> IProviderSession:
    """A provider; see `ProviderSessionFactory.create_provider_session`."""
    return ProviderSessionFactory.create_provider_session(provider, api_key, **options)


@asynccontextmanager
async def session_context(session: AnySession) -> AsyncIterator[AnySession]:
    """The session, for ``async with``. Nothing needs to be saved at the end: it is already."""
    yield session


def configure_development_sessions() -> SessionManager:
    """A manager for development: in memory, and a mock for every provider that has no options.

    Messages' sizes and directions are logged at level DEBUG, and a `MetricsHook` counts.
    """
    manager = create_session_manager("memory", fallback="mock")
    manager.add_global_middleware(LoggingMiddleware())
    manager.add_global_hook(MetricsHook())
    return manager


def configure_production_sessions(
    storage_config: Mapping[str, Any] | None = None,
    providers: Mapping[str, ProviderOptions] | None = None,
    *,
    storage: str | ISessionStorage = "sqlite",
) -> SessionManager:
    """A manager for production: durable, and never a mock in place of a provider.

    Args:
        storage_config: What the storage takes; for SQLite, unless given, the file is
            ``/var/lib/langswarm/sessions.db``.
        providers: Keys, options or providers, by name.
        storage: Where sessions live.
    """
    if storage == "sqlite":
        storage_config = {"db_path": PRODUCTION_DB_PATH, **(storage_config or {})}
    manager = create_session_manager(storage, storage_config, providers)
    manager.add_global_hook(MetricsHook())
    return manager


class _Shared:
    lock = Lock()
    manager: SessionManager | None = None
    storage: ISessionStorage | None = None


def get_session_manager() -> SessionManager:
    """The manager that the whole program shares.

    Until `set_session_manager` was called that is one on the default storage, made at the first
    call, whose providers are configured by the environment.
    """
    storage = get_default_storage()
    with _Shared.lock:
        if _Shared.manager is None:
            _Shared.manager = SessionManager(storage)
        return _Shared.manager


def shared_manager() -> SessionManager | None:
    """Return the manager that the whole program shares, if there is one by now."""
    with _Shared.lock:
        return _Shared.manager


def set_session_manager(manager: SessionManager | None) -> None:
    """Share this manager with the whole program; None: forget the one that is shared."""
    with _Shared.lock:
        _Shared.manager = manager


def get_default_storage() -> ISessionStorage:
    """The storage of the shared manager: unless set, SQLite in ``langswarm_sessions.db``."""
    with _Shared.lock:
        if _Shared.storage is None:
            _Shared.storage = StorageFactory.create_storage("sqlite")
        return _Shared.storage


def set_default_storage(storage: ISessionStorage | None) -> None:
    """Use this storage for a shared manager that is yet to be made; None: forget it."""
    with _Shared.lock:
        _Shared.storage = storage

"""Storages that are derived from the interface alone, and so lack its optional methods."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from langswarm_session.interfaces import ISessionStorage
from langswarm_session.storage.base import StorageBase

OPTIONAL = frozenset(
    {"measure_log", "get_turn_notes", "restore_session", "search_messages", "scrub", "examine"}
)
"""The methods that a storage may leave to `StorageBase`."""


def completed(storage: ISessionStorage) -> ISessionStorage:
    """Return a storage with all methods: those that it lacks are made of its others."""
    kind = type(storage)
    return _completed_class(kind)(storage) if _lacks_any(kind) else storage


def _lacks_any(kind: type[ISessionStorage]) -> bool:
    return any(getattr(kind, name) is getattr(ISessionStorage, name) for name in OPTIONAL)


@cache
def _completed_class(kind: type[ISessionStorage]) -> Callable[[ISessionStorage], ISessionStorage]:
    names = ISessionStorage.__abstractmethods__ | OPTIONAL
    own = [name for name in names if getattr(kind, name) is not getattr(ISessionStorage, name)]
    return type(kind.__name__, (_CompletedStorage,), {name: _delegated(name) for name in own})


def _delegated(name: str) -> Callable[..., Any]:
    def method(storage: _CompletedStorage, *args: Any, **options: Any) -> Any:
        return getattr(storage.inner, name)(*args, **options)

    return method


class _CompletedStorage(StorageBase):
    """A storage, and what it lacks."""

    def __init__(self, inner: ISessionStorage) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return repr(self.inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def address(self) -> str | None:
        """See `ISessionStorage.address`."""
        return self.inner.address

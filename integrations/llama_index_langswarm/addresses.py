"""Where a store's sessions are, as text that holds no secret, and the way back to them.

LlamaIndex writes a store down with the memory that uses it: an address and a user. They may come
back from a browser or a file, so reading them never opens a file or a connection: the address
chooses among the managers that this process has. Nor do they decide on their own whose sessions are
read. Either the address is signed for that user, by this process or with the key that several
processes share, or the program itself has opened a store for that user in the same task.

Sync code has no task that would end with a request: the threads of a WSGI server answer one user
after the other in one context. What it opened counts for as long as it holds the store, and only
for sync code.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import secrets
from contextvars import ContextVar
from typing import Any, NamedTuple
from uuid import uuid4
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from langswarm_session.errors import InvalidInputError
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.manager import SessionManager
from langswarm_session.presets import shared_manager

KEY_VARIABLE = "LANGSWARM_STORE_KEY"
"""The environment variable with the key that processes share to sign addresses with."""

_SHORTEST_KEY = 32
_MOST_OPENED = 32
"""How many stores a task may have opened before the first of them are forgotten."""

_own_key = secrets.token_bytes(32)
_managers: WeakValueDictionary[str, SessionManager] = WeakValueDictionary()
_made_up: WeakKeyDictionary[ISessionStorage, str] = WeakKeyDictionary()


class _Opened(NamedTuple):
    """A store that the program opened.

    Attributes:
        manager: Where its sessions live.
        user_id: Whose they are.
        task: The task that opened it; None for sync code.
        store: What lives as long as the store.
    """

    manager: ref[SessionManager]
    user_id: str
    task: ref[asyncio.Task[Any]] | None
    store: ref[object]

    @property
    def counts(self) -> bool:
        """Whether it still shows that the program works for the user, here."""
        if self.task is None:
            return self.store() is not None and _current_task() is None
        task = self.task()
        return task is not None and not task.done()


_opened: ContextVar[tuple[_Opened, ...]] = ContextVar("opened", default=())


def address_of(manager: SessionManager, user_id: str) -> str:
    """Return the address of a user's sessions, signed.

    Args:
        manager: Where they live. Where its storage has no address, only this process knows it.
        user_id: Whose they are.
    """
    storage = manager.storage
    place = storage.address
    if place is None:
        place = _made_up.setdefault(storage, f"{storage.name}:{uuid4().hex}")
    _managers[place] = manager
    return f"{place}#{_signature(place, user_id)}"


def note_opened(manager: SessionManager, user_id: str, store: object) -> None:
    """Note that the program opened a user's sessions: for this task and those that it starts.

    Args:
        manager: Where they live.
        user_id: Whose they are.
        store: What lives as long as the store.
    """
    task = _current_task()
    entry = _Opened(ref(manager), user_id, None if task is None else ref(task), ref(store))
    others = [other for other in _opened.get() if other[:3] != entry[:3] and other.counts]
    _opened.set((entry, *others[: _MOST_OPENED - 1]))


def manager_at(address: str, user_id: str) -> SessionManager:
    """Return the manager whose address this is, for a store that was written down.

    Args:
        address: What `address_of` gave, here or in another process.
        user_id: Whose sessions the store is said to be for.

    Returns:
        The one that a store of this process used there last, or the program's shared manager.

    Raises:
        InvalidInputError: If this process has no manager there, or nothing shows that the store was
            that user's.
    """
    place, _, signature = address.rpartition("#") if isinstance(address, str) else ("", "", "")
    manager = _managers.get(place) or _shared_at(place)
    if manager is None:
        raise InvalidInputError(
            f"there are no sessions at {place or address!r} in this process; give the store its "
            "manager: make a store on it, or set_session_manager(), before this one is read"
        )
    is_signed = hmac.compare_digest(signature.encode(), _signature(place, user_id).encode())
    if not is_signed and not _has_opened(manager, user_id):
        raise InvalidInputError(
            f"nothing shows that the store was written down for the user {user_id!r}; make a store "
            "for this user before it is read, in the same task, and hold it meanwhile, or set "
            f"{KEY_VARIABLE} where stores are written down and where they are read"
        )
    return manager


def _has_opened(manager: SessionManager, user_id: str) -> bool:
    return any(
        entry.manager() is manager and entry.user_id == user_id and entry.counts
        for entry in _opened.get()
    )


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs
        return None


def _shared_at(place: str) -> SessionManager | None:
    manager = shared_manager()
    return manager if manager is not None and manager.storage.address == place else None


def _signature(place: str, user_id: str) -> str:
    told = json.dumps([place, user_id]).encode()
    return hmac.digest(_key(), told, "sha256").hex()[:32]


def _key() -> bytes:
    key = os.environ.get(KEY_VARIABLE)
    if key is None:
        return _own_key
    if len(key) < _SHORTEST_KEY:
        raise InvalidInputError(
            f"{KEY_VARIABLE} has {len(key)} characters, which can be guessed; give it at least "
            f"{_SHORTEST_KEY} random ones"
        )
    return key.encode()

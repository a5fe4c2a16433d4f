"""Where a store's sessions are, as text that holds no secret, and the way back to them.

LlamaIndex writes a store down with the memory that uses it. What is written is an address; whoever
reads it gets the manager that this process uses there, or a new one on the same file.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4
from weakref import WeakKeyDictionary, WeakValueDictionary

from langswarm_session.errors import InvalidInputError
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.manager import SessionManager

_managers: WeakValueDictionary[str, SessionManager] = WeakValueDictionary()
_made_up: WeakKeyDictionary[ISessionStorage, str] = WeakKeyDictionary()


def address_of(manager: SessionManager) -> str:
    """The address of a manager's storage: a file's URL, or one that only this process knows."""
    storage = manager.storage
    path = getattr(storage, "db_path", None)
    if isinstance(path, str | os.PathLike):
        address = f"sqlite:///{quote(str(Path(path).absolute()))}"
    else:
        address = _made_up.setdefault(storage, f"{storage.name}#{uuid4().hex}")
    _managers[address] = manager
    return address


def manager_at(address: str) -> SessionManager:
    """The manager whose address this is.

    Returns:
        The one that a store of this process used there last, with its middleware and hooks; where
        there is none, a new one on the file.

    Raises:
        InvalidInputError: If nobody else can get there.
    """
    known = _managers.get(address)
    if known is not None:
        return known
    if not (isinstance(address, str) and address.startswith("sqlite:///")):
        raise InvalidInputError(
            f"there are no sessions at {address!r} in this process; give the store its manager"
        )
    manager = _managers[address] = SessionManager(address)
    return manager

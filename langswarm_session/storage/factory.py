"""Storages by name, by address, and by plug-in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from langswarm_session import _plugins as plugins
from langswarm_session.errors import (
    InvalidInputError,
    SessionStorageError,
    UnknownStorageError,
)
from langswarm_session.interfaces import ISessionStorage

ENTRY_POINT_GROUP = "langswarm_session.storages"
"""The entry-point group in which a plug-in names its storage class, or a function that makes one.

The entry's name is what `StorageFactory.create_storage` and the scheme of a URL know it by; one
that serves several schemes has several entries.
"""

_NAME = re.compile(r"[\w.+-]*", re.ASCII)
_MODE = re.compile("mode=([0-7]{3,4})")


def _memory(**config: Any) -> ISessionStorage:
    from langswarm_session.storage.memory import InMemorySessionStorage

    return InMemorySessionStorage(**config)


def _sqlite(**config: Any) -> ISessionStorage:
    from langswarm_session.storage.sqlite.storage import SQLiteSessionStorage

    if "url" in config:
        config = {**_sqlite_config(config.pop("url")), **config}
    return SQLiteSessionStorage(**config)


def _postgres(**config: Any) -> ISessionStorage:
    from langswarm_session.storage.postgres.storage import PostgresSessionStorage

    if "url" in config:
        config = {"dsn": config.pop("url"), **config}
    return PostgresSessionStorage(**config)


def _sqlite_config(url: str) -> dict[str, Any]:
    """The file of ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, as in SQLAlchemy, and
    the permissions that it is created with, where the address ends in ``?mode=0660``.

    Raises:
        InvalidInputError: If it names no file, or says more than that.
    """
    address, mark, query = url.partition("?")
    mode = _MODE.fullmatch(query)
    if (mark and mode is None) or "#" in url:
        # It may be another database's address with a password in it.
        raise InvalidInputError(
            "the address of a SQLite file can only end in ?mode= with octal permissions, as in "
            "sqlite:///sessions.db?mode=0660: write %3F and %23 for ? and # in the file's name, "
            "and give other settings as storage_config"
        )
    parts = urlsplit(address)
    path = unquote(parts.path).removeprefix("/")
    if parts.netloc or not path:
        raise InvalidInputError(
            f"{_url_shown(address)} names no file; write sqlite:///relative.db or "
            "sqlite:////absolute/path.db"
        )
    return {"db_path": path} if mode is None else {"db_path": path, "mode": mode[1]}


class StorageFactory:
    """Makes storages by name. Others are added by `register` or by an entry point."""

    _makers: ClassVar[dict[str, Callable[..., ISessionStorage]]] = {
        "memory": _memory,
        "sqlite": _sqlite,
        "postgres": _postgres,
        "postgresql": _postgres,
    }

    @classmethod
    def register(cls, name: str, maker: Callable[..., ISessionStorage]) -> None:
        """Add a storage, or replace one.

        Args:
            name: What `create_storage` and the scheme of a URL will know it by.
            maker: Makes it from the configuration; given a URL, it gets ``url=...``.
        """
        cls._makers[name] = maker

    @classmethod
    def create_storage(cls, name: str, **config: Any) -> ISessionStorage:
        """Make a storage. Does no I/O: the first use opens it.

        Args:
            name: ``memory``, ``sqlite``, ``postgres``, the name of a plug-in, or a URL whose scheme
                is one of them (``sqlite:///sessions.db``, ``postgresql://user@host/database``).
            **config: What the storage takes: the arguments of `SQLiteSessionStorage` (``db_path``
                first) or `PostgresSessionStorage` (``dsn`` first).

        Raises:
            UnknownStorageError: If there is no storage of that name.
            InvalidInputError: If the configuration does not fit it.
            SessionStorageError: If a plug-in cannot be loaded, or makes something else.
        """
        scheme, separator, _ = name.partition("://")
        if separator:
            config = {"url": name, **config}
        maker = cls._makers.get(scheme) or plugins.load(
            ENTRY_POINT_GROUP, scheme, SessionStorageError
        )
        if maker is None:
            known = ", ".join(sorted({*cls._makers, *plugins.names(ENTRY_POINT_GROUP)}))
            raise UnknownStorageError(f"there is no storage {_shown(scheme)}; there are: {known}")
        try:
            made = maker(**config)
        except TypeError as error:
            raise InvalidInputError(
                f"storage {scheme!r} cannot be made from this: {error}"
            ) from error
        if not isinstance(made, ISessionStorage):
            raise SessionStorageError(
                f"what is known as the storage {scheme!r} makes a {type(made).__name__}, which is "
                "no ISessionStorage"
            )
        return made


def _url_shown(url: str) -> str:
    """An address without what stands before an ``@`` in it, which may be a password."""
    scheme, separator, rest = url.partition("://")
    return repr(f"{scheme}{separator}{rest.rpartition('@')[2]}")


def _shown(name: str) -> str:
    """Return a name, unless it may be an address of another form, with a password in it."""
    if _NAME.fullmatch(name):
        return repr(name)
    return "of that name (an address begins with scheme://)"

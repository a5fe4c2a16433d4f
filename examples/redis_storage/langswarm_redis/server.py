"""The server: its address, connecting to it, and whether it can be relied on."""

from __future__ import annotations

import logging
import re
from typing import Any, Literal
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from langswarm_redis.scripts import NAMES, script
from langswarm_session.errors import (
    InvalidInputError,
    StorageUnavailableError,
    StorageVersionError,
)

logger = logging.getLogger(__name__)

Durability = Literal["require", "warn", "accept"]

SCHEMA_VERSION = 2
"""Moves when what the keys hold does."""

_OLDEST = (6, 2)
_HOST = re.compile(r"([\w.\-%]+|\[[\w:.%]+\])(:\d+)?")
_HOW = (
    "write redis://user:password@host:port/db (rediss:// with TLS, unix:///path?db=0), with "
    "whatever is special in the password as %xx (urllib.parse.quote)"
)


class Server:
    """A Redis server that is used under a prefix.

    Args:
        url: Its address; see `RedisSessionStorage`, as for the others.
        password: Its password.
        prefix: What the names of all keys begin with.
        durability: What to do where writes that were acknowledged could be lost.
        timeout: How long to wait for an answer, in seconds.
        connect_timeout: How long to try to connect, in seconds.

    Attributes:
        name: What to call it in messages: the address without secrets.
        caveats: Why what was acknowledged might be lost, as the server was found last.

    Raises:
        InvalidInputError: If the address cannot be used.
    """

    def __init__(
        self,
        url: str,
        password: str | None,
        prefix: str,
        durability: Durability,
        *,
        timeout: float,
        connect_timeout: float,
    ) -> None:
        self.name = _name(url)
        self.prefix = prefix
        self.caveats: tuple[str, ...] = ()
        self._url = url
        self._durability = durability
        self._options: dict[str, Any] = {
            "socket_timeout": timeout,
            "socket_connect_timeout": connect_timeout,
            # The one that every version of server and client speaks alike.
            "protocol": 2,
            # What was sent and not answered is said again by who knows how to say it again.
            "retry": Retry(NoBackoff(), 0),
        }
        if password is not None:
            self._options["password"] = password
        self._try_address()

    def client(self) -> redis.Redis:
        """A client of one thread's own. Does no I/O."""
        return redis.Redis.from_url(self._url, **self._options)

    def open(self, client: redis.Redis) -> None:
        """Look at the server and load the scripts.

        Raises:
            StorageUnavailableError: If it is one that cannot be used or relied on.
            StorageVersionError: If the data is of a newer version.
        """
        info = client.info()
        version = tuple(map(int, str(info["redis_version"]).split(".")[:2]))
        if version < _OLDEST:
            raise StorageUnavailableError(f"{self.name}: it needs Redis 6.2 or newer")
        if info.get("cluster_enabled"):
            raise StorageUnavailableError(
                f"{self.name}: a Redis cluster cannot be used: listings and sessions are written "
                "together, and a cluster does so only with keys of one slot; use a primary with "
                "replicas, or a server for each tenant"
            )
        self._check_durability(client, info)
        self._check_schema(client)
        for each in NAMES:
            client.script_load(script(each).text)

    def _check_durability(self, client: redis.Redis, info: dict[str, Any]) -> None:
        found = tuple(_caveats(info, _configured(client)))
        if found and self._durability == "require":
            raise StorageUnavailableError(
                f"{self.name}: what is acknowledged could be lost: {'; '.join(found)}"
            )
        if found and found != self.caveats and self._durability == "warn":
            logger.warning(
                "%s: what is acknowledged could be lost: %s", self.name, "; ".join(found)
            )
        self.caveats = found

    def _check_schema(self, client: redis.Redis) -> None:
        key = f"{self.prefix}schema".encode()
        found = client.get(key)
        if found is None:
            client.set(key, SCHEMA_VERSION, nx=True)
        version = int(found or SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            what = "update it" if version > SCHEMA_VERSION else "export with the one that made it"
            raise StorageVersionError(
                f"{self.name}: the data under {self.prefix!r} has schema {version}, and this "
                f"version of langswarm-redis reads {SCHEMA_VERSION}; {what}"
            )

    def _try_address(self) -> None:
        try:
            pool = self.client().connection_pool
            pool.connection_class(**pool.connection_kwargs)
        except (TypeError, ValueError):
            # Whatever it says may quote the address with its password.
            raise InvalidInputError(
                f"{self.name}: the url has an option that redis-py does not know, or a value that "
                f"does not fit one; {_HOW}"
            ) from None


def _configured(client: redis.Redis) -> dict[str, str]:
    """What the server says of its settings: nothing where it is not to be asked."""
    names = ("appendfsync", "maxmemory", "maxmemory-policy")
    found: dict[str, str] = {}
    try:
        for each in names:
            found |= {str(name): str(value) for name, value in client.config_get(each).items()}
    except redis.ResponseError:
        return {}
    return found


def _caveats(info: dict[str, Any], settings: dict[str, str]) -> list[str]:
    found = []
    fsync = settings.get("appendfsync")
    if not info.get("aof_enabled"):
        found.append("it keeps no append-only file (appendonly no)")
    elif fsync is None:
        found.append("it does not say when it syncs its append-only file (CONFIG GET is refused)")
    elif fsync != "always":
        found.append(f"it does not sync each write to disk (appendfsync {fsync})")
    policy = str(settings.get("maxmemory-policy", info.get("maxmemory_policy", "")))
    limit = int(settings.get("maxmemory", info.get("maxmemory", 0)))
    if limit and policy.startswith("allkeys"):
        found.append(f"it drops keys when its memory is full (maxmemory-policy {policy})")
    return found


def _name(url: str) -> str:
    """The address without names and secrets.

    Raises:
        InvalidInputError: If it is no address.
    """
    if not isinstance(url, str):
        raise InvalidInputError(f"url must be a text, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = None
    if parts is None or "@" in parts.path + parts.query or parts.fragment or not _fits(parts):
        # It may hold a password, so it is not shown.
        raise InvalidInputError(f"the url is no address of a Redis server; {_HOW}")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _fits(parts: Any) -> bool:
    if parts.scheme == "unix":
        return bool(parts.path) and not parts.netloc
    host = parts.netloc.rpartition("@")[2]
    database = parts.path.removeprefix("/")
    return (
        parts.scheme in ("redis", "rediss")
        and (not host or _HOST.fullmatch(host) is not None)
        and (not database or (database.isascii() and database.isdigit()))
    )

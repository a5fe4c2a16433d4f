"""The address of a PostgreSQL database: what of it is ours, and what the driver is given."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from langswarm_session.errors import InvalidInputError

_HOSTS = re.compile(r"([\w.\-%]*|\[[\w:.%]*\])(:\d*)?(,([\w.\-%]*|\[[\w:.%]*\])(:\d*)?)*")
_PORTS = re.compile(r":(\d+)(?=,|$)")
_PORT = re.compile("[0-9]{1,5}")
_OTHER_SCHEME = re.compile(r"(?!postgres(ql)?:)(?i:postgres(ql)?)(\+\w+)?://")
_NO_ADDRESS = (
    "the dsn is no address; write postgresql://user:password@host:port/database, with whatever is "
    "special in the password as %xx (urllib.parse.quote)"
)

_OURS = ("schema", "table_prefix", "connect_timeout")
"""The options that say what an argument of the storage would."""

_VALUES: dict[str, tuple[str, ...]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "target_session_attrs": (
        "any", "primary", "standby", "prefer-standby", "read-write", "read-only",
    ),
}  # fmt: skip
"""The driver's options that have no other values."""

_LEFT_OUT: dict[str, tuple[str, ...] | None] = {
    "channel_binding": ("disable", "prefer"),
    "fallback_application_name": None,
    "gssdelegation": ("0",),
    "gssencmode": ("disable", "prefer"),
    "keepalives": None,
    "keepalives_count": None,
    "keepalives_idle": None,
    "keepalives_interval": None,
    "load_balance_hosts": None,
    "sslcertmode": ("allow",),
    "sslcompression": None,
    "sslsni": ("1",),
    "tcp_user_timeout": None,
}
"""libpq's options that the driver does not know, with the values (None: all) that only tune libpq,
or ask for nothing that is not so anyway."""

_NOT_KEPT = (
    "hostaddr", "max_protocol_version", "min_protocol_version", "replication", "require_auth",
    "requirepeer", "scram_client_key", "scram_server_key", "service", "servicefile", "sslcrldir",
    "sslkeylogfile",
)  # fmt: skip
"""libpq's options that the driver does not know, or not wholly, and that cannot be passed over."""

_PROMISES = ("channel_binding", "gssencmode", "require_auth", "requirepeer", "sslcrldir")
_PLACES = ("hostaddr", "service")
"""The options that are looked for in the environment: how safe it must be, and where it goes."""


@dataclass(frozen=True, slots=True)
class Address:
    """What an address says.

    Attributes:
        name: What to call the database in messages: the address without names and secrets.
        dsn: What the driver is to be given; None: all comes from the environment.
        schema: Where the tables are, if it says so.
        table_prefix: What their names begin with, likewise.
        connect_timeout: How long to try to connect, in seconds, likewise.
    """

    name: str = "postgres"
    dsn: str | None = field(default=None, repr=False)
    schema: str | None = None
    table_prefix: str | None = None
    connect_timeout: float | None = None


def parse_address(dsn: str | None) -> Address:
    """Take an address apart; None for one that comes from the environment.

    Raises:
        InvalidInputError: If it is none, or asks for what would not be done.
    """
    if dsn is None:
        _check_environment({}, is_whole=False)
        return Address()
    parts = _split(dsn)
    rest, options = _options(parts.query)
    hosts = parts.netloc.rpartition("@")[2]
    _check_ports(",".join(_PORTS.findall(hosts)), "a port of the dsn")
    _check_ports(options.get("port"), "a port of the dsn")
    goes_to = {"host": hosts, "database": parts.path[1:], **options}
    is_whole = bool(goes_to["host"] and (goes_to["database"] or options.get("dbname")))
    _check_environment(options, is_whole=is_whole)
    return Address(
        name=f"postgresql://{hosts}{parts.path}",
        dsn=parts._replace(query=rest).geturl(),
        schema=options.get("schema"),
        table_prefix=options.get("table_prefix"),
        connect_timeout=_seconds(options.get("connect_timeout")),
    )


def _split(dsn: object) -> SplitResult:
    if not isinstance(dsn, str):
        raise InvalidInputError(f"dsn must be a text, not {type(dsn).__name__}")
    other = _OTHER_SCHEME.match(dsn)
    if other is not None:
        raise InvalidInputError(f"the dsn begins with {other[0]}; write postgresql://")
    try:
        parts = urlsplit(dsn)
    except ValueError:
        parts = None
    if parts is None or _is_odd(dsn, parts):
        # It may hold a password, so it is not shown.
        raise InvalidInputError(_NO_ADDRESS)
    return parts


def _is_odd(dsn: str, parts: SplitResult) -> bool:
    """Whether it is no address, or the driver would take it for another than it is."""
    user, _, hosts = parts.netloc.rpartition("@")
    is_ours = dsn.startswith(("postgresql://", "postgres://")) and "\0" not in unquote(dsn)
    has_more = "@" in user + parts.path + parts.query or parts.fragment
    # In the place of a name, as in the addresses of JDBC, they would begin an option.
    has_option = not {";", "&", "="}.isdisjoint(parts.path)
    return not is_ours or bool(has_more) or has_option or not _HOSTS.fullmatch(hosts)


def _options(query: str) -> tuple[str, dict[str, str]]:
    """What of a query the driver is to be given, and all that it says; the last of a name counts.

    Raises:
        InvalidInputError: If it cannot be read, or asks for what would not be done.
    """
    rest: list[str] = []
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, is_pair, value = (unquote(each) for each in part.partition("="))
        if not is_pair:
            raise InvalidInputError(_NO_ADDRESS)
        options[name] = value
        if name not in _OURS and name not in _LEFT_OUT:
            rest.append(part)
    for name, value in options.items():
        _check_option(name, value, f"the dsn's {name}")
    return "&".join(rest), options


def _check_option(name: str, value: str, said: str) -> None:
    if not value:
        return
    if name in _NOT_KEPT:
        raise InvalidInputError(
            f"{said} cannot be honoured: asyncpg does not know it, or not wholly; say in the dsn "
            "what is meant, without it"
        )
    values = _VALUES.get(name) or _LEFT_OUT.get(name)
    if values is not None and value not in values:
        raise InvalidInputError(
            f"{said} must be one of {', '.join(values)}: asyncpg can do no other"
        )


def _check_environment(options: Mapping[str, str], *, is_whole: bool) -> None:
    """See that nothing is asked for in the environment that would be passed over.

    Args:
        options: What the address says itself, which goes before.
        is_whole: Whether it says where it goes.
    """
    for name in _PROMISES if is_whole else (*_PROMISES, *_PLACES):
        variable = f"PG{name.replace('_', '').upper()}"
        if name not in options:
            _check_option(name, os.environ.get(variable, ""), variable)
    if not options.get("port"):
        _check_ports(os.environ.get("PGPORT"), "PGPORT")


def _check_ports(ports: str | None, said: str) -> None:
    for port in ports.split(",") if ports else ():
        # The number is not shown: without its host a dsn has a password there.
        if not _PORT.fullmatch(port) or not 0 < int(port) < 2**16:
            raise InvalidInputError(f"{said} must be a number from 1 to 65535")


def _seconds(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidInputError("the dsn's connect_timeout must be a number of seconds") from None

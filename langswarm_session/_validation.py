"""What is checked of a caller's arguments before anything is done with them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard
from uuid import UUID

from pydantic import ValidationError

from langswarm_session.errors import InvalidInputError
from langswarm_session.models import SessionStatus

MAX_ID_LENGTH = 512
"""How many characters a session's or user's id may have."""

MAX_SECONDS = 1e9
"""The longest time that may be named: some thirty years."""

MAX_LIMIT = 2**31 - 1
"""How many entries may be asked for at once."""


def check_id(value: object, name: str) -> str:
    """A session's or user's id, as it is. Quotes and any printable text are fine.

    Raises:
        InvalidInputError: If it is not a string, empty, too long, or has control characters.
    """
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} must be a string, not {type(value).__name__}")
    if not value.strip():
        raise InvalidInputError(f"{name} is empty; give a name that tells it from others")
    if len(value) > MAX_ID_LENGTH:
        raise InvalidInputError(
            f"{name} has {len(value)} characters, {MAX_ID_LENGTH} are allowed: {value[:40]!r}..."
        )
    # What is not printable (NUL, newlines, lone surrogates) breaks logs, headers or databases.
    bad = next((char for char in value if not (char.isprintable() or char == " ")), None)
    if bad is not None:
        raise InvalidInputError(f"{name} {value[:80]!r} has the unprintable character {bad!r}")
    return value


def text_id(value: Any) -> Any:
    """Return an id as text if it is a whole number or a UUID, as web frameworks hand them over."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number or isinstance(value, UUID) else value


def check_limit(value: object, *, optional: bool = True) -> int | None:
    """How many entries are asked for at most.

    Raises:
        InvalidInputError: If it is not a whole number from 0 on.
    """
    if value is None and optional:
        return None
    if not _is_whole(value) or value < 0:
        raise InvalidInputError(f"limit must be a whole number from 0 on, not {value!r}")
    return min(value, MAX_LIMIT)


def check_count(value: object, name: str, *, least: int, most: float = math.inf) -> int:
    """A number of things.

    Args:
        value: How many.
        name: What they are called.
        least: How many there must be.
        most: How many there may be.

    Raises:
        InvalidInputError: If it is not a whole number in that range.
    """
    if _is_whole(value) and least <= value <= most:
        return value
    end = "on" if most == math.inf else f"to {most}"
    raise InvalidInputError(f"{name} must be a whole number from {least} {end}, not {value!r}")


def check_expected(value: object, session_id: str, *, optional: bool = True) -> int | None:
    """The revision that a caller expects a session to be at.

    Raises:
        InvalidInputError: If it is not a whole number.
    """
    if (value is None and optional) or _is_whole(value):
        return value
    raise InvalidInputError(
        f"expected_revision must be a session's revision, not {value!r}", session_id=session_id
    )


def check_seqs(value: object, name: str, session_id: str) -> list[int]:
    """Sequence numbers of messages, as a list.

    Raises:
        InvalidInputError: If it is anything else.
    """
    seqs: list[int] = []
    for seq in value if isinstance(value, Iterable) else [value]:
        if not _is_whole(seq):
            raise InvalidInputError(
                f"{name} takes sequence numbers of messages, not {seq!r}", session_id=session_id
            )
        seqs.append(seq)
    return seqs


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def check_seconds(
    value: object, name: str, *, above: float | None = None, most: float = MAX_SECONDS
) -> float:
    """A length of time.

    Args:
        value: How long.
        name: What it is called.
        above: What it must be more than; from 0 on when None.
        most: How long it may be.

    Raises:
        InvalidInputError: If it is not a number in that range.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        enough = value >= 0 if above is None else value > above
        if enough and value <= most:
            return float(value)
    least = "from 0" if above is None else f"above {above:g}"
    raise InvalidInputError(f"{name} must be a number {least}, at most {most:.0f}, not {value!r}")


def check_name(value: object, name: str) -> str:
    """A provider's or model's name.

    Raises:
        InvalidInputError: If it is not a printable string or is empty.
    """
    return check_id(value, name)


def check_status(value: SessionStatus | str, session_id: str | None = None) -> SessionStatus:
    """A session's status.

    Raises:
        InvalidInputError: If there is no such status.
    """
    try:
        return SessionStatus(value)
    except ValueError as error:
        raise InvalidInputError(str(error), session_id=session_id) from error


def describe(error: ValidationError) -> str:
    """A validation error in one line: where and what, never the value, which may be a secret."""
    parts = []
    for detail in error.errors(include_url=False, include_input=False)[:3]:
        place = ".".join(str(part) for part in detail["loc"])
        parts.append(f"{place}: {detail['msg']}" if place else detail["msg"])
    return "; ".join(dict.fromkeys(parts))


# What reading a message that is not as its class says runs into: its fields can be assigned.
_MALFORMED = (AttributeError, LookupError, TypeError, ValueError)


def said_by(error: BaseException) -> str:
    """An exception in words: its class, and what it says if it can."""
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001 - its own code runs to say it
        return name


@contextmanager
def storable(what: str) -> Iterator[None]:
    """Says of what building messages of a framework's runs into that it cannot be stored.

    Args:
        what: What is converted, as in "a message".

    Raises:
        InvalidInputError: In place of pydantic's error, of the one for data without an end, and of
            those for a message that is not as its class says.
    """
    try:
        yield
    except InvalidInputError:
        raise
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise InvalidInputError(f"{what} holds what cannot be stored: {reason}") from error
    except RecursionError:
        raise InvalidInputError(
            f"{what} holds data that is nested too deeply, or in itself"
        ) from None
    except _MALFORMED as error:
        kind = type(error).__name__
        raise InvalidInputError(f"{what} is not as its class says ({kind})") from error

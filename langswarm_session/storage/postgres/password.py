"""The password for PostgreSQL: a text, or what a function returns at each connection."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial

from langswarm_session.errors import InvalidInputError, StorageUnavailableError
from langswarm_session.storage.calls import in_thread

Given = str | Awaitable[str]


def for_driver(
    password: str | Callable[[], Given], name: str
) -> str | Callable[[], Awaitable[str]]:
    """What the driver is to be given, which asks a function without keeping an event loop waiting.

    Args:
        password: The password, or a function that returns it.
        name: What to call the database in messages.

    Raises:
        InvalidInputError: If it is neither.
    """
    return partial(_ask, password, name) if callable(password) else _text(password)


async def _ask(function: Callable[[], Given], name: str) -> str:
    try:
        given = await in_thread(function)
        if inspect.isawaitable(given):
            given = await given
    except Exception as error:
        raise StorageUnavailableError(
            f"{name}: the function for the password failed ({type(error).__name__})"
        ) from error
    return _text(given)


def _text(password: object) -> str:
    # It is not shown, whatever it is.
    if not isinstance(password, str):
        raise InvalidInputError(f"the password must be a text, not {type(password).__name__}")
    if "\0" in password or any("\ud800" <= char <= "\udfff" for char in password):
        raise InvalidInputError("the password has a NUL or a lone surrogate, which none can have")
    return password

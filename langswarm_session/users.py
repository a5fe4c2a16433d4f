"""Whose sessions a door is for: the same rules for every framework.

A user who is left out is `DEFAULT_USER`, for reading as for writing. A user who is named and cannot
be one (None, an empty text) is refused, as what did not come through is nobody's permission to see
everybody's sessions. Two places that name a user must name the same one, as one of them may be what
a stranger sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from langswarm_session._validation import check_id, text_id
from langswarm_session.errors import InvalidInputError

DEFAULT_USER = "default"
"""The user of sessions for which no user was named."""

NAME = "user_id"


class LeftOut(Enum):
    """The type of `LEFT_OUT`."""

    LEFT_OUT = "left out"

    def __repr__(self) -> str:
        return "LEFT_OUT"


LEFT_OUT: Final = LeftOut.LEFT_OUT
"""Stands for an argument that was not given, where None was."""


def check_user(user_id: object) -> str:
    """Return a user's id. Whole numbers and UUIDs are taken as text.

    Raises:
        InvalidInputError: If it cannot be a user's id.
    """
    return check_id(text_id(user_id), NAME)


def user_in(source: object) -> object:
    """Return what a configuration or a context has for the user; `LEFT_OUT` if it has none.

    Args:
        source: A mapping with the key ``user_id``, or any object with such an attribute.
    """
    if isinstance(source, Mapping):
        return source.get(NAME, LEFT_OUT)
    return getattr(source, NAME, LEFT_OUT)


def one_user(**sources: Any) -> str:
    """Return the user that all sources agree on; `DEFAULT_USER` if none of them names one.

    Args:
        **sources: What each source names, or `LEFT_OUT`, by what the source is called in errors.

    Raises:
        InvalidInputError: If one of them names what cannot be a user, or two name different users.
    """
    named: dict[str, str] = {}
    for source, user_id in sources.items():
        if user_id is not LEFT_OUT:
            try:
                named[source] = check_user(user_id)
            except InvalidInputError as error:
                raise InvalidInputError(
                    f"{source}: {error}; leave it out for the user {DEFAULT_USER!r}"
                ) from None
    if len({*named.values()}) > 1:
        told = ", ".join(f"{source} has {user_id!r}" for source, user_id in named.items())
        raise InvalidInputError(f"user_id must be the same wherever it is named, but {told}")
    return next(iter(named.values()), DEFAULT_USER)

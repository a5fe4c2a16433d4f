"""The errors of a storage's calls name the session that they are about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from copy import copy
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

from langswarm_session.errors import SessionError, in_session

Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])


def names_session(method: Method) -> Method:
    """Have the errors of a method name the session that its first argument refers to.

    That argument is a `SessionRef`, something with a ``ref`` as a write has, or an id.
    """
    keyword = list(signature(method).parameters)[1]

    @wraps(method)
    async def named(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return await method(self, *args, **options)
        except SessionError as error:
            if error.session_id is not None:
                raise
            subject: Any = args[0] if args else options[keyword]
            if not isinstance(subject, str):
                subject = getattr(subject, "ref", subject).session_id
            # A copy: what many calls wait for fails for all of them with the same error.
            copied = in_session(copy(error), subject).with_traceback(error.__traceback__)
            raise copied from error.__cause__

    return named  # type: ignore[return-value]

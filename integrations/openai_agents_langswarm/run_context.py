"""Whose run it is, by the context that the caller gave it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langswarm_session.checks import check_id

if TYPE_CHECKING:
    from agents.run_context import RunContextWrapper

USER = "user_id"
"""The key, or attribute, of a run's context with the user."""


def user_of(wrapper: RunContextWrapper[Any] | None) -> str | None:
    """Return the user that a run's context names; None where it has no such key or attribute.

    Whole numbers and UUIDs are taken as text.

    Raises:
        InvalidInputError: If what it has there cannot be a user, such as None or an empty text.
    """
    context = None if wrapper is None else wrapper.context
    if isinstance(context, Mapping):
        if USER not in context:
            return None
        user = context[USER]
    elif hasattr(context, USER):
        user = getattr(context, USER)
    else:
        return None
    is_number = isinstance(user, int) and not isinstance(user, bool)
    return check_id(str(user) if is_number or isinstance(user, UUID) else user, USER)

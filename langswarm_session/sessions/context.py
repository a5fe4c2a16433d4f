"""A session's context: how one is made, and what is stored when it changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from langswarm_session._validation import check_name, describe
from langswarm_session.errors import InvalidInputError, in_session
from langswarm_session.models import SessionContext
from langswarm_session.records import SessionChanges
from langswarm_session.requests.provider_state import STATE_KEYS, ProviderState, states_of, stored
from langswarm_session.storage.rows import dump_json

TypeAdapter(int)
# With the first schema that it builds, pydantic reads the metadata of all installed packages
# (``pydantic/plugin/_loader.py``), which takes up to 0.1 s. The models build theirs at their first
# use, often on an event loop; this is while a module is imported.

_COLUMNS = ("provider", "model", "backend")
_FIXED = ("session_id", "user_id", "request_state")
_PROVIDER_STATE = STATE_KEYS


def check_context(
    values: Mapping[str, Any], changes: Mapping[str, Any], session_id: str | None
) -> SessionContext:
    """A context with changes applied.

    Raises:
        InvalidInputError: If a value does not fit.
    """
    if changes.get("persist_messages") is False:
        raise InvalidInputError(
            "every message is stored; for a conversation that leaves nothing behind use a "
            "manager with storage='memory'",
            session_id=session_id,
        )
    try:
        return SessionContext.model_validate({**values, **changes})
    except ValidationError as error:
        raise InvalidInputError(describe(error), session_id=session_id) from None


def changes_of(before: SessionContext, changes: Mapping[str, Any], last_seq: int) -> SessionChanges:
    """What to store when keys of a context change.

    Args:
        before: The context.
        changes: New values by key.
        last_seq: How far the log goes.

    Raises:
        InvalidInputError: If a value does not fit, or a key cannot be changed.
    """
    for name in _FIXED:
        if name in changes:
            raise InvalidInputError(f"{name} cannot be changed", session_id=before.session_id)
    after = check_context(before.model_dump(), changes, before.session_id)
    columns = {name: getattr(after, name) for name in _COLUMNS if name in changes}
    for name in ("provider", "model"):
        if name in columns:
            check_name(columns[name], name)
    others = as_json(after, changes.keys() - {*_COLUMNS, *_PROVIDER_STATE})
    state = _provider_state(before, after, changes, last_seq)
    return SessionChanges(context=others or None, provider_state=state, **columns)


def as_json(context: SessionContext, names: Collection[str]) -> dict[str, Any]:
    """Those keys of a context, as they are stored.

    Raises:
        InvalidInputError: If a value or a key of one is not to be had as JSON.
    """
    values = {name: value for name, value in context.model_dump().items() if name in names}
    try:
        # Not the model's own JSON, in which half characters in keys become others.
        return from_json(dump_json(values))  # type: ignore[no-any-return]
    except InvalidInputError as error:
        raise in_session(error, context.session_id) from None


def _provider_state(
    before: SessionContext, after: SessionContext, changes: Mapping[str, Any], last_seq: int
) -> dict[str, Any] | None:
    """What to store of the providers' state; None if it does not change."""
    if not any(name in changes for name in ("provider", *_PROVIDER_STATE)):
        return None
    states = states_of(before)
    if any(name in changes for name in _PROVIDER_STATE):
        # A conversation that a caller names is taken to be where the record is.
        states[after.provider] = ProviderState(
            after.provider_session_id, after.provider_context, last_seq
        )
    return stored(states, after.provider, before.request_state)


def forked(context: dict[str, Any], at: int | None) -> dict[str, Any]:
    """The context of a copy of the log up to a number: without a summary of more than that."""
    summary = context.get("summary")
    if summary is not None and at is not None and summary["last_seq"] > at:
        return {**context, "summary": None}
    return context

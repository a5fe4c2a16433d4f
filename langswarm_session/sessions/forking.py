"""Copying a session's log into a new session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langswarm_session._validation import check_id
from langswarm_session.errors import InvalidInputError
from langswarm_session.models import SessionBackend, SessionMessage, new_id
from langswarm_session.records import NewSession, SessionChanges, SessionRecord
from langswarm_session.requests.provider_state import with_request_state
from langswarm_session.requests.state import RequestState
from langswarm_session.sessions.context import forked

if TYPE_CHECKING:
    from langswarm_session.turns.core import SessionCore


async def fork(
    core: SessionCore,
    at: int | SessionMessage | None,
    *,
    session_id: str | None,
    user_id: str | None,
) -> SessionRecord:
    """Copy a session; see `BaseSession.fork`.

    Returns:
        The new session's record.
    """
    core.check_open()
    source = await core.storage.get_session(core.ref)
    seq = _seq_of(at, source)
    new = NewSession(
        session_id=check_id(new_id() if session_id is None else session_id, "session_id"),
        user_id=check_id(source.user_id if user_id is None else user_id, "user_id"),
        provider=source.provider,
        model=source.model,
        backend=SessionBackend(source.backend),
        context=forked(source.context_values(), seq),
    )
    record = await core.storage.fork_session(core.ref, new, at=seq)
    state = RequestState.of(source.to_context()).up_to(seq)
    if state == RequestState():
        return record
    changes = SessionChanges(provider_state=with_request_state(record.to_context(), state))
    return await core.storage.update_session(record.ref, changes)


def _seq_of(at: int | SessionMessage | None, source: SessionRecord) -> int | None:
    """Return the number of the last message to copy; None for all.

    Raises:
        InvalidInputError: If it is not in the log's range.
    """
    seq = at.seq if isinstance(at, SessionMessage) else at
    if at is not None and not (type(seq) is int and 0 <= seq <= source.last_seq):
        raise InvalidInputError(
            f"at must be a message of the log or its sequence number, not {at!r}",
            session_id=source.session_id,
        )
    return seq

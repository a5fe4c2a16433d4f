"""What every storage checks before it edits a log. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from langswarm_session.errors import InvalidInputError, MessageConflictError
from langswarm_session.models import SessionMessage
from langswarm_session.records import SessionRecord


def check_edit(
    record: SessionRecord,
    remove: Sequence[int],
    change: Sequence[SessionMessage],
    add: Sequence[SessionMessage],
    *,
    known: Mapping[int, str],
    taken: Collection[str],
) -> list[SessionMessage]:
    """Whether an edit fits the log.

    Args:
        record: The session.
        remove: See `ISessionStorage.edit_messages`, as for the next two.
        change: What to change.
        add: What to add.
        known: The ids, by number, of the messages in the log that are to be removed or changed.
        taken: Those ids of the messages to add that are stored.

    Returns:
        Those to add that were not in the log before, whose tokens are to be counted.

    Raises:
        InvalidInputError: If a message to remove or change is not in the log.
        MessageConflictError: If the id of a message to add is stored, or comes twice.
    """
    for seq in remove:
        if seq not in known:
            raise _missing(record, seq)
    used = {*remove}
    for message in change:
        place = message.seq
        if place is None or known.get(place) != message.id or place in used:
            raise _missing(record, place)
        used.add(place)
    removed = {known[seq] for seq in remove}
    refused = {*taken} - removed
    for message in add:
        if message.id in refused:
            raise MessageConflictError(
                f"the message id {message.id!r} is stored already; give the message a new id",
                session_id=record.session_id,
                message_id=message.id,
            )
        refused.add(message.id)
    return [message for message in add if message.id not in removed]


def _missing(record: SessionRecord, seq: int | None) -> InvalidInputError:
    return InvalidInputError(
        f"there is no message {seq} to remove or change in the log; read it again",
        session_id=record.session_id,
    )

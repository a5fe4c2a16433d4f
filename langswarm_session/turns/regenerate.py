"""Answering a message again: the log keeps every answer, the newest one counts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from langswarm_session.errors import InvalidInputError
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.records import SessionChanges
from langswarm_session.requests.provider_state import states_of, without_copies
from langswarm_session.requests.state import RequestState
from langswarm_session.turns.answerers import answered_by
from langswarm_session.turns.provider_copies import forget_at_providers
from langswarm_session.turns.reading import current_messages

if TYPE_CHECKING:
    from langswarm_session.turns.core import SessionCore
    from langswarm_session.turns.turn import OpenTurn

_FIRST_LOOK = 50
"""How many of the newest messages are looked at first for the question."""


async def question_of(
    core: SessionCore, asked: SessionMessage | str | None
) -> tuple[SessionMessage, list[SessionMessage]]:
    """Return the message that is to be answered again, and what follows it.

    Args:
        core: The core.
        asked: The message, or its id; the newest that a user said when None. One whose id is not
            stored stands for the newest that a user said, if it says the same.

    Raises:
        InvalidInputError: If there is none, or a user said something after it.
    """
    size = _FIRST_LOOK
    while True:
        newest = await current_messages(core, size)
        place = _place(newest, asked)
        if place is not None or len(newest) < size:
            break
        size *= 4
    if place is None:
        raise InvalidInputError(
            "there is no such message of a user to be answered again",
            session_id=core.session_id,
        )
    following = newest[place + 1 :]
    if any(message.role is MessageRole.USER for message in following):
        raise InvalidInputError(
            f"the message {newest[place].id!r} is not the last that a user said; fork the session "
            "behind the message before it, and send it there",
            session_id=core.session_id,
        )
    return newest[place], following


def _place(messages: Sequence[SessionMessage], asked: SessionMessage | str | None) -> int | None:
    users = [place for place, message in enumerate(messages) if message.role is MessageRole.USER]
    if asked is None:
        return users[-1] if users else None
    asked_id = asked if isinstance(asked, str) else asked.id
    known = next((place for place in users if messages[place].id == asked_id), None)
    if known is None and users and isinstance(asked, SessionMessage):
        return users[-1] if messages[users[-1]].says_same(asked) else None
    return known


async def prepare(core: SessionCore, turn: OpenTurn, question: SessionMessage) -> None:
    """Let an open turn replace what answered its question before.

    What a provider keeps of the conversation has that answer, and is removed there.

    Args:
        core: The core.
        turn: The turn.
        question: What it answers again.
    """
    question, following = await question_of(core, question)
    turn.replaced = [
        message
        for _, messages in groupby(following, lambda message: message.turn_id)
        for message in _of_answerer(list(messages), turn.answerer)
    ]
    turn.kept = [message for message in following if message not in turn.replaced]
    noted = RequestState.of(core.context).noted_through
    if states_of(core.context) or noted >= (question.seq or 0) > 0:
        await forget_at_providers(core)
        await core.update(SessionChanges(provider_state=without_copies(core.context)))


def _of_answerer(messages: list[SessionMessage], answerer: str | None) -> list[SessionMessage]:
    """Return what one of a turn's answerers said in it; all answers where there is one only."""
    if answerer is not None and answered_by(messages) != answerer:
        return []
    return [message for message in messages if message.role is not MessageRole.SYSTEM]

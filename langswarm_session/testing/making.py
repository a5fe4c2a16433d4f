"""Short ways to make what a storage is given, for tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from langswarm_session.blocks import Model
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import (
    MessageRole,
    SessionBackend,
    SessionMessage,
    TurnStatus,
    new_id,
)
from langswarm_session.records import Lease, NewSession, SessionChanges, SessionRef, TurnEnd
from langswarm_session.search import Search

Operation = Callable[[ISessionStorage, SessionRef], Awaitable[object]]
"""Something done to a session of a storage."""

TOO_LONG = 10**4300
"""The first whole number that has too many digits for those who read JSON, Python among them."""


def new_session(
    session_id: str, user_id: str = "user", context: dict[str, Any] | None = None
) -> NewSession:
    """A session to create."""
    return NewSession(session_id, user_id, "mock", "model-1", SessionBackend.HYBRID, context or {})


def ref(session_id: str, user_id: str = "user") -> SessionRef:
    """Refer to a session by its name and owner, whichever creation of it there is."""
    return SessionRef(session_id, user_id, None)


def user(text: str = "hello", **fields: Any) -> SessionMessage:
    """A user's message."""
    return SessionMessage(role=MessageRole.USER, content=text, **fields)


def reply(text: str = "hi", **fields: Any) -> SessionMessage:
    """An assistant's message."""
    return SessionMessage(role=MessageRole.ASSISTANT, content=text, **fields)


def system(text: str = "be kind", **fields: Any) -> SessionMessage:
    """A system message."""
    return SessionMessage(role=MessageRole.SYSTEM, content=text, **fields)


def lease(seconds: float = 3600.0, *, token: str | None = None) -> Lease:
    """A lease with a token of its own; with 0 seconds it has run out already."""
    return Lease(token or new_id(), "machine:1:1", seconds)


def completed(lease: Lease, **fields: Any) -> TurnEnd:
    """The end of a turn that was answered."""
    return TurnEnd(lease.token, TurnStatus.COMPLETE, **fields)


def failed(lease: Lease, error: str = "the provider failed", **fields: Any) -> TurnEnd:
    """The end of a turn that failed."""
    return TurnEnd(lease.token, TurnStatus.FAILED, error=error, **fields)


def cancelled(lease: Lease, error: str = "cancelled", **fields: Any) -> TurnEnd:
    """The end of a turn that was cancelled."""
    return TurnEnd(lease.token, TurnStatus.CANCELLED, error=error, **fields)


def texts(messages: Iterable[SessionMessage]) -> list[str]:
    """The texts of messages."""
    return [message.text for message in messages]


def placed(messages: Sequence[SessionMessage], first: int = 1) -> list[SessionMessage]:
    """The messages as one append stores them from this sequence number on."""
    return [message.replaced(seq=seq, turn_id=first) for seq, message in enumerate(messages, first)]


def scribble(value: object) -> None:
    """Change in place whatever can be changed in a message, at any depth."""
    if isinstance(value, Model):
        for each in value.__dict__.values():
            scribble(each)
    elif isinstance(value, dict):
        for each in value.values():
            scribble(each)
        value["scribbled"] = True
    elif isinstance(value, list):
        for each in value:
            scribble(each)
        value.append("scribbled")


async def everything(storage: ISessionStorage, session_id: str) -> tuple[object, ...]:
    """All that a storage says of a session, to be compared."""
    record = await storage.find_session(session_id)
    return record, await storage.get_messages(record.ref), await storage.get_turns(record.ref)


IN_SESSION: dict[str, Operation] = {
    "get_session": lambda storage, session: storage.get_session(session),
    "update_session": lambda storage, session: storage.update_session(session, SessionChanges()),
    "delete_session": lambda storage, session: storage.delete_session(session),
    "append": lambda storage, session: storage.append(session, [user()]),
    "append to a turn": lambda storage, session: storage.append(session, [user()], token="t"),
    "begin_turn": lambda storage, session: storage.begin_turn(session, [user()], lease()),
    "end_turn": lambda storage, session: storage.end_turn(session, completed(lease()), [reply()]),
    "get_messages": lambda storage, session: storage.get_messages(session),
    "get_turn_notes": lambda storage, session: storage.get_turn_notes(session),
    "measure_log": lambda storage, session: storage.measure_log(session),
    "get_turns": lambda storage, session: storage.get_turns(session),
    "clear_messages": lambda storage, session: storage.clear_messages(session),
    "edit_messages": lambda storage, session: storage.edit_messages(session, expected_revision=0),
    "fork_session": lambda storage, session: storage.fork_session(session, new_session("fork")),
}
"""Every method that names a session."""

OPERATIONS: dict[str, Operation] = {
    **IN_SESSION,
    "find_session": lambda storage, session: storage.find_session(session.session_id),
    "create_session": lambda storage, session: storage.create_session(
        new_session(session.session_id)
    ),
    "list_sessions": lambda storage, _: storage.list_sessions(),
    "renew_turns": lambda storage, session: storage.renew_turns({"t": session}, 60),
    "request_cancel": lambda storage, session: storage.request_cancel({"t": session}),
    "cancel_requested": lambda storage, session: storage.cancel_requested({"t": session}),
    "search_messages": lambda storage, _: storage.search_messages(Search("hello")),
}
"""Every method that may fail."""

"""A storage and the model of the record side by side: what is done to both, and compared."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

from hypothesis.stateful import RuleBasedStateMachine

from langswarm_session.errors import SessionError
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import SessionMessage
from langswarm_session.records import Appended, SessionRef, TurnStart
from langswarm_session.testing.making import everything
from langswarm_session.testing.record_model import Record, Refusal, Result

Call = Callable[[ISessionStorage], Awaitable[Any]]
"""Something done to a storage."""


class SideBySide(RuleBasedStateMachine):
    """The base of the machine; see `langswarm_session.testing.StorageMachine`."""

    durable: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.storage = self.make_storage(Path(self.folder.name))
        self.record = Record()
        self.leases: list[tuple[str, SessionRef]] = []
        self.refs: dict[str, list[SessionRef]] = {}
        self.sent: list[SessionMessage] = []

    def make_storage(self, folder: Path) -> ISessionStorage:
        """A storage on what the example has stored so far: nothing at first. Override this.

        Args:
            folder: A folder of the example's own, the same each time. A storage on a server may
                make the name of a schema or database from it.
        """
        raise NotImplementedError("override make_storage(self, folder) to return your storage")

    def teardown(self) -> None:
        """Close the storage at the end of an example."""
        self.wait(self.storage.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()

    def close_and_open(self) -> None:
        """Close the storage and make it again; nothing where that would lose what it has."""
        if self.durable:
            self.wait(self.storage.close())
            self.storage = self.make_storage(Path(self.folder.name))

    def wait(self, work: Awaitable[Any]) -> Any:
        """What a call of the storage returns."""
        return self.loop.run_until_complete(work)

    def same(self, expect: Callable[[], Any], call: Call) -> Any:
        """What a call returns; it must return or raise what the model says."""
        expected: Any = None
        reasons: frozenset[type[SessionError]] | set[type[SessionError]] = set()
        try:
            expected = expect()
        except Refusal as refusal:
            reasons = refusal.reasons
        may_refuse = expected.or_refused if isinstance(expected, Result) else frozenset()
        try:
            outcome = self.wait(call(self.storage))
        except SessionError as error:
            if type(error) not in reasons | may_refuse:
                raise AssertionError(f"not {reasons or expected}") from error
            return None
        assert not reasons, f"{outcome} and not {reasons}"
        if isinstance(expected, Result):
            found = _returned(outcome)
            assert found == Result(expected.messages, expected.replayed)
        elif expected is not None:
            assert outcome == expected
        return outcome

    def state(self) -> list[object]:
        """All that the storage says."""
        page = self.wait(self.storage.list_sessions())
        names = sorted(record.session_id for record in page.records)
        return [self.wait(everything(self.storage, name)) for name in names]

    def learn(self) -> None:
        """Learn what the storage knows a session by that was created just now."""
        known = {ref.creation for refs in self.refs.values() for ref in refs}
        for name, session in self.record.sessions.items():
            if session.creation is None:
                ref = self.wait(self.storage.find_session(name, user_id=session.user)).ref
                assert ref.creation not in known, f"{ref} was given before"
                session.creation = ref.creation
                self.refs.setdefault(name, []).append(ref)

    def ref(self, session: str, kind: str = "own") -> SessionRef:
        """Return a reference to a session.

        Args:
            session: Its name.
            kind: ``own``: the session that there is now; ``name``: by name and owner only;
                ``old``: the creation before, if there was one; ``other``: with another owner.
        """
        refs = self.refs.get(session, [])
        if not refs:
            return SessionRef(session, "ann", None)
        current = refs[-1]
        if kind == "name":
            return current._replace(creation=None)
        if kind == "other":
            return current._replace(user_id="bob" if current.user_id == "ann" else "ann")
        return refs[-2] if kind == "old" and len(refs) > 1 else current

    def revision(self, session: str, kind: str | None) -> int | None:
        """The revision of a session to expect: the ``current`` one, a ``stale`` one, or none."""
        if kind is None or session not in self.record.sessions:
            return None
        return self.record.sessions[session].revision - (kind == "stale")

    def messages(self, new: list[SessionMessage], old: list[int]) -> list[SessionMessage]:
        """New messages, with some among them that were sent before."""
        again = [self.sent[index % len(self.sent)] for index in old] if self.sent else []
        self.sent += new
        return [*again[:1], *new, *again[1:]]


def _returned(outcome: object) -> Result | None:
    """What a storage returned, as the model has it."""
    if isinstance(outcome, Appended):
        return Result(outcome.messages)
    if isinstance(outcome, TurnStart):
        return Result(outcome.messages, outcome.replayed)
    return None

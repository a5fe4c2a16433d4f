"""Any storage against a plain model of the record, over random operations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from pydantic_core import from_json

from langswarm_session.errors import SessionError
from langswarm_session.models import (
    MessageRole,
    SessionMessage,
    SessionStatus,
    TokenUsage,
    TurnStatus,
)
from langswarm_session.records import (
    IdempotencyKey,
    SessionChanges,
    SessionRecord,
    TurnEnd,
)
from langswarm_session.testing.making import everything, lease, new_session
from langswarm_session.testing.storage_machine_base import Call, SideBySide

SESSIONS = ["s1", "s2", "s3"]
ENDS = [TurnStatus.COMPLETE, TurnStatus.CANCELLED, TurnStatus.FAILED]

sessions = st.sampled_from(SESSIONS)
users = st.sampled_from(["ann", "bob"])
kinds = st.sampled_from(["own", "own", "name", "old", "other"])
keys = st.none() | st.builds(
    IdempotencyKey, st.sampled_from("kl"), st.sampled_from("de"), st.booleans()
)
indexes = st.integers(0, 50)
roles = st.sampled_from([MessageRole.USER, MessageRole.ASSISTANT, MessageRole.SYSTEM])
new_messages = st.lists(
    st.builds(
        SessionMessage,
        role=roles,
        content=st.sampled_from(["a", "b", "", "\0"]),
        usage=st.none() | st.just(TokenUsage(input_tokens=2, output_tokens=1)),
    ),
    max_size=3,
)
revisions = st.sampled_from([None, None, "current", "stale"])
expiries = st.sampled_from([0, 3600])
moments = st.integers(0, 4)


class StorageMachine(SideBySide):
    """One random operation after the other on a storage, and on a plain model of the record.

    The model says what each call must return or why it must be refused, and what must be there
    after it. Storages are closed and made again, leases run out, and calls are cancelled half-way,
    after which all of it or nothing must have happened. What fails is shown as the shortest program
    that fails.

    Subclass it, override `make_storage`, and give its ``TestCase`` to pytest::

        class MyMachine(StorageMachine):
            durable = True

            def make_storage(self, folder):
                return MyStorage(folder / "sessions.db")

        TestMyMachine = MyMachine.TestCase
        TestMyMachine.settings = hypothesis.settings(TestMyMachine.settings, max_examples=500)

    It needs hypothesis, whose settings say how many examples of how many steps there are.

    Attributes:
        durable: Whether what was written is there when the storage is made again. It is closed and
            made again between operations then.
    """

    # The storage itself

    @rule()
    def reopen(self) -> None:
        """Close the storage and make it again."""
        self.close_and_open()

    @rule(
        session=sessions,
        new=new_messages.filter(bool),
        key=keys,
        moment=moments,
        what=st.sampled_from(["append", "begin", "clear", "update", "fork", "end"]),
    )
    def cancel(
        self,
        session: str,
        new: list[SessionMessage],
        key: IdempotencyKey | None,
        moment: int,
        what: str,
    ) -> None:
        """A call that is cancelled has happened or it has not; then it is made again."""
        expect, call = self.cancellable(what, session, self.messages(new, []), key)
        before = self.state()
        if self.wait(self.cancelled(call, moment)):
            self.close_and_open()
            if self.state() == before:
                self.same(expect, call)
                self.learn()
                return
        # It happened: as the model says, which what follows every step compares.
        expect()
        self.learn()

    def cancellable(
        self, what: str, session: str, new: list[SessionMessage], key: IdempotencyKey | None
    ) -> tuple[Callable[[], Any], Call]:
        """What the model does and the call that does the same."""
        begun, own = lease(), self.ref(session)
        record = self.record
        if what == "begin":
            self.leases.append((begun.token, own))
            return (
                lambda: record.begin_turn(own, new, begun, key),
                lambda storage: storage.begin_turn(own, new, begun, key=key),
            )
        if what == "end" and self.leases:
            token, held = self.leases[-1]
            end = TurnEnd(token, TurnStatus.COMPLETE)
            return (
                lambda: record.end_turn(held, end, new),
                lambda storage: storage.end_turn(held, end, new),
            )
        if what == "clear":
            return (
                lambda: record.clear(own, None),
                lambda storage: storage.clear_messages(own),
            )
        if what == "update":
            changes = SessionChanges(context={"by": begun.token})
            return (
                lambda: record.update(own, None, {"by": begun.token}, None),
                lambda storage: storage.update_session(own, changes),
            )
        if what == "fork":
            copy = SESSIONS[(SESSIONS.index(session) + 1) % len(SESSIONS)]
            return (
                lambda: record.fork(own, copy, "ann", None),
                lambda storage: storage.fork_session(own, new_session(copy, "ann")),
            )
        return (
            lambda: record.append(own, new, key=key),
            lambda storage: storage.append(own, new, key=key),
        )

    async def cancelled(self, call: Call, moment: int) -> bool:
        """Make a call and cancel it after so many steps; whether it never came to an end."""
        task = asyncio.ensure_future(call(self.storage))
        for _ in range(moment):
            await asyncio.sleep(0.0002 * (moment == 4))
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return True
        except SessionError:
            return True  # it was refused, and is again
        return False

    # Sessions

    @rule(session=sessions, user=users)
    def create(self, session: str, user: str) -> None:
        """Create a session."""
        self.same(
            lambda: self.record.create(session, user),
            lambda storage: storage.create_session(new_session(session, user)),
        )
        self.learn()

    @rule(session=sessions, whose=kinds, kind=revisions)
    def delete(self, session: str, whose: str, kind: str | None) -> None:
        """Delete a session."""
        revision, ref = self.revision(session, kind), self.ref(session, whose)
        self.same(
            lambda: self.record.delete(ref, revision),
            lambda storage: storage.delete_session(ref, expected_revision=revision),
        )

    @rule(session=sessions, first=users, user=users)
    def replace(self, session: str, first: str, user: str) -> None:
        """Delete a session, if there is one, and create it again: old references lead nowhere."""
        if session in self.record.sessions:
            self.delete(session, "own", None)
        else:
            self.create(session, first)
            self.delete(session, "own", None)
        self.create(session, user)

    @rule(
        session=sessions,
        whose=kinds,
        user=users,
        at=st.none() | st.integers(0, 12),
        copy=sessions,
    )
    def fork(self, session: str, whose: str, copy: str, user: str, at: int | None) -> None:
        """Fork a session."""
        ref = self.ref(session, whose)
        self.same(
            lambda: self.record.fork(ref, copy, user, at),
            lambda storage: storage.fork_session(ref, new_session(copy, user), at=at),
        )
        self.learn()

    @rule(
        session=sessions,
        whose=kinds,
        status=st.none() | st.sampled_from(SessionStatus),
        kind=revisions,
    )
    def update(
        self, session: str, whose: str, status: SessionStatus | None, kind: str | None
    ) -> None:
        """Change a session."""
        revision, ref = self.revision(session, kind), self.ref(session, whose)
        changes = SessionChanges(status=status, context={"status": status})
        self.same(
            lambda: self.record.update(ref, status, {"status": status}, revision),
            lambda storage: storage.update_session(ref, changes, expected_revision=revision),
        )

    @rule(session=sessions, whose=kinds, kind=revisions)
    def clear(self, session: str, whose: str, kind: str | None) -> None:
        """Remove the messages of a session."""
        revision, ref = self.revision(session, kind), self.ref(session, whose)
        self.same(
            lambda: self.record.clear(ref, revision),
            lambda storage: storage.clear_messages(ref, expected_revision=revision),
        )

    # Messages

    @rule(
        session=sessions,
        new=new_messages,
        old=st.lists(indexes, max_size=2),
        key=keys,
        kind=revisions,
        whose=kinds,
    )
    def append(
        self,
        session: str,
        new: list[SessionMessage],
        old: list[int],
        key: IdempotencyKey | None,
        kind: str | None,
        whose: str,
    ) -> None:
        """Append messages as a turn."""
        revision, batch = self.revision(session, kind), self.messages(new, old)
        ref = self.ref(session, whose)
        self.same(
            lambda: self.record.append(ref, batch, key=key, revision=revision),
            lambda storage: storage.append(ref, batch, key=key, expected_revision=revision),
        )

    @precondition(lambda self: self.sent)
    @rule(session=sessions, index=indexes, new=new_messages)
    def append_changed(self, session: str, index: int, new: list[SessionMessage]) -> None:
        """Append a message whose id is known, with other content."""
        batch = [*new, self.sent[index % len(self.sent)].replaced(content="changed")]
        ref = self.ref(session)
        self.same(
            lambda: self.record.append(ref, batch),
            lambda storage: storage.append(ref, batch),
        )

    @rule(
        session=sessions,
        remove=st.lists(indexes, max_size=2),
        change=st.lists(indexes, max_size=2),
        add=new_messages,
        old=st.lists(indexes, max_size=1),
        stale=st.booleans(),
        whose=kinds,
    )
    def edit(
        self,
        session: str,
        whose: str,
        remove: list[int],
        change: list[int],
        add: list[SessionMessage],
        old: list[int],
        stale: bool,
    ) -> None:
        """Remove, change and add messages."""
        log = self.record.sessions[session].log if session in self.record.sessions else []
        seqs = [log[index % len(log)].seq or 0 for index in remove if log]
        changed = [log[index % len(log)].replaced(content="edited") for index in change if log]
        revision = (self.revision(session, "current") or 0) + stale
        batch, ref = self.messages(add, old), self.ref(session, whose)
        self.same(
            lambda: self.record.edit(ref, revision, seqs, changed, batch),
            lambda storage: storage.edit_messages(
                ref, expected_revision=revision, remove=seqs, change=changed, add=batch
            ),
        )

    # Turns

    @rule(
        session=sessions,
        new=new_messages,
        old=st.lists(indexes, max_size=1),
        key=keys,
        seconds=expiries,
        kind=revisions,
        whose=kinds,
    )
    def begin(
        self,
        session: str,
        new: list[SessionMessage],
        old: list[int],
        key: IdempotencyKey | None,
        seconds: int,
        kind: str | None,
        whose: str,
    ) -> None:
        """Begin a turn."""
        revision, batch = self.revision(session, kind), self.messages(new, old)
        begun, ref = lease(seconds), self.ref(session, whose)
        self.leases.append((begun.token, ref))
        self.same(
            lambda: self.record.begin_turn(ref, batch, begun, key, revision),
            lambda storage: storage.begin_turn(
                ref, batch, begun, key=key, expected_revision=revision
            ),
        )

    @precondition(lambda self: self.leases)
    @rule(index=indexes, new=new_messages, old=st.lists(indexes, max_size=1), kind=revisions)
    def add(self, index: int, new: list[SessionMessage], old: list[int], kind: str | None) -> None:
        """Add messages to a turn."""
        token, ref = self.leases[-1 - index % len(self.leases)]
        revision, batch = self.revision(ref.session_id, kind), self.messages(new, old)
        self.same(
            lambda: self.record.append(ref, batch, token=token, revision=revision),
            lambda storage: storage.append(ref, batch, token=token, expected_revision=revision),
        )

    @precondition(lambda self: self.leases)
    @rule(
        index=indexes,
        status=st.sampled_from(ENDS),
        new=new_messages,
        old=st.lists(indexes, max_size=1),
    )
    def end(
        self, index: int, status: TurnStatus, new: list[SessionMessage], old: list[int]
    ) -> None:
        """End a turn."""
        token, ref = self.leases[-1 - index % len(self.leases)]
        error = None if status is TurnStatus.COMPLETE else "why"
        end = TurnEnd(token, status, error, {"provider_session_id": token})
        batch = self.messages(new, old)
        self.same(
            lambda: self.record.end_turn(ref, end, batch),
            lambda storage: storage.end_turn(ref, end, batch),
        )

    @rule(seconds=expiries)
    def renew(self, seconds: int) -> None:
        """Renew the leases of turns."""
        tokens = dict(self.leases)
        self.same(
            lambda: self.record.renew_turns(tokens, seconds),
            lambda storage: storage.renew_turns(tokens, seconds),
        )

    @rule()
    def look_for_requests(self) -> None:
        """Look which turns somebody asked to end."""
        tokens = dict(self.leases)
        self.same(
            lambda: self.record.cancel_requested(tokens),
            lambda storage: storage.cancel_requested(tokens),
        )

    @precondition(lambda self: self.leases)
    @rule(index=indexes)
    def request_cancel(self, index: int) -> None:
        """Ask that a turn be ended."""
        tokens = dict([self.leases[-1 - index % len(self.leases)]])
        self.same(
            lambda: self.record.request_cancel(tokens),
            lambda storage: storage.request_cancel(tokens),
        )

    # Reading

    @rule(
        session=sessions,
        limit=st.none() | st.integers(0, 9),
        before=st.none() | st.integers(0, 12),
        after=st.none() | st.integers(0, 12),
        answered_only=st.booleans(),
        system_only=st.booleans(),
        whose=kinds,
    )
    def read(
        self, session: str, whose: str, limit: int | None, after: int | None, **options: Any
    ) -> None:
        """Read messages."""
        ref = self.ref(session, whose)

        def expect() -> list[SessionMessage]:
            found = self.record.find(ref)
            expected = [
                each
                for each in found.log
                if (after is None or (each.seq or 0) > after)
                and (options["before"] is None or (each.seq or 0) < options["before"])
                and not (options["system_only"] and each.role is not MessageRole.SYSTEM)
                and not (options["answered_only"] and each.turn_id in found.unanswered())
            ]
            if limit is None:
                return expected
            return expected[:limit] if after is not None else expected[-limit:] * (limit > 0)

        self.same(
            expect,
            lambda storage: storage.get_messages(ref, limit=limit, after=after, **options),
        )

    @rule(session=sessions, whose=kinds)
    def look_at_turns(self, session: str, whose: str) -> None:
        """Read a session, its turns and what is noted of them, or be refused everywhere."""
        ref = self.ref(session, whose)

        def expect() -> None:
            self.record.find(ref)

        self.same(expect, lambda storage: storage.get_session(ref))
        self.same(expect, lambda storage: storage.get_turns(ref))
        self.same(expect, lambda storage: storage.get_turn_notes(ref))

    @rule(
        user_id=st.none() | users,
        status=st.none() | st.sampled_from(SessionStatus),
        limit=st.integers(1, 3),
    )
    def look_through(self, limit: int, user_id: str | None, status: SessionStatus | None) -> None:
        """List sessions, page by page."""
        records: list[SessionRecord] = []
        cursor: str | None = None
        while True:
            page = self.wait(
                self.storage.list_sessions(
                    user_id=user_id, status=status, limit=limit, cursor=cursor
                )
            )
            records = [*records, *page.records]
            cursor = page.next_cursor
            if cursor is None:
                break
            assert len(page.records) == limit
        places = [(record.last_activity, record.session_id) for record in records]
        assert all(one > other for one, other in pairwise(places))
        assert sorted(record.session_id for record in records) == sorted(
            name
            for name, session in self.record.sessions.items()
            if user_id in (None, session.user) and status in (None, session.status)
        )

    # What holds at all times

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        """Each session is as the model has it."""
        for name in SESSIONS:
            if name not in self.record.sessions:
                continue
            session = self.record.sessions[name]
            record, log, turns = self.wait(everything(self.storage, name))
            assert log == session.log
            assert (record.user_id, record.status) == (session.user, session.status)
            assert from_json(record.context) == session.context
            assert (record.revision, record.errors) == (session.revision, session.errors)
            assert (record.last_seq, record.turn_count) == (session.last_seq, session.turn_count)
            assert (record.message_count, record.turn_token) == (len(log), session.token)
            assert (record.input_tokens, record.output_tokens) == session.tokens
            expected = [
                (turn, self._status(name, turn), note.key and note.key.key, note.error)
                for turn, note in sorted(session.notes.items())
            ]
            assert expected[-100:] == [
                (turn.id, turn.status, turn.idempotency_key, turn.error) for turn in turns
            ]
            for turn in turns:
                seqs = [each.seq for each in session.of_turn(turn.id)]
                assert (turn.first_seq, turn.last_seq) == (seqs[0], seqs[-1])
                assert (turn.finished_at is None) == (turn.status is TurnStatus.OPEN)

    def _status(self, name: str, turn: int) -> TurnStatus:
        """How a turn stands, in the model."""
        session = self.record.sessions[name]
        is_open = session.token is not None and session.turn == turn
        return TurnStatus.OPEN if is_open else session.notes[turn].status

    @invariant()
    def it_counts_right(self) -> None:
        """The storage counts what there is."""
        health = self.wait(self.storage.health())
        logs = [session.log for session in self.record.sessions.values()]
        assert (health.sessions, health.messages) == (len(logs), sum(map(len, logs)))

"""Every storage against a plain model of the record, over random operations.

The model says what each call must return or why it must be refused, and what must be there after
it. Storages are closed and made again, leases run out, and calls are cancelled half-way, after
which all of it or nothing must have happened.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydantic_core import from_json
from storage.record_model import Record, Refusal, Result

from langswarm_session import (
    InMemorySessionStorage,
    ISessionStorage,
    MessageRole,
    SessionError,
    SessionMessage,
    SessionStatus,
    SQLiteSessionStorage,
    TokenUsage,
    TurnStatus,
)
from langswarm_session.records import (
    Appended,
    IdempotencyKey,
    SessionChanges,
    SessionRecord,
    TurnEnd,
    TurnStart,
)
from langswarm_session.testing.making import everything, lease, new_session

Call = Callable[[ISessionStorage], Awaitable[Any]]

FULL = os.environ.get("LANGSWARM_CHAOS") == "full"
SESSIONS = ["s1", "s2", "s3"]
ENDS = [TurnStatus.COMPLETE, TurnStatus.CANCELLED, TurnStatus.FAILED]

sessions = st.sampled_from(SESSIONS)
users = st.sampled_from(["ann", "bob"])
owners = st.sampled_from([None, None, "ann", "bob"])
keys = st.none() | st.builds(IdempotencyKey, st.sampled_from("kl"), st.sampled_from("de"))
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


def returned(outcome: object) -> Result | None:
    """What a storage returned, as the model has it."""
    if isinstance(outcome, Appended):
        return Result(outcome.messages)
    if isinstance(outcome, TurnStart):
        return Result(outcome.messages, outcome.replayed)
    return None


class Machine(RuleBasedStateMachine):
    """One operation after the other on the model and on a storage."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.storage = self.open()
        self.record = Record()
        self.leases: list[tuple[str, str]] = []
        self.sent: list[SessionMessage] = []

    def open(self) -> ISessionStorage:
        """A storage on what the example has stored so far."""
        raise NotImplementedError

    def teardown(self) -> None:
        self.wait(self.storage.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def wait(self, work: Awaitable[Any]) -> Any:
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
            found = returned(outcome)
            assert found == Result(expected.messages, expected.replayed)
        elif expected is not None:
            assert outcome == expected
        return outcome

    def revision(self, session: str, kind: str | None) -> int | None:
        if kind is None or session not in self.record.sessions:
            return None
        return self.record.sessions[session].revision - (kind == "stale")

    def messages(self, new: list[SessionMessage], old: list[int]) -> list[SessionMessage]:
        """New messages, with some among them that were sent before."""
        again = [self.sent[index % len(self.sent)] for index in old] if self.sent else []
        self.sent += new
        return [*again[:1], *new, *again[1:]]

    # The storage itself

    @rule()
    def reopen(self) -> None:
        self.wait(self.storage.close())
        self.storage = self.open()

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
            self.reopen()
            if self.state() == before:
                self.same(expect, call)
                return
        # It happened: as the model says, which what follows every step compares.
        expect()

    def cancellable(
        self, what: str, session: str, new: list[SessionMessage], key: IdempotencyKey | None
    ) -> tuple[Callable[[], Any], Call]:
        """What the model does and the call that does the same."""
        begun = lease()
        record = self.record
        if what == "begin":
            self.leases.append((begun.token, session))
            return (
                lambda: record.begin_turn(session, new, begun, key),
                lambda storage: storage.begin_turn(session, new, begun, key=key),
            )
        if what == "end" and self.leases:
            token, session = self.leases[-1]
            end = TurnEnd(token, TurnStatus.COMPLETE)
            return (
                lambda: record.end_turn(session, end, new),
                lambda storage: storage.end_turn(session, end, new),
            )
        if what == "clear":
            return (
                lambda: record.clear(session, None),
                lambda storage: storage.clear_messages(session),
            )
        if what == "update":
            changes = SessionChanges(context={"by": begun.token})
            return (
                lambda: record.update(session, None, {"by": begun.token}, None),
                lambda storage: storage.update_session(session, changes),
            )
        if what == "fork":
            copy = SESSIONS[(SESSIONS.index(session) + 1) % len(SESSIONS)]
            return (
                lambda: record.fork(session, copy, "ann", None),
                lambda storage: storage.fork_session(session, new_session(copy, "ann")),
            )
        return (
            lambda: record.append(session, new, key=key),
            lambda storage: storage.append(session, new, key=key),
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

    def state(self) -> list[object]:
        """All that the storage says."""
        page = self.wait(self.storage.list_sessions())
        names = sorted(record.session_id for record in page.records)
        return [self.wait(everything(self.storage, name)) for name in names]

    # Sessions

    @rule(session=sessions, user=users)
    def create(self, session: str, user: str) -> None:
        self.same(
            lambda: self.record.create(session, user),
            lambda storage: storage.create_session(new_session(session, user)),
        )

    @rule(session=sessions)
    def delete(self, session: str) -> None:
        self.same(
            lambda: self.record.delete(session), lambda storage: storage.delete_session(session)
        )

    @rule(session=sessions, user=users, at=st.none() | st.integers(0, 12), copy=sessions)
    def fork(self, session: str, copy: str, user: str, at: int | None) -> None:
        self.same(
            lambda: self.record.fork(session, copy, user, at),
            lambda storage: storage.fork_session(session, new_session(copy, user), at=at),
        )

    @rule(session=sessions, status=st.none() | st.sampled_from(SessionStatus), kind=revisions)
    def update(self, session: str, status: SessionStatus | None, kind: str | None) -> None:
        revision = self.revision(session, kind)
        changes = SessionChanges(status=status, context={"status": status})
        self.same(
            lambda: self.record.update(session, status, {"status": status}, revision),
            lambda storage: storage.update_session(session, changes, expected_revision=revision),
        )

    @rule(session=sessions, kind=revisions)
    def clear(self, session: str, kind: str | None) -> None:
        revision = self.revision(session, kind)
        self.same(
            lambda: self.record.clear(session, revision),
            lambda storage: storage.clear_messages(session, expected_revision=revision),
        )

    # Messages

    @rule(
        session=sessions,
        new=new_messages,
        old=st.lists(indexes, max_size=2),
        key=keys,
        kind=revisions,
        owner=owners,
    )
    def append(
        self,
        session: str,
        new: list[SessionMessage],
        old: list[int],
        key: IdempotencyKey | None,
        kind: str | None,
        owner: str | None,
    ) -> None:
        revision, batch = self.revision(session, kind), self.messages(new, old)
        self.same(
            lambda: self.record.append(session, batch, key=key, revision=revision, user=owner),
            lambda storage: storage.append(
                session, batch, key=key, expected_revision=revision, user_id=owner
            ),
        )

    @precondition(lambda self: self.sent)
    @rule(session=sessions, index=indexes, new=new_messages)
    def append_changed(self, session: str, index: int, new: list[SessionMessage]) -> None:
        batch = [*new, self.sent[index % len(self.sent)].replaced(content="changed")]
        self.same(
            lambda: self.record.append(session, batch),
            lambda storage: storage.append(session, batch),
        )

    @rule(
        session=sessions,
        remove=st.lists(indexes, max_size=2),
        change=st.lists(indexes, max_size=2),
        add=new_messages,
        old=st.lists(indexes, max_size=1),
        stale=st.booleans(),
    )
    def edit(
        self,
        session: str,
        remove: list[int],
        change: list[int],
        add: list[SessionMessage],
        old: list[int],
        stale: bool,
    ) -> None:
        log = self.record.sessions[session].log if session in self.record.sessions else []
        seqs = [log[index % len(log)].seq or 0 for index in remove if log]
        changed = [log[index % len(log)].replaced(content="edited") for index in change if log]
        revision = (self.revision(session, "current") or 0) + stale
        batch = self.messages(add, old)
        self.same(
            lambda: self.record.edit(session, revision, seqs, changed, batch),
            lambda storage: storage.edit_messages(
                session, expected_revision=revision, remove=seqs, change=changed, add=batch
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
        owner=owners,
    )
    def begin(
        self,
        session: str,
        new: list[SessionMessage],
        old: list[int],
        key: IdempotencyKey | None,
        seconds: int,
        kind: str | None,
        owner: str | None,
    ) -> None:
        revision, batch = self.revision(session, kind), self.messages(new, old)
        begun = lease(seconds)
        self.leases.append((begun.token, session))
        self.same(
            lambda: self.record.begin_turn(session, batch, begun, key, revision, owner),
            lambda storage: storage.begin_turn(
                session, batch, begun, key=key, expected_revision=revision, user_id=owner
            ),
        )

    @precondition(lambda self: self.leases)
    @rule(index=indexes, new=new_messages, old=st.lists(indexes, max_size=1), kind=revisions)
    def add(self, index: int, new: list[SessionMessage], old: list[int], kind: str | None) -> None:
        token, session = self.leases[-1 - index % len(self.leases)]
        revision, batch = self.revision(session, kind), self.messages(new, old)
        self.same(
            lambda: self.record.append(session, batch, token=token, revision=revision),
            lambda storage: storage.append(session, batch, token=token, expected_revision=revision),
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
        token, session = self.leases[-1 - index % len(self.leases)]
        error = None if status is TurnStatus.COMPLETE else "why"
        end = TurnEnd(token, status, error, {"provider_session_id": token})
        batch = self.messages(new, old)
        self.same(
            lambda: self.record.end_turn(session, end, batch),
            lambda storage: storage.end_turn(session, end, batch),
        )

    @rule(seconds=expiries)
    def renew(self, seconds: int) -> None:
        tokens = dict(self.leases)
        self.same(
            lambda: self.record.renew_turns(tokens, seconds),
            lambda storage: storage.renew_turns(tokens, seconds),
        )

    # Reading

    @rule(
        session=sessions,
        limit=st.none() | st.integers(0, 9),
        before=st.none() | st.integers(0, 12),
        after=st.none() | st.integers(0, 12),
        answered_only=st.booleans(),
        system_only=st.booleans(),
    )
    def read(self, session: str, limit: int | None, after: int | None, **options: Any) -> None:
        def expect() -> list[SessionMessage]:
            found = self.record.find(session)
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
            lambda storage: storage.get_messages(session, limit=limit, after=after, **options),
        )

    @rule(
        user_id=st.none() | users,
        status=st.none() | st.sampled_from(SessionStatus),
        limit=st.integers(1, 3),
    )
    def list(self, limit: int, user_id: str | None, status: SessionStatus | None) -> None:
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
        assert all(one.last_activity >= other.last_activity for one, other in pairwise(records))
        assert sorted(record.session_id for record in records) == sorted(
            name
            for name, session in self.record.sessions.items()
            if user_id in (None, session.user) and status in (None, session.status)
        )

    # What holds at all times

    @invariant()
    def all_is_as_in_the_model(self) -> None:
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
                (turn, self.status(name, turn), note.key and note.key.key, note.error)
                for turn, note in sorted(session.notes.items())
            ]
            assert expected[-100:] == [
                (turn.id, turn.status, turn.idempotency_key, turn.error) for turn in turns
            ]
            for turn in turns:
                seqs = [each.seq for each in session.of_turn(turn.id)]
                assert (turn.first_seq, turn.last_seq) == (seqs[0], seqs[-1])
                assert (turn.finished_at is None) == (turn.status is TurnStatus.OPEN)

    def status(self, name: str, turn: int) -> TurnStatus:
        session = self.record.sessions[name]
        is_open = session.token is not None and session.turn == turn
        return TurnStatus.OPEN if is_open else session.notes[turn].status

    @invariant()
    def it_counts_right(self) -> None:
        health = self.wait(self.storage.health())
        logs = [session.log for session in self.record.sessions.values()]
        assert (health.sessions, health.messages) == (len(logs), sum(map(len, logs)))


class MemoryMachine(Machine):
    """There is nothing to open again: what is closed is gone."""

    def open(self) -> ISessionStorage:
        return InMemorySessionStorage()

    @rule()
    def reopen(self) -> None:
        pass


class SQLiteMachine(Machine):
    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        super().__init__()

    def open(self) -> ISessionStorage:
        return SQLiteSessionStorage(Path(self.folder.name) / "sessions.db", synchronous="NORMAL")

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


class PostgresMachine(Machine):
    schema = ""
    prefixes = itertools.count()

    def __init__(self) -> None:
        self.prefix = f"p{next(self.prefixes)}_"
        super().__init__()

    def open(self) -> ISessionStorage:
        import postgres_server

        from langswarm_session.storage.postgres import PostgresSessionStorage

        return PostgresSessionStorage(
            postgres_server.dsn(), schema=self.schema, table_prefix=self.prefix
        )


def run(machine: type[Machine], examples: int) -> None:
    """Run examples of a machine, twenty times as many in the long form."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples * (20 if FULL else 1),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


@pytest.mark.timeout(900)
def test_memory_is_as_the_model_says() -> None:
    run(MemoryMachine, 60)


@pytest.mark.timeout(900)
def test_sqlite_is_as_the_model_says() -> None:
    run(SQLiteMachine, 40)


@pytest.mark.timeout(900)
def test_postgres_is_as_the_model_says(
    postgres_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresMachine, "schema", postgres_schema)
    run(PostgresMachine, 10)

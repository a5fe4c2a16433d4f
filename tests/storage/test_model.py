"""The storages against each other, and both against a plain list, over random operations."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from langswarm_session import (
    InMemorySessionStorage,
    ISessionStorage,
    MessageRole,
    SessionError,
    SessionMessage,
    SessionStatus,
    SQLiteSessionStorage,
    TokenUsage,
    Turn,
    TurnStatus,
)
from langswarm_session.records import (
    Appended,
    IdempotencyKey,
    SessionChanges,
    SessionPage,
    SessionRecord,
    TurnEnd,
    TurnStart,
)
from langswarm_session.testing.making import lease, new_session

Call = Callable[[ISessionStorage], Awaitable[Any]]

SESSIONS = ["s1", "s2", "s3"]
ENDS = [TurnStatus.COMPLETE, TurnStatus.CANCELLED, TurnStatus.FAILED]

sessions = st.sampled_from(SESSIONS)
users = st.sampled_from(["ann", "bob"])
keys = st.none() | st.builds(IdempotencyKey, st.sampled_from("kl"), st.sampled_from("de"))
indexes = st.integers(0, 50)
roles = st.sampled_from([MessageRole.USER, MessageRole.ASSISTANT, MessageRole.SYSTEM])
new_messages = st.lists(
    st.builds(
        SessionMessage,
        role=roles,
        content=st.sampled_from(["a", "b", ""]),
        usage=st.none() | st.just(TokenUsage(input_tokens=2, output_tokens=1)),
    ),
    max_size=3,
)
revisions = st.sampled_from([None, None, "current", "stale"])
expiries = st.sampled_from([0, 3600])


def plain(outcome: object) -> object:
    """An outcome without what may differ from storage to storage, such as points in time."""
    if isinstance(outcome, SessionRecord):
        expires = None if outcome.turn_expires is None else 0
        return outcome._replace(created_at=0, last_activity=0, turn_expires=expires)
    if isinstance(outcome, Appended):
        return plain(outcome.record), outcome.messages
    if isinstance(outcome, TurnStart):
        return plain(outcome.record), outcome.messages, outcome.replayed
    if isinstance(outcome, SessionPage):
        return [plain(record) for record in outcome.records], outcome.next_cursor is None
    if isinstance(outcome, Turn):
        return outcome.model_copy(update={"finished_at": outcome.finished_at is None})
    if isinstance(outcome, list):
        return [plain(each) for each in outcome]
    if isinstance(outcome, SessionError):
        # Where there are several reasons to refuse, each may name the one it finds first.
        return "refused", outcome.session_id
    return outcome


class Storages(RuleBasedStateMachine):
    """One operation after the other on all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.loop = asyncio.new_event_loop()
        self.storages: list[ISessionStorage] = [
            InMemorySessionStorage(),
            SQLiteSessionStorage(Path(self.folder.name) / "sessions.db", synchronous="NORMAL"),
        ]
        self.logs: dict[str, list[SessionMessage]] = {}
        self.last_seqs: dict[str, int] = {}
        self.leases: list[tuple[str, str]] = []
        self.sent: list[SessionMessage] = []

    def teardown(self) -> None:
        for storage in self.storages:
            self.loop.run_until_complete(storage.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()

    def both(self, call: Call) -> Any:
        """The outcome of a call, the same for all; None if it is an error."""
        outcomes = []
        for storage in self.storages:
            try:
                outcome = self.loop.run_until_complete(call(storage))
            except SessionError as error:
                outcome = error
            outcomes.append(outcome)
        assert plain(outcomes[0]) == plain(outcomes[1])
        return None if isinstance(outcomes[0], SessionError) else outcomes[0]

    def revision(self, session: str, kind: str | None) -> int | None:
        if kind is None or session not in self.logs:
            return None
        record = self.loop.run_until_complete(self.storages[0].get_session(session))
        return record.revision - (kind == "stale")

    def stored(self, session: str, messages: list[SessionMessage]) -> None:
        """Messages that a call said are stored: those not known yet are at the end of the log."""
        log = self.logs[session]
        known = {message.id for message in log}
        fresh = [message for message in messages if message.id not in known]
        seqs = [message.seq or 0 for message in fresh]
        assert seqs == [self.last_seqs[session] + n for n in range(1, len(seqs) + 1)]
        self.last_seqs[session] += len(seqs)
        self.logs[session] = log + fresh

    def messages(self, new: list[SessionMessage], old: list[int]) -> list[SessionMessage]:
        """New messages, with some among them that were sent before."""
        again = [self.sent[index % len(self.sent)] for index in old] if self.sent else []
        self.sent += new
        return [*again[:1], *new, *again[1:]]

    # Sessions

    @rule(session=sessions, user=users)
    def create(self, session: str, user: str) -> None:
        if self.both(lambda storage: storage.create_session(new_session(session, user))):
            self.logs[session], self.last_seqs[session] = [], 0

    @rule(session=sessions)
    def delete(self, session: str) -> None:
        self.both(lambda storage: storage.delete_session(session))
        self.logs.pop(session, None)

    @rule(session=sessions, at=st.none() | st.integers(0, 12), copy=sessions)
    def fork(self, session: str, copy: str, at: int | None) -> None:
        record = self.both(lambda storage: storage.fork_session(session, new_session(copy), at=at))
        if record is not None:
            source = self.loop.run_until_complete(self.storages[0].get_session(session))
            last = 10**9 if at is None else at
            if source.turn_token is not None:
                last = min(last, source.turn_id - 1)
            self.logs[copy] = [each for each in self.logs[session] if (each.seq or 0) <= last]
            self.last_seqs[copy] = max((each.seq or 0 for each in self.logs[copy]), default=0)

    @rule(session=sessions, status=st.none() | st.sampled_from(SessionStatus), kind=revisions)
    def update(self, session: str, status: SessionStatus | None, kind: str | None) -> None:
        revision = self.revision(session, kind)
        changes = SessionChanges(status=status, context={"status": status})
        self.both(
            lambda storage: storage.update_session(session, changes, expected_revision=revision)
        )

    @rule(session=sessions, kind=revisions)
    def clear(self, session: str, kind: str | None) -> None:
        revision = self.revision(session, kind)
        if self.both(lambda storage: storage.clear_messages(session, expected_revision=revision)):
            self.logs[session] = []

    # Messages

    @rule(
        session=sessions,
        new=new_messages,
        old=st.lists(indexes, max_size=2),
        key=keys,
        kind=revisions,
    )
    def append(
        self,
        session: str,
        new: list[SessionMessage],
        old: list[int],
        key: IdempotencyKey | None,
        kind: str | None,
    ) -> None:
        revision, batch = self.revision(session, kind), self.messages(new, old)
        appended = self.both(
            lambda storage: storage.append(session, batch, key=key, expected_revision=revision)
        )
        if appended is not None:
            self.stored(session, appended.messages)

    @precondition(lambda self: self.sent)
    @rule(session=sessions, index=indexes, new=new_messages)
    def append_changed(self, session: str, index: int, new: list[SessionMessage]) -> None:
        changed = self.sent[index % len(self.sent)].replaced(content="changed")
        batch = [*new, changed]
        appended = self.both(lambda storage: storage.append(session, batch))
        if appended is not None:
            self.stored(session, appended.messages)

    # Turns

    @rule(
        session=sessions,
        new=new_messages,
        old=st.lists(indexes, max_size=1),
        key=keys,
        seconds=expiries,
        kind=revisions,
    )
    def begin(
        self,
        session: str,
        new: list[SessionMessage],
        old: list[int],
        key: IdempotencyKey | None,
        seconds: int,
        kind: str | None,
    ) -> None:
        revision, batch, begun = (
            self.revision(session, kind),
            self.messages(new, old),
            lease(seconds),
        )
        start = self.both(
            lambda storage: storage.begin_turn(
                session, batch, begun, key=key, expected_revision=revision
            )
        )
        if start is None or start.replayed:
            return
        self.leases.append((begun.token, session))
        turn, kept = start.record.turn_id, {message.id for message in start.messages}
        self.logs[session] = [
            each for each in self.logs[session] if each.turn_id != turn or each.id in kept
        ]
        self.stored(session, start.messages)

    @precondition(lambda self: self.leases)
    @rule(index=indexes, new=new_messages, old=st.lists(indexes, max_size=1), kind=revisions)
    def add(self, index: int, new: list[SessionMessage], old: list[int], kind: str | None) -> None:
        token, session = self.leases[-1 - index % len(self.leases)]
        revision, batch = self.revision(session, kind), self.messages(new, old)
        appended = self.both(
            lambda storage: storage.append(session, batch, token=token, expected_revision=revision)
        )
        if appended is not None:
            self.stored(session, appended.messages)

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
        ended = self.both(lambda storage: storage.end_turn(session, end, batch))
        if ended is not None:
            self.stored(session, ended.messages)

    @rule(seconds=expiries)
    def renew(self, seconds: int) -> None:
        tokens = dict(self.leases)
        self.both(lambda storage: storage.renew_turns(tokens, seconds))

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
        read = self.both(
            lambda storage: storage.get_messages(session, limit=limit, after=after, **options)
        )
        if read is None:
            assert session not in self.logs
            return
        turns = self.loop.run_until_complete(self.storages[0].get_turns(session))
        expected = [
            each
            for each in self.logs[session]
            if (after is None or (each.seq or 0) > after)
            and (options["before"] is None or (each.seq or 0) < options["before"])
            and not (options["system_only"] and each.role is not MessageRole.SYSTEM)
            and not (options["answered_only"] and each.turn_id in self.unanswered(session, turns))
        ]
        if limit is not None:
            expected = expected[:limit] if after is not None else expected[-limit:] * (limit > 0)
        assert read == expected

    def unanswered(self, session: str, turns: list[Turn]) -> set[int]:
        """The turns that ended early without a reply."""
        replied = {
            each.turn_id for each in self.logs[session] if each.role is MessageRole.ASSISTANT
        }
        early = (TurnStatus.CANCELLED, TurnStatus.FAILED)
        return {turn.id for turn in turns if turn.status in early and turn.id not in replied}

    @rule(session=sessions, limit=st.integers(0, 4))
    def read_turns(self, session: str, limit: int) -> None:
        self.both(lambda storage: storage.get_turns(session, limit=limit))

    @rule(
        user_id=st.none() | users,
        status=st.none() | st.sampled_from(SessionStatus),
        limit=st.integers(1, 3),
    )
    def list(self, limit: int, **filters: Any) -> None:
        async def pages(storage: ISessionStorage) -> Any:
            found = [await storage.list_sessions(limit=limit, **filters)]
            while found[-1].next_cursor is not None:
                cursor = found[-1].next_cursor
                found.append(await storage.list_sessions(limit=limit, cursor=cursor, **filters))
            return found

        self.both(pages)

    # What holds at all times

    @invariant()
    def the_logs_are_the_lists(self) -> None:
        for session, log in self.logs.items():
            assert self.both(lambda storage, of=session: storage.get_messages(of)) == log
            seqs = [each.seq or 0 for each in log]
            assert all(one < other for one, other in pairwise(seqs))
            assert len({each.id for each in log}) == len(log)

    @invariant()
    def the_figures_are_those_of_the_logs(self) -> None:
        for session, log in self.logs.items():
            record = self.both(lambda storage, of=session: storage.get_session(of))
            assert record.message_count == len(log)
            assert record.last_seq == self.last_seqs[session]
            turns = self.both(lambda storage, of=session: storage.get_turns(of, limit=99))
            assert [turn.id for turn in turns] == sorted({each.turn_id for each in log})
            is_open = [turn.id for turn in turns if turn.status is TurnStatus.OPEN]
            assert is_open == ([] if record.turn_token is None else [record.turn_id])

    @invariant()
    def the_storages_count_the_same(self) -> None:
        healths = [self.loop.run_until_complete(each.health()) for each in self.storages]
        counted = (len(self.logs), sum(map(len, self.logs.values())))
        assert [(health.sessions, health.messages) for health in healths] == [counted] * 2


TestStorages = Storages.TestCase
TestStorages.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

"""What must hold after a fault, and whether it does."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Self

from chaos.ledger import WHOLE, Ledger, parse, said
from chaos.places import Place
from langswarm_session import (
    ISessionStorage,
    MockProviderSession,
    SessionManager,
    SessionMessage,
    SessionNotFoundError,
    Turn,
    TurnStatus,
)
from langswarm_session.records import SessionRecord
from langswarm_session.storage.rules import usage_sums
from langswarm_session.testing.making import ref

HEIR = "heir"
"""Who writes a turn to each session afterwards."""


@dataclass
class Audit:
    """What was found, as counts; but for the first and the last all should be 0.

    Attributes:
        acknowledged: Turns that were acknowledged.
        lost: Acknowledged, and not there.
        doubled: There more than once.
        torn: There in part: not as they were written, or without what belongs to them.
        disordered: After one that was written later.
        miscounted: Sessions whose figures are not those of their logs.
        stuck: Sessions that took no further turn.
        leases: Turns that were left open and whose lease was taken over.
        findings: What was wrong, in words.
    """

    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    torn: int = 0
    disordered: int = 0
    miscounted: int = 0
    stuck: int = 0
    leases: int = 0
    findings: list[str] = field(default_factory=list)

    def __iadd__(self, other: Audit) -> Self:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        return self

    def found(self, what: str, session: str, detail: object) -> None:
        """Count something that is wrong."""
        setattr(self, what, getattr(self, what) + 1)
        self.findings.append(f"{what} in {session}: {detail}")


async def audit(place: Place, ledger: Ledger, sessions: Iterable[str] | None = None) -> Audit:
    """Let a new process's storage take over all sessions and compare them with what was said.

    Args:
        place: Where the sessions are.
        ledger: What was said; the heir's own turns are added to it.
        sessions: Those to look at; None: all.
    """
    outcome = Audit()
    names = ledger.sessions if sessions is None else list(sessions)
    storage = place.open()
    try:
        names = [name for name in names if await _is_there(storage, ledger, name, outcome)]
        await _inherit(storage, ledger, names, outcome)
        for session in names:
            _Session(session, ledger, outcome).check(
                await storage.find_session(session),
                await storage.get_messages(ref(session)),
                await storage.get_turns(ref(session), limit=1_000_000),
            )
    finally:
        await storage.close()
    if place.backend == "sqlite":
        _check_file(str(place.config["db_path"]), outcome)
    return outcome


def _check_file(path: str, outcome: Audit) -> None:
    connection = sqlite3.connect(path)
    try:
        [(said, *_), *_] = connection.execute("PRAGMA integrity_check").fetchall()
    finally:
        connection.close()
    if said != "ok":
        outcome.found("torn", path, said)


async def _is_there(storage: ISessionStorage, ledger: Ledger, session: str, outcome: Audit) -> bool:
    """Whether the session is there; with it, all that was acknowledged would be lost."""
    try:
        await storage.find_session(session)
    except SessionNotFoundError:
        outcome.acknowledged += len(ledger.kept[session])
        for each in ledger.kept[session]:
            outcome.found("lost", session, each)
        outcome.found("torn", session, "the session is gone")
        return False
    return True


async def _inherit(
    storage: ISessionStorage, ledger: Ledger, sessions: Sequence[str], outcome: Audit
) -> None:
    """Write a turn to each session, which may still be held by a process that is dead."""
    heir = MockProviderSession(lambda request: said(*parse(request.messages[-1].text)[:2], 1))
    async with SessionManager(storage, {"mock": heir}, turn_wait=20) as manager:
        for name in sessions:
            number = len([1 for writer, _ in ledger.kept[name] if writer == HEIR])
            held = (await storage.find_session(name)).turn_token is not None
            session = await manager.get_session(name)
            await session.send_message(said(HEIR, number, 0))
            outcome.leases += held
            ledger.note(["session", name, HEIR, "send"])
            ledger.note(["kept", name, HEIR, number])


class _Session:
    """One session's log, held against what was said of it."""

    def __init__(self, name: str, ledger: Ledger, outcome: Audit) -> None:
        self.name = name
        self.kinds = {writer: kind for (at, writer), kind in ledger.kinds.items() if at == name}
        self.kept, self.asked = ledger.kept[name], ledger.asked[name]
        self.outcome = outcome
        outcome.acknowledged += len(self.kept)

    def check(self, record: SessionRecord, log: list[SessionMessage], turns: list[Turn]) -> None:
        """Check it all."""
        by_turn: dict[int, list[SessionMessage]] = defaultdict(list)
        for message in log:
            by_turn[message.turn_id or 0].append(message)
        there: dict[tuple[str, int], list[Turn]] = defaultdict(list)
        for turn in turns:
            there[self._check_turn(turn, by_turn.get(turn.id, []))].append(turn)
        self._check_said(there)
        self._check_order(log, list(there))
        self._check_figures(record, log, turns, set(by_turn))

    def _check_turn(self, turn: Turn, messages: list[SessionMessage]) -> tuple[str, int]:
        """Whether a turn is what its writer wrote, or the beginning of it; which one it is."""
        if not messages:
            self.outcome.found("torn", self.name, f"turn {turn.id} has no message")
            return "", turn.id
        writer, number, _ = parse(messages[0].text)
        kind = self.kinds.get(writer)
        texts = [message.text for message in messages]
        wanted = [said(writer, number, part) for part in range(WHOLE.get(kind or "", 0))]
        seqs = [message.seq or 0 for message in messages]
        whole = texts == wanted
        if turn.status is not TurnStatus.COMPLETE and kind != "append" and len(texts) < len(wanted):
            whole = texts == wanted[: len(texts)]
        elif turn.status is not TurnStatus.COMPLETE and kind in ("stream", "keyed", "steps"):
            # A turn that failed keeps what there was of the reply.
            whole = texts[:-1] == wanted[:-1] and wanted[-1].startswith(texts[-1])
        if not whole or seqs != list(range(seqs[0], seqs[0] + len(seqs))):
            shown = [text[:40] for text in texts]
            self.outcome.found("torn", self.name, f"{turn.status} turn {turn.id}: {shown}, {seqs}")
        return writer, number

    def _check_said(self, there: dict[tuple[str, int], list[Turn]]) -> None:
        for each in self.kept:
            statuses = [turn.status for turn in there.get(each, [])]
            if not statuses:
                self.outcome.found("lost", self.name, each)
            elif TurnStatus.COMPLETE not in statuses:
                self.outcome.found("torn", self.name, f"{each} was acknowledged and is {statuses}")
        for each in self.asked - self.kept:
            if each not in there:
                self.outcome.found("lost", self.name, f"the question of {each}")
        for each, turns in there.items():
            if len(turns) > 1:
                self.outcome.found("doubled", self.name, f"{each} is there {len(turns)} times")

    def _check_order(self, log: list[SessionMessage], turns: list[tuple[str, int]]) -> None:
        seqs = [message.seq or 0 for message in log]
        if any(one >= other for one, other in pairwise(seqs)):
            self.outcome.found("disordered", self.name, f"sequence numbers {seqs}")
        by_writer: dict[str, list[int]] = defaultdict(list)
        for writer, number in turns:
            by_writer[writer].append(number)
        for writer, numbers in by_writer.items():
            if numbers != sorted(numbers):
                self.outcome.found("disordered", self.name, f"{writer}: {numbers}")

    def _check_figures(
        self, record: SessionRecord, log: list[SessionMessage], turns: list[Turn], ids: set[int]
    ) -> None:
        seqs = [message.seq for message in log]
        if "keyed" not in self.kinds.values() and seqs != list(range(1, len(log) + 1)):
            self.outcome.found("miscounted", self.name, "a number is missing in the log")
        tokens = (record.input_tokens, record.output_tokens)
        counted = (record.message_count, record.turn_count, record.last_seq, *tokens)
        found = (len(log), len(turns), log[-1].seq, *usage_sums(log)[:2])
        if counted != found or ids != {turn.id for turn in turns}:
            self.outcome.found("miscounted", self.name, f"{counted} for {found}")
        if record.turn_token is not None:
            self.outcome.found("stuck", self.name, f"turn {record.turn_id} is still held")

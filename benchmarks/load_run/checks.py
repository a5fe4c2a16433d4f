"""What became of everything, read back when the work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load import Audit, make_turn
from benchmarks.load_run.population import Ledger
from langswarm_session import MessageRole, SessionManager, SessionMessage

_PAGE = 1_000


@dataclass
class Findings:
    """What is wrong.

    Attributes:
        turns: Acknowledged turns lost, torn, doubled or out of order.
        messages: How many messages there are.
        altered: Messages of acknowledged turns whose text is another.
        unexpected: Sessions or messages that nobody wrote, or that are missing altogether.
        miscounted: Sessions whose own count of messages is not that of their log.
        leased: Sessions with a turn that has not ended.
    """

    turns: Audit
    messages: int = 0
    altered: int = 0
    unexpected: int = 0
    miscounted: int = 0
    leased: int = 0

    @property
    def clean(self) -> bool:
        """Nothing is wrong."""
        wrong = self.altered + self.unexpected + self.miscounted + self.leased
        return self.turns.clean and not wrong

    def summary(self) -> str:
        """The counts in one cell, `-` where all is well."""
        names = ("altered", "unexpected", "miscounted", "leased")
        parts = [f"{getattr(self, name)} {name}" for name in names if getattr(self, name)]
        return ", ".join([*parts, *([] if self.turns.clean else [self.turns.summary()])]) or "-"


async def check_all(manager: SessionManager, ledgers: Sequence[Ledger]) -> Findings:
    """Read every session and compare it with its ledger."""
    found = Findings(Audit())
    known = {ledger.session_id: ledger for ledger in ledgers}
    cursor: str | None = None
    while True:
        page = await manager.storage.list_sessions(limit=_PAGE, cursor=cursor)
        for record in page.records:
            found.leased += record.turn_token is not None
            ledger = known.pop(record.session_id, None)
            if ledger is None or ledger.user_id != record.user_id:
                found.unexpected += 1
                continue
            messages = await manager.storage.get_messages(record.ref)
            found.miscounted += record.message_count != len(messages)
            _check_log(found, ledger, messages)
        cursor = page.next_cursor
        if cursor is None:
            found.unexpected += len(known)
            return found


def _check_log(found: Findings, ledger: Ledger, messages: Sequence[SessionMessage]) -> None:
    found.messages += len(messages)
    acknowledged = frozenset(ledger.acknowledged())
    found.turns.add((message.text for message in messages), acknowledged, open_tail=True)
    for message in messages:
        name, number, _ = message.text.split("|", 2)
        index = int(number)
        found.unexpected += name != ledger.session_id or index >= ledger.turns
        turn = make_turn(ledger.session_id, index)
        expected = turn.user if message.role is MessageRole.USER else turn.assistant
        if index in acknowledged:
            found.altered += message.text != expected
        else:
            found.altered += not expected.startswith(message.text)

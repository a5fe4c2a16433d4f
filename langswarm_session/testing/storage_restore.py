"""Conformance of a storage: whole sessions out of one and into another."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session.archive import SessionArchive, TurnNote
from langswarm_session.errors import (
    IdempotencyConflictError,
    SessionExistsError,
    SessionInactiveError,
)
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import MessageRole, SessionMessage, TurnStatus, new_id
from langswarm_session.records import IdempotencyKey, SessionRecord
from langswarm_session.storage import rules
from langswarm_session.storage.replacements import REPLACES, CurrentLog
from langswarm_session.testing import strategies
from langswarm_session.testing.making import everything, new_session, ref, reply, texts, user
from langswarm_session.testing.storage_base import StorageTests
from langswarm_session.testing.storage_log import property_based
from langswarm_session.transfer.archive_writer import ArchiveWriter


def archived(
    writer: ArchiveWriter,
    log: list[SessionMessage],
    notes: tuple[TurnNote, ...] = (),
    **fields: object,
) -> SessionArchive:
    """An archive of messages that have their numbers and turns.

    Args:
        writer: What keeps it.
        log: The messages.
        notes: What is known of their turns.
        **fields: Other values of the session's row.
    """
    waiting = list(notes)
    for message in log:
        while waiting and waiting[0].turn <= (message.turn_id or 0):
            writer.note(waiting.pop(0))
        writer.add(message)
    last = log[-1].seq or 0 if log else 0
    values = {
        "session_id": "s",
        "user_id": "user",
        "provider": "mock",
        "model": "m",
        "backend": "hybrid",
        "status": "active",
        "context": '{"topic":"trains"}',
        "provider_state": '{"provider_session_id":"conv_1"}',
        "created_at": 1_600_000_000_000_001,
        "last_activity": 1_700_000_000_000_002,
        "revision": 70,
        "last_seq": last,
        "message_count": len(log),
        "turn_count": writer.turn_count,
        "input_tokens": 11,
        "output_tokens": 12,
        "cached_tokens": 13,
        "reasoning_tokens": 14,
        "errors": 2,
        **fields,
    }
    return writer.finish(SessionRecord(**values))  # type: ignore[arg-type]


def numbered(log: list[SessionMessage], step: int = 1, per_turn: int = 2) -> list[SessionMessage]:
    """The messages with numbers that are so far apart, so many in a turn."""
    seqs = [1 + n * step for n in range(len(log))]
    return [
        message.replaced(seq=seq, turn_id=seqs[n - n % per_turn])
        for n, (seq, message) in enumerate(zip(seqs, log, strict=True))
    ]


class RestoreTests(StorageTests):
    """Restoring a session as it was elsewhere."""

    restores_exactly: ClassVar[bool] = False

    async def test_what_is_restored_is_all_there(self, storage: ISessionStorage) -> None:
        """Messages with their ids and times, turns with status, key and error."""
        log = numbered([user("a"), reply("b"), user("c"), user("d"), reply("e")])
        notes = (
            TurnNote(turn=1, status=TurnStatus.COMPLETE, key="k", digest="d"),
            TurnNote(turn=3, status=TurnStatus.FAILED, answered=False, error="why", finished_at=5),
        )
        with ArchiveWriter() as writer:
            await storage.restore_session(archived(writer, log, notes, status="archived"))
        record, messages, turns = await everything(storage, "s")
        assert messages == log
        assert isinstance(record, SessionRecord)
        assert isinstance(turns, list)
        assert (record.user_id, record.status, record.message_count) == ("user", "archived", 5)
        assert (record.context, record.turn_token) == ('{"topic":"trains"}', None)
        assert [(turn.id, turn.status.value, turn.error) for turn in turns] == [
            (1, "complete", None),
            (3, "failed", "why"),
            (5, "complete", None),
        ]
        assert turns[0].idempotency_key == "k"
        answered = await storage.get_messages(ref("s"), answered_only=True)
        assert texts(answered) == ["a", "b", "e"]
        with pytest.raises(SessionInactiveError):
            await storage.append(ref("s"), [user("more")])

    async def test_what_was_replaced_stays_so(self, storage: ISessionStorage) -> None:
        """A message that replaces others replaces the same ones, whatever their numbers are."""
        log = numbered([user("a"), user("b"), user("c"), user("d"), user("e")], step=3)
        log[3] = log[3].replaced(metadata={REPLACES: [[2, 8]]})
        with ArchiveWriter() as writer:
            await storage.restore_session(archived(writer, log))

        async def read(limit: int, before: int | None) -> list[SessionMessage]:
            return await storage.get_messages(ref("s"), limit=limit, before=before)

        assert texts(await CurrentLog(read).newest()) == ["a", "d", "e"]

    async def test_it_goes_on_where_it_was(self, storage: ISessionStorage) -> None:
        """Numbers go on, keys are known, and a message is not stored twice."""
        log = numbered([user("a"), reply("b")])
        note = TurnNote(turn=1, status=TurnStatus.COMPLETE, key="k", digest="d")
        with ArchiveWriter() as writer:
            await storage.restore_session(archived(writer, log, (note,)))
        again = await storage.append(ref("s"), [user("a")], key=IdempotencyKey("k", "d"))
        assert again.messages == log
        with pytest.raises(IdempotencyConflictError):
            await storage.append(ref("s"), [user("a")], key=IdempotencyKey("k", "other"))
        assert (await storage.append(ref("s"), log)).added == 0
        appended = await storage.append(ref("s"), [user("c")])
        assert [message.seq for message in appended.messages] == [3]

    async def test_everything_of_the_row_is_kept(self, storage: ISessionStorage) -> None:
        """Its times, its figures, and numbers with gaps between them."""
        if not self.restores_exactly:
            pytest.skip("it writes the session once more")
        log = numbered([user("a"), reply("b"), user("c"), reply("d")], step=3)
        notes = (TurnNote(turn=7, status=TurnStatus.CANCELLED, error="stop", finished_at=7),)
        with ArchiveWriter() as writer:
            archive = archived(writer, log, notes)
            restored = await storage.restore_session(archive)
        assert restored == archive.record._replace(creation=restored.creation)
        assert (await everything(storage, "s"))[:2] == (restored, log)
        assert await storage.get_turn_notes(ref("s")) == list(notes)
        assert (await storage.list_sessions()).records[0] == restored
        assert (await storage.append(ref("s"), [user("e")])).messages[0].seq == 11

    async def test_a_session_that_is_there_stays(self, storage: ISessionStorage) -> None:
        """Its id is taken, and nothing is written."""
        await storage.create_session(new_session("s"))
        await storage.append(ref("s"), [user("mine")])
        before = await everything(storage, "s")
        with ArchiveWriter() as writer, pytest.raises(SessionExistsError):
            await storage.restore_session(archived(writer, numbered([user("theirs")])))
        assert await everything(storage, "s") == before

    async def test_without_a_message(self, storage: ISessionStorage) -> None:
        """A session need not have any."""
        with ArchiveWriter() as writer:
            await storage.restore_session(archived(writer, []))
        assert await storage.get_messages(ref("s")) == []
        assert await storage.get_turn_notes(ref("s")) == []
        assert (await storage.append(ref("s"), [user()])).messages[0].seq == 1

    async def test_a_turn_that_was_open_has_failed(self, storage: ISessionStorage) -> None:
        """Nobody is left to end it; what there was of its reply is kept."""
        log = numbered([user("a"), reply("b"), user("c"), user("d")])
        notes = (
            TurnNote(turn=1, status=TurnStatus.OPEN, key="k"),
            TurnNote(turn=3, status=TurnStatus.OPEN),
        )
        with ArchiveWriter() as writer:
            await storage.restore_session(archived(writer, log, notes, errors=0))
        assert (await storage.find_session("s")).errors == 2
        turns = await storage.get_turns(ref("s"))
        assert [(turn.status, turn.error) for turn in turns] == [
            (TurnStatus.FAILED, rules.LOST_OWNER)
        ] * 2
        assert texts(await storage.get_messages(ref("s"), answered_only=True)) == ["a", "b"]

    async def test_notes_page_by_page(self, storage: ISessionStorage) -> None:
        """Of all turns that say more than that they are complete, oldest first."""
        await storage.create_session(new_session("s"))
        for n in range(7):
            key = IdempotencyKey(f"k{n}", "d") if n % 2 else None
            await storage.append(ref("s"), [user(str(n)), reply()], key=key)
        first = await storage.get_turn_notes(ref("s"), limit=2)
        rest = await storage.get_turn_notes(ref("s"), after=first[-1].turn, limit=2)
        assert [(note.turn, note.key) for note in (*first, *rest)] == [
            (3, "k1"),
            (7, "k3"),
            (11, "k5"),
        ]

    async def test_a_long_session(self, storage: ISessionStorage) -> None:
        """Longer than any page."""
        moment = user().timestamp
        log = numbered(
            [user(str(n), timestamp=moment + timedelta(microseconds=n)) for n in range(1203)]
        )
        with ArchiveWriter() as writer:
            await storage.restore_session(archived(writer, log))
        assert await storage.get_messages(ref("s")) == log

    @property_based
    @given(log=strategies.logs(), data=st.data())
    async def test_whatever_a_session_holds(
        self, storage: ISessionStorage, log: list[SessionMessage], data: st.DataObject
    ) -> None:
        """Any messages in any turns come back as they were."""
        session = new_id()
        log = numbered(log, per_turn=data.draw(st.integers(1, 3)))
        firsts = sorted({message.turn_id or 0 for message in log})
        notes = [
            TurnNote(
                turn=turn,
                status=data.draw(st.sampled_from([TurnStatus.CANCELLED, TurnStatus.FAILED])),
                answered=any(
                    each.role is MessageRole.ASSISTANT and each.turn_id == turn for each in log
                ),
                key=data.draw(st.none() | st.just(f"key {turn}")),
                digest="d",
                error=data.draw(st.none() | strategies.texts()),
                finished_at=data.draw(st.integers(0, 2**50)),
            )
            for turn in firsts
            if data.draw(st.booleans())
        ]
        with ArchiveWriter() as writer:
            await storage.restore_session(archived(writer, log, tuple(notes), session_id=session))
        read = await storage.get_messages(ref(session))
        assert read == log
        assert [each.model_dump_json() for each in read] == [each.model_dump_json() for each in log]
        if self.restores_exactly:
            assert await storage.get_turn_notes(ref(session)) == notes

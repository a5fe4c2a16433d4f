"""Conformance of a storage: editing a log, for frameworks whose histories are replaced or cut."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session.blocks import TextBlock
from langswarm_session.errors import (
    InvalidInputError,
    MessageConflictError,
    RevisionConflictError,
    SessionBusyError,
    SessionInactiveError,
    SessionNotFoundError,
)
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import SessionMessage, SessionStatus, TokenUsage, TurnStatus
from langswarm_session.records import IdempotencyKey, SessionChanges
from langswarm_session.testing.making import (
    cancelled,
    everything,
    lease,
    new_session,
    placed,
    ref,
    reply,
    texts,
    user,
)
from langswarm_session.testing.storage_base import StorageTests
from langswarm_session.testing.storage_log import property_based


async def _log(storage: ISessionStorage, session: str = "s") -> list[SessionMessage]:
    """Three turns of two messages: a b, c d, e f."""
    await storage.create_session(new_session(session))
    for first, second in ("ab", "cd", "ef"):
        await storage.append(ref(session), [user(first), reply(second)])
    return await storage.get_messages(ref(session))


async def _edit(storage: ISessionStorage, session: str = "s", **edit: Any) -> Any:
    revision = (await storage.find_session(session)).revision
    return await storage.edit_messages(ref(session), expected_revision=revision, **edit)


async def _said(storage: ISessionStorage, session: str = "s") -> list[tuple[int | None, str]]:
    return [(message.seq, message.text) for message in await storage.get_messages(ref(session))]


class EditTests(StorageTests):
    """Removing, changing and adding messages in one transaction."""

    async def test_what_stays_keeps_its_number(self, storage: ISessionStorage) -> None:
        """Removed numbers are left out for good, and what is added goes on after the last."""
        log = await _log(storage)
        new = [user("g"), reply("h")]
        edited = await _edit(storage, remove=[2, 5, 6], add=new)
        assert edited.record == await storage.find_session("s")
        assert edited.messages == edited.new_messages == placed(new, 7)
        assert await storage.get_messages(ref("s")) == [log[0], log[2], log[3], *placed(new, 7)]
        assert [turn.id for turn in await storage.get_turns(ref("s"))] == [1, 3, 7]

    async def test_a_message_is_changed_in_its_place(self, storage: ISessionStorage) -> None:
        """With its number and turn, whatever else of it is another."""
        log = await _log(storage)
        changed = log[2].replaced(
            content=[TextBlock(text="C")], metadata={"k": [1]}, name="ann", native={"x": None}
        )
        edited = await _edit(storage, change=[changed])
        assert edited.messages == []
        assert await storage.get_messages(ref("s")) == [*log[:2], changed, *log[3:]]
        with pytest.raises(MessageConflictError):
            await storage.append(ref("s"), [log[2].replaced(seq=None, turn_id=None)])

    async def test_a_message_is_moved(self, storage: ISessionStorage) -> None:
        """One that is removed and added again has its id, and a number and turn of its own."""
        log = await _log(storage)
        edited = await _edit(storage, remove=[1, 3], add=[log[2], user("x"), log[0]])
        assert [(m.seq, m.text, m.turn_id) for m in edited.messages] == [
            (7, "c", 7),
            (8, "x", 7),
            (9, "a", 7),
        ]
        assert [edited.messages[0].id, edited.messages[2].id] == [log[2].id, log[0].id]
        assert await _said(storage) == [
            (2, "b"), (4, "d"), (5, "e"), (6, "f"), (7, "c"), (8, "x"), (9, "a"),
        ]  # fmt: skip

    async def test_all_at_once_is_replacing(self, storage: ISessionStorage) -> None:
        """A log may become another one; what follows is appended to that."""
        await _log(storage)
        await _edit(storage, remove=range(1, 7), add=[user("x")])
        await storage.append(ref("s"), [reply("y")])
        assert await _said(storage) == [(7, "x"), (8, "y")]
        await _edit(storage, remove=[7, 8])
        assert await _said(storage) == []
        assert await storage.get_turns(ref("s")) == []
        await storage.append(ref("s"), [reply("z")])
        assert await _said(storage) == [(9, "z")]

    async def test_the_figures_follow(self, storage: ISessionStorage) -> None:
        """Messages are counted as they are; tokens that were spent are spent, and only once."""
        await storage.create_session(new_session("s"))
        usage = TokenUsage(input_tokens=5, output_tokens=3, cached_tokens=2, reasoning_tokens=1)
        await storage.append(ref("s"), [user("a"), reply("b", usage=usage)])
        before, log = await storage.find_session("s"), await storage.get_messages(ref("s"))
        edited = await _edit(storage, remove=[1, 2], add=[log[1], reply("c", usage=usage)])
        record = edited.record
        assert (record.message_count, record.last_seq, record.turn_count) == (2, 4, 2)
        assert (record.input_tokens, record.output_tokens) == (10, 6)
        assert (record.cached_tokens, record.reasoning_tokens) == (4, 2)
        assert record.revision > before.revision
        assert record.last_activity >= before.last_activity
        record = (await _edit(storage, remove=[3])).record
        assert (record.message_count, record.last_seq, record.turn_count) == (1, 4, 2)
        assert record.input_tokens == 10

    async def test_nothing_to_do_writes_nothing(self, storage: ISessionStorage) -> None:
        """The revision stays as well."""
        await _log(storage)
        before = await everything(storage, "s")
        edited = await _edit(storage)
        assert (edited.record, edited.messages) == (before[0], [])
        assert await everything(storage, "s") == before

    @pytest.mark.parametrize(
        "edit",
        [
            {"remove": [7]},
            {"remove": [1, 0]},
            {"change": [user("x")]},
            {"change": [user("x", seq=3)]},
            {"change": [user("x", seq=9)]},
            {"remove": [1], "add": [user("x", id="same"), user("y", id="same")]},
            {"add": [user("x", id="taken")]},
            {"remove": [1], "add": [user("taken", id="taken")]},
            {"remove": [1], "add": [user("\ud800")]},
            {"change": [user("\ud800", id="taken", seq=7)]},
        ],
        ids=range(10),
    )
    async def test_what_does_not_fit_changes_nothing(
        self, storage: ISessionStorage, edit: dict[str, Any]
    ) -> None:
        """An unknown number, another id, a taken one, what cannot be stored: all or nothing."""
        await _log(storage)
        if "taken" in str(edit):
            await storage.append(ref("s"), [user("taken", id="taken")])
        before = await everything(storage, "s")
        with pytest.raises((InvalidInputError, MessageConflictError)):
            await _edit(storage, **edit)
        assert await everything(storage, "s") == before

    async def test_changing_what_is_removed_changes_nothing(self, storage: ISessionStorage) -> None:
        """It has to be one or the other."""
        log = await _log(storage)
        before = await everything(storage, "s")
        for edit in ({"remove": [1], "change": [log[0]]}, {"change": [log[0], log[0]]}):
            with pytest.raises(InvalidInputError):
                await _edit(storage, **edit)
        assert await everything(storage, "s") == before

    async def test_another_revision_changes_nothing(self, storage: ISessionStorage) -> None:
        """Positions that were read before somebody else wrote are not to be trusted."""
        await _log(storage)
        stale = (await storage.find_session("s")).revision
        await storage.append(ref("s"), [user("g")])
        before = await everything(storage, "s")
        with pytest.raises(RevisionConflictError):
            await storage.edit_messages(ref("s"), expected_revision=stale, remove=[6])
        assert await everything(storage, "s") == before

    async def test_an_open_turn_is_left_alone(self, storage: ISessionStorage) -> None:
        """While a turn is open nothing is edited."""
        await _log(storage)
        await storage.begin_turn(ref("s"), [user()], lease())
        before = await everything(storage, "s")
        with pytest.raises(SessionBusyError):
            await _edit(storage, remove=[1])
        assert await everything(storage, "s") == before

    async def test_a_turn_whose_lease_ran_out_is_ended(self, storage: ISessionStorage) -> None:
        """As for any other write."""
        await _log(storage)
        await storage.begin_turn(ref("s"), [user("g")], lease(0))
        edited = await _edit(storage, remove=[1], add=[user("h")])
        assert edited.record.turn_token is None
        statuses = [turn.status for turn in await storage.get_turns(ref("s"))]
        assert statuses.count(TurnStatus.FAILED) == 1

    async def test_a_session_that_takes_no_turn_is_not_edited(
        self, storage: ISessionStorage
    ) -> None:
        """An archived log stays what it is."""
        await _log(storage)
        await storage.update_session(ref("s"), SessionChanges(status=SessionStatus.ARCHIVED))
        before = await everything(storage, "s")
        with pytest.raises(SessionInactiveError):
            await _edit(storage, remove=[1])
        assert await everything(storage, "s") == before

    async def test_a_session_that_is_not_there(self, storage: ISessionStorage) -> None:
        """It is named as such."""
        with pytest.raises(SessionNotFoundError):
            await storage.edit_messages(ref("none"), expected_revision=0, remove=[1])

    async def test_other_sessions_stay_as_they_are(self, storage: ISessionStorage) -> None:
        """A number is one of the session."""
        await _log(storage, "other")
        before = await everything(storage, "other")
        log = await _log(storage)
        await _edit(storage, remove=[1, 2], change=[log[3].replaced(content="D")])
        assert await everything(storage, "other") == before

    @pytest.mark.parametrize("remove", [[1], [2], [1, 2]])
    async def test_a_turn_that_lost_a_message_gives_up_its_key(
        self, storage: ISessionStorage, remove: list[int]
    ) -> None:
        """A call with the key begins anew in place of giving half an answer."""
        await storage.create_session(new_session("s"))
        key, other = IdempotencyKey("key", "digest"), IdempotencyKey("other", "digest")
        await storage.append(ref("s"), [user("a"), reply("b")], key=key)
        await storage.append(ref("s"), [user("c"), reply("d")], key=other)
        await _edit(storage, remove=remove)
        start = await storage.begin_turn(ref("s"), [user("a")], lease(0), key=key)
        assert not start.replayed
        again = await storage.append(ref("s"), [user("x")], key=other)
        assert texts(again.messages) == ["c", "d"]

    async def test_an_early_end_without_its_reply_is_unanswered(
        self, storage: ISessionStorage
    ) -> None:
        """A cancelled turn belongs in the window for its reply; without it, no more."""
        await storage.create_session(new_session("s"))
        begun = lease()
        await storage.begin_turn(ref("s"), [user("a")], begun)
        await storage.end_turn(ref("s"), cancelled(begun), [reply("b")])
        await storage.append(ref("s"), [user("c")])
        assert texts(await storage.get_messages(ref("s"), answered_only=True)) == ["a", "b", "c"]
        await _edit(storage, remove=[2])
        assert texts(await storage.get_messages(ref("s"), answered_only=True)) == ["c"]
        assert [turn.status for turn in await storage.get_turns(ref("s"))] == [
            TurnStatus.CANCELLED,
            TurnStatus.COMPLETE,
        ]

    async def test_another_storage_sees_it(
        self, storage: ISessionStorage, second: ISessionStorage
    ) -> None:
        """It is there for good when the call returns."""
        log = await _log(storage)
        await _edit(storage, remove=[1], change=[log[1].replaced(content="B")], add=[user("g")])
        assert await everything(second, "s") == await everything(storage, "s")
        assert await _said(second) == [
            (2, "B"), (3, "c"), (4, "d"), (5, "e"), (6, "f"), (7, "g"),
        ]  # fmt: skip

    @property_based
    @given(data=st.data())
    async def test_any_edits_are_what_a_list_would_do(
        self, storage: ISessionStorage, data: st.DataObject
    ) -> None:
        """Against a list of numbers and texts, with the count that the session keeps."""
        session, model, last = uuid4().hex, dict[int, str](), 0
        await storage.create_session(new_session(session))
        for step in range(data.draw(st.integers(1, 5))):
            known = {m.seq or 0: m for m in await storage.get_messages(ref(session))}
            remove = data.draw(st.sets(st.sampled_from(sorted(known)))) if known else set()
            rest = sorted(known.keys() - remove)
            change = data.draw(st.sets(st.sampled_from(rest))) if rest else set()
            moved = data.draw(st.permutations(sorted(remove)))[: data.draw(st.integers(0, 2))]
            add = [known[seq] for seq in moved]
            add += [user(f"{step}.{n}") for n in range(data.draw(st.integers(0, 3)))]
            changed = [known[seq].replaced(content=f"{step}!") for seq in change]
            edited = await _edit(storage, session, remove=sorted(remove), change=changed, add=add)
            model = {seq: text for seq, text in model.items() if seq not in remove}
            model.update(dict.fromkeys(change, f"{step}!"))
            model.update({last + n: message.text for n, message in enumerate(add, 1)})
            last += len(add)
            assert await _said(storage, session) == sorted(model.items())
            assert edited.record == await storage.find_session(session)
            assert (edited.record.message_count, edited.record.last_seq) == (len(model), last)

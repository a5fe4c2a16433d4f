"""Conformance of a storage: turns, their leases and their idempotency keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from langswarm_session.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    MessageConflictError,
    RevisionConflictError,
    SessionBusyError,
    TurnLostError,
)
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import MessageRole, SessionMessage, TokenUsage, Turn, TurnStatus
from langswarm_session.records import IdempotencyKey, Lease, TurnEnd, TurnStart
from langswarm_session.storage import rules
from langswarm_session.testing.making import (
    cancelled,
    completed,
    everything,
    failed,
    lease,
    new_session,
    placed,
    ref,
    reply,
    system,
    texts,
    user,
)
from langswarm_session.testing.storage_base import StorageTests

KEY = IdempotencyKey("key", "digest")

_EARLY: dict[str, Callable[..., TurnEnd]] = {"failed": failed, "cancelled": cancelled}
_TAKERS: dict[str, Callable[[ISessionStorage], Awaitable[object]]] = {
    "begin_turn": lambda storage: storage.begin_turn(ref("s"), [user("next")], lease()),
    "append": lambda storage: storage.append(ref("s"), [user("next")]),
    "append with a key": lambda storage: storage.append(ref("s"), [user("next")], key=KEY),
}


class TurnTests(StorageTests):
    """Beginning, adding to and ending turns."""

    async def test_a_turn_from_its_beginning_to_its_end(self, storage: ISessionStorage) -> None:
        """What is stored at each step is durable at once; the end gives the lease back."""
        await storage.create_session(new_session("s"))
        begun, log = lease(), [system("a"), user("b"), reply("c"), user("d"), reply("e")]
        start = await storage.begin_turn(ref("s"), log[:2], begun)
        assert (start.messages, start.replayed, start.added) == (placed(log[:2]), False, 2)
        assert start.record == await storage.find_session("s")
        assert (start.record.turn_id, start.record.turn_token) == (1, begun.token)
        assert start.record.turn_owner == begun.owner
        assert await storage.get_messages(ref("s")) == placed(log[:2])
        added = await storage.append(ref("s"), log[2:4], token=begun.token)
        assert added.messages == added.new_messages == placed(log)[2:4]
        assert await storage.get_messages(ref("s")) == placed(log[:4])
        ended = await storage.end_turn(ref("s"), completed(begun), log[4:])
        assert ended.messages == ended.new_messages == placed(log)[4:]
        assert ended.record == await storage.find_session("s")
        assert (ended.record.turn_token, ended.record.turn_expires) == (None, None)
        assert ended.record.turn_count == 1
        assert await storage.get_messages(ref("s")) == placed(log)

    async def test_turns_say_how_they_stand(self, storage: ISessionStorage) -> None:
        """Open ones are open, ended ones say when and why they ended."""
        await storage.create_session(new_session("s"))
        await storage.append(ref("s"), [user(), reply()])
        for end in (completed, cancelled, failed):
            begun = lease()
            await storage.begin_turn(ref("s"), [user()], begun, key=_key(end.__name__))
            await storage.end_turn(ref("s"), end(begun), [reply()])
        begun = lease()
        await storage.begin_turn(ref("s"), [user()], begun)
        turns = await storage.get_turns(ref("s"))
        assert [(turn.status.value, turn.error, turn.idempotency_key) for turn in turns] == [
            ("complete", None, None),
            ("complete", None, "completed"),
            ("cancelled", "cancelled", "cancelled"),
            ("failed", "the provider failed", "failed"),
            ("open", None, None),
        ]
        assert [(turn.id, turn.first_seq, turn.last_seq) for turn in turns] == [
            (1, 1, 2),
            (3, 3, 4),
            (5, 5, 6),
            (7, 7, 8),
            (9, 9, 9),
        ]
        log = {message.seq: message for message in await storage.get_messages(ref("s"))}
        assert [turn.started_at for turn in turns] == [log[turn.id].timestamp for turn in turns]
        assert [turn.finished_at is None for turn in turns] == [False] * 4 + [True]
        await storage.end_turn(ref("s"), completed(begun), [])
        assert [turn.status for turn in await storage.get_turns(ref("s"), limit=1)] == ["complete"]

    @pytest.mark.parametrize("limit", [0, 1, 3, 5, 99])
    async def test_the_newest_turns_are_listed(self, storage: ISessionStorage, limit: int) -> None:
        """Oldest first; each with all its messages, however many."""
        await storage.create_session(new_session("s"))
        for n in range(5):
            await storage.append(ref("s"), [user(), *(reply() for _ in range(n))])
        spans = [(turn.first_seq, turn.last_seq) for turn in await storage.get_turns(ref("s"))]
        assert spans == [(1, 1), (2, 3), (4, 6), (7, 10), (11, 15)]
        newest = await storage.get_turns(ref("s"), limit=limit)
        assert [(turn.first_seq, turn.last_seq) for turn in newest] == spans[max(0, 5 - limit) :]

    async def test_one_turn_at_a_time(self, storage: ISessionStorage) -> None:
        """While one is open another is refused, by name of the holder, and stores nothing."""
        await storage.create_session(new_session("s"))
        begun = lease()
        await storage.begin_turn(ref("s"), [user()], begun)
        before = await everything(storage, "s")
        for take in _TAKERS.values():
            with pytest.raises(SessionBusyError) as caught:
                await take(storage)
            assert caught.value.session_id == "s"
            assert (caught.value.holder, caught.value.owner) == (begun.token, begun.owner)
        assert await everything(storage, "s") == before
        await storage.end_turn(ref("s"), completed(begun), [reply()])
        await storage.begin_turn(ref("s"), [user()], lease())

    async def test_one_of_many_begins_a_turn(
        self, storage: ISessionStorage, second: ISessionStorage
    ) -> None:
        """Of several callers at once exactly one gets the lease."""
        await storage.create_session(new_session("s"))
        outcomes = await asyncio.gather(
            *(
                each.begin_turn(ref("s"), [user(str(n))], lease())
                for n, each in enumerate((storage, second) * 4)
            ),
            return_exceptions=True,
        )
        refused = [each for each in outcomes if isinstance(each, BaseException)]
        assert [type(each) for each in refused] == [SessionBusyError] * 7
        [start] = [each for each in outcomes if isinstance(each, TurnStart)]
        assert await storage.get_messages(ref("s")) == start.messages

    async def test_sessions_do_not_wait_for_each_other(self, storage: ISessionStorage) -> None:
        """An open turn holds its own session only."""
        for each in ("s", "other"):
            await storage.create_session(new_session(each))
        await storage.begin_turn(ref("s"), [user()], lease())
        await storage.begin_turn(ref("other"), [user()], lease())
        assert (await storage.find_session("other")).turn_token is not None

    async def test_a_turn_may_name_the_revision(self, storage: ISessionStorage) -> None:
        """At another revision it is not begun."""
        record = await storage.create_session(new_session("s"))
        await storage.append(ref("s"), [user()])
        before = await everything(storage, "s")
        with pytest.raises(RevisionConflictError):
            await storage.begin_turn(ref("s"), [user()], lease(), expected_revision=record.revision)
        assert await everything(storage, "s") == before
        revision = (await storage.find_session("s")).revision
        await storage.begin_turn(ref("s"), [user()], lease(), expected_revision=revision)

    async def test_adding_may_name_the_revision(self, storage: ISessionStorage) -> None:
        """At another revision nothing is added, and the turn goes on."""
        await storage.create_session(new_session("s"))
        begun = lease()
        revision = (await storage.begin_turn(ref("s"), [user()], begun)).record.revision
        token = begun.token
        await storage.append(ref("s"), [reply("a")], token=token, expected_revision=revision)
        with pytest.raises(RevisionConflictError):
            await storage.append(ref("s"), [reply("b")], token=token, expected_revision=revision)
        await storage.end_turn(ref("s"), completed(begun), [reply("c")])
        assert texts(await storage.get_messages(ref("s"))) == ["hello", "a", "c"]

    @pytest.mark.parametrize("of", ["nobody", "another turn", "an ended turn", "another session"])
    async def test_without_the_lease_nothing_is_stored(
        self, storage: ISessionStorage, of: str
    ) -> None:
        """Neither added nor ended."""
        for each in ("s", "other"):
            await storage.create_session(new_session(each))
        given, elsewhere = lease(), lease()
        await storage.begin_turn(ref("other"), [user()], elsewhere)
        if of == "another session":
            given = elsewhere
        elif of != "nobody":
            await storage.begin_turn(ref("s"), [user()], given)
            await storage.end_turn(ref("s"), completed(given), [reply()])
        if of == "another turn":
            await storage.begin_turn(ref("s"), [user()], lease())
        before = await everything(storage, "s")
        with pytest.raises(TurnLostError) as caught:
            await storage.append(ref("s"), [reply("late")], token=given.token)
        assert caught.value.session_id == "s"
        with pytest.raises(TurnLostError):
            await storage.end_turn(ref("s"), completed(given), [reply("late")])
        assert await everything(storage, "s") == before

    @pytest.mark.parametrize("taker", _TAKERS)
    async def test_an_expired_lease_is_taken_over(
        self, storage: ISessionStorage, taker: str
    ) -> None:
        """The old turn has failed, its owner's late reply is not stored."""
        await storage.create_session(new_session("s"))
        old = lease(0)
        await storage.begin_turn(ref("s"), [user("old")], old)
        await _TAKERS[taker](storage)
        turns = await storage.get_turns(ref("s"))
        assert turns[0].status is TurnStatus.FAILED
        assert turns[0].error
        assert turns[0].finished_at is not None
        assert (await storage.find_session("s")).errors == 1
        before = await everything(storage, "s")
        with pytest.raises(TurnLostError):
            await storage.append(ref("s"), [reply("late")], token=old.token)
        with pytest.raises(TurnLostError):
            await storage.end_turn(ref("s"), completed(old), [reply("late")])
        assert await everything(storage, "s") == before
        assert texts(await storage.get_messages(ref("s"))) == ["old", "next"]
        assert texts(await storage.get_messages(ref("s"), answered_only=True)) == ["next"]

    async def test_an_expired_turn_keeps_what_it_stored(self, storage: ISessionStorage) -> None:
        """What a dead process had of a reply stays in the log and in the answered part of it."""
        await storage.create_session(new_session("s"))
        old = lease(0)
        await storage.begin_turn(ref("s"), [user("old")], old)
        await storage.append(ref("s"), [reply("half")], token=old.token)
        await storage.append(ref("s"), [user("next")])
        read = await storage.get_messages(ref("s"), answered_only=True)
        assert texts(read) == ["old", "half", "next"]

    async def test_one_of_many_takes_an_expired_lease(
        self, storage: ISessionStorage, second: ISessionStorage
    ) -> None:
        """The old turn fails once."""
        await storage.create_session(new_session("s"))
        await storage.begin_turn(ref("s"), [user("old")], lease(0))
        outcomes = await asyncio.gather(
            *(each.begin_turn(ref("s"), [user()], lease()) for each in (storage, second) * 4),
            return_exceptions=True,
        )
        refused = [each for each in outcomes if isinstance(each, BaseException)]
        assert [type(each) for each in refused] == [SessionBusyError] * 7
        record = await storage.find_session("s")
        assert (record.errors, record.turn_count, record.message_count) == (1, 2, 2)

    async def test_clearing_ends_an_expired_turn(self, storage: ISessionStorage) -> None:
        """Nothing of it remains, and its owner cannot bring it back."""
        await storage.create_session(new_session("s"))
        old = lease(0)
        await storage.begin_turn(ref("s"), [user("old")], old)
        before = await storage.find_session("s")
        record = await storage.clear_messages(ref("s"))
        assert record.turn_token is None
        assert record.last_activity == before.last_activity  # neither is anybody's doing
        with pytest.raises(TurnLostError):
            await storage.end_turn(ref("s"), completed(old), [reply()])
        assert await storage.get_messages(ref("s")) == []

    async def test_an_expired_lease_holds_until_it_is_taken(self, storage: ISessionStorage) -> None:
        """Being late alone loses nothing."""
        await storage.create_session(new_session("s"))
        late = lease(0)
        await storage.begin_turn(ref("s"), [user("a")], late)
        await storage.append(ref("s"), [reply("b")], token=late.token)
        await storage.end_turn(ref("s"), completed(late), [reply("c")])
        assert texts(await storage.get_messages(ref("s"))) == ["a", "b", "c"]
        assert [turn.status for turn in await storage.get_turns(ref("s"))] == ["complete"]

    async def test_leases_are_renewed(self, storage: ISessionStorage) -> None:
        """A renewed lease holds again; of those that are not held any more it says so."""
        for each in ("s", "other", "free"):
            await storage.create_session(new_session(each))
        held, also, ended = lease(0), lease(0), lease()
        await storage.begin_turn(ref("s"), [user()], held)
        await storage.begin_turn(ref("other"), [user()], also)
        await storage.begin_turn(ref("free"), [user()], ended)
        await storage.end_turn(ref("free"), completed(ended), [])
        before = await storage.find_session("s")
        tokens = {
            held.token: ref("s"),
            also.token: ref("other"),
            ended.token: ref("free"),
            "unknown": ref("s"),
            "elsewhere": ref("nowhere"),
        }
        assert await storage.renew_turns(tokens, 3600) == {held.token, also.token}
        assert await storage.renew_turns({}, 3600) == set()
        with pytest.raises(SessionBusyError):
            await storage.begin_turn(ref("s"), [user()], lease())
        renewed = await storage.find_session("s")
        assert renewed.turn_expires is not None
        assert renewed.turn_expires > (before.turn_expires or 0)
        # To renew is not to write: who waits for a revision is not disturbed.
        assert renewed == before._replace(turn_expires=renewed.turn_expires)

    async def test_a_lease_can_be_shortened(self, storage: ISessionStorage) -> None:
        """Renewed for no time at all it has run out."""
        await storage.create_session(new_session("s"))
        held = lease()
        await storage.begin_turn(ref("s"), [user()], held)
        assert await storage.renew_turns({held.token: ref("s")}, 0) == {held.token}
        await storage.begin_turn(ref("s"), [user()], lease())

    async def test_a_turn_can_be_asked_to_end(
        self, storage: ISessionStorage, second: ISessionStorage
    ) -> None:
        """Another process asks, the one that holds the lease sees it; the session is as it was."""
        for each in ("s", "other", "free"):
            await storage.create_session(new_session(each))
        held, also, ended = lease(), lease(), lease()
        await storage.begin_turn(ref("s"), [user()], held)
        await storage.begin_turn(ref("other"), [user()], also)
        await storage.begin_turn(ref("free"), [user()], ended)
        await storage.end_turn(ref("free"), completed(ended), [])
        before = await storage.get_session(ref("s"))
        tokens = {
            held.token: ref("s"),
            also.token: ref("other"),
            ended.token: ref("free"),
            "unknown": ref("s"),
        }
        assert await storage.cancel_requested(tokens) == set()
        asked = {
            held.token: ref("s"),
            ended.token: ref("free"),
            "unknown": ref("s"),
            "elsewhere": ref("nowhere"),
        }
        for _ in range(2):  # asking again changes nothing
            assert await second.request_cancel(asked) == {held.token}
            assert await storage.cancel_requested(tokens) == {held.token}
        assert await storage.request_cancel({}) == await storage.cancel_requested({}) == set()
        marked = await storage.get_session(ref("s"))
        assert marked == before._replace(turn_owner=rules.CANCEL_MARK + held.owner)

    async def test_a_turn_that_was_asked_to_end_goes_on_until_it_does(
        self, storage: ISessionStorage
    ) -> None:
        """It keeps its lease, takes messages, and the next turn knows nothing of the request."""
        await storage.create_session(new_session("s"))
        held, following = lease(), lease()
        await storage.begin_turn(ref("s"), [user("a")], held)
        await storage.request_cancel({held.token: ref("s")})
        await storage.append(ref("s"), [reply("b")], token=held.token)
        assert await storage.renew_turns({held.token: ref("s")}, 60) == {held.token}
        assert await storage.cancel_requested({held.token: ref("s")}) == {held.token}
        with pytest.raises(SessionBusyError):
            await storage.begin_turn(ref("s"), [user()], lease())
        await storage.end_turn(ref("s"), completed(held), [reply("c")])
        assert texts(await storage.get_messages(ref("s"))) == ["a", "b", "c"]
        await storage.begin_turn(ref("s"), [user("d")], following)
        tokens = {held.token: ref("s"), following.token: ref("s")}
        assert await storage.cancel_requested(tokens) == set()
        assert (await storage.get_session(ref("s"))).turn_owner == following.owner

    async def test_the_end_keeps_the_providers_state(self, storage: ISessionStorage) -> None:
        """It is stored with the reply; where none is given the old one stays."""
        await storage.create_session(new_session("s"))
        state = {"provider_session_id": "conv_1", "provider_context": {"a": [1]}}
        begun = lease()
        await storage.begin_turn(ref("s"), [user()], begun)
        await storage.end_turn(ref("s"), completed(begun, provider_state=state), [reply()])
        begun = lease()
        await storage.begin_turn(ref("s"), [user()], begun)
        await storage.end_turn(ref("s"), completed(begun), [reply()])
        context = (await storage.find_session("s")).to_context()
        assert (context.provider_session_id, context.provider_context) == ("conv_1", {"a": [1]})

    async def test_a_conflict_at_the_end_stores_nothing(self, storage: ISessionStorage) -> None:
        """The turn is still open then, and can be ended otherwise."""
        await storage.create_session(new_session("s"))
        asked, begun = user("asked"), lease()
        await storage.begin_turn(ref("s"), [asked], begun)
        before = await everything(storage, "s")
        bad = [reply("new"), asked.replaced(content="changed")]
        with pytest.raises(MessageConflictError):
            await storage.end_turn(ref("s"), completed(begun), bad)
        with pytest.raises(MessageConflictError):
            await storage.append(ref("s"), bad, token=begun.token)
        assert await everything(storage, "s") == before
        ended = await storage.end_turn(ref("s"), completed(begun), [asked, bad[0]])
        assert [(each.text, each.seq) for each in ended.messages] == [("asked", 1), ("new", 2)]

    @pytest.mark.parametrize("end", [completed, cancelled, failed])
    async def test_a_reply_of_another_turn_ends_none(
        self, storage: ISessionStorage, end: Callable[..., TurnEnd]
    ) -> None:
        """Left out as stored already it would be missing; the turn is still open then."""
        await storage.create_session(new_session("s"))
        asked, answered, begun = user("asked"), reply("same"), lease()
        await storage.append(ref("s"), [asked, answered])
        await storage.begin_turn(ref("s"), [user("again")], begun)
        before = await everything(storage, "s")
        for known in (answered, asked):
            with pytest.raises(MessageConflictError) as caught:
                await storage.end_turn(ref("s"), end(begun), [reply("new"), known])
            assert (caught.value.session_id, caught.value.message_id) == ("s", known.id)
        assert await everything(storage, "s") == before
        with pytest.raises(TurnLostError):
            await storage.end_turn(ref("s"), end(lease()), [answered])
        await storage.end_turn(ref("s"), end(begun), [answered.replaced(id="another")])
        assert texts(await storage.get_messages(ref("s"))) == ["asked", "same", "again", "same"]

    async def test_adding_twice_stores_once(self, storage: ISessionStorage) -> None:
        """A retry of what was added to a turn adds nothing."""
        await storage.create_session(new_session("s"))
        begun, tool = lease(), reply("call")
        await storage.begin_turn(ref("s"), [user()], begun)
        first = await storage.append(ref("s"), [tool], token=begun.token)
        again = await storage.append(ref("s"), [tool], token=begun.token)
        assert (again.messages, again.record) == (first.messages, first.record)
        await storage.end_turn(ref("s"), completed(begun), [tool, reply("done")])
        assert texts(await storage.get_messages(ref("s"))) == ["hello", "call", "done"]

    async def test_a_complete_turn_is_replayed(self, storage: ISessionStorage) -> None:
        """The same key again gives all of the turn, begins none and stores nothing."""
        await storage.create_session(new_session("s"))
        begun = lease()
        await storage.begin_turn(ref("s"), [user("a")], begun, key=KEY)
        await storage.append(ref("s"), [reply("b")], token=begun.token)
        await storage.end_turn(ref("s"), completed(begun), [reply("c")])
        await storage.append(ref("s"), [user("later")])
        before = await everything(storage, "s")
        start = await storage.begin_turn(ref("s"), [user("a")], lease(), key=KEY)
        assert (start.replayed, start.added) == (True, 0)
        assert texts(start.messages) == ["a", "b", "c"]
        assert start.messages == (await storage.get_messages(ref("s")))[:3]
        assert await everything(storage, "s") == before

    async def test_a_replay_waits_for_no_turn(self, storage: ISessionStorage) -> None:
        """The stored answer is given while another turn runs: there is nothing to wait for."""
        await storage.create_session(new_session("s"))
        await _failed_turn(storage, [user("a"), reply("b")], key=KEY, end=completed)
        await storage.begin_turn(ref("s"), [user()], lease())
        before = await everything(storage, "s")
        start = await storage.begin_turn(ref("s"), [user("a")], lease(), key=KEY)
        assert (start.replayed, texts(start.messages)) == (True, ["a", "b"])
        appended = await storage.append(ref("s"), [user("a"), reply("b")], key=KEY)
        assert texts(appended.messages) == ["a", "b"]
        assert await everything(storage, "s") == before

    @pytest.mark.parametrize("key", [KEY, None], ids=["with a key", "without"])
    async def test_a_complete_turn_needs_no_reply(
        self, storage: ISessionStorage, key: IdempotencyKey | None
    ) -> None:
        """It counts as answered: only what failed or was cancelled can go unanswered."""
        await storage.create_session(new_session("s"))
        await _failed_turn(storage, [user("noted")], key=key, end=completed)
        await _is_one_answered_turn(storage, ["noted"])

    @pytest.mark.parametrize("key", [KEY, None], ids=["by key", "by message"])
    @pytest.mark.parametrize("way", ["appended", "completed"])
    async def test_a_complete_turn_that_nobody_answered_is_resumed(
        self, storage: ISessionStorage, key: IdempotencyKey | None, way: str
    ) -> None:
        """What was only stored can be answered; to store it once more adds nothing."""
        await storage.create_session(new_session("s"))
        asked = [user("2+2?"), reply("4"), user("3+3?")]
        if way == "appended":
            await storage.append(ref("s"), asked, key=key)
        else:
            begun = lease()
            await storage.begin_turn(ref("s"), asked, begun, key=key)
            await storage.end_turn(ref("s"), completed(begun), [])
        again = await storage.append(ref("s"), asked, key=key)
        assert (again.messages, again.added) == (placed(asked), 0)
        for end, left in ((failed, [reply("hal")]), (completed, [reply("6")])):
            begun = lease()
            start = await storage.begin_turn(ref("s"), asked, begun, key=key)
            assert (start.messages, start.replayed, start.added) == (placed(asked), False, 0)
            assert (start.record.turn_id, start.record.turn_count) == (1, 1)
            assert [turn.status for turn in await storage.get_turns(ref("s"))] == [TurnStatus.OPEN]
            await storage.end_turn(ref("s"), end(begun), left)
        await _is_one_answered_turn(storage, ["2+2?", "4", "3+3?", "6"])
        assert (await storage.begin_turn(ref("s"), asked, lease(), key=key)).replayed

    async def test_a_question_whose_reply_was_removed_is_asked_again(
        self, storage: ISessionStorage
    ) -> None:
        """As is done to have another reply."""
        await storage.create_session(new_session("s"))
        asked = user("asked")
        await _failed_turn(storage, [asked, reply("dull")], key=KEY, end=completed)
        revision = (await storage.find_session("s")).revision
        await storage.edit_messages(ref("s"), expected_revision=revision, remove=[2])
        begun = lease()
        start = await storage.begin_turn(ref("s"), [asked], begun)
        assert (texts(start.messages), start.replayed) == (["asked"], False)
        await storage.end_turn(ref("s"), completed(begun), [reply("better")])
        await _is_one_answered_turn(storage, ["asked", "better"])

    async def test_what_was_stored_and_others_followed_is_not_resumed(
        self, storage: ISessionStorage
    ) -> None:
        """With its key it is begun anew, and by its message it is refused."""
        await storage.create_session(new_session("s"))
        noted = user("noted")
        await storage.append(ref("s"), [noted], key=KEY)
        await storage.append(ref("s"), [user("between")])
        before = await everything(storage, "s")
        with pytest.raises(MessageConflictError):
            await storage.begin_turn(ref("s"), [noted], lease())
        assert await everything(storage, "s") == before
        start = await storage.begin_turn(ref("s"), [user("noted")], lease(), key=KEY)
        assert [(each.text, each.turn_id) for each in start.messages] == [("noted", 3)]

    async def test_a_turn_that_a_tool_ended_is_answered(self, storage: ISessionStorage) -> None:
        """What it did is not done twice, though the last word is not the assistant's."""
        await storage.create_session(new_session("s"))
        result = SessionMessage(role=MessageRole.TOOL, content="booked")
        log = [user("book it"), reply("calling"), result]
        await _failed_turn(storage, log, key=KEY, end=completed)
        start = await storage.begin_turn(ref("s"), [user("book it")], lease(), key=KEY)
        assert (start.replayed, start.messages) == (True, placed(log))

    async def test_a_result_that_was_only_stored_is_answered(
        self, storage: ISessionStorage
    ) -> None:
        """The call before it is no reply to it."""
        await storage.create_session(new_session("s"))
        result = SessionMessage(role=MessageRole.TOOL, content="found")
        log = [user("look"), reply("calling"), result]
        await storage.append(ref("s"), log)
        start = await storage.begin_turn(ref("s"), [result], lease())
        assert (start.replayed, start.messages) == (False, placed(log))

    async def test_what_began_a_turn_is_never_dropped(self, storage: ISessionStorage) -> None:
        """Not even where a reply began it, as in a log that came from elsewhere."""
        await storage.create_session(new_session("s"))
        begun = lease()
        await storage.begin_turn(ref("s"), [reply("greeting")], begun, key=KEY)
        await storage.end_turn(ref("s"), failed(begun), [reply("half")])
        again = lease()
        start = await storage.begin_turn(ref("s"), [reply("greeting")], again, key=KEY)
        assert texts(start.messages) == ["greeting"]
        await storage.end_turn(ref("s"), completed(again), [reply("whole")])
        await _is_one_answered_turn(storage, ["greeting", "whole"])

    async def test_a_message_id_is_a_key(self, storage: ISessionStorage) -> None:
        """A turn that begins with a stored message is that message's turn."""
        await storage.create_session(new_session("s"))
        asked = user("a")
        await _failed_turn(storage, [asked, reply("b")], end=completed)
        await storage.append(ref("s"), [user("later"), reply()])
        before = await everything(storage, "s")
        start = await storage.begin_turn(ref("s"), [asked], lease())
        assert start.replayed
        assert texts(start.messages) == ["a", "b"]
        assert await everything(storage, "s") == before

    async def test_a_key_is_for_one_request(self, storage: ISessionStorage) -> None:
        """With another digest it raises, whether its turn is complete, failed or open."""
        await storage.create_session(new_session("s"))
        for number, end in enumerate((completed, failed, None)):
            begun = lease()
            await storage.begin_turn(ref("s"), [user()], begun, key=_key(str(number)))
            if end is not None:
                await storage.end_turn(ref("s"), end(begun), [])
            before = await everything(storage, "s")
            with pytest.raises((SessionBusyError, IdempotencyConflictError)) as caught:
                other = IdempotencyKey(str(number), "other")
                await storage.begin_turn(ref("s"), [user("other")], lease(), key=other)
            assert end is None or caught.type is IdempotencyConflictError
            assert await everything(storage, "s") == before

    @pytest.mark.parametrize("key", [KEY, None], ids=["by key", "by message"])
    async def test_an_open_turn_is_not_replayed(
        self, storage: ISessionStorage, key: IdempotencyKey | None
    ) -> None:
        """Whoever repeats it meanwhile is told that it runs."""
        await storage.create_session(new_session("s"))
        asked, begun = user(), lease()
        await storage.begin_turn(ref("s"), [asked], begun, key=key)
        await storage.append(ref("s"), [reply("half")], token=begun.token)
        before = await everything(storage, "s")
        for given in (key, None):
            with pytest.raises(SessionBusyError) as caught:
                await storage.begin_turn(ref("s"), [asked], lease(), key=given)
            assert caught.value.holder == begun.token
        assert await everything(storage, "s") == before

    @pytest.mark.parametrize("end", _EARLY)
    async def test_a_turn_is_resumed_by_its_key(self, storage: ISessionStorage, end: str) -> None:
        """The user's message is kept once; what there was of a reply makes way for the new one."""
        await storage.create_session(new_session("s"))
        log = [system("a"), user("b"), reply("half"), user("tool"), reply("more")]
        await _failed_turn(storage, log, key=KEY, end=_EARLY[end])
        again = lease()
        start = await storage.begin_turn(ref("s"), [system("a"), user("b")], again, key=KEY)
        assert not start.replayed
        assert start.messages == await storage.get_messages(ref("s")) == placed(log[:2])
        await storage.end_turn(ref("s"), completed(again), [reply("whole")])
        await _is_one_answered_turn(storage, ["a", "b", "whole"])
        start = await storage.begin_turn(ref("s"), [user("b")], lease(), key=KEY)
        assert start.replayed
        assert texts(start.messages) == ["a", "b", "whole"]

    @pytest.mark.parametrize("end", _EARLY)
    async def test_a_turn_is_resumed_by_its_message(
        self, storage: ISessionStorage, end: str
    ) -> None:
        """The same without a key: the stored message's id leads to the turn."""
        await storage.create_session(new_session("s"))
        asked = user("b")
        await _failed_turn(storage, [asked, reply("half")], end=_EARLY[end])
        again = lease()
        start = await storage.begin_turn(ref("s"), [asked], again)
        assert not start.replayed
        assert start.messages == await storage.get_messages(ref("s")) == placed([asked])
        await storage.end_turn(ref("s"), completed(again), [reply("whole")])
        await _is_one_answered_turn(storage, ["b", "whole"])
        assert (await storage.begin_turn(ref("s"), [asked], lease())).replayed

    @pytest.mark.parametrize("key", [KEY, None], ids=["by key", "by message"])
    async def test_a_turn_is_resumed_whatever_was_sent_with_it(
        self, storage: ISessionStorage, key: IdempotencyKey | None
    ) -> None:
        """A message of an earlier turn among those given is not part of this one."""
        await storage.create_session(new_session("s"))
        earlier, asked = system("earlier"), user("asked")
        await storage.append(ref("s"), [earlier])
        for _ in range(2):
            begun = lease()
            start = await storage.begin_turn(ref("s"), [earlier, asked], begun, key=key)
            assert texts(start.messages)[-1] == "asked"
            assert texts(await storage.get_messages(ref("s"))) == ["earlier", "asked"]
            await storage.end_turn(ref("s"), failed(begun), [reply("half"), user("more")])
        assert len(await storage.get_turns(ref("s"))) == 2

    @pytest.mark.parametrize("again", [[0], [1], [0, 1]])
    async def test_a_resumed_turn_keeps_all_that_it_began_with(
        self, storage: ISessionStorage, again: list[int]
    ) -> None:
        """Whichever of its first messages are sent again."""
        await storage.create_session(new_session("s"))
        asked = [user("a"), user("b")]
        begun = lease()
        await storage.begin_turn(ref("s"), asked, begun)
        await storage.end_turn(ref("s"), failed(begun), [reply("half")])
        start = await storage.begin_turn(ref("s"), [asked[i] for i in again], lease())
        assert not start.replayed
        assert texts(await storage.get_messages(ref("s"))) == ["a", "b"]
        assert texts(start.messages) == ["a", "b"]

    async def test_a_resumed_turn_is_open(self, storage: ISessionStorage) -> None:
        """It has no end and no error until it ends again, and is no turn more."""
        await storage.create_session(new_session("s"))
        await _failed_turn(storage, [user()], key=KEY)
        start = await storage.begin_turn(ref("s"), [user()], lease(), key=KEY)
        assert (start.record.turn_id, start.record.turn_count) == (1, 1)
        [turn] = await storage.get_turns(ref("s"))
        assert (turn.status, turn.finished_at, turn.error) == (TurnStatus.OPEN, None, None)

    @pytest.mark.parametrize("key", [KEY, None], ids=["by key", "by message"])
    async def test_a_turn_is_resumed_as_often_as_it_takes(
        self, storage: ISessionStorage, key: IdempotencyKey | None
    ) -> None:
        """The user's message is stored once, whatever each attempt left behind."""
        await storage.create_session(new_session("s"))
        asked = user("asked")
        for left in ([reply("half")], [], [reply("half again")], []):
            begun = lease()
            start = await storage.begin_turn(ref("s"), [asked], begun, key=key)
            assert texts(start.messages) == ["asked"]
            await storage.end_turn(ref("s"), failed(begun), left)
        begun = lease()
        await storage.begin_turn(ref("s"), [asked], begun, key=key)
        await storage.end_turn(ref("s"), completed(begun), [reply("whole")])
        await _is_one_answered_turn(storage, ["asked", "whole"])
        record = await storage.find_session("s")
        assert (record.turn_count, record.message_count, record.errors) == (1, 2, 4)

    @pytest.mark.parametrize("key", [KEY, None], ids=["by key", "by message"])
    @pytest.mark.parametrize("left", [[], ["half"]], ids=["unanswered", "half answered"])
    async def test_a_turn_left_open_is_resumed(
        self, storage: ISessionStorage, key: IdempotencyKey | None, left: list[str]
    ) -> None:
        """A retry after the death of the process that ran the turn: its lease has run out."""
        await storage.create_session(new_session("s"))
        asked, dead, again = user("asked"), lease(0), lease()
        await storage.begin_turn(ref("s"), [asked], dead, key=key)
        await storage.append(ref("s"), [reply(each) for each in left], token=dead.token)
        start = await storage.begin_turn(ref("s"), [asked], again, key=key)
        assert not start.replayed
        assert (texts(start.messages), start.record.turn_count) == (["asked"], 1)
        assert start.record.errors == 1
        with pytest.raises(TurnLostError):
            await storage.end_turn(ref("s"), completed(dead), [reply("late")])
        await storage.end_turn(ref("s"), completed(again), [reply("whole")])
        await _is_one_answered_turn(storage, ["asked", "whole"])

    async def test_a_conflict_leaves_an_expired_turn_alone(self, storage: ISessionStorage) -> None:
        """A method that raises has changed nothing, not even what has run out."""
        await storage.create_session(new_session("s"))
        await storage.begin_turn(ref("s"), [user()], lease(0), key=KEY)
        before = await everything(storage, "s")
        with pytest.raises(IdempotencyConflictError):
            other = IdempotencyKey(KEY.key, "other")
            await storage.begin_turn(ref("s"), [user("other")], lease(), key=other)
        assert await everything(storage, "s") == before

    async def test_what_others_followed_is_begun_anew(self, storage: ISessionStorage) -> None:
        """A failed turn in the middle of the log stays; its key goes to the new one."""
        await storage.create_session(new_session("s"))
        await _failed_turn(storage, [user("asked")], key=KEY)
        await storage.append(ref("s"), [user("between"), reply()])
        again = lease()
        start = await storage.begin_turn(ref("s"), [user("asked")], again, key=KEY)
        assert [(each.seq, each.turn_id) for each in start.messages] == [(4, 4)]
        await storage.end_turn(ref("s"), completed(again), [reply("answered")])
        turns = await storage.get_turns(ref("s"))
        assert [(turn.id, turn.status.value, turn.idempotency_key) for turn in turns] == [
            (1, "failed", None),
            (2, "complete", None),
            (4, "complete", "key"),
        ]
        assert (await storage.begin_turn(ref("s"), [user("asked")], lease(), key=KEY)).replayed

    async def test_a_stored_message_that_others_followed_is_not_sent_again(
        self, storage: ISessionStorage
    ) -> None:
        """Without a key it raises: the same message cannot be in two places."""
        await storage.create_session(new_session("s"))
        asked = user("asked")
        await _failed_turn(storage, [asked])
        await storage.append(ref("s"), [user("between")])
        before = await everything(storage, "s")
        with pytest.raises(MessageConflictError):
            await storage.begin_turn(ref("s"), [asked], lease())
        assert await everything(storage, "s") == before

    async def test_a_key_repeats_across_the_two_ways(self, storage: ISessionStorage) -> None:
        """What was appended with a key is replayed to who would begin a turn, and reversed."""
        await storage.create_session(new_session("s"))
        await storage.append(ref("s"), [user("a"), reply("b")], key=_key("appended"))
        start = await storage.begin_turn(ref("s"), [user("a")], lease(), key=_key("appended"))
        assert (start.replayed, texts(start.messages)) == (True, ["a", "b"])
        begun = lease()
        await storage.begin_turn(ref("s"), [user("c")], begun, key=KEY)
        await storage.end_turn(ref("s"), completed(begun), [reply("d")])
        appended = await storage.append(ref("s"), [user("c"), reply("d")], key=KEY)
        assert texts(appended.messages) == ["c", "d"]
        assert len(await storage.get_messages(ref("s"))) == 4

    async def test_tokens_of_a_reply_that_was_dropped_still_count(
        self, storage: ISessionStorage
    ) -> None:
        """They were spent; the messages and turns are those of the log."""
        await storage.create_session(new_session("s"))
        spent = TokenUsage(input_tokens=3, output_tokens=2)
        await _failed_turn(storage, [user(), reply("half", usage=spent)], key=KEY)
        await storage.begin_turn(ref("s"), [user()], lease(), key=KEY)
        metrics = (await storage.find_session("s")).to_metrics()
        assert (metrics.message_count, metrics.turn_count, metrics.errors) == (1, 1, 1)
        assert metrics.total_tokens == 5

    @pytest.mark.parametrize("end", [completed, failed])
    async def test_an_empty_turn_leaves_nothing_behind(
        self, storage: ISessionStorage, end: Callable[[Lease], TurnEnd]
    ) -> None:
        """A turn without any message is refused, or at least does not mark the next one."""
        await storage.create_session(new_session("s"))
        begun = lease()
        try:
            await storage.begin_turn(ref("s"), [], begun)
        except InvalidInputError:
            assert (await storage.find_session("s")).turn_token is None
        else:
            await storage.end_turn(ref("s"), end(begun), [])
        await storage.append(ref("s"), [user("a"), reply("b")])
        await _is_one_answered_turn(storage, ["a", "b"])

    async def test_an_empty_append_with_a_key_is_no_obstacle(
        self, storage: ISessionStorage
    ) -> None:
        """The same for an append."""
        await storage.create_session(new_session("s"))
        try:
            await storage.append(ref("s"), [], key=KEY)
        except InvalidInputError:
            assert await storage.get_turns(ref("s")) == []
        await storage.append(ref("s"), [user("a"), reply("b")], key=_key("other"))
        await _is_one_answered_turn(storage, ["a", "b"])

    async def test_the_owner_may_be_unknown_elsewhere(self, storage: ISessionStorage) -> None:
        """Ending somebody's turn by its token, as is done for a dead process, frees the session."""
        await storage.create_session(new_session("s"))
        begun = lease()
        await storage.begin_turn(ref("s"), [user("a")], begun)
        with pytest.raises(SessionBusyError) as caught:
            await storage.begin_turn(ref("s"), [user("b")], lease())
        holder = caught.value.holder
        assert holder is not None
        await storage.end_turn(ref("s"), TurnEnd(holder, TurnStatus.FAILED, error="gone"), ())
        await storage.begin_turn(ref("s"), [user("b")], lease())
        turns = await storage.get_turns(ref("s"))
        assert [turn.status for turn in turns] == [TurnStatus.FAILED, TurnStatus.OPEN]


def _key(name: str) -> IdempotencyKey:
    return IdempotencyKey(name, "digest")


async def _failed_turn(
    storage: ISessionStorage,
    messages: list[SessionMessage],
    *,
    key: IdempotencyKey | None = None,
    end: Callable[..., TurnEnd] = failed,
) -> None:
    """A turn that begins with what comes before the first reply, and ends with the rest."""
    begun = lease()
    first = next((n for n, each in enumerate(messages) if each.role == "assistant"), len(messages))
    await storage.begin_turn(ref("s"), messages[:first], begun, key=key)
    await storage.end_turn(ref("s"), end(begun), messages[first:])


async def _is_one_answered_turn(storage: ISessionStorage, expected: list[str]) -> None:
    """All there is, is one complete turn with these texts, and it counts as answered."""
    turns: list[Turn] = await storage.get_turns(ref("s"))
    assert [(turn.status, turn.error) for turn in turns] == [(TurnStatus.COMPLETE, None)]
    assert texts(await storage.get_messages(ref("s"))) == expected
    assert texts(await storage.get_messages(ref("s"), answered_only=True)) == expected

"""Conformance of a storage: turns about messages that another turn has."""

from __future__ import annotations

import asyncio

import pytest

from langswarm_session.errors import MessageConflictError, SessionBusyError
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import SessionMessage, TurnStatus
from langswarm_session.records import IdempotencyKey, Lease, TurnStart
from langswarm_session.testing.making import (
    cancelled,
    completed,
    failed,
    lease,
    new_session,
    ref,
    reply,
    texts,
    user,
)
from langswarm_session.testing.storage_base import StorageTests

_LAW = IdempotencyKey("law", "digest", only=True)
_TAX = IdempotencyKey("tax", "digest", only=True)


class AskedAgainTests(StorageTests):
    """A message that is answered more than once: each answer is a turn, known by its key alone."""

    async def test_a_stored_message_is_answered_again(self, storage: ISessionStorage) -> None:
        """The new turn has no row of the question, and its answers come behind the first's."""
        question = await _answered(storage)
        begun = lease()
        start = await storage.begin_turn(ref("s"), [question], begun, key=_TAX)
        assert (texts(start.messages), start.replayed, start.added) == (["q"], False, 0)
        assert start.messages[0].turn_id == 1
        assert start.record.turn_token == begun.token
        turn = start.record.turn_id
        assert turn is not None
        assert turn > 2
        assert (start.record.message_count, start.record.turn_count) == (2, 2)
        ended = await storage.end_turn(ref("s"), completed(begun), [reply("tax")])
        assert ended.messages[0].turn_id == turn
        assert (ended.record.message_count, ended.record.turn_token) == (3, None)
        messages = await storage.get_messages(ref("s"), answered_only=True)
        assert texts(messages) == ["q", "a", "tax"]
        assert [message.turn_id for message in messages] == [1, 1, turn]
        turns = await storage.get_turns(ref("s"))
        assert [(each.id, each.status) for each in turns] == [
            (1, TurnStatus.COMPLETE), (turn, TurnStatus.COMPLETE)
        ]  # fmt: skip
        assert turns[1].idempotency_key == "tax"

    async def test_each_answer_is_given_again(self, storage: ISessionStorage) -> None:
        """By the message the first, by a key its own."""
        question = await _answered(storage)
        for key, text in ((_LAW, "law"), (_TAX, "tax")):
            await _answer(storage, question, key, text)
        revision = (await storage.find_session("s")).revision
        for key, text in ((_LAW, "law"), (_TAX, "tax")):
            start = await storage.begin_turn(ref("s"), [question], lease(), key=key)
            assert (texts(start.messages), start.replayed) == ([text], True)
        start = await storage.begin_turn(ref("s"), [question], lease())
        assert (texts(start.messages), start.replayed) == (["q", "a"], True)
        assert (await storage.find_session("s")).revision == revision

    async def test_a_new_message_may_be_asked_so(self, storage: ISessionStorage) -> None:
        """Then the turn has it, as any other."""
        await storage.create_session(new_session("s"))
        begun = lease()
        start = await storage.begin_turn(ref("s"), [user("q")], begun, key=_LAW)
        assert (start.record.turn_id, start.added) == (1, 1)
        await storage.end_turn(ref("s"), completed(begun), [reply("a")])
        start = await storage.begin_turn(ref("s"), start.messages, lease(), key=_LAW)
        assert (texts(start.messages), start.replayed) == (["q", "a"], True)

    async def test_another_message_is_stored_with_it(self, storage: ISessionStorage) -> None:
        """What is new of several is the turn's own."""
        question = await _answered(storage)
        start = await storage.begin_turn(ref("s"), [question, user("more")], lease(), key=_TAX)
        assert (texts(start.messages), start.added) == (["q", "more"], 1)
        assert start.messages[1].turn_id == start.messages[1].seq == start.record.turn_id

    @pytest.mark.parametrize("end", [failed, cancelled])
    async def test_one_that_ended_early_is_asked_again(
        self, storage: ISessionStorage, end: type
    ) -> None:
        """What there was of its answer makes room; the other answers stay."""
        question = await _answered(storage)
        begun = lease()
        first = await storage.begin_turn(ref("s"), [question], begun, key=_TAX)
        await storage.end_turn(ref("s"), end(begun), [reply("par")])
        again = lease()
        start = await storage.begin_turn(ref("s"), [question], again, key=_TAX)
        assert (texts(start.messages), start.replayed) == (["q"], False)
        assert start.record.turn_id == first.record.turn_id
        await storage.end_turn(ref("s"), completed(again), [reply("tax")])
        assert texts(await storage.get_messages(ref("s"))) == ["q", "a", "tax"]

    @pytest.mark.parametrize("end", [failed, cancelled])
    async def test_one_that_was_never_answered_leaves_nothing(
        self, storage: ISessionStorage, end: type
    ) -> None:
        """Its number is no other turn's, in this session and in forks of it."""
        question = await _answered(storage)
        begun = lease()
        empty = await storage.begin_turn(ref("s"), [question], begun, key=_TAX)
        await storage.end_turn(ref("s"), end(begun), ())
        assert [turn.id for turn in await storage.get_turns(ref("s"))] == [1]
        fork = await storage.fork_session(ref("s"), new_session("fork"))
        assert (fork.last_seq, fork.message_count, fork.turn_count) == (2, 2, 1)
        for name in ("s", "fork"):
            for key in (_TAX, _LAW):
                await _answer(storage, question, key, f"{key.key} answers", name)
            said = texts(await storage.get_messages(ref(name)))
            assert said == ["q", "a", "tax answers", "law answers"]
            taken = {turn.id for turn in await storage.get_turns(ref(name))}
            assert len(taken) == 3
            assert name == "fork" or empty.record.turn_id not in taken

    async def test_a_lease_that_ran_out_is_taken_over(self, storage: ISessionStorage) -> None:
        """As that of any turn, though no message is there."""
        question = await _answered(storage)
        short = Lease("token", "nobody", 0.001)
        await storage.begin_turn(ref("s"), [question], short, key=_TAX)
        await asyncio.sleep(0.01)
        await _answer(storage, question, _LAW, "law")
        await _answer(storage, question, _TAX, "tax")
        assert texts(await storage.get_messages(ref("s"))) == ["q", "a", "law", "tax"]

    async def test_an_open_turn_is_not_joined(self, storage: ISessionStorage) -> None:
        """Neither that of the question nor another about it; what is answered is given all the
        same.
        """
        question = await _answered(storage)
        await _answer(storage, question, _LAW, "law")
        await storage.begin_turn(ref("s"), [question], lease(), key=_TAX)
        for key in (_TAX, IdempotencyKey("third", "digest", only=True)):
            with pytest.raises(SessionBusyError):
                await storage.begin_turn(ref("s"), [question], lease(), key=key)
        start = await storage.begin_turn(ref("s"), [question], lease(), key=_LAW)
        assert (texts(start.messages), start.replayed) == (["law"], True)
        start = await storage.begin_turn(ref("s"), [question], lease())
        assert (texts(start.messages), start.replayed) == (["q", "a"], True)

    async def test_the_question_is_the_same(self, storage: ISessionStorage) -> None:
        """An id that is stored with another text is refused."""
        question = await _answered(storage)
        changed = question.model_copy(update={"content": "another"})
        with pytest.raises(MessageConflictError):
            await storage.begin_turn(ref("s"), [changed], lease(), key=_TAX)

    async def test_several_steps_of_an_answer_stand_together(
        self, storage: ISessionStorage
    ) -> None:
        """What is added before the end is the turn's, too."""
        question = await _answered(storage)
        begun = lease()
        start = await storage.begin_turn(ref("s"), [question], begun, key=_TAX)
        await storage.append(ref("s"), [reply("step")], token=begun.token)
        await storage.end_turn(ref("s"), completed(begun), [reply("tax")])
        turn = start.record.turn_id
        messages = await storage.get_messages(ref("s"), limit=2)
        assert [(each.content, each.turn_id) for each in messages] == [
            ("step", turn),
            ("tax", turn),
        ]


async def _answered(storage: ISessionStorage) -> SessionMessage:
    """A session with one answered question; returns that."""
    await storage.create_session(new_session("s"))
    begun = lease()
    start = await storage.begin_turn(ref("s"), [user("q")], begun)
    await storage.end_turn(ref("s"), completed(begun), [reply("a")])
    return start.messages[0]


async def _answer(
    storage: ISessionStorage,
    question: SessionMessage,
    key: IdempotencyKey,
    text: str,
    session_id: str = "s",
) -> TurnStart:
    begun = lease()
    start = await storage.begin_turn(ref(session_id), [question], begun, key=key)
    await storage.end_turn(ref(session_id), completed(begun), [reply(text)])
    return start

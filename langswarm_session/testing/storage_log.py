"""Conformance of a storage: the log of a session, what goes in and what comes out."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings

from langswarm_session.blocks import OtherBlock, TextBlock, ToolCallBlock, ToolResultBlock
from langswarm_session.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    MessageConflictError,
    RevisionConflictError,
    SessionBusyError,
    SessionExistsError,
    SessionInactiveError,
    TurnLostError,
)
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import (
    MessageRole,
    SessionMessage,
    SessionStatus,
    TokenUsage,
    TurnStatus,
    new_id,
)
from langswarm_session.records import IdempotencyKey, SessionChanges
from langswarm_session.testing import strategies
from langswarm_session.testing.making import (
    TOO_LONG,
    completed,
    everything,
    failed,
    lease,
    new_session,
    placed,
    ref,
    reply,
    scribble,
    system,
    texts,
    user,
)
from langswarm_session.testing.storage_base import StorageTests

# One storage serves all examples of a test, each in a session of its own; and the same test runs
# in every subclass.
property_based = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
        HealthCheck.too_slow,
    ],
)


class LogTests(StorageTests):
    """Appending, reading, clearing and copying a log."""

    async def test_messages_are_numbered_from_1(self, storage: ISessionStorage) -> None:
        """Each append is a turn, named by its first message's number."""
        await storage.create_session(new_session("s"))
        first, then = [user("a"), reply("b")], [user("c"), reply("d"), user("e")]
        appended = await storage.append(ref("s"), first)
        assert appended.messages == appended.new_messages == placed(first)
        assert appended.record == await storage.find_session("s")
        assert (await storage.append(ref("s"), then)).messages == placed(then, 3)
        assert await storage.get_messages(ref("s")) == placed(first) + placed(then, 3)
        assert [turn.id for turn in await storage.get_turns(ref("s"))] == [1, 3]

    @property_based
    @given(log=strategies.logs())
    async def test_messages_come_back_as_they_went_in(
        self, storage: ISessionStorage, log: list[SessionMessage]
    ) -> None:
        """Whatever a message holds, what is read equals it."""
        session = new_id()
        await storage.create_session(new_session(session))
        appended = await storage.append(ref(session), log)
        assert appended.messages == placed(log)
        read = await storage.get_messages(ref(session))
        assert read == placed(log)
        # Equal objects might still say other things: 1 == 1.0 == True.
        assert [each.model_dump_json() for each in read] == [
            each.model_dump_json() for each in placed(log)
        ]

    @property_based
    @given(message=strategies.messages())
    async def test_a_turns_messages_come_back_as_they_went_in(
        self, storage: ISessionStorage, message: SessionMessage
    ) -> None:
        """The same for messages that begin a turn, are added to it and end it."""
        session, begun = new_id(), lease()
        sent = [message.replaced(id=f"{n}{message.id}"[:512]) for n in range(3)]
        await storage.create_session(new_session(session))
        start = await storage.begin_turn(ref(session), sent[:1], begun)
        added = await storage.append(ref(session), sent[1:2], token=begun.token)
        ended = await storage.end_turn(ref(session), completed(begun), sent[2:])
        assert [*start.messages, *added.messages, *ended.messages] == placed(sent)
        assert await storage.get_messages(ref(session)) == placed(sent)

    @pytest.mark.parametrize(
        "fields",
        [
            {"content": "\ud800"},
            {"content": [TextBlock(text="a\udfff")]},
            {"content": [ToolCallBlock(name="f", args={"k": ["\ud800"]})]},
            {"name": "\ud800"},
            {"finish_reason": "\ud800"},
            {"metadata": {"k": {"k": "\ud800"}}},
            {"metadata": {"\ud800": 1}},
            {"native": {"k": "\ud800"}},
            {"content": [ToolCallBlock(name="f", args={"k": [TOO_LONG]})]},
            {"metadata": {"k": -TOO_LONG}},
            {"native": {"k": TOO_LONG}},
        ],
    )
    async def test_what_could_not_be_read_again_is_refused(
        self, storage: ISessionStorage, fields: dict[str, object]
    ) -> None:
        """A lone surrogate, a number that is too long: the call stores nothing of the batch."""
        await storage.create_session(new_session("s"))
        begun = lease()
        await storage.begin_turn(ref("s"), [user()], begun)
        before = await everything(storage, "s")
        batch = [user("fine"), user().replaced(**fields)]
        for call in (
            storage.append(ref("s"), batch),
            storage.append(ref("s"), batch, token=begun.token),
            storage.begin_turn(ref("s"), batch, lease()),
            storage.end_turn(ref("s"), completed(begun), batch),
        ):
            with pytest.raises(InvalidInputError):
                await call
        assert await everything(storage, "s") == before

    @pytest.mark.parametrize("depth", [10, 50])
    async def test_nested_data_comes_back(self, storage: ISessionStorage, depth: int) -> None:
        """As deep as what any program would send."""
        value: object = "deep"
        for _ in range(depth):
            value = [{"k": value}]
        await storage.create_session(new_session("s"))
        await storage.append(ref("s"), [user(metadata={"k": value})])
        assert (await storage.get_messages(ref("s")))[0].metadata == {"k": value}

    @pytest.mark.parametrize("text", ["x" * 2**20, "\U0001f600" * 2**18, "\0" * 2**20])
    async def test_a_huge_text_comes_back(self, storage: ISessionStorage, text: str) -> None:
        """A megabyte is a message like any other, as text, in a block and in metadata."""
        await storage.create_session(new_session("s"))
        block = ToolResultBlock(tool_call_id="1", content=text)
        log = [
            user(text),
            SessionMessage(role=MessageRole.TOOL, content=[block], metadata={"raw": text}),
        ]
        await storage.append(ref("s"), log)
        # Not ==, whose explanation of a difference would take minutes.
        read = await storage.get_messages(ref("s"))
        assert all(one == other for one, other in zip(read, placed(log), strict=True))

    async def test_timestamps_are_exact(self, storage: ISessionStorage) -> None:
        """To the microsecond, over all years, in UTC whatever the offset was."""
        away = timezone(timedelta(hours=-9, minutes=-30))
        moments = [
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(2026, 11, 22, 17, 46, 39, 76_477, tzinfo=away),
            datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        ]
        await storage.create_session(new_session("s"))
        await storage.append(ref("s"), [user(timestamp=moment) for moment in moments])
        read = [message.timestamp for message in await storage.get_messages(ref("s"))]
        assert read == moments
        assert [moment.tzinfo for moment in read] == [UTC] * len(moments)

    async def test_a_repeated_message_is_not_stored_twice(self, storage: ISessionStorage) -> None:
        """A retry of an append gives what is stored and adds nothing."""
        await storage.create_session(new_session("s"))
        log = [user("a"), reply("b")]
        stored = await storage.append(ref("s"), log)
        before = await everything(storage, "s")
        again = await storage.append(ref("s"), log)
        assert again.messages == stored.messages
        assert (again.record, again.new_messages) == (stored.record, [])
        assert await everything(storage, "s") == before

    async def test_of_a_batch_only_what_is_new_is_stored(self, storage: ISessionStorage) -> None:
        """The result has all of the batch as stored, in its order, each once."""
        await storage.create_session(new_session("s"))
        old, new = user("old"), reply("new")
        await storage.append(ref("s"), [old])
        appended = await storage.append(ref("s"), [new, old, new])
        assert [(each.text, each.seq, each.turn_id) for each in appended.messages] == [
            ("new", 2, 2),
            ("old", 1, 1),
        ]
        assert texts(await storage.get_messages(ref("s"))) == ["old", "new"]
        assert texts(appended.new_messages) == ["new"]
        assert appended.record.message_count == 2

    async def test_a_repeat_is_checked_like_the_first(self, storage: ISessionStorage) -> None:
        """What would be refused is refused, even if nothing of it is new."""
        await storage.create_session(new_session("s"))
        message, begun = user("a"), lease()
        await storage.append(ref("s"), [message])
        before = await everything(storage, "s")
        with pytest.raises(RevisionConflictError):
            await storage.append(ref("s"), [message], expected_revision=0)
        with pytest.raises(TurnLostError):
            await storage.append(ref("s"), [message], token="unknown")
        assert await everything(storage, "s") == before
        await storage.begin_turn(ref("s"), [user("b")], begun)
        with pytest.raises(SessionBusyError):
            await storage.append(ref("s"), [message])
        await storage.end_turn(ref("s"), completed(begun), [])
        await storage.update_session(ref("s"), SessionChanges(status=SessionStatus.ARCHIVED))
        with pytest.raises(SessionInactiveError):
            await storage.append(ref("s"), [message])

    async def test_nothing_to_add_is_nothing_written(self, storage: ISessionStorage) -> None:
        """An empty append gives the record as it is."""
        await storage.create_session(new_session("s"))
        await storage.append(ref("s"), [user()])
        before = await everything(storage, "s")
        appended = await storage.append(ref("s"), [])
        assert (appended.record, appended.messages) == (before[0], [])
        assert await everything(storage, "s") == before
        begun = lease()
        await storage.begin_turn(ref("s"), [user()], begun)
        before = await everything(storage, "s")
        appended = await storage.append(ref("s"), [], token=begun.token)
        assert (appended.record, appended.messages) == (before[0], [])
        assert await everything(storage, "s") == before

    @pytest.mark.parametrize(
        "changed",
        [
            {"content": "other"},
            {"role": MessageRole.SYSTEM},
            {"content": [TextBlock(text="same")]},
            {"content": []},
        ],
    )
    async def test_a_changed_message_under_a_known_id_is_refused(
        self, storage: ISessionStorage, changed: dict[str, object]
    ) -> None:
        """It raises, and of the whole batch nothing is stored."""
        await storage.create_session(new_session("s"))
        message = user("same")
        await storage.append(ref("s"), [message])
        before = await everything(storage, "s")
        with pytest.raises(MessageConflictError) as caught:
            await storage.append(ref("s"), [user("new"), message.replaced(**changed), reply("new")])
        assert caught.value.session_id == "s"
        assert await everything(storage, "s") == before

    async def test_a_batch_may_not_contradict_itself(self, storage: ISessionStorage) -> None:
        """Two messages with one id and other content are refused even when both are new."""
        record = await storage.create_session(new_session("s"))
        with pytest.raises(MessageConflictError):
            await storage.append(ref("s"), [user("one", id="id"), user("two", id="id")])
        assert await everything(storage, "s") == (record, [], [])

    async def test_a_message_id_is_one_sessions(self, storage: ISessionStorage) -> None:
        """The same id may stand for other messages in other sessions."""
        for each in ("s", "other"):
            await storage.create_session(new_session(each))
            await storage.append(ref(each), [user(f"in {each}", id="id")])
        assert texts(await storage.get_messages(ref("s"))) == ["in s"]
        assert texts(await storage.get_messages(ref("other"))) == ["in other"]

    async def test_look_alike_ids_are_told_apart(self, storage: ISessionStorage) -> None:
        """Digits, case and length of an id matter."""
        ids = [new_id(), "1", "01", "1.0", "a" * 32, "A" * 32, "a" * 31, "\0", "\0\0", "1\0"]
        await storage.create_session(new_session("s"))
        await storage.append(ref("s"), [user(str(n), id=each) for n, each in enumerate(ids)])
        assert [message.id for message in await storage.get_messages(ref("s"))] == ids

    async def test_writers_at_once_overwrite_nothing(
        self, storage: ISessionStorage, second: ISessionStorage
    ) -> None:
        """All messages of all writers are there, whole turns, in each writer's order."""
        await storage.create_session(new_session("s"))

        async def write(each: ISessionStorage, name: str) -> None:
            for n in range(15):
                await each.append(ref("s"), [user(f"{name} {n}"), reply(f"{name} {n}")])

        await asyncio.gather(
            write(storage, "a"), write(storage, "b"), write(second, "c"), write(second, "d")
        )
        read = await storage.get_messages(ref("s"))
        assert [message.seq for message in read] == list(range(1, 121))
        assert texts(read[0::2]) == texts(read[1::2])
        for name in "abcd":
            mine = [text for text in texts(read[0::2]) if text.startswith(name)]
            assert mine == [f"{name} {n}" for n in range(15)]
        assert await second.get_messages(ref("s")) == read

    async def test_an_append_may_name_the_revision(self, storage: ISessionStorage) -> None:
        """At another revision it raises and stores nothing."""
        record = await storage.create_session(new_session("s"))
        await storage.append(ref("s"), [user("a")], expected_revision=record.revision)
        before = await everything(storage, "s")
        with pytest.raises(RevisionConflictError):
            await storage.append(ref("s"), [user("b")], expected_revision=record.revision)
        assert await everything(storage, "s") == before

    async def test_one_of_many_appends_at_a_revision(
        self, storage: ISessionStorage, second: ISessionStorage
    ) -> None:
        """Of several writers who name the same revision exactly one stores."""
        revision = (await storage.create_session(new_session("s"))).revision
        outcomes = await asyncio.gather(
            *(
                each.append(ref("s"), [user(str(n))], expected_revision=revision)
                for n, each in enumerate((storage, second) * 4)
            ),
            return_exceptions=True,
        )
        refused = [each for each in outcomes if isinstance(each, BaseException)]
        assert [type(each) for each in refused] == [RevisionConflictError] * 7
        assert len(await storage.get_messages(ref("s"))) == 1

    async def test_every_write_moves_the_revision(self, storage: ISessionStorage) -> None:
        """Whoever remembers a revision notices any later write."""
        begun = lease()
        records = [
            await storage.create_session(new_session("s")),
            (await storage.append(ref("s"), [user()])).record,
            (await storage.begin_turn(ref("s"), [user()], begun)).record,
            (await storage.append(ref("s"), [reply()], token=begun.token)).record,
            (await storage.end_turn(ref("s"), completed(begun), [])).record,
            await storage.clear_messages(ref("s")),
        ]
        revisions = [record.revision for record in records]
        assert revisions == sorted(set(revisions))
        assert await storage.find_session("s") == records[-1]

    @pytest.mark.parametrize("limit", [None, 0, 1, 3, 10, 99])
    @pytest.mark.parametrize("before", [None, 0, 1, 5, 10, 11, 99])
    async def test_the_newest_are_read(
        self, storage: ISessionStorage, limit: int | None, before: int | None
    ) -> None:
        """The newest N, or those before a number, oldest first."""
        log = await _ten(storage)
        expected = [each for each in log if before is None or (each.seq or 0) < before]
        if limit is not None:
            expected = expected[max(0, len(expected) - limit) :]
        assert await storage.get_messages(ref("s"), limit=limit, before=before) == expected

    @pytest.mark.parametrize("limit", [None, 0, 1, 3, 99])
    @pytest.mark.parametrize(("after", "before"), [(0, None), (4, None), (10, 99), (3, 8), (8, 3)])
    async def test_what_follows_is_read_from_its_beginning(
        self, storage: ISessionStorage, limit: int | None, after: int, before: int | None
    ) -> None:
        """After a number the limit takes the oldest, so that a log can be read in pages."""
        expected = [
            each
            for each in await _ten(storage)
            if after < (each.seq or 0) < (100 if before is None else before)
        ][:limit]
        read = await storage.get_messages(ref("s"), limit=limit, after=after, before=before)
        assert read == expected

    async def test_system_messages_are_read_alone(self, storage: ISessionStorage) -> None:
        """With and without the other conditions."""
        await storage.create_session(new_session("s"))
        for n in range(4):
            await storage.append(ref("s"), [system(f"s{n}"), user(f"u{n}"), reply(f"r{n}")])
        own, read = ref("s"), storage.get_messages
        assert texts(await read(own, system_only=True)) == ["s0", "s1", "s2", "s3"]
        assert texts(await read(own, system_only=True, limit=2)) == ["s2", "s3"]
        assert texts(await read(own, system_only=True, before=7)) == ["s0", "s1"]
        assert texts(await read(own, system_only=True, before=7, limit=1)) == ["s1"]
        assert texts(await read(own, system_only=True, after=1, limit=1)) == ["s1"]

    async def test_unanswered_turns_can_be_left_out(self, storage: ISessionStorage) -> None:
        """A turn that ended early counts as answered when anything of a reply was kept."""
        await storage.create_session(new_session("s"))
        await _turn(storage, [user("a"), reply("b")], TurnStatus.COMPLETE)
        await _turn(storage, [user("unanswered")], TurnStatus.FAILED)
        await _turn(storage, [user("c"), reply("half")], TurnStatus.CANCELLED)
        await _turn(storage, [system("d"), user("unanswered")], TurnStatus.CANCELLED)
        await storage.append(ref("s"), [system("e")])
        own, read = ref("s"), storage.get_messages
        assert texts(await read(own, answered_only=True)) == ["a", "b", "c", "half", "e"]
        assert texts(await read(own, answered_only=True, limit=3)) == ["c", "half", "e"]
        assert texts(await read(own, answered_only=True, before=8, limit=2)) == ["c", "half"]
        assert texts(await read(own, answered_only=True, after=2, limit=2)) == ["c", "half"]
        assert texts(await read(own, answered_only=True, system_only=True)) == ["e"]
        assert len(await read(own)) == 8

    async def test_the_figures_are_kept_with_the_write(self, storage: ISessionStorage) -> None:
        """Messages, turns and tokens, summed over everything that was stored."""
        await storage.create_session(new_session("s"))
        usage = TokenUsage(
            input_tokens=7, output_tokens=5, cached_tokens=3, reasoning_tokens=2, details={"x": 1}
        )
        await storage.append(ref("s"), [user(), reply(usage=usage)])
        begun = lease()
        await storage.begin_turn(ref("s"), [user()], begun)
        await storage.append(ref("s"), [reply(usage=usage)], token=begun.token)
        record = (await storage.end_turn(ref("s"), completed(begun), [reply(usage=usage)])).record
        await _turn(storage, [user()], TurnStatus.FAILED)
        await _turn(storage, [user()], TurnStatus.CANCELLED)
        last = user()
        await storage.append(ref("s"), [last])
        await storage.append(ref("s"), [last])
        metrics = (await storage.find_session("s")).to_metrics()
        assert (metrics.message_count, metrics.turn_count, metrics.errors) == (8, 5, 1)
        assert (metrics.input_tokens, metrics.output_tokens) == (21, 15)
        assert (metrics.cached_tokens, metrics.reasoning_tokens) == (9, 6)
        assert metrics.total_tokens == 36
        assert metrics.created_at <= record.to_metrics().last_activity <= metrics.last_activity

    async def test_large_figures_are_exact(self, storage: ISessionStorage) -> None:
        """Sums of the largest counts that a message may have are whole numbers still."""
        await storage.create_session(new_session("s"))
        most = TokenUsage(input_tokens=2**40, output_tokens=2**40 - 1)
        record = (await storage.append(ref("s"), [reply(usage=most) for _ in range(3)])).record
        assert record == await storage.find_session("s")
        metrics = record.to_metrics()
        assert (metrics.input_tokens, metrics.output_tokens) == (3 * 2**40, 3 * (2**40 - 1))

    async def test_clearing_removes_all_messages(self, storage: ISessionStorage) -> None:
        """The session stays, its numbers go on, and its keys are forgotten."""
        await storage.create_session(new_session("s", context={"a": 1}))
        key, message = IdempotencyKey("key", "digest"), user("again")
        await storage.append(ref("s"), [message, reply()], key=key)
        await _turn(storage, [user()], TurnStatus.FAILED)
        record = await storage.clear_messages(ref("s"))
        assert await everything(storage, "s") == (record, [], [])
        assert record.message_count == 0
        assert record.to_context().model_extra == {"a": 1}
        start = await storage.begin_turn(ref("s"), [message], lease(), key=key)
        assert not start.replayed
        assert [(each.seq, each.turn_id) for each in start.messages] == [(4, 4)]

    async def test_clearing_may_name_the_revision(self, storage: ISessionStorage) -> None:
        """At another revision it raises and removes nothing."""
        record = await storage.create_session(new_session("s"))
        await storage.append(ref("s"), [user()])
        before = await everything(storage, "s")
        with pytest.raises(RevisionConflictError):
            await storage.clear_messages(ref("s"), expected_revision=record.revision)
        assert await everything(storage, "s") == before

    async def test_clearing_waits_for_no_turn(self, storage: ISessionStorage) -> None:
        """While a turn is open nothing is removed."""
        await storage.create_session(new_session("s"))
        await storage.begin_turn(ref("s"), [user()], lease())
        before = await everything(storage, "s")
        with pytest.raises(SessionBusyError):
            await storage.clear_messages(ref("s"))
        assert await everything(storage, "s") == before

    @pytest.mark.parametrize("at", [None, 0, 1, 2, 5, 6, 99])
    async def test_a_fork_begins_with_a_copy(
        self, storage: ISessionStorage, at: int | None
    ) -> None:
        """The copy is exact, belongs to its new owner, and each then goes its own way."""
        await storage.create_session(new_session("s", context={"own": 1}))
        await _turn(storage, [user("a"), reply("b", metadata={"k": [1]})], TurnStatus.COMPLETE)
        await _turn(storage, [user("c")], TurnStatus.FAILED)
        await storage.append(ref("s"), [user("d"), reply("e"), system("f")])
        source = await everything(storage, "s")
        before = await storage.find_session("s")
        record = await storage.fork_session(ref("s"), new_session("f", "bob", {"other": 2}), at=at)
        assert record == await storage.find_session("f")
        assert record.user_id == "bob"
        assert record.to_context().model_extra == {"other": 2}
        last = 99 if at is None else at
        log = [each for each in await storage.get_messages(ref("s")) if (each.seq or 0) <= last]
        assert await storage.get_messages(record.ref) == log
        assert record.message_count == len(log)
        assert record.turn_count == len({each.turn_id for each in log})
        assert record.created_at == record.last_activity >= before.last_activity
        assert [each.session_id for each in (await storage.list_sessions()).records] == ["f", "s"]
        await storage.append(record.ref, [user("only in the fork")])
        assert await everything(storage, "s") == source
        await storage.append(ref("s"), [user("only in the source")])
        new = (await storage.get_messages(record.ref))[len(log) :]
        assert [(each.text, each.seq) for each in new] == [("only in the fork", len(log) + 1)]

    async def test_a_fork_keeps_how_turns_ended(self, storage: ISessionStorage) -> None:
        """What went unanswered in the source is unanswered in the copy."""
        await storage.create_session(new_session("s"))
        await _turn(storage, [user("a"), reply("b")], TurnStatus.COMPLETE)
        await _turn(storage, [user("c")], TurnStatus.FAILED)
        await storage.append(ref("s"), [user("d"), reply("e")])
        await storage.fork_session(ref("s"), new_session("f"))
        turns, copies = await storage.get_turns(ref("s")), await storage.get_turns(ref("f"))
        assert copies == [turn.model_copy(update={"session_id": "f"}) for turn in turns]
        assert texts(await storage.get_messages(ref("f"), answered_only=True)) == [
            "a",
            "b",
            "d",
            "e",
        ]

    async def test_a_fork_leaves_out_the_open_turn(self, storage: ISessionStorage) -> None:
        """Half a turn is not copied, and the copy is free while the source is busy."""
        await storage.create_session(new_session("s"))
        await storage.append(ref("s"), [user("a"), reply("b")])
        begun = lease()
        await storage.begin_turn(ref("s"), [user("c")], begun)
        await storage.append(ref("s"), [reply("half")], token=begun.token)
        await storage.fork_session(ref("s"), new_session("f"))
        assert texts(await storage.get_messages(ref("f"))) == ["a", "b"]
        await storage.append(ref("f"), [user("d")])
        await storage.end_turn(ref("s"), completed(begun), [reply("c")])
        assert texts(await storage.get_messages(ref("s"))) == ["a", "b", "c", "half", "c"]

    async def test_a_fork_has_none_of_the_keys(self, storage: ISessionStorage) -> None:
        """A key used in the source begins a new turn in the copy."""
        await storage.create_session(new_session("s"))
        key = IdempotencyKey("key", "digest")
        await storage.append(ref("s"), [user("a"), reply("b")], key=key)
        await storage.fork_session(ref("s"), new_session("f"))
        appended = await storage.append(ref("f"), [user("c")], key=key)
        assert [each.seq for each in appended.messages] == [3]
        assert [turn.idempotency_key for turn in await storage.get_turns(ref("f"))] == [None, "key"]
        again = await storage.append(ref("s"), [user("x")], key=key)
        assert texts(again.messages) == ["a", "b"]

    async def test_a_fork_takes_no_taken_id(self, storage: ISessionStorage) -> None:
        """Nor its own; nothing is changed."""
        for each in ("s", "taken"):
            await storage.create_session(new_session(each))
            await storage.append(ref(each), [user(each)])
        before = await everything(storage, "taken")
        for each in ("s", "taken"):
            with pytest.raises(SessionExistsError):
                await storage.fork_session(ref("s"), new_session(each))
        assert await everything(storage, "taken") == before

    async def test_a_key_repeats_an_append(self, storage: ISessionStorage) -> None:
        """A second append with the key gives the first one's messages and stores nothing."""
        await storage.create_session(new_session("s"))
        key = IdempotencyKey("key", "digest")
        first = await storage.append(ref("s"), [user("a"), reply("b")], key=key)
        await storage.append(ref("s"), [user("between")])
        before = await everything(storage, "s")
        again = await storage.append(ref("s"), [user("a"), reply("b")], key=key)
        assert again.messages == first.messages
        assert await everything(storage, "s") == before

    async def test_a_key_stands_for_one_request(self, storage: ISessionStorage) -> None:
        """With another digest it raises; another key is another turn."""
        await storage.create_session(new_session("s"))
        await storage.append(ref("s"), [user("a")], key=IdempotencyKey("key", "digest"))
        before = await everything(storage, "s")
        with pytest.raises(IdempotencyConflictError):
            await storage.append(ref("s"), [user("b")], key=IdempotencyKey("key", "other"))
        assert await everything(storage, "s") == before
        await storage.append(ref("s"), [user("b")], key=IdempotencyKey("other", "digest"))
        assert texts(await storage.get_messages(ref("s"))) == ["a", "b"]

    async def test_one_of_many_appends_with_a_key(
        self, storage: ISessionStorage, second: ISessionStorage
    ) -> None:
        """Retries at once store one turn, and all get it."""
        await storage.create_session(new_session("s"))
        key = IdempotencyKey("key", "digest")
        outcomes = await asyncio.gather(
            *(each.append(ref("s"), [user("once")], key=key) for each in (storage, second) * 4)
        )
        stored = await storage.get_messages(ref("s"))
        assert len(stored) == 1
        assert [each.messages for each in outcomes] == [stored] * 8

    @pytest.mark.parametrize("plain", [True, False])
    async def test_the_record_is_nobodys_to_change(
        self, storage: ISessionStorage, plain: bool
    ) -> None:
        """Changing a message that was given or returned changes nothing that is stored."""
        content = (
            "text" if plain else [ToolCallBlock(name="f", args={"a": [1]}), OtherBlock(value={})]
        )
        more = {} if plain else {"metadata": {"k": [{}]}, "native": {"langchain": {"x": [1]}}}
        usage = TokenUsage(details={"d": [1]})
        given = reply(usage=usage).replaced(content=content, **more)
        expected = placed([given.model_copy(deep=True)])
        await storage.create_session(new_session("s"))
        batch = [given]
        appended = await storage.append(ref("s"), batch)
        scribble(given)
        batch.clear()
        assert await storage.get_messages(ref("s")) == expected
        for message in appended.messages:
            scribble(message)
        read = await storage.get_messages(ref("s"))
        assert read == expected
        scribble(read[0])
        read.clear()
        assert await storage.get_messages(ref("s")) == expected

    async def test_a_context_is_nobodys_to_change(self, storage: ISessionStorage) -> None:
        """Changing what a session was made from changes nothing that is stored."""
        context = {"own": {"a": [1]}}
        record = await storage.create_session(new_session("s", context=context))
        scribble(context)
        scribble(record.to_context().model_extra)
        assert (await storage.find_session("s")).to_context().model_extra == {"own": {"a": [1]}}


async def _ten(storage: ISessionStorage) -> list[SessionMessage]:
    await storage.create_session(new_session("s"))
    log = [user(str(n)) for n in range(10)]
    for n in range(0, 10, 2):
        await storage.append(ref("s"), log[n : n + 2])
    read = await storage.get_messages(ref("s"))
    assert texts(read) == texts(log)
    return read


async def _turn(
    storage: ISessionStorage, messages: list[SessionMessage], status: TurnStatus
) -> None:
    """A turn that begins with all but the replies and ends with them."""
    begun = lease()
    replies = [message for message in messages if message.role is MessageRole.ASSISTANT]
    await storage.begin_turn(ref("s"), messages[: len(messages) - len(replies)], begun)
    end = completed(begun) if status is TurnStatus.COMPLETE else failed(begun)
    if status is TurnStatus.CANCELLED:
        end = type(end)(begun.token, status, error="cancelled")
    await storage.end_turn(ref("s"), end, replies)

from __future__ import annotations

import asyncio

import pytest

from langswarm_session import (
    InMemorySessionStorage,
    InvalidInputError,
    RevisionConflictError,
    SessionManager,
    SessionMessage,
    SessionNotFoundError,
    set_session_manager,
)
from langswarm_session.doors.keyed_sessions import KeyedSessions


def user(text):
    return SessionMessage(role="user", content=text)


@pytest.fixture
def sessions(manager):
    return KeyedSessions("a_door", manager)


async def said(sessions, key="chat"):
    return [message.text for message in await sessions.messages(key)]


class TestRecord:
    async def test_the_first_write_creates_the_session(self, sessions, manager):
        await sessions.record("chat", [user("a"), user("b")])
        await sessions.record("chat", [user("c")])
        session = await manager.get_session("chat")
        assert (session.user_id, session.context.provider) == ("default", "a_door")
        assert [turn.first_seq for turn in await session.get_turns()] == [1, 3]
        assert await said(sessions) == ["a", "b", "c"]

    async def test_nothing_creates_nothing(self, sessions):
        await sessions.record("chat", [])
        assert await sessions.find("chat") is None

    async def test_one_that_was_deleted_is_begun_anew(self, sessions, manager):
        await sessions.record("chat", [user("a")])
        await manager.delete_session("chat")
        await sessions.record("chat", [user("b")])
        assert await said(sessions) == ["b"]

    async def test_keys_in_turn(self, sessions):
        for key in ("x", "y", "x"):
            await sessions.record(key, [user(f"to {key}")])
        assert await said(sessions, "x") == ["to x", "to x"]
        assert await said(sessions, "y") == ["to y"]

    async def test_many_first_writes_at_once(self, sessions):
        await asyncio.gather(*(sessions.record("chat", [user(f"{n}")]) for n in range(20)))
        assert sorted(await said(sessions), key=int) == [f"{n}" for n in range(20)]


class TestUsers:
    async def test_another_users_session_does_not_exist(self, manager):
        ann, bob = (KeyedSessions("a_door", manager, name) for name in ("ann", "bob"))
        await ann.record("chat", [user("secret")])
        assert await bob.find("chat") is None
        assert await bob.messages("chat") == []
        with pytest.raises(SessionNotFoundError):
            await bob.record("chat", [user("x")])
        await bob.clear("chat")
        assert await bob.edit("chat", lambda session: session.get_messages()) is None
        assert await said(ann) == ["secret"]

    async def test_nothing_is_looked_up_once_the_session_was_found(self):
        lookups = []

        class Storage(InMemorySessionStorage):
            async def find_session(self, session_id, **options):
                lookups.append(session_id)
                return await super().find_session(session_id, **options)

        ann = KeyedSessions("a_door", SessionManager(Storage()), "ann")
        await ann.record("chat", [user("a")])
        del lookups[:]
        await ann.record("chat", [user("b")])
        assert lookups == []
        assert await said(ann) == ["a", "b"]
        assert lookups == []

    async def test_nobody_writes_to_one_that_changed_hands(self, manager):
        ann = KeyedSessions("a_door", manager, "ann")
        await ann.record("chat", [user("a")])
        assert await said(ann) == ["a"]
        await manager.delete_session("chat")
        await manager.create_session("bob", "mock", "echo", session_id="chat")
        with pytest.raises(SessionNotFoundError):
            await ann.record("chat", [user("b")])
        assert await ann.messages("chat") == []
        assert (await manager.get_session("chat")).metrics.message_count == 0


class TestRead:
    async def test_the_newest(self, sessions):
        await sessions.record("chat", [user(f"{n}") for n in range(5)])
        assert [m.text for m in await sessions.messages("chat", 2)] == ["3", "4"]
        assert await sessions.messages("chat", 0) == []

    async def test_a_limit_that_is_none(self, sessions):
        await sessions.record("chat", [user("a")])
        with pytest.raises(InvalidInputError):
            await sessions.messages("chat", -1)

    async def test_one_that_was_deleted_has_none(self, sessions, manager):
        await sessions.record("chat", [user("a")])
        await manager.delete_session("chat")
        assert await sessions.messages("chat") == []

    async def test_one_that_was_created_again_is_read(self, manager):
        sessions = KeyedSessions("a_door", manager, "ann")
        await sessions.record("chat", [user("a")])
        assert await said(sessions) == ["a"]
        await manager.delete_session("chat")
        assert await said(sessions) == []
        await (await manager.create_session("ann", "mock", "m", session_id="chat")).record(
            [user("b")]
        )
        assert await said(sessions) == ["b"]
        await manager.delete_session("chat")
        await (await manager.create_session("bob", "mock", "m", session_id="chat")).record(
            [user("c")]
        )
        assert await said(sessions) == []

    async def test_what_others_wrote_meanwhile_is_read(self, sessions, manager):
        await sessions.record("chat", [user("a")])
        await (await manager.get_session("chat")).record(user("b"))
        assert await said(sessions) == ["a", "b"]

    async def test_clearing_keeps_the_session(self, sessions, manager):
        await sessions.record("chat", [user("a")])
        await sessions.clear("chat")
        await sessions.clear("nobody")
        assert await said(sessions) == []
        assert (await manager.get_session("chat")).session_id == "chat"


class TestEdit:
    async def test_it_is_tried_again_on_what_somebody_else_left(self, sessions, manager):
        await sessions.record("chat", [user("a")])
        seen = []

        async def drop_last(session):
            messages = await session.get_messages()
            seen.append([message.text for message in messages])
            if len(seen) == 1:
                await (await manager.get_session("chat")).record(user("b"))
            await session.edit_messages(
                expected_revision=session.revision, remove=[messages[-1].seq]
            )
            return messages[-1].text

        assert await sessions.edit("chat", drop_last) == "b"
        assert seen == [["a"], ["a", "b"]]
        assert await said(sessions) == ["a"]

    async def test_where_there_is_none(self, sessions):
        assert await sessions.edit("nobody", lambda session: session.get_messages()) is None

    async def test_other_errors_are_the_plans(self, sessions):
        await sessions.record("chat", [user("a")])

        async def fail(session):
            raise InvalidInputError("no")

        with pytest.raises(InvalidInputError, match="no"):
            await sessions.edit("chat", fail)

    async def test_at_once_each_is_done_once(self, sessions):
        await sessions.record("chat", [user(f"{n}") for n in range(6)])

        async def pop(session):
            last = (await session.get_messages(1))[-1]
            await session.edit_messages(expected_revision=session.revision, remove=[last.seq])
            return last.text

        popped = await asyncio.gather(*(sessions.edit("chat", pop) for _ in range(6)))
        assert sorted(popped) == [f"{n}" for n in range(6)]
        with pytest.raises(RevisionConflictError):
            session = await sessions.find("chat")
            await session.edit_messages(expected_revision=session.revision - 1, remove=[])


async def test_the_shared_manager_is_used_where_none_is_given(manager):
    set_session_manager(manager)
    try:
        assert KeyedSessions("a_door").manager is manager
    finally:
        set_session_manager(None)

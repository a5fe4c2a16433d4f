"""Conformance of a storage: writes that say whose session it must be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from langswarm_session.errors import SessionNotFoundError
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import SessionMessage, SessionStatus
from langswarm_session.records import Appended, IdempotencyKey, SessionChanges, TurnStart
from langswarm_session.testing.making import (
    completed,
    everything,
    lease,
    new_session,
    reply,
    texts,
    user,
)
from langswarm_session.testing.storage_base import StorageTests

Write = Callable[..., Awaitable[Appended | TurnStart]]


def _append(
    storage: ISessionStorage, messages: Sequence[SessionMessage], **options: object
) -> Awaitable[Appended | TurnStart]:
    return storage.append("s", messages, **options)  # type: ignore[arg-type]


def _begin(
    storage: ISessionStorage, messages: Sequence[SessionMessage], **options: object
) -> Awaitable[Appended | TurnStart]:
    return storage.begin_turn("s", messages, lease(), **options)  # type: ignore[arg-type]


_writes = pytest.mark.parametrize("write", [_append, _begin], ids=["append", "begin_turn"])
_sizes = pytest.mark.parametrize("size", [1, 2, 20])


class OwnerTests(StorageTests):
    """Writes that say whose session it must be."""

    @_writes
    @_sizes
    async def test_the_users_own_session_is_written_to(
        self, storage: ISessionStorage, write: Write, size: int
    ) -> None:
        """With the user named it is the write that it is without."""
        await storage.create_session(new_session("s", "it's \0 ann"))
        batch = [user(f"{n}") for n in range(size)]
        done = await write(storage, batch, user_id="it's \0 ann")
        assert texts(done.messages) == texts(batch)
        assert done.record.user_id == "it's \0 ann"
        assert await storage.get_messages("s") == done.messages

    @_writes
    @_sizes
    async def test_another_users_session_does_not_exist(
        self, storage: ISessionStorage, write: Write, size: int
    ) -> None:
        """The error is the one for no session, and nothing is written."""
        await storage.create_session(new_session("s", "bob"))
        await storage.append("s", [user("bob's")])
        before = await everything(storage, "s")
        with pytest.raises(SessionNotFoundError) as refused:
            await write(storage, [user(f"{n}") for n in range(size)], user_id="ann")
        assert await everything(storage, "s") == before
        await storage.delete_session("s")
        with pytest.raises(SessionNotFoundError) as missing:
            await write(storage, [user("x")], user_id="ann")
        assert str(refused.value) == str(missing.value)

    @_writes
    async def test_nothing_is_told_of_another_users_session(
        self, storage: ISessionStorage, write: Write
    ) -> None:
        """Whatever else stands in the way, or was stored before, is not what the error says."""
        await storage.create_session(new_session("s", "bob"))
        key, message = IdempotencyKey("key", "digest"), user("bob's")
        await storage.append("s", [message], key=key)
        changed = message.replaced(content="changed")

        async def refused(*messages: SessionMessage, **options: object) -> None:
            before = await everything(storage, "s")
            with pytest.raises(SessionNotFoundError):
                await write(storage, messages, user_id="ann", **options)
            assert await everything(storage, "s") == before

        await refused(message)
        await refused(message, user("new"))
        await refused(changed)
        await refused(user("bob's"), key=key)
        await refused(user("x"), key=IdempotencyKey("key", "other"))
        await refused(user("x"), key=IdempotencyKey("new", "digest"))
        await refused(user("x"), expected_revision=99)
        await storage.begin_turn("s", [user("open")], lease(0))
        await refused(user("x"))
        await storage.update_session("s", SessionChanges(status=SessionStatus.ARCHIVED))
        await refused(user("x"))

    async def test_nothing_to_add_is_refused_as_well(self, storage: ISessionStorage) -> None:
        """An append without a message looks for the session, and so for its user's."""
        await storage.create_session(new_session("s", "bob"))
        with pytest.raises(SessionNotFoundError):
            await storage.append("s", [], user_id="ann")
        assert (await storage.append("s", [], user_id="bob")).messages == []

    async def test_a_turns_parts_may_name_the_user(self, storage: ISessionStorage) -> None:
        """Under a lease it is looked at too."""
        await storage.create_session(new_session("s", "ann"))
        begun = lease()
        await storage.begin_turn("s", [user("a")], begun, user_id="ann")
        await storage.append("s", [reply("b")], token=begun.token, user_id="ann")
        before = await everything(storage, "s")
        for messages in ([reply("c")], [reply(f"{n}") for n in range(20)]):
            with pytest.raises(SessionNotFoundError):
                await storage.append("s", messages, token=begun.token, user_id="bob")
        assert await everything(storage, "s") == before
        await storage.end_turn("s", completed(begun), [reply("d")])
        assert texts(await storage.get_messages("s")) == ["a", "b", "d"]

    @_writes
    async def test_a_session_that_changed_hands(
        self, storage: ISessionStorage, second: ISessionStorage, write: Write
    ) -> None:
        """Deleted between two writes and created again for another user, it is not written to."""
        await storage.create_session(new_session("s", "ann"))
        await storage.append("s", [user("ann's")], user_id="ann")
        await second.delete_session("s")
        await second.create_session(new_session("s", "bob"))
        with pytest.raises(SessionNotFoundError):
            await write(storage, [user("secret")], user_id="ann")
        await write(storage, [user("bob's")], user_id="bob")
        assert texts(await second.get_messages("s")) == ["bob's"]

    async def test_many_at_once(self, storage: ISessionStorage) -> None:
        """Writes that are made together are each refused or made by themselves."""
        for number in range(8):
            await storage.create_session(new_session(f"s{number}", f"user{number % 2}"))
        outcomes = await asyncio.gather(
            *(
                storage.append(f"s{number}", [user(f"{turn}")], user_id="user0")
                for turn in range(5)
                for number in range(8)
            ),
            return_exceptions=True,
        )
        refused = [isinstance(outcome, SessionNotFoundError) for outcome in outcomes]
        assert refused == [number % 2 == 1 for _ in range(5) for number in range(8)]
        for number in range(8):
            found = sorted(texts(await storage.get_messages(f"s{number}")))
            assert found == ([] if number % 2 else [f"{turn}" for turn in range(5)])

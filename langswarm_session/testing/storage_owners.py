"""Conformance of a storage: every call is about the session that it refers to, and no other."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from langswarm_session.errors import SessionNotFoundError, TurnLostError
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import SessionMessage, SessionStatus
from langswarm_session.records import IdempotencyKey, SessionChanges, SessionRef
from langswarm_session.search import Search
from langswarm_session.testing.making import (
    IN_SESSION,
    Operation,
    completed,
    everything,
    lease,
    new_session,
    ref,
    reply,
    texts,
    user,
)
from langswarm_session.testing.storage_base import StorageTests

BY_REF: dict[str, Operation] = {
    **IN_SESSION,
    "append many": lambda storage, session: storage.append(session, [user() for _ in range(20)]),
    "append nothing": lambda storage, session: storage.append(session, []),
    "begin_turn with many": lambda storage, session: storage.begin_turn(
        session, [user() for _ in range(20)], lease()
    ),
    "search_messages": lambda storage, session: storage.search_messages(
        Search("secret", session=session)
    ),
}
"""Every call that a reference is given to; what follows the method's name tells its calls apart."""

BY_TOKEN: dict[str, Callable[[ISessionStorage, str, SessionRef], Awaitable[set[str]]]] = {
    "renew_turns": lambda storage, token, session: storage.renew_turns({token: session}, 60),
    "request_cancel": lambda storage, token, session: storage.request_cancel({token: session}),
    "cancel_requested": lambda storage, token, session: storage.cancel_requested({token: session}),
}
"""Every call about leases, which tells of those that are held."""

_calls = pytest.mark.parametrize("name", BY_REF)
_OWNER = "it's \0 ann"


def methods_by_ref() -> set[str]:
    """Return the names of a storage's methods that are given a reference."""
    return {
        name
        for name, method in inspect.getmembers(ISessionStorage, inspect.isfunction)
        for parameter in inspect.signature(method).parameters.values()
        if "SessionRef" in str(parameter.annotation)
    }


async def _refused(storage: ISessionStorage, name: str, stale: SessionRef) -> SessionNotFoundError:
    """Make a call that must be refused, and change nothing."""
    before = await _all(storage)
    with pytest.raises(SessionNotFoundError) as refused:
        await BY_REF[name](storage, stale)
    assert refused.value.session_id == stale.session_id
    assert await _all(storage) == before
    return refused.value


async def _all(storage: ISessionStorage) -> list[tuple[object, ...]]:
    """Return all that a storage holds."""
    page = await storage.list_sessions()
    return [await everything(storage, record.session_id) for record in page.records]


class OwnerTests(StorageTests):
    """Every call about a session names its owner and its creation."""

    async def test_no_call_is_forgotten(self) -> None:
        """Each method of the interface that is given a reference is among those tested here."""
        named = {name.split(" ")[0] for name in BY_REF}
        of_leases = {"renew_turns", "request_cancel", "cancel_requested"}
        assert methods_by_ref() - of_leases == named - {"search_messages"}

    @_calls
    @pytest.mark.parametrize("by_name", [False, True])
    async def test_the_users_own_session(
        self, storage: ISessionStorage, name: str, by_name: bool
    ) -> None:
        """It is found by its reference, and by its name and owner."""
        own = (await storage.create_session(new_session("s", _OWNER))).ref
        with suppress(TurnLostError):  # there is no such turn, and that is looked at later
            await BY_REF[name](storage, own._replace(creation=None) if by_name else own)

    @_calls
    @pytest.mark.parametrize("by_name", [False, True])
    async def test_another_users_session_does_not_exist(
        self, storage: ISessionStorage, name: str, by_name: bool
    ) -> None:
        """The error is the one for no session at all."""
        record = await storage.create_session(new_session("s", "bob"))
        await storage.append(record.ref, [user("secret")])
        others = SessionRef("s", _OWNER, None if by_name else record.creation)
        refused = await _refused(storage, name, others)
        await storage.delete_session(record.ref)
        assert str(await _refused(storage, name, others)) == str(refused)

    @_calls
    @pytest.mark.parametrize("owner", ["bob", _OWNER])
    async def test_a_session_that_was_deleted_and_created_again(
        self, storage: ISessionStorage, second: ISessionStorage, name: str, owner: str
    ) -> None:
        """For another user or for the same one: it is not the session that was."""
        old = (await storage.create_session(new_session("s", _OWNER))).ref
        await storage.append(old, [user("mine")])
        await second.delete_session(old)
        await _refused(storage, name, old)
        new = (await second.create_session(new_session("s", owner))).ref
        await second.append(new, [user("secret")])
        assert new.creation != old.creation
        await _refused(storage, name, old)
        await _refused(second, name, old)

    @_calls
    async def test_a_session_that_never_was(self, storage: ISessionStorage, name: str) -> None:
        """A creation that the storage did not give leads nowhere."""
        record = await storage.create_session(new_session("s"))
        for made_up in (record.creation + 1, 0, -1):
            await _refused(storage, name, record.ref._replace(creation=made_up))

    async def test_every_way_to_create_a_session(self, storage: ISessionStorage) -> None:
        """Created or forked: each has a creation of its own, which every call shows."""
        first = await storage.create_session(new_session("s"))
        await storage.append(first.ref, [user()])
        fork = await storage.fork_session(first.ref, new_session("fork", "bob"))
        assert fork.creation != first.creation
        await storage.delete_session(fork.ref)
        again = await storage.fork_session(first.ref, new_session("fork", "bob"))
        assert again.creation not in (fork.creation, first.creation)
        for record in (first, again):
            found = await storage.find_session(record.session_id)
            assert found.ref == record.ref == (await storage.get_session(record.ref)).ref
        page = await storage.list_sessions()
        assert {record.ref for record in page.records} == {first.ref, again.ref}

    async def test_every_write_returns_the_reference(self, storage: ISessionStorage) -> None:
        """What comes back of a write refers to the session that was written to."""
        own, held = (await storage.create_session(new_session("s"))).ref, lease()
        begun = await storage.begin_turn(own, [user()], held)
        added = await storage.append(own, [reply()], token=held.token)
        ended = await storage.end_turn(own, completed(held), [reply()])
        appended = await storage.append(own, [user(f"{n}") for n in range(20)])
        changed = await storage.update_session(own, SessionChanges(context={"x": 1}))
        edited = await storage.edit_messages(own, expected_revision=changed.revision, remove=[1])
        records = [each.record for each in (begun, added, ended, appended, edited)]
        records += [changed, await storage.clear_messages(own)]
        assert [record.ref for record in records] == [own] * len(records)

    async def test_a_session_is_found_by_its_name(self, storage: ISessionStorage) -> None:
        """Of the user who is named, or of any."""
        record = await storage.create_session(new_session("s", _OWNER))
        assert await storage.find_session("s") == record
        assert await storage.find_session("s", user_id=_OWNER) == record
        with pytest.raises(SessionNotFoundError) as others:
            await storage.find_session("s", user_id="bob")
        await storage.delete_session(record.ref)
        with pytest.raises(SessionNotFoundError) as missing:
            await storage.find_session("s", user_id="bob")
        assert str(others.value) == str(missing.value)

    @pytest.mark.parametrize("begins", [False, True])
    async def test_nothing_is_told_of_another_users_session(
        self, storage: ISessionStorage, begins: bool
    ) -> None:
        """Whatever else stands in the way, or was stored before, is not what the error says."""
        bobs, anns = ref("s", "bob"), ref("s", "ann")
        await storage.create_session(new_session("s", "bob"))
        key, message = IdempotencyKey("key", "digest"), user("bob's")
        await storage.append(bobs, [message], key=key)
        changed = message.replaced(content="changed")

        async def refused(
            *messages: SessionMessage,
            key: IdempotencyKey | None = None,
            expected_revision: int | None = None,
        ) -> None:
            before = await everything(storage, "s")
            with pytest.raises(SessionNotFoundError):
                if begins:
                    await storage.begin_turn(
                        anns, messages, lease(), key=key, expected_revision=expected_revision
                    )
                else:
                    await storage.append(
                        anns, messages, key=key, expected_revision=expected_revision
                    )
            assert await everything(storage, "s") == before

        await refused(message)
        await refused(message, user("new"))
        await refused(changed)
        await refused(user("bob's"), key=key)
        await refused(user("x"), key=IdempotencyKey("key", "other"))
        await refused(user("x"), key=IdempotencyKey("new", "digest"))
        await refused(user("x"), expected_revision=99)
        await storage.begin_turn(bobs, [user("open")], lease(0))
        await refused(user("x"))
        await storage.update_session(bobs, SessionChanges(status=SessionStatus.ARCHIVED))
        await refused(user("x"))

    @pytest.mark.parametrize("size", [1, 20])
    async def test_a_turn_is_its_owners(self, storage: ISessionStorage, size: int) -> None:
        """The lease's token alone adds nothing, ends nothing and renews nothing."""
        own = (await storage.create_session(new_session("s", "ann"))).ref
        held, others = lease(), own._replace(user_id="bob")
        await storage.begin_turn(own, [user("a")], held)
        before = await everything(storage, "s")
        batch = [reply(f"{n}") for n in range(size)]
        calls: list[Callable[[SessionRef], Awaitable[object]]] = [
            lambda whose: storage.append(whose, batch, token=held.token),
            lambda whose: storage.end_turn(whose, completed(held), batch),
        ]
        for call in calls:
            for stale in (others, own._replace(creation=(own.creation or 0) + 1)):
                with pytest.raises(SessionNotFoundError):
                    await call(stale)
                assert await storage.renew_turns({held.token: stale}, 60) == set()
                assert await storage.request_cancel({held.token: stale}) == set()
        assert await everything(storage, "s") == before
        assert await storage.renew_turns({held.token: own}, 60) == {held.token}
        assert await storage.request_cancel({held.token: own}) == {held.token}
        assert await storage.cancel_requested({held.token: others}) == set()
        for call in calls:
            await call(own)
        assert texts(await storage.get_messages(own)) == ["a", *texts(batch)]

    @pytest.mark.parametrize("name", BY_TOKEN)
    async def test_a_lease_is_its_owners(self, storage: ISessionStorage, name: str) -> None:
        """A token with another session's reference is none that is held."""
        own = (await storage.create_session(new_session("s", "ann"))).ref
        held = lease()
        await storage.begin_turn(own, [user()], held)
        if name == "cancel_requested":
            await storage.request_cancel({held.token: own})
        before = await everything(storage, "s")
        for stale in (own._replace(user_id="bob"), own._replace(creation=-1)):
            assert await BY_TOKEN[name](storage, held.token, stale) == set()
            assert await everything(storage, "s") == before
        assert await BY_TOKEN[name](storage, held.token, own) == {held.token}

    async def test_a_search_is_of_its_owners(self, storage: ISessionStorage) -> None:
        """A search in one session finds nothing of another creation, nor beyond the user named."""
        own = (await storage.create_session(new_session("s", "ann"))).ref
        await storage.append(own, [user("secret")])
        page = await storage.search_messages(Search("secret", session=own))
        assert texts(hit.message for hit in page.hits) == ["secret"]
        page = await storage.search_messages(Search("secret", session=own, user_id="bob"))
        assert page.hits == []

    async def test_many_at_once(self, storage: ISessionStorage) -> None:
        """Writes that are made together are each refused or made by themselves."""
        refs: list[SessionRef] = []
        for number in range(9):
            old = (await storage.create_session(new_session(f"s{number}", "ann"))).ref
            if number % 3 == 1:
                await storage.delete_session(old)
                await storage.create_session(new_session(f"s{number}", "ann"))
            refs.append(old._replace(user_id="bob") if number % 3 == 2 else old)
        outcomes = await asyncio.gather(
            *(storage.append(own, [user(f"{turn}")]) for turn in range(5) for own in refs),
            return_exceptions=True,
        )
        refused = [isinstance(outcome, SessionNotFoundError) for outcome in outcomes]
        assert refused == [number % 3 != 0 for _ in range(5) for number in range(9)]
        for number in range(9):
            found = sorted(texts(await storage.get_messages(ref(f"s{number}", "ann"))))
            assert found == ([] if number % 3 else [f"{turn}" for turn in range(5)])

    async def test_the_owner_may_change_between_two_calls(
        self, storage: ISessionStorage, second: ISessionStorage
    ) -> None:
        """While one deletes the session and creates it for others, nothing reaches those."""
        own = (await storage.create_session(new_session("s", "ann"))).ref
        stop = False

        async def writes() -> None:
            while not stop:
                try:
                    await storage.append(own, [user("ann's")])
                    assert set(texts(await storage.get_messages(own))) == {"ann's"}
                except SessionNotFoundError:
                    await asyncio.sleep(0)

        async def replaces() -> None:
            whose = own
            for number in range(10):
                await second.delete_session(whose)
                whose = (await second.create_session(new_session("s", f"user{number}"))).ref
                await second.append(whose, [user("theirs")])
                assert texts(await second.get_messages(whose)) == ["theirs"]

        writing = [asyncio.ensure_future(writes()) for _ in range(3)]
        try:
            await replaces()
        finally:
            stop = True
            await asyncio.gather(*writing)

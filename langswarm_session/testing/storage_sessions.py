"""Conformance of a storage: creating, finding, listing, changing and removing sessions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from langswarm_session.errors import (
    InvalidInputError,
    RevisionConflictError,
    SessionExistsError,
    SessionInactiveError,
    SessionNotFoundError,
)
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import SessionBackend, SessionStatus
from langswarm_session.records import IdempotencyKey, NewSession, SessionChanges
from langswarm_session.testing.making import (
    IN_SESSION,
    TOO_LONG,
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

_AWKWARD_IDS = [
    'it\'s "quoted"',
    "%_like_%",
    "../../etc/passwd",
    "\U0001f469\u200d\U0001f680 e\u0301",
    " spaced ",
    "x" * 512,
]
_INACTIVE = [SessionStatus.PAUSED, SessionStatus.COMPLETED, SessionStatus.ARCHIVED]


class SessionTests(StorageTests):
    """Creating, finding, listing, changing and removing sessions."""

    async def test_a_new_session_is_as_it_was_given(self, storage: ISessionStorage) -> None:
        """The record has what was given, counts nothing yet, and is found again."""
        context = {"max_messages": 50, "own": {"key": [1, None, "\0"]}}
        new = NewSession("s", "ann", "openai", "gpt", SessionBackend.LOCAL_SQLITE, context)
        record = await storage.create_session(new)
        assert await storage.find_session("s") == record
        seen = record.to_context()
        assert seen.model_dump(mode="json", include=set(context)) == context
        assert (seen.user_id, seen.provider, seen.model) == ("ann", "openai", "gpt")
        assert seen.backend is SessionBackend.LOCAL_SQLITE
        assert record.status == SessionStatus.ACTIVE.value
        assert record.created_at == record.last_activity
        assert (record.last_seq, record.message_count, record.turn_count) == (0, 0, 0)
        assert record.turn_token is None
        assert await storage.get_messages(record.ref) == []
        assert await storage.get_turns(record.ref) == []

    @pytest.mark.parametrize("session_id", _AWKWARD_IDS)
    async def test_ids_are_kept_exactly(self, storage: ISessionStorage, session_id: str) -> None:
        """Any printable id is an id, of a session and of a user, and no pattern."""
        await storage.create_session(new_session("other", "other"))
        await storage.create_session(new_session(session_id, session_id))
        page = await storage.list_sessions(user_id=session_id)
        assert [(each.session_id, each.user_id) for each in page.records] == [
            (session_id, session_id)
        ]

    async def test_ids_that_differ_a_little_differ(self, storage: ISessionStorage) -> None:
        """Case and normal form matter."""
        ids = ["a", "A", "e\u0301", "\u00e9", "a "]
        for each in ids:
            await storage.create_session(new_session(each))
        assert [(await storage.find_session(each)).session_id for each in ids] == ids

    async def test_a_taken_id_is_refused(self, storage: ISessionStorage) -> None:
        """Creating a session again raises and leaves the first as it was."""
        before = await storage.create_session(new_session("s", "ann"))
        with pytest.raises(SessionExistsError) as caught:
            await storage.create_session(new_session("s", "bob"))
        assert caught.value.session_id == "s"
        assert await storage.find_session("s") == before

    async def test_one_of_many_creates_a_session(
        self, storage: ISessionStorage, second: ISessionStorage
    ) -> None:
        """Of several callers at once exactly one creates the session."""
        outcomes = await asyncio.gather(
            *(
                each.create_session(new_session("s", f"user {n}"))
                for n, each in enumerate((storage, second) * 4)
            ),
            return_exceptions=True,
        )
        errors = [each for each in outcomes if isinstance(each, BaseException)]
        assert [type(error) for error in errors] == [SessionExistsError] * 7
        created = [each for each in outcomes if not isinstance(each, BaseException)]
        assert created == [await storage.find_session("s")]

    @pytest.mark.parametrize("name", IN_SESSION)
    async def test_an_unknown_session_is_not_found(
        self, storage: ISessionStorage, name: str
    ) -> None:
        """Every method that names a session says so, and names it."""
        with pytest.raises(SessionNotFoundError) as caught:
            await IN_SESSION[name](storage, ref("nowhere"))
        assert caught.value.session_id == "nowhere"
        assert (await storage.list_sessions()).records == []

    async def test_newest_activity_comes_first(self, storage: ISessionStorage) -> None:
        """A session that is written to moves to the front."""
        for each in ("a", "b", "c"):
            await storage.create_session(new_session(each))
        assert await _listed(storage) == ["c", "b", "a"]
        await storage.append(ref("a"), [user()])
        assert await _listed(storage) == ["a", "c", "b"]
        begun = lease()
        await storage.begin_turn(ref("b"), [user()], begun)
        assert await _listed(storage) == ["b", "a", "c"]

    async def test_a_listing_is_of_one_user(self, storage: ISessionStorage) -> None:
        """No other user's session is in it; without a user all are."""
        for each, owner in (("a", "ann"), ("b", "bob"), ("c", "ann"), ("d", "Ann")):
            await storage.create_session(new_session(each, owner))
        assert await _listed(storage, user_id="ann") == ["c", "a"]
        assert await _listed(storage, user_id="") == []
        assert await _listed(storage) == ["d", "c", "b", "a"]

    async def test_a_listing_filters_by_status(self, storage: ISessionStorage) -> None:
        """Only the sessions with the status are in it, with a user or without."""
        for each, owner in (("a", "ann"), ("b", "bob"), ("c", "ann")):
            await storage.create_session(new_session(each, owner))
        archive = SessionChanges(status=SessionStatus.ARCHIVED)
        for each, owner in (("a", "ann"), ("b", "bob")):
            await storage.update_session(ref(each, owner), archive)
        assert await _listed(storage, status=SessionStatus.ARCHIVED) == ["b", "a"]
        assert await _listed(storage, status=SessionStatus.ARCHIVED, user_id="ann") == ["a"]
        assert await _listed(storage, status=SessionStatus.ACTIVE) == ["c"]
        assert await _listed(storage, status=SessionStatus.PAUSED) == []

    async def test_a_listing_filters_by_inactivity(self, storage: ISessionStorage) -> None:
        """Only sessions last written to before the time are in it."""
        for each in ("a", "b", "c"):
            await storage.create_session(new_session(each))
        moment = (await storage.append(ref("b"), [user()])).record.last_activity
        assert await _listed(storage, inactive_since=moment) == ["c", "a"]
        assert await _listed(storage, inactive_since=moment + 1) == ["b", "c", "a"]
        first = (await storage.find_session("a")).last_activity
        assert await _listed(storage, inactive_since=first) == []

    @pytest.mark.parametrize("limit", [1, 2, 7, 12, 13, 100])
    async def test_pages_neither_lose_nor_repeat(
        self, storage: ISessionStorage, limit: int
    ) -> None:
        """The pages put together are the whole listing; the last one has no cursor."""
        await asyncio.gather(
            *(storage.create_session(new_session(f"s{n}", f"user {n % 2}")) for n in range(25))
        )
        whole = await _listed(storage)
        assert sorted(whole) == sorted(f"s{n}" for n in range(25))
        assert await _paged(storage, limit) == whole
        mine = [each for each in whole if int(each[1:]) % 2]
        assert await _paged(storage, limit, user_id="user 1") == mine

    async def test_the_pages_may_be_archived_on_the_way(self, storage: ISessionStorage) -> None:
        """A filter by status that each page empties skips nothing."""
        for n in range(7):
            await storage.create_session(new_session(f"s{n}"))
        seen, cursor = [], None
        while True:
            page = await storage.list_sessions(status=SessionStatus.ACTIVE, limit=2, cursor=cursor)
            for record in page.records:
                seen.append(record.session_id)
                await storage.update_session(
                    ref(record.session_id), SessionChanges(status=SessionStatus.ARCHIVED)
                )
            if page.next_cursor is None:
                break
            cursor = page.next_cursor
        assert seen == [f"s{n}" for n in reversed(range(7))]

    @pytest.mark.parametrize("cursor", ["", "garbage", "1", "1.", "None", "1.2.3", "\u00b2.1"])
    async def test_a_made_up_cursor_is_refused(self, storage: ISessionStorage, cursor: str) -> None:
        """What is no cursor of a page raises, rather than giving some page."""
        await storage.create_session(new_session("s"))
        with pytest.raises(InvalidInputError):
            await storage.list_sessions(cursor=cursor)

    async def test_each_change_changes_one_thing(self, storage: ISessionStorage) -> None:
        """What is not named stays; each update moves the revision."""
        record = await storage.create_session(new_session("s", context={"a": 1, "b": {"c": 2}}))
        steps: list[tuple[SessionChanges, dict[str, Any]]] = [
            (SessionChanges(status=SessionStatus.PAUSED), {"status": "paused"}),
            (SessionChanges(provider="other"), {"provider": "other"}),
            (SessionChanges(model="model-2"), {"model": "model-2"}),
            (SessionChanges(backend=SessionBackend.EXTERNAL_DB), {"backend": "external_db"}),
            (SessionChanges(), {}),
        ]
        for changes, expected in steps:
            after = await storage.update_session(ref("s"), changes)
            assert after == record._replace(revision=after.revision, **expected)
            assert after.revision > record.revision
            assert await storage.find_session("s") == after
            record = after

    async def test_the_context_is_merged(self, storage: ISessionStorage) -> None:
        """Keys are set one by one; a value that is an object is replaced as a whole."""
        await storage.create_session(new_session("s", context={"a": 1, "b": {"c": 2, "d": 3}}))
        changes = SessionChanges(context={"b": {"c": 4}, "new": None, "max_messages": 7})
        context = (await storage.update_session(ref("s"), changes)).to_context()
        assert context.max_messages == 7
        assert context.model_extra == {"a": 1, "b": {"c": 4}, "new": None}

    async def test_the_provider_state_is_replaced_as_a_whole(
        self, storage: ISessionStorage
    ) -> None:
        """A new state leaves nothing of the old; an empty one removes it."""
        await storage.create_session(new_session("s"))
        state = {"provider_session_id": "conv_1", "provider_context": {"a": [1]}}
        context = (
            await storage.update_session(ref("s"), SessionChanges(provider_state=state))
        ).to_context()
        assert (context.provider_session_id, context.provider_context) == ("conv_1", {"a": [1]})
        changes = SessionChanges(provider_state={"provider_session_id": "conv_2"})
        context = (await storage.update_session(ref("s"), changes)).to_context()
        assert (context.provider_session_id, context.provider_context) == ("conv_2", {})
        context = (
            await storage.update_session(ref("s"), SessionChanges(provider_state={}))
        ).to_context()
        assert context.provider_session_id is None

    async def test_a_context_that_could_not_be_read_again_is_refused(
        self, storage: ISessionStorage
    ) -> None:
        """A number that is too long, in a context or a provider's state, is not stored."""
        await storage.create_session(new_session("s", context={"a": 1}))
        begun, data = lease(), {"provider_context": {"k": [TOO_LONG]}}
        await storage.begin_turn(ref("s"), [user()], begun)
        before = await everything(storage, "s")
        for call in (
            storage.create_session(new_session("new", context=data)),
            storage.fork_session(ref("s"), new_session("new", context=data)),
            storage.update_session(ref("s"), SessionChanges(context=data)),
            storage.update_session(ref("s"), SessionChanges(provider_state=data)),
            storage.end_turn(ref("s"), completed(begun, provider_state=data), []),
        ):
            with pytest.raises(InvalidInputError):
                await call
        assert await everything(storage, "s") == before
        with pytest.raises(SessionNotFoundError):
            await storage.find_session("new")

    async def test_an_update_may_name_the_revision(self, storage: ISessionStorage) -> None:
        """At another revision it raises and changes nothing."""
        record = await storage.create_session(new_session("s"))
        changes = SessionChanges(model="model-2")
        moved = await storage.update_session(ref("s"), changes, expected_revision=record.revision)
        with pytest.raises(RevisionConflictError) as caught:
            await storage.update_session(ref("s"), changes, expected_revision=record.revision)
        assert caught.value.session_id == "s"
        assert await storage.find_session("s") == moved

    async def test_updates_at_once_lose_nothing(
        self, storage: ISessionStorage, second: ISessionStorage
    ) -> None:
        """Each of several callers' keys is in the context afterwards."""
        await storage.create_session(new_session("s"))
        await asyncio.gather(
            *(
                each.update_session(ref("s"), SessionChanges(context={f"k{n}": n}))
                for n, each in enumerate((storage, second) * 10)
            )
        )
        record = await storage.find_session("s")
        assert record.to_context().model_extra == {f"k{n}": n for n in range(20)}

    @pytest.mark.parametrize("status", _INACTIVE)
    async def test_an_inactive_session_takes_no_turn(
        self, storage: ISessionStorage, status: SessionStatus
    ) -> None:
        """It can be read, takes no new turn, and takes them again once it is active."""
        await storage.create_session(new_session("s"))
        await storage.append(ref("s"), [user("before")])
        await storage.update_session(ref("s"), SessionChanges(status=status))
        before = await everything(storage, "s")
        with pytest.raises(SessionInactiveError):
            await storage.append(ref("s"), [user("refused")])
        with pytest.raises(SessionInactiveError):
            await storage.begin_turn(ref("s"), [user("refused")], lease())
        assert await everything(storage, "s") == before
        await storage.update_session(ref("s"), SessionChanges(status=SessionStatus.ACTIVE))
        await storage.append(ref("s"), [user("after")])
        assert texts(await storage.get_messages(ref("s"))) == ["before", "after"]

    async def test_a_session_in_error_takes_turns(self, storage: ISessionStorage) -> None:
        """An error is no end: the session may be tried again."""
        await storage.create_session(new_session("s"))
        await storage.update_session(ref("s"), SessionChanges(status=SessionStatus.ERROR))
        await storage.append(ref("s"), [user("again")])
        assert texts(await storage.get_messages(ref("s"))) == ["again"]

    async def test_a_turn_ends_in_a_session_archived_meanwhile(
        self, storage: ISessionStorage
    ) -> None:
        """The reply to what was sent before is stored all the same."""
        await storage.create_session(new_session("s"))
        begun = lease()
        await storage.begin_turn(ref("s"), [user("asked")], begun)
        await storage.update_session(ref("s"), SessionChanges(status=SessionStatus.ARCHIVED))
        await storage.end_turn(ref("s"), completed(begun), [reply("answered")])
        assert texts(await storage.get_messages(ref("s"))) == ["asked", "answered"]
        assert (await storage.find_session("s")).status == "archived"

    async def test_deleting_removes_everything(self, storage: ISessionStorage) -> None:
        """Nothing of it is found; another session with the same messages is unharmed."""
        message, key = user("secret"), IdempotencyKey("key", "digest")
        for each in ("s", "other"):
            await storage.create_session(new_session(each))
            await storage.append(ref(each), [message], key=key)
        before = await everything(storage, "other")
        await storage.delete_session(ref("s"))
        assert await _listed(storage) == ["other"]
        with pytest.raises(SessionNotFoundError):
            await storage.get_messages(ref("s"))
        assert await everything(storage, "other") == before

    async def test_deleting_may_name_the_revision(self, storage: ISessionStorage) -> None:
        """What was written to since it was looked at stays as it is."""
        listed = await storage.create_session(new_session("s"))
        written = (await storage.append(ref("s"), [user("I am back")])).record
        before = await everything(storage, "s")
        with pytest.raises(RevisionConflictError) as caught:
            await storage.delete_session(ref("s"), expected_revision=listed.revision)
        assert caught.value.session_id == "s"
        assert await everything(storage, "s") == before
        await storage.delete_session(ref("s"), expected_revision=written.revision)
        assert await _listed(storage) == []

    async def test_a_deleted_id_may_be_used_again(self, storage: ISessionStorage) -> None:
        """The new session knows nothing of the old one's messages, keys and turns."""
        message, key = user("old"), IdempotencyKey("key", "digest")
        old = await storage.create_session(new_session("s", "ann"))
        await storage.begin_turn(old.ref, [message], lease(), key=key)
        await storage.delete_session(old.ref)
        created = await storage.create_session(new_session("s", "bob"))
        assert await everything(storage, "s") == (created, [], [])
        start = await storage.begin_turn(created.ref, [message], lease(), key=key)
        assert not start.replayed
        assert [(each.seq, each.turn_id) for each in start.messages] == [(1, 1)]

    async def test_a_turn_is_lost_with_its_session(self, storage: ISessionStorage) -> None:
        """What ran while the session was deleted stores nothing, even if the id is used again."""
        await storage.create_session(new_session("s"))
        begun = lease()
        await storage.begin_turn(ref("s"), [user()], begun)
        await storage.delete_session(ref("s"))
        assert await storage.renew_turns({begun.token: ref("s")}, 60) == set()
        assert await storage.request_cancel({begun.token: ref("s")}) == set()
        with pytest.raises(SessionNotFoundError):
            await storage.end_turn(ref("s"), completed(begun), [reply()])


async def _listed(storage: ISessionStorage, **filters: Any) -> list[str]:
    page = await storage.list_sessions(**filters)
    assert page.next_cursor is None
    return [record.session_id for record in page.records]


async def _paged(storage: ISessionStorage, limit: int, **filters: Any) -> list[str]:
    ids: list[str] = []
    cursor = None
    while True:
        page = await storage.list_sessions(limit=limit, cursor=cursor, **filters)
        assert 0 < len(page.records) <= limit
        ids += [record.session_id for record in page.records]
        if page.next_cursor is None:
            return ids
        cursor = page.next_cursor

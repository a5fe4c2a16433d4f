from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from langswarm_session import (
    InMemorySessionStorage,
    InvalidInputError,
    MockFailure,
    MockProviderSession,
    ProviderSessionError,
    ProviderUnavailableError,
    RevisionConflictError,
    SessionBackend,
    SessionExistsError,
    SessionInactiveError,
    SessionManager,
    SessionMessage,
    SessionNotFoundError,
    SessionStatus,
    SQLiteSessionStorage,
    StorageClosedError,
    StorageFullError,
    UnknownProviderError,
    create_session_manager,
)


def ids(sessions):
    return [session.session_id for session in sessions]


async def test_a_created_session_is_what_was_asked_for(manager):
    session = await manager.create_session(
        "ann", "mock", "echo", SessionBackend.HYBRID, "s1", max_messages=7, topic="tea"
    )
    context = session.context
    assert (session.session_id, session.user_id) == ("s1", "ann")
    assert session.status is SessionStatus.ACTIVE
    assert (context.provider, context.model, context.backend) == (
        "mock",
        "echo",
        SessionBackend.HYBRID,
    )
    assert (context.max_messages, context.topic) == (7, "tea")
    assert session.manager is manager


async def test_ids_are_made_up_and_all_differ(manager):
    sessions = [await manager.create_session("ann", "mock", "echo") for _ in range(20)]
    assert len(set(ids(sessions))) == 20


async def test_an_id_is_given_once(manager, texts):
    first = await manager.create_session("ann", "mock", "echo", session_id="s1")
    await first.send_message("hello")
    with pytest.raises(SessionExistsError) as caught:
        await manager.create_session("bob", "mock", "echo", session_id="s1")
    assert caught.value.session_id == "s1"
    assert await texts(await manager.get_session("s1")) == ["hello", "You said: hello"]


async def test_one_of_many_concurrent_creators_wins(manager):
    outcomes = await asyncio.gather(
        *(manager.create_session("ann", "mock", "echo", session_id="s1") for _ in range(20)),
        return_exceptions=True,
    )
    losers = [outcome for outcome in outcomes if isinstance(outcome, SessionExistsError)]
    assert len(losers) == 19
    assert ids(await manager.list_sessions()) == ["s1"]


async def test_a_session_is_found_as_it_was_left(make_manager):
    created = await make_manager().create_session("ann", "mock", "echo", topic="tea")
    await created.send_message("hello")
    found = await make_manager().get_session(created.session_id)
    assert found.context == created.context
    assert found.metrics == created.metrics
    assert await found.get_messages() == await created.get_messages()


async def test_nothing_is_opened_before_the_first_use(db_path):
    manager = create_session_manager("sqlite", {"db_path": db_path})
    assert not Path(db_path).exists()
    async with manager:
        await manager.create_session("ann", "mock", "echo")
        assert Path(db_path).exists()


async def test_an_unknown_provider_is_refused_by_name(manager):
    with pytest.raises(UnknownProviderError, match="'nobody'") as caught:
        await manager.create_session("ann", "nobody", "m")
    assert caught.value.provider == "nobody"
    assert await manager.list_sessions() == []


async def test_a_fallback_answers_for_a_provider_that_is_not_configured(make_manager):
    manager = make_manager(fallback="mock")
    session = await manager.create_session("ann", "someone", "m")
    assert (await session.send_message("hello")).text == "You said: hello"
    assert session.context.provider == "someone"


@pytest.mark.parametrize("fallback", [[], "", 5])
def test_a_fallback_is_a_name(fallback):
    with pytest.raises(InvalidInputError, match="fallback"):
        SessionManager("memory", fallback=fallback)


def test_an_unknown_fallback_is_refused_at_once():
    with pytest.raises(UnknownProviderError, match="'nobody'"):
        SessionManager("memory", fallback="nobody")


async def test_providers_come_as_options_or_as_they_are(make_manager):
    manager = make_manager(
        providers={"mock": {"replies": ["scripted"]}, "mine": MockProviderSession(["my own"])}
    )
    by_options = await manager.create_session("ann", "mock", "m")
    as_it_is = await manager.create_session("ann", "mine", "m")
    assert (await by_options.send_message("x")).text == "scripted"
    assert (await as_it_is.send_message("x")).text == "my own"


@pytest.mark.parametrize("key", ["", "sk-key", {}, {"api_key": None}], ids=str)
async def test_a_provider_with_any_key_or_none_answers(make_manager, key):
    manager = make_manager(providers={"mock": key})
    session = await manager.create_session("ann", "mock", "echo")
    assert (await session.send_message("x")).text == "You said: x"


async def test_a_provider_added_later_takes_over(manager, session):
    await session.send_message("one")
    manager.add_provider_session("mock", MockProviderSession(["another"]))
    assert (await session.send_message("two")).text == "another"


class TestGetOrCreate:
    async def test_creates_once(self, manager):
        session = await manager.get_or_create_session("s1")
        again = await manager.get_or_create_session("s1")
        assert session.user_id == again.user_id == "default"
        assert session.metrics.created_at == again.metrics.created_at

    async def test_takes_what_a_new_one_is_to_be(self, manager):
        session = await manager.get_or_create_session(
            "s1", "ann", provider="langchain", model="any", topic="tea"
        )
        assert session.user_id == "ann"
        assert (session.context.provider, session.context.topic) == ("langchain", "tea")

    async def test_many_at_once_get_the_same(self, make_manager):
        managers = [make_manager(), make_manager()]
        sessions = await asyncio.gather(
            *(managers[i % 2].get_or_create_session("s1", "ann") for i in range(20))
        )
        assert {session.metrics.created_at for session in sessions} == {
            (await managers[0].get_session("s1")).metrics.created_at
        }

    async def test_another_users_does_not_exist(self, manager):
        await manager.get_or_create_session("s1", "ann")
        with pytest.raises(SessionNotFoundError) as refused:
            await manager.get_or_create_session("s1", "bob")
        assert "another user's" in str(refused.value)
        with pytest.raises(SessionNotFoundError) as missing:
            await manager.get_session("s2", user_id="bob")
        assert str(missing.value) == str(refused.value).replace("s1", "s2"), "it gives nothing away"

    async def test_nobody_answers_until_it_has_a_provider(self, manager, texts):
        session = await manager.get_or_create_session("s1")
        with pytest.raises(UnknownProviderError, match="update_context"):
            await session.send_message("x")
        await session.update_context(provider="mock", model="echo")
        await session.send_message("y")
        assert await texts(session) == ["y", "You said: y"]


class TestListing:
    async def test_newest_activity_comes_first(self, manager):
        for name in "abc":
            await manager.create_session("ann", "mock", "echo", session_id=name)
        await (await manager.get_session("a")).send_message("x")
        assert ids(await manager.list_user_sessions("ann")) == ["a", "c", "b"]

    async def test_a_user_sees_only_their_own(self, manager):
        await manager.create_session("ann", "mock", "echo", session_id="a")
        await manager.create_session("bob", "mock", "echo", session_id="b")
        assert ids(await manager.list_user_sessions("ann")) == ["a"]
        assert await manager.list_user_sessions("carol") == []
        assert ids(await manager.list_sessions()) == ["b", "a"]

    async def test_pages_cover_all_once(self, manager):
        created = [await manager.create_session("ann", "mock", "echo") for _ in range(7)]
        found, cursor, sizes = [], None, []
        while True:
            page = await manager.list_user_sessions("ann", 3, cursor=cursor)
            found += ids(page)
            sizes.append(len(page))
            cursor = page.next_cursor
            if cursor is None:
                break
        assert sizes == [3, 3, 1]
        assert found == ids(reversed(created))

    async def test_a_full_last_page_has_no_next(self, manager):
        for _ in range(3):
            await manager.create_session("ann", "mock", "echo")
        assert (await manager.list_sessions(3)).next_cursor is None

    async def test_by_status(self, manager):
        for name in "abc":
            await manager.create_session("ann", "mock", "echo", session_id=name)
        await manager.archive_session("b")
        assert ids(await manager.list_user_sessions("ann", status="archived")) == ["b"]
        active = await manager.list_user_sessions("ann", status=SessionStatus.ACTIVE)
        assert ids(active) == ["c", "a"]

    async def test_a_limit_of_none_of_them(self, manager, session):
        assert await manager.list_user_sessions("user123", 0) == []


class TestArchive:
    @pytest.mark.parametrize(
        "write",
        [
            lambda session: session.send_message("y"),
            lambda session: session.record(SessionMessage(role="user", content="y")),
            lambda session: session.begin_turn("y"),
            lambda session: session.add_system_message("y"),
            lambda session: session.clear_messages(),
        ],
        ids=["send_message", "record", "begin_turn", "add_system_message", "clear_messages"],
    )
    async def test_an_archived_session_is_read_only(self, manager, session, mock, texts, write):
        await session.send_message("x")
        await manager.archive_session(session.session_id)
        session = await manager.get_session(session.session_id)
        assert session.status is SessionStatus.ARCHIVED
        with pytest.raises(SessionInactiveError, match="archived"):
            await write(session)
        assert len(mock.requests) == 1
        assert await texts(session) == ["x", "You said: x"]

    async def test_it_may_be_made_active_again(self, session):
        await session.archive()
        await session.set_status("active")
        assert (await session.send_message("x")).text == "You said: x"

    @pytest.mark.parametrize("status", ["paused", "completed"])
    async def test_neither_paused_nor_completed_ones_take_turns(self, session, status):
        await session.set_status(status)
        with pytest.raises(SessionInactiveError, match=status):
            await session.send_message("x")


class TestDelete:
    @pytest.mark.parametrize(
        "write",
        [
            lambda session: session.send_message("y"),
            lambda session: session.record(SessionMessage(role="user", content="y")),
            lambda session: session.begin_turn("y"),
            lambda session: session.add_system_message("y"),
        ],
        ids=["send_message", "record", "begin_turn", "add_system_message"],
    )
    async def test_what_was_created_anew_for_another_user_is_another_session(
        self, manager, session, mock, texts, write
    ):
        await session.send_message("x")
        await manager.delete_session(session.session_id)
        another = await manager.create_session("bob", "mock", "echo", session_id=session.session_id)
        with pytest.raises(SessionNotFoundError):
            await write(session)
        assert len(mock.requests) == 1
        assert await texts(another) == []

    async def test_nothing_of_it_is_left(self, manager, session, texts):
        await session.send_message("x", idempotency_key="k")
        await manager.delete_session(session.session_id)
        with pytest.raises(SessionNotFoundError):
            await manager.get_session(session.session_id)
        with pytest.raises(SessionNotFoundError):
            await session.get_messages()
        assert await manager.list_sessions() == []
        health = await manager.health()
        assert (health.sessions, health.messages) == (0, 0)

    async def test_twice_is_an_error(self, manager, session):
        await manager.delete_session(session.session_id)
        with pytest.raises(SessionNotFoundError):
            await manager.delete_session(session.session_id)

    async def test_its_id_may_be_used_again_and_starts_empty(self, manager, texts):
        old = await manager.create_session("ann", "mock", "echo", session_id="s1")
        await old.send_message("x", idempotency_key="k")
        await manager.delete_session("s1")
        new = await manager.create_session("bob", "mock", "echo", session_id="s1")
        assert new.metrics.message_count == 0
        await new.send_message("y", idempotency_key="k")
        assert await texts(new) == ["y", "You said: y"]

    async def test_the_provider_forgets_it_too(self, manager, session, mock):
        native = await mock.create_provider_session("user123")
        await session.update_context(provider_session_id=native)
        await manager.delete_session(session.session_id)
        with pytest.raises(ProviderSessionError):
            await mock.get_provider_session(native)

    async def test_nothing_is_removed_when_the_provider_cannot(self, manager, session, texts):
        class Down(MockProviderSession):
            async def delete_provider_session(self, provider_session_id):
                raise ProviderUnavailableError("down", provider="mock")

        await session.send_message("x")
        await session.update_context(provider_session_id="kept there")
        manager.add_provider_session("mock", Down())
        with pytest.raises(ProviderUnavailableError, match=session.session_id):
            await manager.delete_session(session.session_id)
        assert await texts(session) == ["x", "You said: x"]
        await manager.delete_session(session.session_id, at_providers=False)
        with pytest.raises(SessionNotFoundError):
            await manager.get_session(session.session_id)

    async def test_what_was_written_to_since_stays(self, manager, session, mock, texts):
        native = await mock.create_provider_session("user123")
        await session.update_context(provider_session_id=native)
        seen = session.revision
        await session.record(SessionMessage(role="user", content="x"))
        with pytest.raises(RevisionConflictError):
            await manager.delete_session(session.session_id, expected_revision=seen)
        assert await texts(session) == ["x"]
        assert await mock.get_provider_session(native)
        await manager.delete_session(session.session_id, expected_revision=session.revision)

    async def test_while_a_turn_runs(self, manager, session, gated):
        sending = asyncio.create_task(session.send_message("x"))
        await gated.asked.wait()
        await manager.delete_session(session.session_id)
        gated.go.set()
        with pytest.raises(SessionNotFoundError):
            await sending
        again = await manager.create_session("ann", "mock", "echo", session_id=session.session_id)
        assert (await again.send_message("y", wait=0)).text == "You said: y"


class TestCleanup:
    async def test_archives_only_what_nobody_has_written_to(self, manager):
        await manager.create_session("ann", "mock", "echo", session_id="a")
        await manager.create_session("bob", "mock", "echo", session_id="b")
        assert await manager.cleanup_inactive_sessions(1) == 0
        assert await manager.cleanup_inactive_sessions(0) == 2
        assert await manager.cleanup_inactive_sessions(0) == 0
        statuses = {session.status for session in await manager.list_sessions()}
        assert statuses == {SessionStatus.ARCHIVED}

    async def test_leaves_alone_what_asks_for_it(self, manager):
        kept = await manager.create_session("ann", "mock", "echo", auto_archive=False)
        assert await manager.cleanup_inactive_sessions(0) == 0
        await kept.send_message("still active")

    async def test_more_than_a_page(self, manager, monkeypatch):
        monkeypatch.setattr("langswarm_session.sessions.cleanup._CLEANED", 60)
        for i in range(125):
            await manager.create_session(f"user{i}", "mock", "echo", auto_archive=i != 50)
        assert await manager.cleanup_inactive_sessions(0) == 124

    async def test_leaves_what_moved_meanwhile(self, manager, monkeypatch):
        for name in ("idle", "written to", "deleted"):
            await manager.create_session("ann", "mock", "echo", session_id=name)
        known = manager.storage.list_sessions

        async def list_and_move(**options):
            page = await known(**options)
            await (await manager.get_session("written to")).send_message("Still here.")
            await manager.delete_session("deleted")
            return page

        monkeypatch.setattr(manager.storage, "list_sessions", list_and_move)
        assert await manager.cleanup_inactive_sessions(0) == 1
        assert (await manager.get_session("idle")).status is SessionStatus.ARCHIVED
        assert (await manager.get_session("written to")).status is SessionStatus.ACTIVE

    async def test_says_when_the_storage_fails(self, manager, monkeypatch):
        for number in range(3):
            await manager.create_session("ann", "mock", "echo", session_id=f"s{number}")
        known = manager.storage.update_session

        async def fail_once(ref, *arguments, **options):
            if ref.session_id == "s1":
                raise StorageFullError("no space")
            return await known(ref, *arguments, **options)

        monkeypatch.setattr(manager.storage, "update_session", fail_once)
        with pytest.raises(StorageFullError):
            await manager.cleanup_inactive_sessions(0)
        monkeypatch.undo()
        assert await manager.cleanup_inactive_sessions(0) == 1


class TestForUser:
    async def test_has_all_that_a_manager_has(self, manager):
        ann = manager.for_user("ann")
        created = await ann.create_session("mock", "echo", session_id="s1", topic="tea")
        assert created.user_id == "ann"
        assert (await ann.get_session("s1")).context.topic == "tea"
        assert (await ann.get_or_create_session("s2")).user_id == "ann"
        assert ids(await ann.list_sessions()) == ["s2", "s1"]
        await ann.archive_session("s1")
        assert ids(await ann.list_sessions(status="archived")) == ["s1"]
        await ann.delete_session("s1")
        assert ids(await ann.list_sessions()) == ["s2"]

    async def test_no_other_users_sessions_exist_in_it(self, manager, texts):
        session = await manager.create_session("ann", "mock", "echo", session_id="s1")
        await session.send_message("x")
        bob = manager.for_user("bob")
        for attempt in (
            bob.get_session,
            bob.get_or_create_session,
            bob.archive_session,
            bob.delete_session,
        ):
            with pytest.raises(SessionNotFoundError):
                await attempt("s1")
        assert await bob.list_sessions() == []
        await session.refresh()
        assert session.status is SessionStatus.ACTIVE
        assert await texts(session) == ["x", "You said: x"]


class TestHealthAndClose:
    async def test_health_counts(self, manager, session):
        await session.send_message("x")
        health = await manager.health()
        assert health.ok
        assert (health.sessions, health.messages) == (1, 2)
        assert health.latency_seconds >= 0

    async def test_closing_twice_is_fine(self, manager):
        await manager.close()
        await manager.close()

    async def test_a_storage_made_by_the_manager_is_closed_with_it(self, db_path):
        async with create_session_manager("sqlite", {"db_path": db_path}) as manager:
            await manager.create_session("ann", "mock", "echo")
            storage = manager.storage
        with pytest.raises(StorageClosedError):
            await storage.find_session("any")
        assert not Path(f"{db_path}-wal").exists()

    @pytest.mark.parametrize("kind", [InMemorySessionStorage, SQLiteSessionStorage])
    async def test_a_storage_that_was_given_is_left_to_its_owner(self, kind, db_path):
        storage = kind() if kind is InMemorySessionStorage else kind(db_path)
        async with SessionManager(storage) as manager:
            created = await manager.create_session("ann", "mock", "echo")
        assert (await storage.find_session(created.session_id)).user_id == "ann"
        await storage.close()

    async def test_a_storage_with_a_configuration_is_refused(self):
        with pytest.raises(InvalidInputError, match="storage_config"):
            SessionManager(InMemorySessionStorage(), storage_config={"db_path": "x"})

    async def test_providers_are_closed(self, make_manager):
        closed = []

        class Closing(MockProviderSession):
            async def close(self):
                closed.append(self)

        provider = Closing()
        async with make_manager(providers={"mine": provider}):
            assert closed == []
        assert closed == [provider]

    async def test_a_provider_that_cannot_be_closed_keeps_nothing_else_open(self, db_path):
        closed = []

        class Broken(MockProviderSession):
            async def close(self):
                raise RuntimeError("no")

        class Closing(MockProviderSession):
            async def close(self):
                closed.append(self)

        providers = {"broken": Broken(), "other": Closing()}
        manager = SessionManager("sqlite", providers, storage_config={"db_path": db_path})
        await manager.create_session("ann", "mock", "echo")
        with pytest.raises(RuntimeError):
            await manager.close()
        health = await manager.storage.health()
        await manager.storage.close()
        assert not health.ok
        assert closed


async def test_a_failure_of_the_provider_changes_no_other_session(manager, mock, texts):
    one = await manager.create_session("ann", "mock", "echo")
    other = await manager.create_session("ann", "mock", "echo")
    mock.fail_next(MockFailure.ERROR)
    with pytest.raises(ProviderSessionError) as caught:
        await one.send_message("x")
    assert caught.value.session_id == one.session_id
    await other.send_message("y")
    assert await texts(other) == ["y", "You said: y"]


def test_its_repr_names_storage_and_providers():
    manager = SessionManager("memory", {"mock": "sk-key"})
    assert "InMemorySessionStorage" in repr(manager)
    assert "mock" in repr(manager)
    assert "ann" in repr(manager.for_user("ann"))


async def test_archiving_at_a_revision(session):
    before = session.revision
    await session.send_message("hello")
    with pytest.raises(RevisionConflictError):
        await session.archive(expected_revision=before)
    assert session.status is SessionStatus.ACTIVE
    await session.archive(expected_revision=session.revision)
    assert session.status is SessionStatus.ARCHIVED

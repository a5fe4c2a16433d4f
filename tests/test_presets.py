from __future__ import annotations

import pytest

from langswarm_session import (
    InMemorySessionStorage,
    InvalidInputError,
    ISessionMiddleware,
    MetricsHook,
    MockProviderSession,
    SessionBackend,
    SessionManager,
    SQLiteSessionStorage,
    UnknownProviderError,
    UnknownStorageError,
    configure_development_sessions,
    configure_production_sessions,
    create_provider_session,
    create_session_manager,
    create_simple_session,
    get_default_storage,
    get_session_manager,
    session_context,
    set_default_storage,
    set_session_manager,
)


class TestCreateSessionManager:
    def test_sqlite_is_the_default(self):
        manager = create_session_manager()
        assert isinstance(manager.storage, SQLiteSessionStorage)
        assert manager.storage.db_path == "langswarm_sessions.db"

    @pytest.mark.parametrize(
        ("storage", "config", "kind"),
        [
            ("memory", None, InMemorySessionStorage),
            ("sqlite", {"db_path": "a.db"}, SQLiteSessionStorage),
            ("sqlite:///a.db", None, SQLiteSessionStorage),
        ],
    )
    def test_by_name_or_address(self, storage, config, kind):
        manager = create_session_manager(storage, config)
        assert isinstance(manager.storage, kind)
        assert getattr(manager.storage, "db_path", "a.db") == "a.db"

    def test_with_a_storage(self):
        storage = InMemorySessionStorage()
        assert create_session_manager(storage).storage is storage

    def test_of_no_such_name(self):
        with pytest.raises(UnknownStorageError, match="'nowhere'.*memory, .*sqlite"):
            create_session_manager("nowhere")

    def test_a_password_in_an_address_is_not_shown(self):
        with pytest.raises(UnknownStorageError) as caught:
            create_session_manager("nosql://ann:hunter2@host/db")
        assert "hunter2" not in str(caught.value)

    async def test_what_it_is_given_reaches_the_manager(self):
        storage = InMemorySessionStorage()
        async with create_session_manager(
            storage,
            providers={"mine": MockProviderSession(["hello"])},
            fallback="mock",
            turn_wait=0,
            lease_seconds=5,
        ) as manager:
            mine = await manager.create_session("ann", "mine", "m")
            assert (await mine.send_message("x")).text == "hello"
            other = await manager.create_session("ann", "nobody", "echo")
            assert (await other.send_message("x")).text == "You said: x"


class TestCreateSimpleSession:
    async def test_needs_nothing_but_a_user(self):
        session = await create_simple_session("ann")
        assert (session.user_id, session.context.provider) == ("ann", "mock")
        assert session.context.model == "gpt-4o"
        assert session.context.backend is SessionBackend.LOCAL_MEMORY
        assert (await session.send_message("x")).text == "You said: x"
        await session.manager.close()

    async def test_each_has_a_manager_of_its_own(self):
        one, other = await create_simple_session("ann"), await create_simple_session("ann")
        assert one.manager is not other.manager
        assert len(await one.manager.list_sessions()) == 1
        await one.manager.close()
        await other.send_message("x")

    async def test_with_a_key_the_provider_may_keep_state(self):
        session = await create_simple_session("ann", "mock", "recall", "sk-key")
        assert session.context.backend is SessionBackend.PROVIDER_NATIVE
        assert "first thing" in (await session.send_message("x")).text

    async def test_where_it_lives(self, db_path):
        storage = SQLiteSessionStorage(db_path)
        session = await create_simple_session("ann", storage=storage)
        await session.send_message("x")
        assert (await storage.find_session(session.session_id)).message_count == 2
        await storage.close()

    async def test_with_no_such_provider(self):
        with pytest.raises(UnknownProviderError, match="'nobody'"):
            await create_simple_session("ann", "nobody")


async def test_create_provider_session():
    assert isinstance(create_provider_session("mock", "sk-key"), MockProviderSession)
    assert isinstance(create_provider_session("nobody", fallback="mock"), MockProviderSession)
    with pytest.raises(UnknownProviderError, match="'nobody'"):
        create_provider_session("nobody")
    with pytest.raises(InvalidInputError, match="unknown"):
        create_provider_session("mock", unknown=1)


class TestSessionContext:
    async def test_is_the_session(self, session):
        async with session_context(session) as inner:
            assert inner is session
            await inner.send_message("x")
        assert session.metrics.message_count == 2

    async def test_lets_errors_through_and_loses_nothing(self, session, texts):
        with pytest.raises(ZeroDivisionError):
            async with session_context(session):
                await session.send_message("x")
                raise ZeroDivisionError
        assert await texts(session) == ["x", "You said: x"]


class TestDevelopment:
    async def test_works_with_whatever_provider_is_named(self):
        async with configure_development_sessions() as manager:
            session = await manager.create_session("ann", "openai", "gpt-4o")
            assert (await session.send_message("x")).text == "You said: x"
            assert isinstance(manager.storage, InMemorySessionStorage)


class TestProduction:
    def test_opens_nothing_and_keeps_sessions_where_a_server_does(self):
        manager = configure_production_sessions()
        assert manager.storage.db_path == "/var/lib/langswarm/sessions.db"

    async def test_takes_storage_and_providers(self, db_path):
        async with configure_production_sessions(
            storage_config={"db_path": db_path}, providers={"mine": MockProviderSession(["hi"])}
        ) as manager:
            session = await manager.create_session("ann", "mine", "m")
            assert (await session.send_message("x")).text == "hi"
            assert manager.storage.db_path == db_path

    async def test_is_never_a_mock_in_place_of_a_provider(self, db_path):
        async with configure_production_sessions({"db_path": db_path}) as manager:
            with pytest.raises(UnknownProviderError):
                await manager.create_session("ann", "nobody", "m")

    def test_with_another_storage(self):
        storage = InMemorySessionStorage()
        assert configure_production_sessions(storage=storage).storage is storage


class TestShared:
    @pytest.fixture(autouse=True)
    def nothing_is_shared(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        set_session_manager(None)
        set_default_storage(None)
        yield
        set_session_manager(None)
        set_default_storage(None)

    async def test_the_same_for_the_whole_program(self, tmp_path):
        manager = get_session_manager()
        assert get_session_manager() is manager
        assert manager.storage is get_default_storage()
        session = await manager.create_session("ann", "mock", "echo")
        await session.send_message("x")
        assert (tmp_path / "langswarm_sessions.db").exists()
        await get_default_storage().close()

    async def test_may_be_set(self):
        manager = SessionManager("memory")
        set_session_manager(manager)
        assert get_session_manager() is manager
        set_session_manager(None)
        assert get_session_manager() is not manager

    async def test_on_a_storage_that_was_set(self):
        storage = InMemorySessionStorage()
        set_default_storage(storage)
        assert get_session_manager().storage is storage


async def test_a_hook_of_the_presets_counts(monkeypatch):
    """The MetricsHook that both presets add sees what happens."""
    made = []
    init = MetricsHook.__init__

    def noting(self):
        made.append(self)
        init(self)

    monkeypatch.setattr(MetricsHook, "__init__", noting)
    async with configure_development_sessions() as manager:
        session = await manager.create_session("ann", "mock", "echo")
        await session.send_message("x")
    (hook,) = made
    assert hook.get_metrics()["messages_received"] == 1


async def test_middleware_may_be_added_to_a_preset():
    class Loud(ISessionMiddleware):
        async def process_outgoing_message(self, session, message):
            return message.replaced(content=message.text.upper())

    async with configure_development_sessions() as manager:
        manager.add_global_middleware(Loud())
        session = await manager.create_session("ann", "mock", "echo")
        assert (await session.send_message("x")).text == "You said: X"

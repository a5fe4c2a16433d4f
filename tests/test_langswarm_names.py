"""The names and signatures that LangSwarm's users know: they change one import and no more."""

from __future__ import annotations

import inspect

import pytest

import langswarm_session
from langswarm_session import (
    BaseSession,
    InMemorySessionStorage,
    IProviderSession,
    LoggingMiddleware,
    MessageRole,
    MetricsHook,
    MockProviderSession,
    ProviderSessionFactory,
    SessionBackend,
    SessionManager,
    SessionMessage,
    SessionStatus,
    SQLiteSessionStorage,
    StorageFactory,
    UnknownProviderError,
    configure_production_sessions,
    create_session_manager,
    create_simple_session,
    session_context,
)

NAMES = """
ISession ISessionManager ISessionStorage IProviderSession ISessionMiddleware ISessionLifecycleHook
SessionMessage SessionContext SessionMetrics SessionStatus MessageRole SessionBackend
BaseSession SessionManager InMemorySessionStorage SQLiteSessionStorage StorageFactory
MockProviderSession ProviderSessionFactory create_session_manager create_simple_session
create_provider_session session_context get_session_manager set_session_manager
get_default_storage set_default_storage configure_development_sessions
configure_production_sessions LoggingMiddleware MetricsHook LoggingHook SessionError
SessionNotFoundError ProviderSessionError SessionStorageError
""".split()


def accepts(function, *args, **options):
    """The arguments by name, as the function would get them, defaults included."""
    bound = inspect.signature(function).bind(*args, **options)
    bound.apply_defaults()
    return bound.arguments


class TestNames:
    @pytest.mark.parametrize("name", NAMES)
    def test_are_there(self, name):
        assert getattr(langswarm_session, name).__name__ == name
        assert name in langswarm_session.__all__
        assert name in dir(langswarm_session)

    def test_all_that_are_promised_are_there(self):
        for name in langswarm_session.__all__:
            assert getattr(langswarm_session, name) is not None

    def test_others_are_not(self):
        with pytest.raises(AttributeError, match="no_such_name"):
            langswarm_session.no_such_name

    @pytest.mark.parametrize(
        ("enum", "values"),
        [
            (SessionStatus, ["active", "paused", "completed", "archived", "error"]),
            (MessageRole, ["user", "assistant", "system", "function", "tool"]),
            (
                SessionBackend,
                ["provider_native", "local_memory", "local_sqlite", "external_db", "hybrid"],
            ),
        ],
    )
    def test_of_enumerations(self, enum, values):
        assert [member.value for member in enum] == values
        assert [member.name.lower() for member in enum] == values
        assert all(enum(value) == value for value in values)


class TestManager:
    def test_create_session(self):
        given = accepts(SessionManager.create_session, "self", "u", "p", "m")
        assert given["backend"] is SessionBackend.PROVIDER_NATIVE
        assert given["session_id"] is None
        given = accepts(
            SessionManager.create_session, "self", "u", "p", "m", SessionBackend.HYBRID, "id", a=1
        )
        assert list(given) == [
            *("self", "user_id", "provider", "model", "backend", "session_id", "context")
        ]
        assert given["context"] == {"a": 1}

    def test_create_session_manager(self):
        given = accepts(create_session_manager, "memory", {"a": 1}, {"b": 2})
        assert list(given)[:3] == ["storage", "storage_config", "providers"]
        assert accepts(create_session_manager)["storage"] == "sqlite"

    def test_list_user_sessions_and_cleanup(self):
        assert accepts(SessionManager.list_user_sessions, "self", "u")["limit"] == 100
        given = accepts(SessionManager.cleanup_inactive_sessions, "self")
        assert given["max_inactive_hours"] == 24

    @pytest.mark.parametrize(
        "name",
        [
            *("get_session", "archive_session", "delete_session", "add_provider_session"),
            *("add_global_middleware", "add_global_hook", "list_sessions", "health", "close"),
        ],
    )
    def test_methods(self, name):
        assert callable(getattr(SessionManager, name))

    async def test_create_simple_session(self):
        assert inspect.iscoroutinefunction(create_simple_session)
        given = accepts(create_simple_session, "ann")
        assert dict(given) == {
            "user_id": "ann",
            "provider": "mock",
            "model": "gpt-4o",
            "api_key": None,
            "storage": "memory",
        }
        session = await create_simple_session("ann")
        assert isinstance(session, BaseSession)

    def test_configure_production_sessions(self):
        storage_config, providers = {"db_path": "x.db"}, {"mine": MockProviderSession()}
        manager = configure_production_sessions(storage_config=storage_config, providers=providers)
        assert manager.storage.db_path == "x.db"


class TestFactories:
    def test_create_storage(self):
        assert isinstance(StorageFactory.create_storage("memory"), InMemorySessionStorage)
        storage = StorageFactory.create_storage("sqlite", db_path="x.db")
        assert isinstance(storage, SQLiteSessionStorage)
        assert storage.db_path == "x.db"
        assert SQLiteSessionStorage(db_path="x.db").db_path == "x.db"

    def test_create_provider_session(self):
        create = ProviderSessionFactory.create_provider_session
        given = accepts(create, "mock", "key", fallback="mock", a=1)
        assert list(given) == ["name", "api_key", "fallback", "options"]
        assert accepts(create, "mock")["api_key"] is None
        with pytest.raises(UnknownProviderError, match="nobody"):
            create("nobody")
        assert isinstance(create("nobody", fallback="mock"), MockProviderSession)


class TestSession:
    async def test_properties_and_context(self, session):
        assert session.user_id == "user123"
        assert session.status is SessionStatus.ACTIVE
        context = await session.update_context(max_messages=50, anything={"a": [1]})
        assert context.max_messages == 50
        assert context.anything == {"a": [1]}
        async with session_context(session) as same:
            assert same is session

    @pytest.mark.parametrize(
        "name",
        [
            *("send_message", "stream_message", "record", "get_messages", "add_system_message"),
            *("clear_messages", "update_context", "archive", "fork"),
        ],
    )
    def test_methods(self, name):
        assert callable(getattr(BaseSession, name))

    async def test_message_count_counts_every_message_whoever_wrote_it(self, session):
        await session.add_system_message("be kind")
        assert session.metrics.message_count == 1
        await session.send_message("hello")
        assert session.metrics.message_count == 3
        await session.record(SessionMessage(role=MessageRole.ASSISTANT, content="from elsewhere"))
        assert session.metrics.message_count == 4

    async def test_no_history_is_trimmed_away(self, session):
        await session.update_context(max_messages=2)
        for i in range(5):
            await session.send_message(str(i))
        assert len(await session.get_messages()) == 10


class TestMessages:
    def test_a_message(self):
        message = SessionMessage(role=MessageRole.USER, content="x")
        assert message.role is MessageRole.USER
        assert message.timestamp.tzinfo is not None
        assert message.metadata == {}
        assert message.provider_message_id is message.token_count is message.finish_reason is None


class TestBuiltIns:
    def test_logging_middleware(self):
        assert LoggingMiddleware("mine").logger.name == "mine"
        assert LoggingMiddleware(logger_name="mine").logger.name == "mine"

    def test_metrics_hook(self):
        metrics = MetricsHook().get_metrics()
        for count in ("created", "archived", "deleted", "messages_sent", "messages_received"):
            assert metrics[count] == 0

    async def test_provider_sessions(self):
        accepts(IProviderSession.create_provider_session, "self", "ann", any=1)
        accepts(IProviderSession.get_provider_session, "self", "id")
        accepts(IProviderSession.get_messages, "self", "id", 5)
        accepts(IProviderSession.get_messages, "self", "id", limit=5)
        accepts(IProviderSession.delete_provider_session, "self", "id")
        provider = MockProviderSession()
        native = await provider.create_provider_session("ann", any=1)
        assert (await provider.get_provider_session(native))["id"] == native
        assert await provider.get_messages(native, 5) == []
        await provider.delete_provider_session(native)

"""The conversation record for LLM applications: durable, exact, fast, under every framework.

A name is loaded when it is first used, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from langswarm_session.blocks import (
        AudioBlock as AudioBlock,
        Block as Block,
        FileBlock as FileBlock,
        ImageBlock as ImageBlock,
        OtherBlock as OtherBlock,
        ReasoningBlock as ReasoningBlock,
        RefusalBlock as RefusalBlock,
        TextBlock as TextBlock,
        ToolCallBlock as ToolCallBlock,
        ToolResultBlock as ToolResultBlock,
        VideoBlock as VideoBlock,
    )
    from langswarm_session.errors import (
        IdempotencyConflictError as IdempotencyConflictError,
        InvalidInputError as InvalidInputError,
        ManagerClosedError as ManagerClosedError,
        MessageConflictError as MessageConflictError,
        MessageRefusedError as MessageRefusedError,
        MiddlewareError as MiddlewareError,
        MissingDependencyError as MissingDependencyError,
        NestedTurnError as NestedTurnError,
        ProviderCapabilityError as ProviderCapabilityError,
        ProviderRateLimitError as ProviderRateLimitError,
        ProviderSessionError as ProviderSessionError,
        ProviderStreamError as ProviderStreamError,
        ProviderTimeoutError as ProviderTimeoutError,
        ProviderUnavailableError as ProviderUnavailableError,
        RevisionConflictError as RevisionConflictError,
        SessionBusyError as SessionBusyError,
        SessionError as SessionError,
        SessionExistsError as SessionExistsError,
        SessionInactiveError as SessionInactiveError,
        SessionNotFoundError as SessionNotFoundError,
        SessionStorageError as SessionStorageError,
        StorageBusyError as StorageBusyError,
        StorageClosedError as StorageClosedError,
        StorageCorruptError as StorageCorruptError,
        StorageFullError as StorageFullError,
        StorageUnavailableError as StorageUnavailableError,
        StorageVersionError as StorageVersionError,
        TurnLostError as TurnLostError,
        UnknownProviderError as UnknownProviderError,
        UnknownStorageError as UnknownStorageError,
    )
    from langswarm_session.hooks.logging import (
        LoggingHook as LoggingHook,
    )
    from langswarm_session.hooks.metrics import (
        MetricsHook as MetricsHook,
    )
    from langswarm_session.interfaces import (
        IProviderSession as IProviderSession,
        ISession as ISession,
        ISessionLifecycleHook as ISessionLifecycleHook,
        ISessionManager as ISessionManager,
        ISessionMiddleware as ISessionMiddleware,
        ISessionStorage as ISessionStorage,
        ProviderCapability as ProviderCapability,
    )
    from langswarm_session.manager import (
        SessionList as SessionList,
        SessionManager as SessionManager,
        UserSessions as UserSessions,
    )
    from langswarm_session.middleware.logging import (
        LoggingMiddleware as LoggingMiddleware,
    )
    from langswarm_session.models import (
        MessageRole as MessageRole,
        SessionBackend as SessionBackend,
        SessionContext as SessionContext,
        SessionMessage as SessionMessage,
        SessionMetrics as SessionMetrics,
        SessionStatus as SessionStatus,
        TokenUsage as TokenUsage,
        Turn as Turn,
        TurnStatus as TurnStatus,
    )
    from langswarm_session.presets import (
        configure_development_sessions as configure_development_sessions,
        configure_production_sessions as configure_production_sessions,
        create_provider_session as create_provider_session,
        create_session_manager as create_session_manager,
        create_simple_session as create_simple_session,
        get_default_storage as get_default_storage,
        get_session_manager as get_session_manager,
        session_context as session_context,
        set_default_storage as set_default_storage,
        set_session_manager as set_session_manager,
    )
    from langswarm_session.providers.factory import (
        ProviderSessionFactory as ProviderSessionFactory,
    )
    from langswarm_session.providers.mock import (
        MockFailure as MockFailure,
        MockProviderSession as MockProviderSession,
    )
    from langswarm_session.records import (
        ProviderReply as ProviderReply,
        ProviderRequest as ProviderRequest,
        StorageHealth as StorageHealth,
        StreamEvent as StreamEvent,
    )
    from langswarm_session.session import (
        BaseSession as BaseSession,
    )
    from langswarm_session.storage.factory import (
        StorageFactory as StorageFactory,
    )
    from langswarm_session.storage.memory import (
        InMemorySessionStorage as InMemorySessionStorage,
    )
    from langswarm_session.storage.sqlite import (
        SQLiteSessionStorage as SQLiteSessionStorage,
    )
    from langswarm_session.turns import (
        OpenTurn as OpenTurn,
    )

_HOMES = {
    "blocks": (
        "AudioBlock",
        "Block",
        "FileBlock",
        "ImageBlock",
        "OtherBlock",
        "ReasoningBlock",
        "RefusalBlock",
        "TextBlock",
        "ToolCallBlock",
        "ToolResultBlock",
        "VideoBlock",
    ),
    "errors": (
        "IdempotencyConflictError",
        "InvalidInputError",
        "ManagerClosedError",
        "MessageConflictError",
        "MessageRefusedError",
        "MiddlewareError",
        "MissingDependencyError",
        "NestedTurnError",
        "ProviderCapabilityError",
        "ProviderRateLimitError",
        "ProviderSessionError",
        "ProviderStreamError",
        "ProviderTimeoutError",
        "ProviderUnavailableError",
        "RevisionConflictError",
        "SessionBusyError",
        "SessionError",
        "SessionExistsError",
        "SessionInactiveError",
        "SessionNotFoundError",
        "SessionStorageError",
        "StorageBusyError",
        "StorageClosedError",
        "StorageCorruptError",
        "StorageFullError",
        "StorageUnavailableError",
        "StorageVersionError",
        "TurnLostError",
        "UnknownProviderError",
        "UnknownStorageError",
    ),
    "hooks.logging": ("LoggingHook",),
    "hooks.metrics": ("MetricsHook",),
    "interfaces": (
        "IProviderSession",
        "ISession",
        "ISessionLifecycleHook",
        "ISessionManager",
        "ISessionMiddleware",
        "ISessionStorage",
        "ProviderCapability",
    ),
    "manager": (
        "SessionList",
        "SessionManager",
        "UserSessions",
    ),
    "middleware.logging": ("LoggingMiddleware",),
    "models": (
        "MessageRole",
        "SessionBackend",
        "SessionContext",
        "SessionMessage",
        "SessionMetrics",
        "SessionStatus",
        "TokenUsage",
        "Turn",
        "TurnStatus",
    ),
    "presets": (
        "configure_development_sessions",
        "configure_production_sessions",
        "create_provider_session",
        "create_session_manager",
        "create_simple_session",
        "get_default_storage",
        "get_session_manager",
        "session_context",
        "set_default_storage",
        "set_session_manager",
    ),
    "providers.factory": ("ProviderSessionFactory",),
    "providers.mock": (
        "MockFailure",
        "MockProviderSession",
    ),
    "records": (
        "ProviderReply",
        "ProviderRequest",
        "StorageHealth",
        "StreamEvent",
    ),
    "session": ("BaseSession",),
    "storage.factory": ("StorageFactory",),
    "storage.memory": ("InMemorySessionStorage",),
    "storage.sqlite": ("SQLiteSessionStorage",),
    "turns": ("OpenTurn",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})

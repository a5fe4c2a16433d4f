"""The conversation record for LLM applications: durable, exact, fast, under every framework.

A name is loaded when it is first used, so that importing the package costs next to nothing.
"""

from importlib import import_module
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from langswarm_session.blocks import (
        AudioBlock as AudioBlock,
    )
    from langswarm_session.blocks import (
        Block as Block,
    )
    from langswarm_session.blocks import (
        FileBlock as FileBlock,
    )
    from langswarm_session.blocks import (
        ImageBlock as ImageBlock,
    )
    from langswarm_session.blocks import (
        OtherBlock as OtherBlock,
    )
    from langswarm_session.blocks import (
        ReasoningBlock as ReasoningBlock,
    )
    from langswarm_session.blocks import (
        RefusalBlock as RefusalBlock,
    )
    from langswarm_session.blocks import (
        TextBlock as TextBlock,
    )
    from langswarm_session.blocks import (
        ToolCallBlock as ToolCallBlock,
    )
    from langswarm_session.blocks import (
        ToolResultBlock as ToolResultBlock,
    )
    from langswarm_session.blocks import (
        VideoBlock as VideoBlock,
    )
    from langswarm_session.errors import (
        BackgroundLoopError as BackgroundLoopError,
    )
    from langswarm_session.errors import (
        ContextLengthError as ContextLengthError,
    )
    from langswarm_session.errors import (
        IdempotencyConflictError as IdempotencyConflictError,
    )
    from langswarm_session.errors import (
        ImportFormatError as ImportFormatError,
    )
    from langswarm_session.errors import (
        InvalidInputError as InvalidInputError,
    )
    from langswarm_session.errors import (
        InvalidReasoningError as InvalidReasoningError,
    )
    from langswarm_session.errors import (
        ManagerClosedError as ManagerClosedError,
    )
    from langswarm_session.errors import (
        MessageConflictError as MessageConflictError,
    )
    from langswarm_session.errors import (
        MessageRefusedError as MessageRefusedError,
    )
    from langswarm_session.errors import (
        MiddlewareError as MiddlewareError,
    )
    from langswarm_session.errors import (
        MissingDependencyError as MissingDependencyError,
    )
    from langswarm_session.errors import (
        NestedTurnError as NestedTurnError,
    )
    from langswarm_session.errors import (
        ProviderAuthenticationError as ProviderAuthenticationError,
    )
    from langswarm_session.errors import (
        ProviderCapabilityError as ProviderCapabilityError,
    )
    from langswarm_session.errors import (
        ProviderQuotaError as ProviderQuotaError,
    )
    from langswarm_session.errors import (
        ProviderRateLimitError as ProviderRateLimitError,
    )
    from langswarm_session.errors import (
        ProviderRequestError as ProviderRequestError,
    )
    from langswarm_session.errors import (
        ProviderResponseError as ProviderResponseError,
    )
    from langswarm_session.errors import (
        ProviderSessionError as ProviderSessionError,
    )
    from langswarm_session.errors import (
        ProviderStreamError as ProviderStreamError,
    )
    from langswarm_session.errors import (
        ProviderTimeoutError as ProviderTimeoutError,
    )
    from langswarm_session.errors import (
        ProviderUnavailableError as ProviderUnavailableError,
    )
    from langswarm_session.errors import (
        RevisionConflictError as RevisionConflictError,
    )
    from langswarm_session.errors import (
        SessionBusyError as SessionBusyError,
    )
    from langswarm_session.errors import (
        SessionError as SessionError,
    )
    from langswarm_session.errors import (
        SessionExistsError as SessionExistsError,
    )
    from langswarm_session.errors import (
        SessionInactiveError as SessionInactiveError,
    )
    from langswarm_session.errors import (
        SessionNotFoundError as SessionNotFoundError,
    )
    from langswarm_session.errors import (
        SessionStorageError as SessionStorageError,
    )
    from langswarm_session.errors import (
        StorageBusyError as StorageBusyError,
    )
    from langswarm_session.errors import (
        StorageClosedError as StorageClosedError,
    )
    from langswarm_session.errors import (
        StorageCorruptError as StorageCorruptError,
    )
    from langswarm_session.errors import (
        StorageFullError as StorageFullError,
    )
    from langswarm_session.errors import (
        StorageUnavailableError as StorageUnavailableError,
    )
    from langswarm_session.errors import (
        StorageVersionError as StorageVersionError,
    )
    from langswarm_session.errors import (
        TurnCancelledError as TurnCancelledError,
    )
    from langswarm_session.errors import (
        TurnLostError as TurnLostError,
    )
    from langswarm_session.errors import (
        UnknownModelError as UnknownModelError,
    )
    from langswarm_session.errors import (
        UnknownProviderError as UnknownProviderError,
    )
    from langswarm_session.errors import (
        UnknownStorageError as UnknownStorageError,
    )
    from langswarm_session.fidelity import (
        Loss as Loss,
    )
    from langswarm_session.formats.dialects import (
        Dialect as Dialect,
    )
    from langswarm_session.hooks.logging import (
        LoggingHook as LoggingHook,
    )
    from langswarm_session.hooks.metrics import (
        MetricsHook as MetricsHook,
    )
    from langswarm_session.hooks.usage import (
        Price as Price,
    )
    from langswarm_session.hooks.usage import (
        UsageHook as UsageHook,
    )
    from langswarm_session.interfaces import (
        IProviderSession as IProviderSession,
    )
    from langswarm_session.interfaces import (
        ISession as ISession,
    )
    from langswarm_session.interfaces import (
        ISessionLifecycleHook as ISessionLifecycleHook,
    )
    from langswarm_session.interfaces import (
        ISessionManager as ISessionManager,
    )
    from langswarm_session.interfaces import (
        ISessionMiddleware as ISessionMiddleware,
    )
    from langswarm_session.interfaces import (
        ISessionStorage as ISessionStorage,
    )
    from langswarm_session.interfaces import (
        ProviderCapability as ProviderCapability,
    )
    from langswarm_session.manager import (
        SessionManager as SessionManager,
    )
    from langswarm_session.manager import (
        UserSessions as UserSessions,
    )
    from langswarm_session.middleware.detectors import (
        Detector as Detector,
    )
    from langswarm_session.middleware.logging import (
        LoggingMiddleware as LoggingMiddleware,
    )
    from langswarm_session.middleware.redacting import (
        RedactingMiddleware as RedactingMiddleware,
    )
    from langswarm_session.middleware.summarizing import (
        SummarizingMiddleware as SummarizingMiddleware,
    )
    from langswarm_session.models import (
        Fallback as Fallback,
    )
    from langswarm_session.models import (
        MessageList as MessageList,
    )
    from langswarm_session.models import (
        MessageRole as MessageRole,
    )
    from langswarm_session.models import (
        SessionBackend as SessionBackend,
    )
    from langswarm_session.models import (
        SessionContext as SessionContext,
    )
    from langswarm_session.models import (
        SessionMessage as SessionMessage,
    )
    from langswarm_session.models import (
        SessionMetrics as SessionMetrics,
    )
    from langswarm_session.models import (
        SessionStatus as SessionStatus,
    )
    from langswarm_session.models import (
        Summary as Summary,
    )
    from langswarm_session.models import (
        TokenCounter as TokenCounter,
    )
    from langswarm_session.models import (
        TokenUsage as TokenUsage,
    )
    from langswarm_session.models import (
        Turn as Turn,
    )
    from langswarm_session.models import (
        TurnStatus as TurnStatus,
    )
    from langswarm_session.presets import (
        configure_development_sessions as configure_development_sessions,
    )
    from langswarm_session.presets import (
        configure_production_sessions as configure_production_sessions,
    )
    from langswarm_session.presets import (
        create_provider_session as create_provider_session,
    )
    from langswarm_session.presets import (
        create_session_manager as create_session_manager,
    )
    from langswarm_session.presets import (
        create_simple_session as create_simple_session,
    )
    from langswarm_session.presets import (
        get_default_storage as get_default_storage,
    )
    from langswarm_session.presets import (
        get_session_manager as get_session_manager,
    )
    from langswarm_session.presets import (
        session_context as session_context,
    )
    from langswarm_session.presets import (
        set_default_storage as set_default_storage,
    )
    from langswarm_session.presets import (
        set_session_manager as set_session_manager,
    )
    from langswarm_session.providers.anthropic.provider import (
        AnthropicProviderSession as AnthropicProviderSession,
    )
    from langswarm_session.providers.factory import (
        ProviderSessionFactory as ProviderSessionFactory,
    )
    from langswarm_session.providers.mock import (
        MockFailure as MockFailure,
    )
    from langswarm_session.providers.mock import (
        MockProviderSession as MockProviderSession,
    )
    from langswarm_session.providers.openai.provider import (
        OpenAIProviderSession as OpenAIProviderSession,
    )
    from langswarm_session.records import (
        FallbackEvent as FallbackEvent,
    )
    from langswarm_session.records import (
        PrefixChange as PrefixChange,
    )
    from langswarm_session.records import (
        PrefixChangeReason as PrefixChangeReason,
    )
    from langswarm_session.records import (
        ProviderReply as ProviderReply,
    )
    from langswarm_session.records import (
        ProviderRequest as ProviderRequest,
    )
    from langswarm_session.records import (
        StorageHealth as StorageHealth,
    )
    from langswarm_session.records import (
        StreamEvent as StreamEvent,
    )
    from langswarm_session.requests.normalize import (
        Repair as Repair,
    )
    from langswarm_session.requests.normalize import (
        RepairKind as RepairKind,
    )
    from langswarm_session.requests.normalize import (
        SystemPlacement as SystemPlacement,
    )
    from langswarm_session.requests.normalize import (
        Target as Target,
    )
    from langswarm_session.search import (
        MessageHit as MessageHit,
    )
    from langswarm_session.session import (
        BaseSession as BaseSession,
    )
    from langswarm_session.sessions.erasure import (
        ErasureReport as ErasureReport,
    )
    from langswarm_session.sessions.listing import (
        SessionList as SessionList,
    )
    from langswarm_session.sessions.reconcile import (
        Reconciliation as Reconciliation,
    )
    from langswarm_session.storage.factory import (
        StorageFactory as StorageFactory,
    )
    from langswarm_session.storage.memory import (
        InMemorySessionStorage as InMemorySessionStorage,
    )
    from langswarm_session.storage.postgres.storage import (
        PostgresSessionStorage as PostgresSessionStorage,
    )
    from langswarm_session.storage.sqlite.storage import (
        SQLiteSessionStorage as SQLiteSessionStorage,
    )
    from langswarm_session.tools import (
        Tool as Tool,
    )
    from langswarm_session.tools import (
        call_tools as call_tools,
    )
    from langswarm_session.transfer.exporting import (
        export_session as export_session,
    )
    from langswarm_session.transfer.importing import (
        ImportedSession as ImportedSession,
    )
    from langswarm_session.transfer.importing import (
        ImportOptions as ImportOptions,
    )
    from langswarm_session.transfer.importing import (
        OnConflict as OnConflict,
    )
    from langswarm_session.transfer.importing import (
        import_session as import_session,
    )
    from langswarm_session.transfer.importing import (
        import_sessions as import_sessions,
    )
    from langswarm_session.turns.turn import (
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
    "sessions.erasure": ("ErasureReport",),
    "errors": (
        "BackgroundLoopError",
        "ContextLengthError",
        "ImportFormatError",
        "IdempotencyConflictError",
        "InvalidInputError",
        "InvalidReasoningError",
        "ManagerClosedError",
        "MessageConflictError",
        "MessageRefusedError",
        "MiddlewareError",
        "MissingDependencyError",
        "NestedTurnError",
        "ProviderAuthenticationError",
        "ProviderCapabilityError",
        "ProviderQuotaError",
        "ProviderRateLimitError",
        "ProviderRequestError",
        "ProviderResponseError",
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
        "TurnCancelledError",
        "TurnLostError",
        "UnknownModelError",
        "UnknownProviderError",
        "UnknownStorageError",
    ),
    "fidelity": ("Loss",),
    "formats.dialects": ("Dialect",),
    "hooks.logging": ("LoggingHook",),
    "hooks.metrics": ("MetricsHook",),
    "hooks.usage": (
        "Price",
        "UsageHook",
    ),
    "interfaces": (
        "IProviderSession",
        "ISession",
        "ISessionLifecycleHook",
        "ISessionManager",
        "ISessionMiddleware",
        "ISessionStorage",
        "ProviderCapability",
    ),
    "manager": ("SessionManager", "UserSessions"),
    "middleware.detectors": ("Detector",),
    "middleware.logging": ("LoggingMiddleware",),
    "middleware.redacting": ("RedactingMiddleware",),
    "middleware.summarizing": ("SummarizingMiddleware",),
    "models": (
        "Fallback",
        "MessageList",
        "MessageRole",
        "SessionBackend",
        "SessionContext",
        "SessionMessage",
        "SessionMetrics",
        "SessionStatus",
        "Summary",
        "TokenCounter",
        "TokenUsage",
        "Turn",
        "TurnStatus",
    ),
    "transfer.exporting": ("export_session",),
    "transfer.importing": (
        "ImportOptions",
        "ImportedSession",
        "OnConflict",
        "import_session",
        "import_sessions",
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
    "providers.anthropic.provider": ("AnthropicProviderSession",),
    "providers.factory": ("ProviderSessionFactory",),
    "providers.mock": (
        "MockFailure",
        "MockProviderSession",
    ),
    "providers.openai.provider": ("OpenAIProviderSession",),
    "sessions.reconcile": ("Reconciliation",),
    "records": (
        "ProviderReply",
        "ProviderRequest",
        "StorageHealth",
        "StreamEvent",
        "FallbackEvent",
        "PrefixChange",
        "PrefixChangeReason",
    ),
    "search": ("MessageHit",),
    "requests.normalize": (
        "Repair",
        "RepairKind",
        "SystemPlacement",
        "Target",
    ),
    "session": ("BaseSession",),
    "sessions.listing": ("SessionList",),
    "storage.factory": ("StorageFactory",),
    "storage.memory": ("InMemorySessionStorage",),
    "storage.postgres.storage": ("PostgresSessionStorage",),
    "storage.sqlite.storage": ("SQLiteSessionStorage",),
    "tools": (
        "Tool",
        "call_tools",
    ),
    "turns.turn": ("OpenTurn",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

_EXTRAS = {"PostgresSessionStorage": "asyncpg"}
"""The names that need an extra, with the module that it brings."""


def _is_there(name: str) -> bool:
    needed = _EXTRAS.get(name)
    return needed is None or PathFinder.find_spec(needed) is not None


# What `import *` gives works as it is installed; all else is there by name, and says what it needs.
__all__ = sorted(filter(_is_there, _HOME_OF))  # noqa: PLE0605 - a third list would only go stale


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})

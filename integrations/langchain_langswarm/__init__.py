"""LangChain's doors to the conversation record.

`SessionChatMessageHistory` is a chat message history, `RunnableWithSession` a Runnable that gives a
chain its memory; `to_langchain` and `from_langchain` convert messages without a store.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_langswarm.history import SessionChatMessageHistory as SessionChatMessageHistory
    from langchain_langswarm.messages import from_langchain as from_langchain
    from langchain_langswarm.messages import to_langchain as to_langchain
    from langchain_langswarm.runnable import RunnableWithSession as RunnableWithSession

_HOMES = {
    "RunnableWithSession": "runnable",
    # In a module of its own: LangChain 2.0 removes what it is built on.
    "SessionChatMessageHistory": "history",
    "from_langchain": "messages",
    "to_langchain": "messages",
}

__all__ = ["RunnableWithSession", "SessionChatMessageHistory", "from_langchain", "to_langchain"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{home}")
    except ModuleNotFoundError as error:
        if error.name != "langchain_core":
            raise
        from langswarm_session.errors import MissingDependencyError

        raise MissingDependencyError(
            'langchain-core is missing: pip install "langswarm-session[langchain]"'
        ) from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

"""LangChain's doors to the conversation record.

`SessionMiddleware` gives an agent its memory, `RunnableWithSession` gives a chain its own, and
`SessionChatMessageHistory` is a chat message history; `from_langchain`, `to_langchain` and
`to_langchain_messages` convert messages without a store.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_langswarm.agent import SessionMiddleware as SessionMiddleware
    from langchain_langswarm.history import SessionChatMessageHistory as SessionChatMessageHistory
    from langchain_langswarm.messages import from_langchain as from_langchain
    from langchain_langswarm.messages import to_langchain as to_langchain
    from langchain_langswarm.messages import to_langchain_messages as to_langchain_messages
    from langchain_langswarm.runnable import RunnableWithSession as RunnableWithSession

_HOMES = {
    "RunnableWithSession": "runnable",
    # In a module of its own: LangChain 2.0 removes what it is built on.
    "SessionChatMessageHistory": "history",
    "SessionMiddleware": "agent",
    "from_langchain": "messages",
    "to_langchain": "messages",
    "to_langchain_messages": "messages",
}
_PACKAGES = ("langchain_core", "langchain", "langgraph")

__all__ = [
    "RunnableWithSession",
    "SessionChatMessageHistory",
    "SessionMiddleware",
    "from_langchain",
    "to_langchain",
    "to_langchain_messages",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{home}")
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        from langswarm_session.errors import MissingDependencyError

        package = error.name.replace("_", "-")
        extra = "langchain" if package == "langchain-core" else "langchain-agents"
        raise MissingDependencyError(
            f'{package} is missing: pip install "langswarm-session[{extra}]"'
        ) from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

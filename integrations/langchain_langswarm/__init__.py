"""LangChain's doors to the conversation record.

`SessionMiddleware` gives an agent its memory, `RunnableWithSession` gives a chain its own, and
`SessionChatMessageHistory` is a chat message history. `from_langchain` and `to_langchain` convert a
message without a store, `from_langchain_messages` and `to_langchain_messages` several.
"""

from typing import TYPE_CHECKING

from langswarm_session.lazy import lazy_names

if TYPE_CHECKING:
    from langchain_langswarm.agent import SessionMiddleware as SessionMiddleware
    from langchain_langswarm.history import SessionChatMessageHistory as SessionChatMessageHistory
    from langchain_langswarm.messages import from_langchain as from_langchain
    from langchain_langswarm.messages import (
        from_langchain_messages as from_langchain_messages,
    )
    from langchain_langswarm.messages import to_langchain as to_langchain
    from langchain_langswarm.messages import to_langchain_messages as to_langchain_messages
    from langchain_langswarm.runnable import RunnableWithSession as RunnableWithSession

_HOMES = {
    "RunnableWithSession": "runnable",
    # In a module of its own: LangChain 2.0 removes what it is built on.
    "SessionChatMessageHistory": "history",
    "SessionMiddleware": "agent",
    "from_langchain": "messages",
    "from_langchain_messages": "messages",
    "to_langchain": "messages",
    "to_langchain_messages": "messages",
    "message_format": "messages",
}
_EXTRAS = {
    "langchain_core": ("langchain-core", "langchain"),
    "langchain": ("langchain", "langchain-agents"),
    "langgraph": ("langgraph", "langchain-agents"),
}

__all__ = [
    "RunnableWithSession",
    "SessionChatMessageHistory",
    "SessionMiddleware",
    "from_langchain",
    "from_langchain_messages",
    "to_langchain",
    "to_langchain_messages",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES, _EXTRAS)

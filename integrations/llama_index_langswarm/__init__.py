"""LlamaIndex's doors to the conversation record.

`SessionChatStore` and `AsyncSessionChatStore` are chat stores whose keys are sessions.
`from_llama_index` and `to_llama_index` convert a message without a store,
`from_llama_index_messages` and `to_llama_index_messages` several.
"""

from typing import TYPE_CHECKING

from langswarm_session.lazy import lazy_names

if TYPE_CHECKING:
    from llama_index_langswarm.async_store import AsyncSessionChatStore as AsyncSessionChatStore
    from llama_index_langswarm.messages import from_llama_index as from_llama_index
    from llama_index_langswarm.messages import (
        from_llama_index_messages as from_llama_index_messages,
    )
    from llama_index_langswarm.messages import to_llama_index as to_llama_index
    from llama_index_langswarm.messages import (
        to_llama_index_messages as to_llama_index_messages,
    )
    from llama_index_langswarm.store import SessionChatStore as SessionChatStore

_HOMES = {
    "AsyncSessionChatStore": "async_store",
    "SessionChatStore": "store",
    "from_llama_index": "messages",
    "from_llama_index_messages": "messages",
    "to_llama_index": "messages",
    "to_llama_index_messages": "messages",
    "message_format": "messages",
}

_CORE = ("llama-index-core", "llama-index")
_EXTRAS = {"llama_index": _CORE, "llama_index.core": _CORE}

__all__ = [
    "AsyncSessionChatStore",
    "SessionChatStore",
    "from_llama_index",
    "from_llama_index_messages",
    "to_llama_index",
    "to_llama_index_messages",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES, _EXTRAS)

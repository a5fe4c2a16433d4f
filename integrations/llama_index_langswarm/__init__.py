"""LlamaIndex's doors to the conversation record.

`SessionChatStore` and `AsyncSessionChatStore` are chat stores whose keys are sessions;
`to_llama_index`, `to_llama_index_messages` and `from_llama_index` convert messages without a store.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_index_langswarm.async_store import AsyncSessionChatStore as AsyncSessionChatStore
    from llama_index_langswarm.messages import from_llama_index as from_llama_index
    from llama_index_langswarm.messages import to_llama_index as to_llama_index
    from llama_index_langswarm.messages import (
        to_llama_index_messages as to_llama_index_messages,
    )
    from llama_index_langswarm.store import SessionChatStore as SessionChatStore

_HOMES = {
    "AsyncSessionChatStore": "async_store",
    "SessionChatStore": "store",
    "from_llama_index": "messages",
    "to_llama_index": "messages",
    "to_llama_index_messages": "messages",
}

__all__ = [
    "AsyncSessionChatStore",
    "SessionChatStore",
    "from_llama_index",
    "to_llama_index",
    "to_llama_index_messages",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{home}")
    except ModuleNotFoundError as error:
        if error.name not in ("llama_index", "llama_index.core"):
            raise
        from langswarm_session.errors import MissingDependencyError

        raise MissingDependencyError(
            'llama-index-core is missing: pip install "langswarm-session[llama-index]"'
        ) from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

"""What the tests of LlamaIndex's doors share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from langswarm_session import SessionManager

if TYPE_CHECKING:
    from llama_index.core.base.llms.types import ChatMessage
    from llama_index_langswarm import AsyncSessionChatStore, SessionChatStore

if find_spec("llama_index") is None:
    collect_ignore_glob = ["test_*.py"]  # each door is tested where its framework is


@pytest.fixture(autouse=True)
def tokenizer() -> Iterator[None]:
    """Words are tokens: LlamaIndex's own tokenizer would be fetched from the network."""
    import llama_index.core
    from llama_index.core.utils import set_global_tokenizer

    before = llama_index.core.global_tokenizer
    set_global_tokenizer(str.split)
    yield
    llama_index.core.global_tokenizer = before


@pytest.fixture
def store(manager: SessionManager) -> SessionChatStore:
    from llama_index_langswarm import SessionChatStore

    return SessionChatStore(manager)


@pytest.fixture
def database(manager: SessionManager) -> AsyncSessionChatStore:
    from llama_index_langswarm import AsyncSessionChatStore

    return AsyncSessionChatStore(manager=manager)


@pytest.fixture
def chats() -> Callable[[str], list[ChatMessage]]:
    """Messages with these letters, of the user and the assistant in turn."""
    from llama_index.core.base.llms.types import ChatMessage

    def chats(letters: str) -> list[ChatMessage]:
        return [
            ChatMessage(letter, role="assistant" if n % 2 else "user")
            for n, letter in enumerate(letters)
        ]

    return chats

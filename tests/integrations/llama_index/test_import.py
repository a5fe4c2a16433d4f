"""Importing the door, with and without LlamaIndex."""

from __future__ import annotations

import llama_index_langswarm
from door_imports import DoorImportTests


class TestImport(DoorImportTests):
    door = llama_index_langswarm
    names = needs = [
        "AsyncSessionChatStore",
        "SessionChatStore",
        "from_llama_index",
        "from_llama_index_messages",
        "to_llama_index",
        "to_llama_index_messages",
    ]
    framework = "llama_index"
    extra = "llama-index"
    inner = ("llama_index.core.storage.chat_store", "AsyncSessionChatStore")

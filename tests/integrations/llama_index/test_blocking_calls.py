"""No door to LlamaIndex blocks an event loop, nor fails where that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import watching
from llama_index.core.llms import ChatMessage
from llama_index_langswarm import AsyncSessionChatStore, SessionChatStore

from langswarm_session import create_session_manager

SAID = [ChatMessage(role="user", content="hello"), ChatMessage(role="assistant", content="hi")]


@pytest.mark.parametrize("watch", ["langgraph dev", "all"])
def test_the_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: watching.Watch) -> None:
    manager = create_session_manager("sqlite", {"db_path": str(tmp_path / "sessions.db")})
    store, sync_store = AsyncSessionChatStore(manager=manager), SessionChatStore(manager=manager)

    async def work() -> None:
        for count in (2, 4):
            await store.add_messages("s", SAID)
            assert await store.count_messages("s") == count
        await store.add_message("s", SAID[0])
        assert len(await store.get_messages("s", limit=2)) == 2
        assert len(await store.archive_oldest_messages("s", 1)) == 1
        await store.delete_message("s", 0)
        await store.set_messages("s", SAID)
        assert await store.get_keys() == ["s"]
        await store.delete_messages("s")

    with watching.watched(monkeypatch, watch):
        watching.run(work, "async")
        sync_store.set_messages("t", SAID)
        sync_store.add_message("t", SAID[0])
        assert len(sync_store.get_messages("t")) == 3
        sync_store.delete_last_message("t")
        assert "t" in sync_store.get_keys()
        watching.run(manager.close, "sync")

"""The door to the Agents SDK blocks no event loop, nor fails where that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import watching
from openai_agents_langswarm import AgentSession

from langswarm_session import create_session_manager


@pytest.mark.parametrize("watch", ["langgraph dev", "all"])
def test_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: watching.Watch
) -> None:
    manager = create_session_manager("sqlite", {"db_path": str(tmp_path / "sessions.db")})

    async def work() -> None:
        session = AgentSession("s", manager)
        for count in (1, 2, 3):
            await session.add_items([{"role": "user", "content": f"{count}"}])
            assert len(await session.get_items()) == count
        assert len(await session.get_items(2)) == 2
        assert (await session.pop_item() or {})["content"] == "3"
        await session.clear_session()
        await manager.close()

    with watching.watched(monkeypatch, watch):
        watching.run(work, "async")

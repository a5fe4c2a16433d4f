"""No door to LangChain blocks an event loop, nor fails where that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import watching
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_langswarm import RunnableWithSession, SessionChatMessageHistory

from langswarm_session import create_session_manager

CONFIG: Any = {"configurable": {"session_id": "s"}}


@pytest.fixture
def db(tmp_path: Path) -> dict[str, str]:
    return {"db_path": str(tmp_path / "sessions.db")}


each_watch = pytest.mark.parametrize("watch", ["langgraph dev", "all"])


def model() -> FakeListChatModel:
    return FakeListChatModel(responses=["one", "two", "three", "four"])


@each_watch
def test_an_agent(
    db: dict[str, str], monkeypatch: pytest.MonkeyPatch, watch: watching.Watch
) -> None:
    agents = pytest.importorskip("langchain.agents")
    from langchain_langswarm import SessionMiddleware

    manager = create_session_manager("sqlite", db)
    agent = agents.create_agent(model(), middleware=[SessionMiddleware(manager)])
    said: Any = {"messages": [("user", "hello")]}

    async def work() -> None:
        for count in (2, 4):
            result = await agent.ainvoke(said, CONFIG)
            assert len(result["messages"]) == count
        async for _ in agent.astream(said, CONFIG):
            pass

    with watching.watched(monkeypatch, watch):
        watching.run(work, "async")
        assert len(agent.invoke(said, CONFIG)["messages"]) == 8
        watching.run(manager.close, "sync")


@each_watch
def test_a_chain(
    db: dict[str, str], monkeypatch: pytest.MonkeyPatch, watch: watching.Watch
) -> None:
    manager = create_session_manager("sqlite", db)
    chain = RunnableWithSession(model(), manager)

    async def work() -> None:
        assert (await chain.ainvoke("hello", CONFIG)).content == "one"
        async for _ in chain.astream("hello", CONFIG):
            pass

    with watching.watched(monkeypatch, watch):
        watching.run(work, "async")
        assert chain.invoke("hello", CONFIG).content == "three"
        assert list(chain.stream("hello", CONFIG))
        watching.run(manager.close, "sync")


@each_watch
@pytest.mark.parametrize("caller", ["async", "sync"])
def test_a_history(
    db: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    watch: watching.Watch,
    caller: Literal["async", "sync"],
) -> None:
    manager = create_session_manager("sqlite", db)
    history = SessionChatMessageHistory("s", manager)

    async def work() -> None:
        for _ in range(3):
            await history.aadd_messages([model().invoke("hello")])
        assert len(await history.aget_messages()) == 3
        await history.aclear()

    with watching.watched(monkeypatch, watch):
        if caller == "async":
            watching.run(work, "async")
        else:
            for count in range(1, 4):
                history.add_user_message("hello")
                assert len(history.messages) == count
            history.clear()
        watching.run(manager.close, "sync")

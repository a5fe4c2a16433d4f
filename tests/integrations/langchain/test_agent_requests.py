"""What an agent or a chain is handed begins with what it was handed before."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_langswarm import RunnableWithSession, SessionChatMessageHistory, SessionMiddleware
from langgraph.checkpoint.memory import InMemorySaver

from langswarm_session import SessionManager

sys.path.insert(0, str(Path(__file__).parent))
from test_agent_middleware import Caller, look

LIMIT = 24
TURNS = 60

Handed = list[tuple[str, str]]


def beginnings(requests: list[Handed]) -> int:
    """How often a request does not begin with the one before."""
    return sum(request[: len(before)] != before for before, request in pairwise(requests))


async def limited(manager: SessionManager) -> None:
    session = await manager.get_or_create_session("chat", "ann", provider="langchain")
    await session.update_context(max_messages=LIMIT)


@pytest.mark.parametrize("has_thread", [False, True])
async def test_an_agent(manager: SessionManager, config: RunnableConfig, has_thread: bool) -> None:
    await limited(manager)
    saver = InMemorySaver() if has_thread else None
    config["configurable"]["thread_id"] = "thread"
    model = Caller()
    for number in range(TURNS):
        # As another process would: an agent of its own.
        agent: Any = create_agent(
            model, [look], middleware=[SessionMiddleware(manager)], checkpointer=saver
        )
        await agent.ainvoke({"messages": [("human", f"at {number}")]}, config)
    assert len(model.texts) == 2 * TURNS
    if has_thread:  # what the thread has is the agent's own state, and is not cut
        assert beginnings(model.texts) == 0
        return
    assert all(request[0][0] == "human" for request in model.texts)
    assert max(map(len, model.texts)) <= LIMIT + 2  # the call and its result come on top
    # Each turn adds four messages, so a new beginning of half a window lasts for about three.
    assert 0 < beginnings(model.texts) <= TURNS / 2
    session = await manager.get_session("chat")
    assert session.context.request_state["start"] > session.last_seq - LIMIT


async def test_a_chain(manager: SessionManager, config: RunnableConfig) -> None:
    await limited(manager)
    seen: list[Handed] = []

    def answer(messages: list[BaseMessage]) -> str:
        seen.append([(each.type, str(each.text)) for each in messages])
        return f"answer {len(seen)}"

    for number in range(TURNS):
        chain = RunnableWithSession(RunnableLambda(answer), manager)
        await chain.ainvoke(f"question {number}", config)
    assert max(map(len, seen)) <= LIMIT
    assert 0 < beginnings(seen) <= 2 * TURNS / (LIMIT / 2)


async def test_a_history(manager: SessionManager) -> None:
    await limited(manager)
    read: list[Handed] = []
    for number in range(TURNS):
        history = SessionChatMessageHistory("chat", manager, user_id="ann")
        await history.aadd_messages([*map(_human, (f"a {number}", f"b {number}"))])
        read.append([(each.type, str(each.text)) for each in await history.aget_messages()])
    assert beginnings(read) == 0


def _human(text: str) -> BaseMessage:
    from langchain_core.messages import HumanMessage

    return HumanMessage(text)

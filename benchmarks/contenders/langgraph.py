"""LangGraph: a graph of one node over MessagesState, checkpointed in SQLite or PostgreSQL."""

# ruff: noqa: D102 (the base class describes the methods)

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, MessagesState, StateGraph

from benchmarks.contenders.base import Store
from benchmarks.contenders.langchain_messages import to_messages
from benchmarks.load import Turn, answer_to
from benchmarks.places import is_postgres

if TYPE_CHECKING:
    from collections.abc import Sequence


def _reply(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(answer_to(str(state["messages"][-1].content)))]}


def _saver(place: str) -> Any:
    """A context manager that opens the checkpointer."""
    if is_postgres(place):
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

        return AsyncPostgresSaver.from_conn_string(place)
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    return AsyncSqliteSaver.from_conn_string(place)


def _config(session: str) -> Any:
    return {"configurable": {"thread_id": session}}


class GraphStore(Store):
    """A turn is one `ainvoke`: what a user of the checkpointer has for memory."""

    def __init__(self, saver: Any, stack: AsyncExitStack) -> None:
        self._stack = stack
        builder = StateGraph(MessagesState)
        builder.add_node("reply", _reply)
        builder.add_edge(START, "reply")
        self._graph: Any = builder.compile(checkpointer=saver)

    @classmethod
    async def open(cls, place: str) -> Self:
        stack = AsyncExitStack()
        saver = await stack.enter_async_context(_saver(place))
        await saver.setup()
        return cls(saver, stack)

    async def begin(self, session: str) -> None:
        pass

    async def append_turn(self, session: str, turn: Turn) -> None:
        await self._graph.ainvoke({"messages": [HumanMessage(turn.user)]}, _config(session))

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        update = {"messages": to_messages(turns)}
        await self._graph.aupdate_state(_config(session), update, as_node="reply")

    async def read_all(self, session: str) -> list[Any]:
        state = await self._graph.aget_state(_config(session))
        return list(state.values.get("messages", ()))

    @staticmethod
    def text(message: Any) -> str:
        return str(message.content)

    async def close(self) -> None:
        await self._stack.aclose()

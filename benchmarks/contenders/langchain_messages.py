"""The turns as LangChain has them; shared by its history, its graph and our door."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.load import Turn


def to_messages(turns: Sequence[Turn]) -> list[BaseMessage]:
    """A human and an AI message for each turn."""
    return [
        message
        for turn in turns
        for message in (HumanMessage(turn.user), AIMessage(turn.assistant))
    ]

"""Where the system messages of a request go: where the chat model takes them. Pure: no I/O.

langchain-anthropic raises "Received multiple non-consecutive system messages" unless the model's
profile has ``mid_conversation_system_messages`` (`_format_messages` in
langchain_anthropic.chat_models); langchain-google-genai drops those behind others where none is
first (`_parse_chat_history` in langchain_google_genai.chat_models); the templates of many models
that compatible servers run take one, at the start (vllm-project/vllm#41114). So where a model's
profile does not say that it takes them in place, they are joined to one that goes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import Runnable

from langswarm_session.doors import OPENING
from langswarm_session.requests.normalize import Repair, RepairKind

_INNER = ("bound", "runnable", "fallbacks", "first", "middle", "last")
"""The attributes under which LangChain's runnables have those that they are made of."""


def chat_models_of(runnable: Any) -> list[BaseChatModel]:
    """Return the chat models that a chain is known to ask."""
    return list(_models(runnable))


def _models(runnable: Any) -> Iterator[BaseChatModel]:
    if isinstance(runnable, BaseChatModel):
        yield runnable
    elif isinstance(runnable, list | tuple):
        for each in runnable:
            yield from _models(each)
    elif isinstance(runnable, Runnable):
        for name in _INNER:
            yield from _models(getattr(runnable, name, None))


def arranged(
    messages: list[BaseMessage], models: Sequence[BaseChatModel]
) -> tuple[list[BaseMessage], list[Repair]]:
    """Return messages with those of the system where all of some models take them.

    Args:
        messages: A request, oldest first.
        models: Who may be sent it; empty where that is not known.

    Returns:
        The messages, and what was moved.
    """
    places = [place for place, each in enumerate(messages) if isinstance(each, SystemMessage)]
    if not places or (len(places) == 1 and places[0] == 0):
        return messages, []
    if not models or not all(map(_takes_in_place, models)):
        return _first(messages, places)
    if any(map(_is_claude, models)):  # there they must follow a user's and precede an answer
        return _behind_users(messages)
    return messages, []


def opened(
    messages: list[BaseMessage], models: Sequence[BaseChatModel]
) -> tuple[list[BaseMessage], list[Repair]]:
    """Return messages that a user begins, where one of some models must have it so.

    Claude refuses a request that begins with an answer ("first message must use the user role"), as
    one of a chatbot that greets first does (lobehub/lobehub#1601).
    """
    at = next((n for n, each in enumerate(messages) if not isinstance(each, SystemMessage)), None)
    if at is None or not isinstance(messages[at], AIMessage):
        return messages, []
    if not any(map(_is_claude, models)):
        return messages, []
    repair = Repair(kind=RepairKind.USER_ADDED, detail="at the beginning")
    return [*messages[:at], HumanMessage(OPENING), *messages[at:]], [repair]


def takes_in_place(models: Sequence[BaseChatModel]) -> bool:
    """Return whether all of some models say that they take system messages where they are."""
    return bool(models) and all(map(_takes_in_place, models))


def joined(messages: Sequence[SystemMessage]) -> SystemMessage:
    """Return several system messages as one, with the fields of the first."""
    contents = [message.content for message in messages if message.content]
    if all(isinstance(content, str) for content in contents):
        return messages[0].model_copy(update={"content": "\n\n".join(map(str, contents))})
    blocks: list[str | dict[str, Any]] = []
    for content in contents:
        blocks += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return messages[0].model_copy(update={"content": blocks})


def _takes_in_place(model: BaseChatModel) -> bool:
    profile = getattr(model, "profile", None)
    return isinstance(profile, dict) and profile.get("mid_conversation_system_messages") is True


def _is_claude(model: BaseChatModel) -> bool:
    return "anthropic" in str(getattr(model, "_llm_type", ""))


def _first(
    messages: list[BaseMessage], places: Sequence[int]
) -> tuple[list[BaseMessage], list[Repair]]:
    """Join all system messages to one at the start."""
    system = [each for each in messages if isinstance(each, SystemMessage)]
    others = [each for each in messages if not isinstance(each, SystemMessage)]
    first = system[0] if len(system) == 1 else joined(system)
    is_moved = (place != at for at, place in enumerate(places))
    repairs = [
        _moved(each, "to the start") for each, moved in zip(system, is_moved, strict=True) if moved
    ]
    return [first, *others], repairs


def _behind_users(messages: list[BaseMessage]) -> tuple[list[BaseMessage], list[Repair]]:
    """Put each system message behind the next that a user or a tool says; the first ones stay.

    Those that nobody's message follows go to the start, unless a user's is before them.
    """
    made: list[BaseMessage] = []
    waiting: list[BaseMessage] = []
    moved: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, SystemMessage) and not _is_first(made):
            waiting.append(message)
            continue
        if isinstance(message, HumanMessage | ToolMessage):
            moved += [each for each in waiting if each not in moved]
        elif waiting and isinstance(made[-1], HumanMessage | ToolMessage):
            made += waiting
            waiting = []
        made.append(message)
    repairs = [_moved(message, "behind the user's") for message in moved]
    if waiting and not isinstance(made[-1], HumanMessage | ToolMessage):
        at = next((place for place in range(len(made)) if not _is_first(made[: place + 1])), 0)
        repairs += [_moved(message, "to the start") for message in waiting]
        return [*made[:at], *waiting, *made[at:]], repairs
    return [*made, *waiting], repairs


def _is_first(messages: Sequence[BaseMessage]) -> bool:
    """Return whether there are only system messages."""
    return all(isinstance(message, SystemMessage) for message in messages)


def _moved(message: BaseMessage, where: str) -> Repair:
    return Repair(
        kind=RepairKind.REORDERED, message_id=message.id, detail=f"a system message goes {where}"
    )

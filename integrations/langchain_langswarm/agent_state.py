"""The messages in an agent's state beside those of the record. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, TypeVar
from uuid import NAMESPACE_OID, uuid5

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)
from pydantic_core import to_json

from langchain_langswarm.messages import from_langchain_messages, to_langchain_messages
from langchain_langswarm.plain import FORMAT, encode
from langswarm_session.doors import answered_by, dump_json, storable
from langswarm_session.errors import InvalidInputError
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.requests.normalize import Repair, Target, normalize

_SUMMARY = "Here is a summary of the conversation to date:\n\n"
"""What a summary begins with, of a LangChain that does not say so otherwise."""

_CALLS = ("tool_calls", "invalid_tool_calls")

M = TypeVar("M", bound=BaseMessage)


def renamed(message: M, message_id: str | None) -> M:
    """Return the message, as a copy with another id."""
    return message.model_copy(update={"id": message_id})


def from_record(messages: Iterable[SessionMessage]) -> list[BaseMessage]:
    """Return the record's messages for a state, each with the record's id, which no other has.

    To those that came without an id the state would give one, and they would be taken for new. And
    two answers may have come with the same one.
    """
    return [
        made if place or made.id == message.id else renamed(made, message.id)
        for message in messages
        for place, made in enumerate(to_langchain_messages([message]))
    ]


def merged(
    old: Sequence[BaseMessage], new: Sequence[BaseMessage], history: Sequence[BaseMessage]
) -> list[BaseMessage]:
    """Return a state with what only the record has, in the record's order, each message once.

    What a summary in the state stands for stays out of it.

    Args:
        old: The state up to the last message that the record knows.
        new: The rest of it.
        history: The record's window.
    """
    places = {message.id: place for place, message in enumerate(history)}
    # The state has the input as it came, the record as the middleware left it.
    own = {message.id: message for message in old if not isinstance(message, HumanMessage)}
    known = [own.get(message.id, message) for message in history]
    first = 0
    if any(map(is_summary, (*old, *new))):
        kept = (places[message.id] for message in old if message.id in places)
        first = min(kept, default=len(history))
    made: list[BaseMessage] = []
    for message in old:
        place = places.get(message.id)
        if place is None:
            made.append(message)
        elif place >= first:  # else it is there already: the state has another order
            made += known[first : place + 1]
            first = place + 1
    return [*made, *known[first:], *new]


def with_turn(
    messages: Sequence[BaseMessage], turn: Sequence[BaseMessage], gone: Collection[str | None]
) -> list[BaseMessage]:
    """Messages with those of a turn at their end, as the record has them.

    Args:
        messages: Those of a state or a request.
        turn: The turn's.
        gone: The ids of those that stand for one of the turn's, or that the record has no more.
    """
    own = {message.id: message for message in messages if not isinstance(message, HumanMessage)}
    left_out = {*gone, *(message.id for message in turn)}
    rest = [message for message in messages if message.id not in left_out]
    return [*rest, *(own.get(message.id, message) for message in turn)]


def with_ids(
    state: Sequence[M],
    scope: str,
    *,
    newest: int = 0,
    known: Collection[str | None] = (),
    is_replay: bool = False,
) -> list[M]:
    """Return the messages of a state, those without an id as copies that have one.

    The reducer of a DeltaChannel leaves messages without an id as they are (`ensure_message_ids` in
    langgraph.pregel._messages, and deepagents' own reducer). The ids are made of the place and the
    content, so that a checkpoint that is replayed gives the same ones.

    Args:
        state: The messages.
        scope: What tells the thread, or a run that keeps none, from others.
        newest: How many of those without an id, from the end, came with a call: in a thread whose
            messages were removed, a user may say the same in the same place again.
        known: The ids that the record has.
        is_replay: Whether the call was made before: a checkpoint is gone back to.
    """
    made = list(state)
    unnamed = [place for place, message in enumerate(state) if not message.id]
    called = unnamed[len(unnamed) - newest :]
    for place in unnamed:
        message = state[place]
        parts = [scope, place, message.type, message.content]
        number = 0
        if place in called:
            while _made_id(parts, number) in known:
                number += 1
            if is_replay and number:
                number -= 1
        made[place] = renamed(message, _made_id(parts, number))
    return made


def _made_id(parts: list[Any], number: int) -> str:
    return uuid5(NAMESPACE_OID, to_json([*parts, number], fallback=repr).decode()).hex


def count_unnamed(messages: Sequence[BaseMessage]) -> int:
    """Return how many messages without an id there are at the end."""
    return sum(1 for _ in takewhile(lambda message: not message.id, reversed(messages)))


def called_with(value: Any) -> list[BaseMessage]:
    """Return the messages in what an agent was called with."""
    if not isinstance(value, Mapping) or "messages" not in value:
        return []
    messages = value["messages"]
    return convert_to_messages(messages if isinstance(messages, list) else [messages])


def given_of(state: Sequence[BaseMessage], called: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return what of the state an agent was called with.

    Args:
        state: The state, as the run begins; each message has an id.
        called: The messages of the call.
    """
    ids: set[str | None] = {message.id for message in called if message.id}
    others = [message for message in state if message.id not in ids]
    unnamed = [message for message in called if not message.id]
    # Those that came without an id were put behind all others, with one. A middleware that runs
    # earlier may have added messages behind them, or changed them.
    came = _alike_at_end(others, unnamed) or others[len(others) - len(unnamed) :]
    ids.update(message.id for message in came)
    return [message for message in state if message.id in ids]


def _alike_at_end(
    state: Sequence[BaseMessage], called: Sequence[BaseMessage]
) -> list[BaseMessage] | None:
    """Return the last messages that say what others do, in their order.

    Returns:
        The messages; None if there are none, or if more than instructions and a user's messages
        follow them, as these are older ones.
    """
    found: list[BaseMessage] = []
    rest = list(state)
    for message in reversed(called):
        while rest and (rest[-1].type, rest[-1].content) != (message.type, message.content):
            passed = rest.pop()
            if not found and not isinstance(passed, HumanMessage | SystemMessage):
                return None
        if not rest:
            return None
        found.append(rest.pop())
    return found[::-1]


def said(given: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return what a user says in what an agent was called with: the user's messages at its end."""
    last = takewhile(lambda message: isinstance(message, HumanMessage), reversed(given))
    return list(last)[::-1]


def answers_of_others(
    window: Sequence[SessionMessage], asked: Collection[str | None], answerer: str
) -> set[str]:
    """Return the ids of what others answered to what one is asked.

    Args:
        window: What of the record is known.
        asked: The ids of what is asked.
        answerer: Who is asked.
    """
    seqs = [message.seq or 0 for message in window if message.id in asked]
    if not seqs:
        return set()
    turns: dict[int | None, list[SessionMessage]] = {}
    for message in window:
        if (message.seq or 0) > max(seqs) and message.id not in asked:
            turns.setdefault(message.turn_id, []).append(message)
    return {
        message.id
        for turn in turns.values()
        if any(each.role is MessageRole.ASSISTANT for each in turn)
        and answered_by(turn) != answerer
        for message in turn
    }


def up_to_question(
    window: Sequence[SessionMessage], asked: Sequence[BaseMessage]
) -> list[SessionMessage]:
    """Return the window up to a question that is asked again, without it if it has a new id.

    Args:
        window: What of the record is known.
        asked: The question.
    """
    ids = {message.id for message in asked}
    users = [message for message in window if message.role is MessageRole.USER]
    known = next((message for message in users if message.id in ids), None)
    question = known or (users[-1] if users else None)
    if question is None:
        return list(window)
    last = (question.seq or 0) - (known is None)
    return [message for message in window if (message.seq or 0) <= last]


def by_question(messages: Iterable[BaseMessage]) -> list[list[BaseMessage]]:
    """Messages in parts that begin with a user's."""
    parts: list[list[BaseMessage]] = []
    for message in messages:
        if not parts or isinstance(message, HumanMessage):
            parts.append([])
        parts[-1].append(message)
    return parts


def is_summary(message: BaseMessage) -> bool:
    """Return whether it is what LangChain's SummarizationMiddleware puts in place of others."""
    if not isinstance(message, HumanMessage):
        return False
    source = (message.additional_kwargs or {}).get("lc_source")  # which may have been assigned
    return source == "summarization" or (
        source is None and isinstance(message.content, str) and message.content.startswith(_SUMMARY)
    )


def count_old(state: Sequence[BaseMessage], known: Collection[str | None]) -> int:
    """Return how many messages there are up to the last one that the record knows."""
    return next(
        (place for place in range(len(state), 0, -1) if state[place - 1].id in known),
        0,
    )


def count_before(state: Sequence[BaseMessage], given: Sequence[BaseMessage], last: int) -> int:
    """Return how many messages there are before the first new one that an agent was called with.

    Args:
        state: The state.
        given: What of it the agent was called with; all behind ``last`` is new if that is nothing.
        last: How many there are up to the last one that the record knows.
    """
    if not given:
        return last
    ids = {message.id for message in given}
    new = (place for place in range(last, len(state)) if state[place].id in ids)
    return next(new, len(state))


def unstorable_artifact(message: BaseMessage) -> InvalidInputError | None:
    """Why a tool's result cannot be stored with its artifact, if it cannot."""
    if not isinstance(message, ToolMessage):
        return None
    try:
        with storable("the artifact"):
            dump_json(encode(message.artifact))
    except InvalidInputError as error:
        return error
    return None


def without_artifact(message: M) -> M:
    """Return the message, a tool's result as a copy without its artifact."""
    if not isinstance(message, ToolMessage):
        return message
    return message.model_copy(update={"artifact": None})


def _is_paired(messages: Sequence[BaseMessage]) -> bool:
    """Return whether each call's result follows it, and there is no other result."""
    waiting: set[str | None] = set()
    for message in messages:
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in waiting:
                return False
            waiting.discard(message.tool_call_id)
        elif waiting:
            return False
        elif isinstance(message, AIMessage):
            calls = (*(message.tool_calls or ()), *(message.invalid_tool_calls or ()))
            waiting = {call.get("id") for call in calls}
    return not waiting


def with_paired_calls(messages: list[BaseMessage]) -> tuple[list[BaseMessage], list[Repair]]:
    """Return a request in which every call is answered, and what had to be changed for that."""
    if _is_paired(messages):
        return messages, []
    converted = from_langchain_messages(map(without_artifact, messages))
    own = {id(made): message for made, message in zip(converted, messages, strict=True)}
    sent, repairs = normalize(converted, Target())
    return [
        message
        for each in sent
        for message in ([own[id(each)]] if id(each) in own else _repaired(each))
    ], repairs


def _repaired(message: SessionMessage) -> list[BaseMessage]:
    """Return a message that was changed for a request, with its calls as they are now."""
    native = dict(message.native or {})
    if FORMAT in native:
        kept = native[FORMAT]
        native[FORMAT] = {name: value for name, value in kept.items() if name not in _CALLS}
    return to_langchain_messages([message.replaced(native=native or None)])

"""Where in what a chain takes and gives its messages are, and in which shape.

A chain takes and gives a string, a message, a list of messages, or a dict with one of those. Pure:
nothing here knows of sessions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    convert_to_messages,
)
from langchain_core.prompt_values import PromptValue
from pydantic_core import to_json

from langchain_langswarm.graph_streams import graph_parts, messages_in, updated
from langswarm_session.errors import InvalidInputError

_PARSED = "what parses an answer goes behind: RunnableWithSession(chain, ...) | parser"


class ChainShape:
    """How a chain takes its messages and gives its answer.

    Args:
        input_key: In a dict input, where the new messages are.
        history_key: In a dict input, where the chain expects the messages before.
        output_key: In a dict output, where the answer is.
    """

    def __init__(
        self, input_key: str | None, history_key: str | None, output_key: str | None
    ) -> None:
        self.input_key = input_key
        self.history_key = history_key
        self.output_key = output_key

    def input_part(self, value: Any) -> Any:
        """Return the part of an input that has the new messages."""
        return value[self._key_of_input(value)] if isinstance(value, dict) else value

    def with_history(
        self, value: Any, part: Any, history: list[BaseMessage], passed: list[BaseMessage]
    ) -> Any:
        """Return what the chain is given.

        Args:
            value: The caller's input.
            part: The new messages, in the shape in which they came.
            history: The messages before.
            passed: Both together.
        """
        inner = dict(value) if isinstance(value, dict) else {}
        if self.history_key is not None:
            inner[self._key_of_input(value)] = part
            inner[self.history_key] = history
            return inner
        if self.input_key is not None:
            inner[self.input_key] = passed
            return inner
        return passed

    def answer(self, output: Any, passed: Sequence[BaseMessage]) -> list[BaseMessage]:
        """Return the messages that a chain added: an agent gives those it was passed as well."""
        part = self._output_part(output)
        if isinstance(part, str):
            return [AIMessage(content=part)]
        if not isinstance(part, list | tuple):
            return _new(_said(part), passed, in_order=False)
        if not all(isinstance(message, BaseMessage) for message in part):
            raise InvalidInputError(
                "the chain's answer is a list, and not of messages; say where they are with "
                "output_messages_key"
            )
        return _new(part, passed)

    def with_answer(
        self, output: Any, answer: Sequence[BaseMessage], changed: list[BaseMessage]
    ) -> Any:
        """Return the output with other messages in place of its answer."""
        part = self._output_part(output)
        if isinstance(part, list | tuple):
            own = {id(message) for message in answer}
            changed = [*(message for message in part if id(message) not in own), *changed]
        return self._with_part(output, shaped(part, changed))

    def whole(self, chunks: Sequence[Any], passed: Sequence[BaseMessage]) -> Any:
        """Return what the pieces of a stream add up to."""
        parts = graph_parts(chunks)
        if parts:
            return self._of_graph(messages_in(parts, self.output_key or "messages"), passed)
        key = self.output_key
        if key is not None and not any(
            isinstance(chunk, dict) and key in chunk for chunk in chunks
        ):
            # A graph streams what each of its nodes added, unless it is asked for the whole values.
            updates = list(updated(chunks, key))
            if updates:
                return self._of_graph(updates, passed)
        return joined(chunks)

    def _of_graph(
        self, updates: Sequence[Sequence[BaseMessage]], passed: Sequence[BaseMessage]
    ) -> dict[str, Any]:
        """Return what a graph added to its state; under a known id it changed that message."""
        ids = _ids(passed)
        added: dict[Any, BaseMessage] = {}
        for update in updates:
            for message in _new(update, passed):
                if message.id is None or message.id not in ids:
                    added[message.id or id(message)] = message
        if not added and not any(updates):
            raise InvalidInputError(
                "there is no message in what the graph streamed; stream it with one of the "
                "stream modes 'messages', 'updates' and 'values'"
            )
        return {self.output_key or "messages": list(added.values())}

    def describe(self, output: Any) -> dict[str, Any]:
        """How the chain gave its answer, for a repeated call."""
        key = None
        if isinstance(output, dict):
            key = _key(output, self.output_key, "output")
            output = output[key]
        kind = "message" if isinstance(output, BaseMessage) else "list"
        return {"key": key, "kind": "text" if isinstance(output, str) else kind}

    def _key_of_input(self, value: Any) -> str:
        """Where in a dict input the new messages are."""
        if isinstance(value, dict):
            return _key(value, self.input_key, "input")
        return self.input_key or "input"

    def _output_part(self, output: Any) -> Any:
        """Return the part of the output that has the answer."""
        if isinstance(output, dict):
            return output[_key(output, self.output_key, "output")]
        return output

    def _with_part(self, output: Any, part: Any) -> Any:
        """Return the output with another answer in it."""
        if isinstance(output, dict):
            return {**output, _key(output, self.output_key, "output"): part}
        return part


def _new(
    answer: Sequence[BaseMessage], passed: Sequence[BaseMessage], *, in_order: bool = True
) -> list[BaseMessage]:
    """Those of a chain's messages that it was not passed.

    Args:
        answer: The messages.
        passed: What the chain was passed.
        in_order: Whether all up to the last that it was passed are older than that one.
    """
    objects = {id(message) for message in passed}
    old = _count_old(answer, passed) if in_order else 0
    return [
        message
        for message in answer[old:]
        if id(message) not in objects and not isinstance(message, RemoveMessage)
    ]


def _ids(messages: Sequence[BaseMessage]) -> set[str]:
    return {message.id for message in messages if message.id is not None}


def _count_old(answer: Sequence[BaseMessage], passed: Sequence[BaseMessage]) -> int:
    """Return how many of a chain's messages go up to the last that it was passed.

    Those are an agent's state; a graph that keeps a thread has more in it than it was passed.
    Behind them an id may be that of another answer.
    """
    last = passed[-1]
    return max(
        (
            place
            for place, message in enumerate(answer, 1)
            if message is last or (last.id is not None and message.id == last.id)
        ),
        default=0,
    )


def as_described(described: Mapping[str, Any], answer: list[BaseMessage]) -> Any:
    """Return an answer in the shape that `ChainShape.describe` found."""
    made: Any = answer
    if described["kind"] != "list":
        made = shaped("" if described["kind"] == "text" else answer[-1], answer)
    return made if described["key"] is None else {described["key"]: made}


def shaped(part: Any, messages: list[BaseMessage]) -> Any:
    """Messages in the shape that others had: a string, a message or a list."""
    if isinstance(part, str):
        return str(messages[-1].text)
    return messages[-1] if isinstance(part, BaseMessage) else messages


def _key(value: dict[str, Any], named: str | None, usual: str) -> str:
    """Return the key of the messages: the one named, or the only one, or the usual one.

    Raises:
        InvalidInputError: If the dict has no such key.
    """
    key = named or (next(iter(value)) if len(value) == 1 else usual)
    if key not in value:
        raise InvalidInputError(
            f"there is no {key!r} among {sorted(map(str, value))}; say where the messages are with "
            f"input_messages_key and output_messages_key; {_PARSED}"
        )
    return key


def _said(answer: Any) -> list[BaseMessage]:
    try:
        return messages_of(answer)
    except InvalidInputError as error:
        raise InvalidInputError(f"the chain's answer: {error}; {_PARSED}") from error


def text_of(output: Any) -> str:
    """Return what a chain gave as a text: a message's own, JSON of all else."""
    if isinstance(output, str):
        return output
    if isinstance(output, BaseMessage):
        return str(output.text)
    return to_json(output, fallback=repr).decode()


def messages_of(value: Any) -> list[BaseMessage]:
    """Return what a chain takes or gives, as messages.

    Raises:
        InvalidInputError: If it is none of what `RunnableWithSession` takes.
    """
    if isinstance(value, str):
        return [HumanMessage(content=value)]
    if isinstance(value, BaseMessage):
        return [value]
    if isinstance(value, PromptValue):
        return value.to_messages()
    if isinstance(value, list | tuple):
        try:
            return convert_to_messages(value)
        except (ValueError, NotImplementedError) as error:
            raise InvalidInputError(f"these are not messages: {error}") from error
    raise InvalidInputError(
        f"expected a string, a message or a list of messages, not {type(value).__name__}"
    )


def joined(chunks: Sequence[Any]) -> Any:
    """Return the pieces of a stream, added up as LangChain does."""
    if not chunks:
        return []
    whole = chunks[0]
    for chunk in chunks[1:]:
        try:
            whole = whole + chunk
        except TypeError:
            whole = chunk
    return whole

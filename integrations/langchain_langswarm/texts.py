"""Messages that are nothing but a text, converted in a fraction of the time.

A log is mostly such messages. What comes out is what the ways for all messages would give.
"""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from langchain_langswarm.plain import FORMAT
from langswarm_session.doors import text_message, unchecked
from langswarm_session.models import MessageRole, SessionMessage

_NO_ID = {"id": None}
"""What is kept of a message that has no id: a session's message has one."""


class _Text:
    """A class's messages of one text.

    Args:
        role: Who speaks.
        kind: The class.
    """

    def __init__(self, role: MessageRole, kind: type[BaseMessage]) -> None:
        made = kind(type=kind(content="").type, content="", id=None)
        self.role = role
        self._kind = kind
        self._fields = made.__dict__
        self._given = made.__pydantic_fields_set__
        self._takes_more = made.__pydantic_extra__ is not None
        self._own = [
            (name, type(v)) for name, v in made.__dict__.items() if type(v) in (list, dict)
        ]

    def is_all(self, message: BaseMessage) -> bool:
        """Return whether a message of the class holds nothing but a text."""
        fields = message.__dict__
        return (
            type(fields["content"]) is str
            and {**fields, "content": "", "id": None} == self._fields
            and not message.__pydantic_extra__
        )

    def make(self, text: str, message_id: str | None) -> BaseMessage:
        """Return the message that the class itself would make."""
        fields = self._fields.copy()
        for name, new in self._own:
            fields[name] = new()
        fields["content"] = text
        fields["id"] = message_id
        return unchecked(self._kind, fields, self._given.copy(), {} if self._takes_more else None)


_BY_ROLE = {
    MessageRole.USER: _Text(MessageRole.USER, HumanMessage),
    MessageRole.ASSISTANT: _Text(MessageRole.ASSISTANT, AIMessage),
    MessageRole.SYSTEM: _Text(MessageRole.SYSTEM, SystemMessage),
}
_BY_CLASS: dict[type, _Text] = {text._kind: text for text in _BY_ROLE.values()}


def from_text(message: BaseMessage) -> SessionMessage | None:
    """Return a LangChain message as a session message, if it is nothing but a text."""
    text = _BY_CLASS.get(type(message))
    if text is None or not text.is_all(message):
        return None
    content: Any = message.content
    if message.id is None:
        return text_message(text.role, content, {FORMAT: dict(_NO_ID)})
    return SessionMessage(id=message.id, role=text.role, content=content) if message.id else None


def to_text(message: SessionMessage) -> BaseMessage | None:
    """Return a session message as a LangChain message, if it is nothing but a text there."""
    content = message.content
    text = _BY_ROLE.get(message.role)
    if text is None or not isinstance(content, str):
        return None
    if message.usage is not None or message.name is not None:
        return None
    kept = message.native.get(FORMAT) if message.native else None
    if kept is None:
        return text.make(content, message.id)
    return text.make(content, None) if kept == _NO_ID else None

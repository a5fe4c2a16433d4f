"""Who speaks when, as a provider must have it: user and assistant in turn, system messages."""

from __future__ import annotations

from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.requests.normalize.repairs import RepairKind, Report
from langswarm_session.requests.normalize.target import SystemPlacement, Target

OPENING = "(The beginning of the conversation is left out.)"
"""The user's message where a conversation must begin with one and does not."""

CONTINUE = "Continue."
"""The user's message where a conversation must end with one and does not."""

NOTED = "Noted."
"""The assistant's message where it must speak before the user does, and has said nothing."""

_ASSISTANT, _SYSTEM = MessageRole.ASSISTANT, MessageRole.SYSTEM
_TOOL, _USER = MessageRole.TOOL, MessageRole.USER


class Speakers:
    """Puts messages one after the other, with others between them where a provider needs some.

    Args:
        target: What the provider accepts.
        report: Told of what is added or moved, or will be joined.
        goes_on: Whether the messages go on from what the provider holds already.
    """

    def __init__(self, target: Target, report: Report, *, goes_on: bool) -> None:
        self._target = target
        self._report = report
        self._goes_on = goes_on
        self._sent: list[SessionMessage] = []
        self._last: SessionMessage | None = None
        self._system: list[tuple[SessionMessage, int]] = []

    def add(self, message: SessionMessage) -> None:
        """Add the next message."""
        if message.role is _SYSTEM:
            self._add_system(message)
            return
        if self._target.answers_results and self._is(_TOOL) and message.role is _USER:
            self._note("between a tool's result and a user")
        elif self._stands_behind_system() and message.role is not _ASSISTANT:
            self._note("between a system message and a user")
        if self._target.alternates:
            self._alternate(message)
        self._say(message)

    def hand_over(self) -> None:
        """Let the assistant speak: all is said that it is to answer."""
        target = self._target
        must_end = target.strict and (target.alternates or target.needs_user)
        says_nothing = self._last is None and (target.strict or not self._sent)
        if says_nothing or (must_end and self._is(_ASSISTANT)):
            self._say(self._user(CONTINUE, "at the end"))
        if target.system is SystemPlacement.AFTER_USER:
            for message, place in self._system:
                if place != len(self._sent):
                    self._report.add(RepairKind.SYSTEM_MOVED, message, "behind what users say")
            self._sent += [message for message, _ in self._system]
            self._system = []

    def said(self) -> list[SessionMessage]:
        """Return all messages."""
        if not self._system:
            return self._sent
        first = self._system[0][0]
        for number, (message, place) in enumerate(self._system):
            if number or place:
                self._report.add(RepairKind.SYSTEM_MOVED, message, "to the start")
        if len(self._system) > 1:
            text = "\n\n".join(message.text for message, _ in self._system if message.text)
            first = first.model_copy(update={"content": text})
        return [first, *self._sent]

    def _add_system(self, message: SessionMessage) -> None:
        place = self._target.system
        is_first = self._last is None and not self._goes_on
        if place is SystemPlacement.ANYWHERE or (
            place is SystemPlacement.AFTER_USER and is_first and not self._system
        ):
            self._sent.append(message)
        else:
            self._system.append((message, len(self._sent)))

    def _alternate(self, message: SessionMessage) -> None:
        """Add what must stand before a message where speakers alternate."""
        if message.role is _ASSISTANT:
            if self._last is None:
                text = CONTINUE if self._goes_on else OPENING
                self._say(self._user(text, "at the beginning"))
            elif self._is(_ASSISTANT):
                self._report.add(RepairKind.MERGED, message, "to the assistant's before it")
        elif message.role is _USER and self._is(_USER):
            self._report.add(RepairKind.MERGED, message, "to the user's before it")

    def _is(self, role: MessageRole) -> bool:
        """Return whether it is this role that spoke last."""
        return self._last is not None and self._last.role is role

    def _stands_behind_system(self) -> bool:
        """Return whether a system message comes last that only the assistant may follow.

        There was a reply, of which nothing can be sent.
        """
        return (
            self._target.system is SystemPlacement.AFTER_USER
            and self._last is not None
            and self._sent[-1].role is _SYSTEM
        )

    def _note(self, where: str) -> None:
        """Let the assistant say that it has read what came."""
        self._report.add(RepairKind.ASSISTANT_ADDED, None, where)
        self._say(SessionMessage(role=_ASSISTANT, content=NOTED))

    def _say(self, message: SessionMessage) -> None:
        self._sent.append(message)
        self._last = message

    def _user(self, text: str, where: str) -> SessionMessage:
        self._report.add(RepairKind.USER_ADDED, None, where)
        return SessionMessage(role=_USER, content=text)

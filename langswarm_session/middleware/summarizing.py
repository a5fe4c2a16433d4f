"""Summaries of long conversations, made as they grow."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from langswarm_session._sanitize import one_line
from langswarm_session._validation import check_limit
from langswarm_session.blocks import RefusalBlock
from langswarm_session.errors import (
    ContextLengthError,
    InvalidInputError,
    ProviderCapabilityError,
    ProviderSessionError,
)
from langswarm_session.formats.transcript import transcript
from langswarm_session.interfaces import IProviderSession, ISession, ISessionMiddleware
from langswarm_session.models import RESULT_ROLES, MessageRole, SessionBackend, SessionMessage
from langswarm_session.records import ProviderRequest
from langswarm_session.requests.budget import estimate
from langswarm_session.requests.state import RequestState
from langswarm_session.requests.window import BYTES_PER_TOKEN, calls_needed, shortened
from langswarm_session.session import BaseSession

logger = logging.getLogger(__name__)

PROMPT = (
    "Summarise the conversation below for the assistant that continues it: what was asked, "
    "decided, found out and promised, with names and figures, and what is still open. Write "
    "nothing else."
)
"""What a model is asked, unless it is given another prompt."""

AT_ONCE = 200
"""How many messages are summarised at once at most: a prompt has an end."""

LEAST = 100
"""To how many tokens a message is cut at most where it is too long to be summarised."""


class SummarizingMiddleware(ISessionMiddleware):
    """Lets a summary stand for the older part of a conversation in every request.

    The log keeps every message. When so many have come since the last summary, a new one is made of
    that summary and the messages after it, before the user's next message is sent. If that fails
    it is logged, and tried again with the message after. Where there is more than the model takes,
    fewer messages are summarised, and a single one is cut. A summary is cut where it is longer than
    what it stands for, and to a quarter of the context's ``max_input_tokens``.

    Args:
        after: How many messages make a new summary due.
        keep: How many of the newest are not summarised.
        provider: Who makes it: a provider's name, or a provider; the session's own when None.
        model: With which model; the session's own when None.
        prompt: What the model is asked.
        native: Whether the session's provider makes a compaction of its own in place of a summary,
            of all messages (see `BaseSession.compact`). A provider that makes none is an error.

    Raises:
        InvalidInputError: If ``after`` is not more than ``keep``.
    """

    def __init__(
        self,
        after: int = 60,
        keep: int = 20,
        *,
        provider: str | IProviderSession | None = None,
        model: str | None = None,
        prompt: str = PROMPT,
        native: bool = False,
    ) -> None:
        self._after = check_limit(after, optional=False) or 0
        self._keep = check_limit(keep, optional=False) or 0
        if self._after <= self._keep:
            raise InvalidInputError("after must be more than keep")
        self._provider = provider
        self._model = model
        self._prompt = prompt
        self._native = native
        if native and (provider is not None or model is not None):
            raise InvalidInputError(
                "native=True has the session's own provider and model make compactions; leave out "
                "provider and model"
            )

    async def process_outgoing_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        """Make a summary, if one is due, before a user's message is sent."""
        if message.role is MessageRole.USER and isinstance(session, BaseSession):
            covered = self._covered(session)
            if session.last_seq - covered >= self._after:
                try:
                    await (session.compact() if self._native else self._summarise(session, covered))
                except ProviderCapabilityError:
                    raise  # as it would with each message
                except Exception:  # a summary is a convenience; the turn is not
                    logger.warning(
                        "session %r: no summary was made; it is tried again with the next message",
                        session.session_id,
                        exc_info=True,
                    )
        return message

    def _covered(self, session: BaseSession) -> int:
        """Return the sequence number of the last message that needs no summary any more."""
        context = session.context
        if self._native:
            return RequestState.of(context).compactions.get(context.provider, 0)
        return 0 if context.summary is None else context.summary.last_seq

    async def _summarise(self, session: BaseSession, covered: int) -> None:
        limit = AT_ONCE + self._keep
        messages = await session.manager.storage.get_messages(
            session.ref, after=covered, limit=limit, answered_only=True
        )
        old = messages[: _end(messages, len(messages) - self._keep)]
        said = transcript(old)
        while old:
            try:
                text = await self._ask(session, self._question(session, said))
            except ContextLengthError as error:
                half = old[: _end(old, len(old) // 2)]
                size = len(said.encode()) // BYTES_PER_TOKEN // 2
                if not half and size < LEAST:
                    raise
                logger.info("session %r: a shorter part is summarised: %s",
                            session.session_id, one_line(error))  # fmt: skip
                said = transcript(half) if half else shortened(said, size)
                old = half or old
            else:
                await session.set_summary(self._bounded(session, text, old), old[-1].seq)
                return

    def _question(self, session: BaseSession, said: str) -> str:
        """Return what the model is asked, with the summary so far."""
        summary = session.context.summary
        before = "" if summary is None else f"(Before that: {summary.text})\n"
        return f"{self._prompt}\n\n{before}{said}"

    def _bounded(self, session: BaseSession, text: str, old: Sequence[SessionMessage]) -> str:
        """Return a summary that is no longer than what it stands for, nor than its share."""
        context = session.context
        most = sum(map(estimate, old))
        if context.summary is not None:
            most += len(context.summary.text.encode()) // BYTES_PER_TOKEN
        if context.max_input_tokens is not None:
            most = min(most, context.max_input_tokens // 4)
        short = shortened(text, most)
        if short != text:
            logger.warning(
                "session %r: a summary of %d characters was cut to %d: it was longer than what it "
                "stands for, or than a quarter of max_input_tokens",
                session.session_id,
                len(text),
                len(short),
            )
        return short

    async def _ask(self, session: BaseSession, question: str) -> str:
        provider = self._provider
        context = session.context
        name = context.provider if provider is None else provider
        if isinstance(name, str):
            asked = session.manager.provider(name)
        else:
            asked, name = name, name.name
        alone = context.model_copy(
            update={
                "provider": name,
                "model": self._model or context.model,
                "backend": SessionBackend.LOCAL_MEMORY,
                "provider_session_id": None,
                "provider_context": {},
            }
        )
        message = SessionMessage(role=MessageRole.USER, content=question)
        request = ProviderRequest(
            session.session_id, alone, [message], target=asked.target(alone, {})
        )
        reply = await asked.send_message(request)
        text = "".join(each.text for each in reply.messages)
        refused = any(isinstance(b, RefusalBlock) for each in reply.messages for b in each.blocks)
        if refused or not text.strip():
            raise ProviderSessionError(f"{name} gave no summary", provider=name)
        return text


def _end(messages: Sequence[SessionMessage], end: int) -> int:
    """Where to end so that no call is parted from its results."""
    while 0 < end < len(messages) and _has_results(messages[end]):
        end -= 1
    return max(0, end)


def _has_results(message: SessionMessage) -> bool:
    return message.role in RESULT_ROLES or bool(calls_needed([message]))

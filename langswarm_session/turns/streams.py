"""A turn whose reply comes in pieces, and whoever reads them."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from langswarm_session.errors import ProviderStreamError
from langswarm_session.records import StreamEvent
from langswarm_session.turns.replies import Answer, Answering

if TYPE_CHECKING:
    from langswarm_session.session import BaseSession
    from langswarm_session.turns.turn import OpenTurn


class Reader:
    """Whoever reads a turn's stream.

    When that is somebody no longer, the turn is about to be cancelled by the event loop, and the
    next turn in the same context is not inside it.
    """

    def __init__(self) -> None:
        self._stream: weakref.ref[object] | None = None

    def reads(self, stream: object) -> None:
        """This is the stream."""
        self._stream = weakref.ref(stream)

    @property
    def is_gone(self) -> bool:
        """Whether nobody has the stream any more."""
        return self._stream is not None and self._stream() is None


def stream(
    session: BaseSession, begin: Callable[[], Awaitable[OpenTurn]], options: Mapping[str, Any]
) -> AsyncGenerator[StreamEvent, None]:
    """See `BaseSession.stream_message`.

    Args:
        session: The session.
        begin: Begins the turn.
        options: The caller's keywords for the provider.
    """
    reader = Reader()
    stream = _stream(session, reader, begin, options)
    reader.reads(stream)
    return stream


async def _stream(
    session: BaseSession,
    reader: Reader,
    begin: Callable[[], Awaitable[OpenTurn]],
    options: Mapping[str, Any],
) -> AsyncGenerator[StreamEvent, None]:
    session._check_answerable(options)
    turn = await begin()
    if turn.replayed:
        yield StreamEvent(text=turn.reply.text)
        yield StreamEvent(message=turn.reply)
        return
    turn.reader = reader
    held = session._pipeline.holds_stream
    async with turn:
        answer: Answer | None = None
        async with aclosing(Answering(session, turn, options).stream()) as events:
            while True:
                with turn.answering():
                    event = await anext(events, None)
                if event is None:
                    break
                if isinstance(event, Answer):
                    answer = event
                elif not held:
                    turn.received(event.text)
                    yield event
        if answer is None:
            raise ProviderStreamError(
                "the stream was closed before the reply was complete, as asyncio.run() does with "
                "what it leaves open; read a stream to its end in one event loop",
                session_id=session.session_id,
                provider=session.context.provider,
            )
        stored = await turn.complete(answer.messages, provider_state=answer.provider_state)
    if held:
        yield StreamEvent(text=stored[-1].text)
    yield StreamEvent(message=stored[-1])

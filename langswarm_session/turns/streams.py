"""A turn whose reply is read in pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from langswarm_session.errors import ProviderStreamError
from langswarm_session.records import StreamEvent
from langswarm_session.turns.current import Reader
from langswarm_session.turns.replies import Answer, Answering, check_answerable

if TYPE_CHECKING:
    from langswarm_session.turns.core import SessionCore
    from langswarm_session.turns.turn import OpenTurn


def stream(
    core: SessionCore, begin: Callable[[], Awaitable[OpenTurn]], options: Mapping[str, Any]
) -> AsyncGenerator[StreamEvent, None]:
    """See `BaseSession.stream_message`.

    Args:
        core: The session.
        begin: Begins the turn.
        options: The caller's keywords for the provider.
    """
    reader = Reader()
    stream = _stream(core, reader, begin, options)
    reader.reads(stream)
    return stream


async def _stream(
    core: SessionCore,
    reader: Reader,
    begin: Callable[[], Awaitable[OpenTurn]],
    options: Mapping[str, Any],
) -> AsyncGenerator[StreamEvent, None]:
    check_answerable(core, options)
    turn = await begin()
    if turn.replayed:
        yield StreamEvent(text=turn.reply.text)
        yield StreamEvent(message=turn.reply)
        return
    turn.reader = reader
    held = core.pipeline.holds_stream
    async with turn:
        answer: Answer | None = None
        async with aclosing(Answering(core, turn, options).stream()) as events:
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
                session_id=core.session_id,
                provider=core.context.provider,
            )
        stored = await turn.complete(answer.messages, provider_state=answer.provider_state)
    if held:
        yield StreamEvent(text=stored[-1].text)
    yield StreamEvent(message=stored[-1])

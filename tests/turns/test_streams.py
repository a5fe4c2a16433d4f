from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

import anyio
import pytest

from langswarm_session import (
    IProviderSession,
    MockFailure,
    MockProviderSession,
    NestedTurnError,
    ProviderReply,
    ProviderSessionError,
    ProviderStreamError,
    RefusalBlock,
    SessionManager,
    SessionMessage,
    StreamEvent,
    TextBlock,
    ToolCallBlock,
    TurnLostError,
)


async def read(stream):
    return [event async for event in stream]


class TestWhole:
    async def test_the_pieces_make_the_reply(self, session):
        events = await read(session.stream_message("one two three"))
        *pieces, last = events
        assert len(pieces) > 1
        assert "".join(map(str, pieces)) == last.message.text == "You said: one two three"
        assert all(piece.message is None for piece in pieces)
        assert last.message == (await session.get_messages())[-1]

    async def test_it_leaves_what_a_sent_message_leaves(self, manager):
        logs = []
        for stream in (True, False):
            session = await manager.create_session("ann", "mock", "echo")
            if stream:
                await read(session.stream_message("x", metadata={"a": 1}))
            else:
                await session.send_message("x", metadata={"a": 1})
            logs.append(
                [
                    (m.role, m.text, m.seq, m.turn_id, m.metadata, m.finish_reason, m.usage)
                    for m in await session.get_messages()
                ]
            )
            logs[-1].append(session.metrics.total_tokens)
        assert logs[0] == logs[1]

    async def test_blocks_come_whole(self, session, mock):
        call = ToolCallBlock(id="c", name="look", args={"at": "it"})
        mock.script([TextBlock(text="I look"), call])
        events = await read(session.stream_message("x"))
        assert [event.block for event in events if event.block] == [call]
        assert events[-1].message.content == [TextBlock(text="I look"), call]
        assert events[-1].message.finish_reason == "tool_calls"

    async def test_a_refusal_is_a_reply(self, session, mock, turns):
        mock.script(MockFailure.REFUSAL)
        events = await read(session.stream_message("x"))
        assert isinstance(events[0].block, RefusalBlock)
        assert events[-1].message.finish_reason == "refusal"
        assert await turns(session) == ["complete"]

    async def test_a_provider_that_cannot_stream_gives_it_in_one_piece(self, manager, session):
        class Plain(IProviderSession):
            name = "plain"

            async def send_message(self, request):
                return ProviderReply([SessionMessage(role="assistant", content="all at once")])

        manager.add_provider_session("mock", Plain())
        events = await read(session.stream_message("x"))
        assert [str(event) for event in events] == ["all at once", ""]
        assert events[-1].message.text == "all at once"

    async def test_a_known_key_gives_the_stored_reply(self, session, mock):
        first = await read(session.stream_message("x", idempotency_key="k"))
        again = await read(session.stream_message("x", idempotency_key="k"))
        assert [str(event) for event in again] == ["You said: x", ""]
        assert again[-1].message == first[-1].message
        assert len(mock.requests) == 1

    async def test_the_next_turn_knows_of_it(self, session, mock):
        await read(session.stream_message("one"))
        await read(session.stream_message("two"))
        assert [m.text for m in mock.requests[-1].messages] == ["one", "You said: one", "two"]

    async def test_each_piece_may_be_awaited_by_another_task(self, session, turns):
        stream = session.stream_message("one two three")
        pieces = []
        while (event := await asyncio.create_task(anext(stream, None))) is not None:
            pieces.append(str(event))
        assert "".join(pieces) == "You said: one two three"
        assert await turns(session) == ["complete"]

    async def test_one_that_nobody_reads_never_begins(self, session, mock):
        stream = session.stream_message("x")
        await stream.aclose()
        assert await session.get_messages() == []
        assert not mock.requests


class TestAbandoned:
    async def test_what_was_shown_is_kept(self, session, texts, turns):
        async with aclosing(session.stream_message("one two three")) as stream:
            async for event in stream:
                if str(event).strip() == "one":
                    break
        assert await texts(session) == ["one two three", "You said: one "]
        assert await turns(session) == ["cancelled"]
        assert (await session.get_messages())[-1].finish_reason == "cancelled"

    async def test_the_next_turn_works_and_knows_what_was_shown(self, session, mock):
        async with aclosing(session.stream_message("one")) as stream:
            await anext(stream)
        await session.send_message("two", wait=0)
        assert [m.text for m in mock.requests[-1].messages] == ["one", "You ", "two"]

    async def test_the_next_turn_works_after_a_mere_break(self, session, texts):
        async for _ in session.stream_message("one"):
            break
        await session.send_message("two")
        assert await texts(session) == ["one", "You ", "two", "You said: two"]

    async def test_the_next_stream_works_after_a_mere_break(self, session, texts):
        for text in ("one", "two", "three"):
            async for _ in session.stream_message(text):
                break
        await session.send_message("four")
        assert await texts(session) == [
            *("one", "You ", "two", "You ", "three", "You "),
            *("four", "You said: four"),
        ]

    async def test_the_next_turn_works_after_a_mere_break_out_of_a_generator(self, session, texts):
        async def relay(stream):
            async for event in stream:
                yield str(event)

        async for _ in relay(session.stream_message("one")):
            break
        await session.send_message("two")
        assert await texts(session) == ["one", "You ", "two", "You said: two"]

    async def test_the_next_turn_waits_for_a_provider_that_is_slow_to_let_go(
        self, manager, session, turns
    ):
        let_go = asyncio.Event()

        class Slow(MockProviderSession):
            async def stream_message(self, request):
                try:
                    yield StreamEvent(text="one")
                    await asyncio.Event().wait()
                finally:
                    await let_go.wait()

        async def relay(stream):
            async for event in stream:
                yield event

        manager.add_provider_session("mock", Slow())
        async for _ in relay(session.stream_message("one")):
            break
        sending = asyncio.create_task(session.send_message("two"))
        done, _ = await asyncio.wait([sending], timeout=0.3)
        assert not done
        let_go.set()
        await sending
        assert await turns(session) == ["cancelled", "complete"]

    async def test_a_stream_that_is_still_held_is_not_abandoned(self, session, turns):
        stream = session.stream_message("one")
        async for _ in stream:
            break
        with pytest.raises(NestedTurnError):
            await session.send_message("two")
        assert await turns(session) == ["open"]
        rest = [str(event) async for event in stream]
        assert "".join(rest) == "said: one"
        assert await turns(session) == ["complete"]

    async def test_by_a_reader_that_raises(self, session, turns):
        with pytest.raises(ZeroDivisionError):
            async with aclosing(session.stream_message("one")) as stream:
                async for _ in stream:
                    raise ZeroDivisionError
        assert await turns(session) == ["cancelled"]

    async def test_by_a_reader_that_is_cancelled(self, session, gated, texts, turns):
        gated.script("one two")
        reading = asyncio.create_task(read(session.stream_message("x")))
        await gated.asked.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await texts(session) == ["x", "one "]
        assert await turns(session) == ["cancelled"]
        gated.go.set()
        await session.send_message("y", wait=0)

    async def test_by_a_time_limit(self, session, gated, turns):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read(session.stream_message("x")), 0.05)
        assert await turns(session) == ["cancelled"]

    async def test_the_provider_has_finished_when_the_turn_ends(self, manager, session, turns):
        seen = []

        class Slow(MockProviderSession):
            async def stream_message(self, request):
                try:
                    yield StreamEvent(text="one")
                    await asyncio.Event().wait()
                finally:
                    for _ in range(50):  # closing a connection takes a few rounds of the loop
                        await asyncio.sleep(0)
                    seen.append("closed")

        manager.add_provider_session("mock", Slow())
        async with aclosing(session.stream_message("x")) as stream:
            await anext(stream)
        seen.append("next")
        assert seen == ["closed", "next"]

    async def test_a_tool_call_that_was_shown_is_not_kept(self, manager, session):
        """Nobody will answer it any more, and no provider takes a call without a result."""
        call = ToolCallBlock(id="c", name="look", args={})

        class Calling(MockProviderSession):
            async def stream_message(self, request):
                yield StreamEvent(text="I look")
                yield StreamEvent(block=call)
                await asyncio.Event().wait()

        manager.add_provider_session("mock", Calling())
        async with aclosing(session.stream_message("x")) as stream:
            await anext(stream)
            await anext(stream)
        assert (await session.get_messages())[-1].blocks == [TextBlock(text="I look")]


class Grouped(IProviderSession):
    """Streams from inside of a task group, as clients of MCP servers do."""

    name = "grouped"

    async def send_message(self, request: object) -> ProviderReply:
        raise NotImplementedError

    async def stream_message(self, request: object):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 3600)
            yield StreamEvent(text="one ")
            yield StreamEvent(text="two ")
            group.cancel_scope.cancel()
        yield ProviderReply([SessionMessage(role="assistant", content="one two ")])


class TestTaskGroups:
    async def test_closing_early_raises_nothing_and_keeps_what_was_shown(self, manager):
        manager.add_provider_session("grouped", Grouped())
        session = await manager.create_session("ann", "grouped", "m")
        stream = session.stream_message("x")
        shown = (await anext(stream)).text
        await stream.aclose()
        assert [(m.text, m.finish_reason) for m in await session.get_messages()][1:] == [
            (shown, "cancelled")
        ]

    async def test_an_error_of_closing_reaches_the_reader(self, manager):
        class Failing(Grouped):
            async def stream_message(self, request: object):
                try:
                    yield StreamEvent(text="one ")
                finally:
                    raise BaseExceptionGroup("closing", [GeneratorExit(), KeyError("lost")])

        manager.add_provider_session("failing", Failing())
        session = await manager.create_session("ann", "failing", "m")
        stream = session.stream_message("x")
        await anext(stream)
        with pytest.raises(ProviderSessionError, match="failing") as raised:
            await stream.aclose()
        assert isinstance(raised.value.__cause__, ExceptionGroup)
        assert [m.text for m in await session.get_messages()][1:] == ["one "]


def test_a_stream_that_is_read_in_one_loop_after_another_says_so(tmp_path):
    """Each `asyncio.run` closes the generators that it finds: streamlit issue 8161 has such code."""
    manager = SessionManager(
        "sqlite", {"mock": {}}, storage_config={"db_path": tmp_path / "sessions.db"}
    )
    session = asyncio.run(manager.create_session("ann", "mock", "echo"))
    stream = session.stream_message("one two three")
    shown = asyncio.run(anext(stream)).text
    with pytest.raises((ProviderStreamError, TurnLostError)):
        asyncio.run(anext(stream))
    messages = asyncio.run(session.get_messages())
    assert [(m.role, m.text) for m in messages] == [
        ("user", "one two three"),
        ("assistant", shown),
    ]
    asyncio.run(manager.close())


class TestBroken:
    async def test_what_was_shown_is_kept(self, session, mock, texts, turns):
        mock.fail_next(MockFailure.BROKEN_STREAM)
        shown = []
        with pytest.raises(ProviderStreamError) as caught:
            async for event in session.stream_message("one two"):
                shown.append(str(event))
        assert caught.value.session_id == session.session_id
        assert shown == ["You ", "said: "]
        assert await texts(session) == ["one two", "You said: "]
        assert await turns(session) == ["failed"]
        assert (await session.get_messages())[-1].finish_reason == "failed"
        assert session.metrics.errors == 1

    async def test_the_next_turn_works(self, session, mock):
        mock.fail_next(MockFailure.BROKEN_STREAM)
        with pytest.raises(ProviderStreamError):
            await read(session.stream_message("one"))
        assert (await session.send_message("two", wait=0)).text == "You said: two"

    async def test_again_with_its_key_it_is_whole(self, session, mock, texts, turns):
        mock.fail_next(MockFailure.BROKEN_STREAM)
        with pytest.raises(ProviderStreamError):
            await read(session.stream_message("one two", idempotency_key="k"))
        await read(session.stream_message("one two", idempotency_key="k"))
        assert await texts(session) == ["one two", "You said: one two"]
        assert await turns(session) == ["complete"]
        assert session.metrics.message_count == 2

    async def test_before_the_first_piece(self, session, mock, texts, turns):
        mock.fail_next(MockFailure.UNAVAILABLE)
        with pytest.raises(ProviderSessionError):
            await read(session.stream_message("x"))
        assert await texts(session) == ["x"]
        assert await turns(session) == ["failed"]

    async def test_by_an_exception_of_the_providers_own(self, manager, session, texts):
        class Buggy(MockProviderSession):
            async def stream_message(self, request):
                yield StreamEvent(text="one")
                raise ZeroDivisionError

        manager.add_provider_session("mock", Buggy())
        with pytest.raises(ProviderSessionError) as caught:
            await read(session.stream_message("x"))
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert await texts(session) == ["x", "one"]

    async def test_by_a_provider_that_just_stops(self, manager, session, turns):
        class Stopping(MockProviderSession):
            async def stream_message(self, request):
                yield StreamEvent(text="one")

        manager.add_provider_session("mock", Stopping())
        with pytest.raises(ProviderStreamError, match="ended before"):
            await read(session.stream_message("x"))
        assert await turns(session) == ["failed"]

    async def test_by_a_reply_that_cannot_be_stored(self, session, mock, caplog):
        """Half of a surrogate pair: what a stream cut inside an emoji may hold."""
        mock.script("broken \ud83d emoji")
        try:
            await read(session.stream_message("x"))
        except Exception:
            logging.getLogger(__name__).debug("whether it is stored or refused", exc_info=True)
        assert (await session.send_message("y", wait=1)).text == "You said: y"


class TestInside:
    async def test_a_turn_in_the_loop_is_refused_and_the_stream_goes_on(self, session, texts):
        async for event in session.stream_message("outer"):
            if event.message is None:
                with pytest.raises(NestedTurnError):
                    await session.send_message("inner")
        assert await texts(session) == ["outer", "You said: outer"]

    async def test_after_the_last_event_a_turn_is_fine(self, session, texts):
        async for event in session.stream_message("one"):
            if event.message is not None:
                await session.send_message("two")
        assert await texts(session) == ["one", "You said: one", "two", "You said: two"]

    async def test_what_is_recorded_in_the_loop_belongs_to_the_turn(self, session, texts):
        recorded = False
        async for event in session.stream_message("x"):
            if event.message is None and not recorded:
                await session.record(SessionMessage(role="tool", content="called"))
                recorded = True
        assert await texts(session) == ["x", "called", "You said: x"]
        assert {m.turn_id for m in await session.get_messages()} == {1}

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

import pytest

from langswarm_session import (
    ISessionLifecycleHook,
    LoggingHook,
    LoggingMiddleware,
    MessageRefusedError,
    MetricsHook,
    MockFailure,
    ProviderSessionError,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
)

PRIVATE = "my-private-words"


@pytest.fixture
def logged(caplog):
    """All that was logged, down to the tracebacks."""
    caplog.set_level(logging.DEBUG)
    formatter = logging.Formatter("%(levelname)s %(name)s %(message)s")

    def logged(name=None):
        return [
            formatter.format(record)
            for record in caplog.records
            if name is None or record.name == name
        ]

    return logged


@pytest.fixture
async def watched(manager, logged):
    manager.add_global_middleware(LoggingMiddleware())
    manager.add_global_hook(LoggingHook())
    return await manager.create_session("ann", "mock", "echo", session_id="s1")


class TestLoggingMiddleware:
    async def test_says_that_a_message_passed_and_how_large_it_is(self, watched, logged):
        reply = await watched.send_message("hello")
        sent, received = logged("session_middleware")
        for part in ("DEBUG", "s1", "outgoing", "user", "5 characters"):
            assert part in sent
        for part in ("DEBUG", "s1", "incoming", "assistant", "15 characters", reply.id):
            assert part in received

    async def test_goes_to_the_logger_of_ones_choice(self, session, logged):
        session.add_middleware(LoggingMiddleware("mine"))
        session.add_lifecycle_hook(LoggingHook("my.hook"))
        await session.send_message("x")
        assert len(logged("mine")) == len(logged("my.hook")) == 2

    async def test_changes_nothing(self, watched, texts):
        message = SessionMessage(role="user", content=[TextBlock(text="x")], metadata={"a": 1})
        await watched.record(message)
        assert await watched.get_messages() == [message.replaced(seq=1, turn_id=1)]

    async def test_is_silent_above_its_level(self, watched, caplog):
        caplog.set_level(logging.INFO)
        await watched.send_message("x")
        assert "session_middleware" not in {record.name for record in caplog.records}


class TestLoggingHook:
    async def test_says_what_happened(self, manager, mock, logged):
        manager.add_global_hook(LoggingHook())
        session = await manager.create_session("ann", "mock", "echo", session_id="s1")
        await session.send_message("x")
        mock.fail_next(MockFailure.TIMEOUT)
        with pytest.raises(ProviderSessionError):
            await session.send_message("y")
        await session.archive()
        await manager.delete_session("s1")
        lines = logged("session_hook")
        assert [line.split()[0] for line in lines] == [
            *("INFO", "DEBUG", "DEBUG", "DEBUG", "WARNING", "INFO", "INFO")
        ]
        assert all("s1" in line for line in lines)
        for word, line in zip(
            ["created", "sent", "received", "sent", "ProviderTimeoutError", "archived", "deleted"],
            lines,
            strict=True,
        ):
            assert word in line


async def test_no_message_is_ever_logged(manager, watched, mock, logged, gated):
    """Whatever goes wrong with it."""
    gated.go.set()

    class Raising(ISessionLifecycleHook):
        async def on_message_sent(self, session, message):
            raise ZeroDivisionError("a bug")

    class Refusing(LoggingMiddleware):
        async def process_incoming_message(self, session, message):
            raise MessageRefusedError("no")

    await watched.send_message(PRIVATE, metadata={"a": PRIVATE})
    await watched.record(
        SessionMessage(
            role="assistant",
            content=[
                TextBlock(text=PRIVATE),
                ToolCallBlock(id="c", name="look", args={"at": PRIVATE}),
            ],
        )
    )
    gated.script(MockFailure.TIMEOUT, MockFailure.BROKEN_STREAM, ValueError(PRIVATE))
    for _ in range(2):
        with pytest.raises(ProviderSessionError):
            async for _ in watched.stream_message(PRIVATE):
                pass
    with pytest.raises(ProviderSessionError):
        await watched.send_message(PRIVATE)
    async with aclosing(watched.stream_message(PRIVATE)) as stream:
        await anext(stream)
    gated.go.clear()
    gated.asked.clear()
    sending = asyncio.create_task(watched.send_message(PRIVATE))
    await gated.asked.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    gated.go.set()
    watched.add_lifecycle_hook(Raising())
    await watched.send_message(PRIVATE)
    watched.add_middleware(Refusing())
    with pytest.raises(MessageRefusedError):
        await watched.send_message(PRIVATE)
    async with aclosing(watched.stream_message(PRIVATE)) as stream:
        await anext(stream)
    await watched.clear_messages()
    await manager.delete_session("s1")

    lines = logged()
    assert len(lines) > 20
    assert [line for line in lines if PRIVATE in line] == []


class TestMetricsHook:
    async def test_counts_nothing_before_anything_happens(self):
        assert MetricsHook().get_metrics() == {
            "created": 0,
            "archived": 0,
            "deleted": 0,
            "messages_sent": 0,
            "messages_received": 0,
            "errors": 0,
        }

    async def test_counts_what_happens(self, manager, mock):
        hook = MetricsHook()
        manager.add_global_hook(hook)
        first = await manager.create_session("ann", "mock", "echo")
        second = await manager.create_session("bob", "mock", "echo")
        await first.send_message("x")
        async for _ in second.stream_message("y"):
            pass
        await second.record(SessionMessage(role="assistant", content="z"))
        await first.add_system_message("be kind")
        mock.fail_next(MockFailure.ERROR)
        with pytest.raises(ProviderSessionError):
            await first.send_message("w")
        await (await first.begin_turn("v")).cancel()
        await manager.archive_session(first.session_id)
        await manager.delete_session(second.session_id)
        assert hook.get_metrics() == {
            "created": 2,
            "archived": 1,
            "deleted": 1,
            "messages_sent": 5,
            "messages_received": 3,
            "errors": 2,
        }

    async def test_gives_a_copy(self, session):
        hook = MetricsHook()
        session.add_lifecycle_hook(hook)
        hook.get_metrics()["errors"] = 99
        assert hook.get_metrics()["errors"] == 0

    async def test_each_counts_for_itself(self, manager, session):
        hook = MetricsHook()
        session.add_lifecycle_hook(hook)
        other = await manager.create_session("bob", "mock", "echo")
        await other.send_message("x")
        assert hook.get_metrics()["messages_sent"] == 0

    async def test_counts_forks_and_cleanups(self, manager, session):
        hook = MetricsHook()
        manager.add_global_hook(hook)
        await session.fork()
        await manager.cleanup_inactive_sessions(0)
        metrics = hook.get_metrics()
        assert (metrics["created"], metrics["archived"]) == (1, 2)

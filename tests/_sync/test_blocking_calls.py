"""Nothing blocks a caller's event loop: every public call where blocking calls are refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import watching

from langswarm_session import (
    BaseSession,
    MessageRole,
    SessionError,
    SessionManager,
    SessionMessage,
    create_session_manager,
)
from langswarm_session.blocks import ToolCallBlock
from langswarm_session.manager import UserSessions
from langswarm_session.turns.turn import OpenTurn

Caller = Literal["async", "sync"]

_CALL = SessionMessage(
    role=MessageRole.ASSISTANT, content=[ToolCallBlock(id="c", name="double", args={"n": 2})]
)


def double(n: int) -> int:
    """Twice the number."""
    return 2 * n


ARGUMENTS: dict[str, Callable[[str], Any]] = {
    "content": lambda _: "hello",
    "expected_revision": lambda _: 1,
    "messages": lambda _: [SessionMessage(role=MessageRole.USER, content="hello")],
    "model": lambda _: "echo",
    "provider": lambda _: "mock",
    "reply": lambda _: _CALL,
    "session_id": lambda session_id: session_id,
    "status": lambda _: "paused",
    "target": lambda _: "openai",
    "text": lambda _: "hello",
    "tools": lambda _: [double],
    "user_id": lambda _: "user",
}
"""A value for each argument that a call must be given."""


def public_calls(kind: type) -> list[str]:
    """The methods of a class that are awaited or iterated over, by name."""
    return [
        name
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
        and (
            inspect.iscoroutinefunction(method)
            or inspect.isasyncgenfunction(method)
            or "Async" in str(inspect.signature(method).return_annotation)
        )
        and name != "close"  # comes last
    ]


async def use(target: object, name: str, session_id: str) -> None:
    """Make a call; whether it succeeds or raises what it is to raise is not the question here."""
    method = getattr(target, name)
    required = [
        parameter.name
        for parameter in inspect.signature(method).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    assert required == [name for name in required if name in ARGUMENTS], "complete ARGUMENTS"
    try:
        result = method(**{name: ARGUMENTS[name](session_id) for name in required})
        if inspect.isawaitable(result):
            result = await result
        if isinstance(result, OpenTurn):
            await result.complete()
        elif hasattr(result, "__aiter__") and not hasattr(result, "__len__"):
            async for _ in result:
                pass
    except SessionError:
        pass


@pytest.fixture(params=["sqlite", "postgres"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], SessionManager]]:
    """Makes managers on a database that nobody has opened yet."""
    if request.param == "sqlite":
        path = str(tmp_path / "new" / "sessions.db")
        yield lambda: create_session_manager("sqlite", {"db_path": path})
        return
    postgres_server = pytest.importorskip("postgres_server")
    with postgres_server.schema() as schema:
        yield lambda: create_session_manager(postgres_server.dsn(), {"schema": schema})


each_watch = pytest.mark.parametrize("watch", ["langgraph dev", "all"])
each_caller = pytest.mark.parametrize("caller", ["async", "sync"])


@each_watch
@each_caller
def test_no_call_of_a_session_blocks(
    make: Callable[[], SessionManager],
    monkeypatch: pytest.MonkeyPatch,
    watch: watching.Watch,
    caller: Caller,
) -> None:
    async def work() -> None:
        async with make() as manager:
            for name in public_calls(BaseSession):
                session = await manager.create_session("user", "mock", "echo", session_id=name)
                for _ in range(2):
                    await session.send_message("hello")
                    await session.get_messages(20)
                await use(session, name, name)
                await use(session, name, name)

    with watching.watched(monkeypatch, watch):
        watching.run(work, caller)


@each_watch
@each_caller
@pytest.mark.parametrize("kind", [SessionManager, UserSessions])
def test_no_call_of_a_manager_blocks(
    make: Callable[[], SessionManager],
    monkeypatch: pytest.MonkeyPatch,
    watch: watching.Watch,
    caller: Caller,
    kind: type,
) -> None:
    async def work() -> None:
        async with make() as manager:
            target = manager if kind is SessionManager else manager.for_user("user")
            for name in public_calls(kind):
                # On one that exists, and on one that does not.
                session = await manager.create_session("user", "mock", "echo")
                await session.send_message("hello")
                await use(target, name, session.session_id)
                await use(target, name, f"no-{name}")

    with watching.watched(monkeypatch, watch):
        watching.run(work, caller)


@each_caller
def test_opening_what_cannot_be_opened_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: Caller
) -> None:
    path = tmp_path / "sessions.db"
    path.write_bytes(b"no database, and longer than a header would be" * 100)

    async def work() -> None:
        async with create_session_manager("sqlite", {"db_path": str(path)}) as manager:
            with pytest.raises(SessionError):
                await manager.create_session("user", "mock", "echo")
            assert not (await manager.health()).ok

    with watching.watched(monkeypatch):
        watching.run(work, caller)


def test_a_session_that_another_process_has_is_waited_for(
    make: Callable[[], SessionManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its owner lives is read from files."""

    async def work() -> None:
        async with make() as one, make() as other:
            session = await one.create_session("user", "mock", "echo")
            turn = await session.begin_turn("hello")
            again = await other.get_session(session.session_id, user_id="user")
            with pytest.raises(SessionError):
                await again.send_message("me too", wait=0.1)
            # As does a look at the turns that are open.
            assert await one.storage.examine(full=True)
            await turn.complete()

    with watching.watched(monkeypatch):
        watching.run(work, "async")

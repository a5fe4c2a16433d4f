"""A very long session, and one with many turns that were cancelled, beside a new one.

What each costs to write to and to read the newest of, which must not depend on what lies before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benchmarks.contenders.ours import as_messages
from benchmarks.load import make_turn, make_turns
from benchmarks.load_run.backends import Backend
from benchmarks.load_run.population import Ledger, store_session
from benchmarks.load_run.work import LISTED, NEWEST
from benchmarks.measure import Timings, interleave
from langswarm_session import MockProviderSession, SessionManager

NEW, LONG, SCARRED = "new", "long", "scarred"
FEW_TURNS = 60
"""Turns of the sessions that are not long: enough for a whole window, so that all read as much."""
CANCELLED = 1_000
"""Turns of the scarred one, before those, that were cancelled before there was any reply."""
OTHERS = 200
"""Further sessions of each of the two users."""
OPERATIONS = (
    "append a turn",
    f"newest {NEWEST}",
    "find and send",
    "send again",
    f"list {LISTED} sessions of its user",
)


async def run(backend: Backend, messages: int, rounds: int, batch: int) -> Timings:
    """Time each operation on all three sessions in turns.

    Args:
        backend: Where.
        messages: How long the long one is.
        rounds: How often it is everybody's turn.
        batch: Calls in one turn.

    Returns:
        Seconds of each call, by the session's name and the operation's.
    """
    await backend.start()
    try:
        async with backend.open() as manager:
            # Without the provider's delay, which is the same for all.
            manager.add_provider_session("mock", MockProviderSession())
            actions: dict[str, Callable[[], Awaitable[object]]] = {}
            for name, turns in ((NEW, 0), (LONG, messages // 2 - FEW_TURNS), (SCARRED, 0)):
                user = f"user of {name}"
                for other in range(OTHERS):
                    await store_session(manager, Ledger(f"{name}-{other}", user, 1))
                await store_session(manager, Ledger(name, user, turns))
                actions |= await _actions(manager, name, user)
            for action in actions.values():  # statements are prepared, caches are warm
                await action()
            return await interleave(actions, rounds=rounds, batch=batch)
    finally:
        await backend.remove()


async def _actions(
    manager: SessionManager, name: str, user: str
) -> dict[str, Callable[[], Awaitable[object]]]:
    session = await manager.get_session(name, user_id=user)
    if name == SCARRED:
        for _ in range(CANCELLED):
            await (await session.begin_turn("Never mind.")).cancel()
    await session.record(as_messages(make_turns(name, FEW_TURNS)))
    turn = make_turn(name, 0)

    async def append() -> object:
        return await session.record(as_messages((turn,)))

    async def newest() -> object:
        return await session.get_messages(NEWEST)

    async def find_and_send() -> object:
        return await (await manager.get_session(name, user_id=user)).send_message(turn.user)

    async def send_again() -> object:
        return await session.send_message(turn.user)

    async def listing() -> object:
        return await manager.list_user_sessions(user, LISTED)

    calls = (append, newest, find_and_send, send_again, listing)
    return {f"{name} {operation}": call for operation, call in zip(OPERATIONS, calls, strict=True)}

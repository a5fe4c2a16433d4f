from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import pytest

from langswarm_session import InMemorySessionStorage, SessionManager, StorageBusyError
from langswarm_session.records import SessionRef
from langswarm_session.testing.making import lease, new_session, ref, user
from langswarm_session.turns.leases import LeaseKeeper

SECONDS = 0.03
"""How long the leases here hold: they are renewed each 10 ms."""


REF = SessionRef("s", "user", None)


@dataclass(eq=False)
class Turn:
    """What the keeper knows of a turn."""

    token: str
    ref: SessionRef = REF


class Storage(InMemorySessionStorage):
    """Tells of each renewal, and holds what it is told to hold."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: SimpleQueue[tuple[dict[str, SessionRef], float]] = SimpleQueue()
        self.lost: set[str] = set()
        self.errors: list[Exception] = []

    async def renew_turns(self, tokens: Mapping[str, SessionRef], seconds: float) -> set[str]:
        self.calls.put((dict(tokens), seconds))
        if self.errors:
            raise self.errors.pop()
        return tokens.keys() - self.lost

    def renewed(self) -> dict[str, SessionRef]:
        """The tokens of the next renewal; waits for it, without letting any loop run."""
        return self.calls.get(timeout=30)[0]

    def until(self, tokens: set[str]) -> None:
        """Wait for a renewal of exactly these."""
        while self.renewed().keys() != tokens:
            pass


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture
def keeper(storage: Storage) -> Iterator[LeaseKeeper]:
    keeper = LeaseKeeper(storage, SECONDS)
    yield keeper
    keeper.close()


def add(keeper: LeaseKeeper, *turns: Turn) -> None:
    each: Any
    for each in turns:
        keeper.add(each)


def test_a_turns_lease_is_renewed_again_and_again(keeper: LeaseKeeper, storage: Storage) -> None:
    turn = Turn("one", "its session")
    add(keeper, turn)
    for _ in range(3):
        assert storage.calls.get(timeout=30) == ({"one": "its session"}, SECONDS)


async def test_it_is_renewed_while_the_callers_loop_is_blocked(
    keeper: LeaseKeeper, storage: Storage
) -> None:
    turn = Turn("one")
    add(keeper, turn)
    for _ in range(3):
        storage.renewed()  # blocks this loop


def test_one_call_renews_them_all(keeper: LeaseKeeper, storage: Storage) -> None:
    turns = [Turn(str(n), f"session {n}") for n in range(5)]
    add(keeper, *turns)
    storage.until({"0", "1", "2", "3", "4"})


def test_what_ended_is_not_renewed(keeper: LeaseKeeper, storage: Storage) -> None:
    one, two = Turn("one"), Turn("two")
    add(keeper, one, two)
    storage.until({"one", "two"})
    keeper.remove("one")
    storage.until({"two"})
    keeper.remove("unknown")
    keeper.remove("two")
    three = Turn("three")
    add(keeper, three)
    storage.until({"three"})


def test_what_was_lost_is_not_renewed_again(keeper: LeaseKeeper, storage: Storage) -> None:
    storage.lost = {"one"}
    one, two = Turn("one"), Turn("two")
    add(keeper, one, two)
    storage.until({"one", "two"})
    storage.until({"two"})
    assert storage.renewed() == {"two": REF}


def test_what_was_dropped_is_not_renewed(keeper: LeaseKeeper, storage: Storage) -> None:
    one, two = Turn("one"), Turn("two")
    add(keeper, one, two)
    storage.until({"one", "two"})
    del one
    gc.collect()
    storage.until({"two"})


def test_it_begins_again_after_a_pause(keeper: LeaseKeeper, storage: Storage) -> None:
    for token in ("one", "two", "three"):
        turn = Turn(token)
        add(keeper, turn)
        storage.until({token})
        keeper.remove(token)
        task = keeper._task
        if task is not None:
            task.result(30)  # it ends when there is nothing left to renew


@pytest.mark.parametrize("error", [StorageBusyError("locked"), ConnectionError("gone")])
def test_a_renewal_that_fails_is_tried_again(
    keeper: LeaseKeeper, storage: Storage, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    storage.errors = [error]
    turn = Turn("one")
    add(keeper, turn)
    for _ in range(3):
        storage.renewed()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(error) in caplog.text


def test_closing_ends_it(keeper: LeaseKeeper, storage: Storage) -> None:
    keeper.close()
    turn = Turn("one")
    add(keeper, turn)
    storage.renewed()
    task = keeper._task
    assert task is not None
    keeper.close()
    keeper.close()
    assert task.cancelled()


async def test_the_lease_is_the_storages_own() -> None:
    class Real(InMemorySessionStorage):
        renewals: SimpleQueue[set[str]] = SimpleQueue()

        async def renew_turns(self, tokens: Mapping[str, SessionRef], seconds: float) -> set[str]:
            held = await super().renew_turns(tokens, seconds)
            self.renewals.put(held)
            return held

    storage = Real()
    await storage.create_session(new_session("s"))
    begun = lease(SECONDS)
    first = (await storage.begin_turn(ref("s"), [user()], begun)).record.turn_expires
    assert first is not None
    keeper = LeaseKeeper(storage, SECONDS)
    turn = Turn(begun.token)
    add(keeper, turn)
    for _ in range(2):
        assert await asyncio.to_thread(storage.renewals.get, timeout=30) == {begun.token}
    keeper.close()
    assert ((await storage.find_session("s")).turn_expires or 0) > first


def test_a_forked_child_keeps_its_own_leases() -> None:
    # The parent's task goes on renewing for a while after its last turn ended; a child that is
    # forked then has the task's future, and nothing that runs it.
    program = """
        import os
        from queue import Empty, SimpleQueue
        from langswarm_session.turns.leases import LeaseKeeper
        from langswarm_session.testing.making import ref

        class Turn:
            ref = ref("s")
            def __init__(self, token):
                self.token = token

        class Storage:
            def __init__(self):
                self.calls = SimpleQueue()
            async def renew_turns(self, tokens, seconds):
                self.calls.put(set(tokens))
                return set(tokens)

        storage = Storage()
        keeper = LeaseKeeper(storage, 0.03)
        mine = Turn("parent")
        keeper.add(mine)
        print(storage.calls.get(timeout=30), flush=True)
        child = os.fork()
        if child == 0:
            while not storage.calls.empty():
                storage.calls.get()
            keeper.remove("parent")
            own = Turn("child")
            keeper.add(own)
            try:
                print(storage.calls.get(timeout=5), flush=True)
            except Empty:
                print("never renewed", flush=True)
            os._exit(0)
        print(os.waitpid(child, 0)[1])
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["{'parent'}", "{'child'}", "0"]


def test_what_is_dropped_is_not_kept_until_the_next_renewal(storage: Storage) -> None:
    keeper, turn = LeaseKeeper(storage, 3600), Turn("one")
    add(keeper, turn)
    keeper.remove("one")
    dropped = weakref.ref(keeper)
    del keeper
    gc.collect()
    assert dropped() is None


def test_a_manager_is_not_kept_by_its_last_turn() -> None:
    async def use() -> weakref.ref[Any]:
        manager = SessionManager("memory", lease_seconds=3600)
        await (await manager.create_session("ann", "mock", "echo")).send_message("x")
        return weakref.ref(manager.storage)

    dropped = asyncio.run(use())
    gc.collect()
    assert dropped() is None

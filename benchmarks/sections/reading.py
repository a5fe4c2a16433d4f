"""Reads to be timed, each with a look at how much came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contenders import Store, UnsupportedError

if TYPE_CHECKING:
    from benchmarks.children import Child
    from benchmarks.measure import Action, Timings
    from benchmarks.report import Cell

FEW = 20
"""How many messages the newest are."""


def whole(store: Store, least: int) -> Action:
    """Read all of session `s0`, which has so many messages or more."""

    async def read() -> None:
        _check(len(await store.read_all("s0")), least)

    return read


def whole_elsewhere(child: Child, least: int) -> Action:
    """The same in a process of the contender's own, as Python's collector goes over all it has."""

    async def read() -> None:
        child.say("read")
        _check(int(child.hear()), least)

    return read


def _check(found: int, least: int) -> None:
    if found < least:
        raise RuntimeError(f"{found} messages instead of {least}")


def newest(store: Store) -> Action:
    """Read the newest `FEW` messages of session `s0`."""

    async def read() -> None:
        found = len(await store.newest("s0", FEW))
        if found != FEW:
            raise RuntimeError(f"{found} messages instead of {FEW}")

    return read


def cell(timings: Timings, name: str, scale: float) -> Cell:
    """The median, or why there is none."""
    if reason := timings.failures.get(name):
        return reason.removeprefix(f"{UnsupportedError.__name__}: ")
    return timings.p50(name, scale)

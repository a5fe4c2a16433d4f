"""Who holds a lease, and whether that process is known to be dead.

A lease runs out when it is not renewed. Where the dead owner was a process of this machine, nobody
needs to wait that long. The owner counts as dead only if the operating system says so: a process
that cannot be seen may be one of another user under ``hidepid`` (proc(5), "Mount options"), and is
then left to its lease.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from langswarm_session.storage.calls import in_thread
from langswarm_session.storage.rules import CANCEL_MARK

_PIDS = 2**31
"""A pid is a C int."""

_NEVER = "never"


def this_process() -> str:
    """This process, as ``machine:pid:start``; the machine is empty where it cannot be told."""
    pid = os.getpid()
    if pid not in _known:
        _known[pid] = f"{_machine()}:{pid}:{_started(pid)}"
    return _known[pid]


def is_dead(owner: str | None) -> bool:
    """Whether the owner certainly runs no more; False where that cannot be known.

    Args:
        owner: What `this_process` gave in the owner's process, or that behind the mark of a lease
            whose turn is to be ended.
    """
    if owner is None:
        return False
    machine, _, process = owner.removeprefix(CANCEL_MARK).partition(":")
    number, _, started = process.partition(":")
    if not machine or machine != _machine() or not (number.isascii() and number.isdigit()):
        return False
    pid = int(number)
    seen = _started(pid)
    return not _exists(pid) or bool(seen and started and seen != started)


def _exists(pid: int) -> bool:
    """Whether there may be such a process."""
    if not 0 < pid < _PIDS:
        return True  # no process ever had it: the number says nothing
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's, whether it can be seen in /proc or not
        return True
    return True


async def current() -> str:
    """This process, as `this_process` names it; an event loop does not wait for files."""
    return await in_thread(this_process) if os.getpid() not in _known else this_process()


async def has_ended(owner: str | None) -> bool:
    """Whether `is_dead` says so; an event loop does not wait for files."""
    return owner is not None and await in_thread(is_dead, owner)


_known: dict[int, str] = {}
"""What this process is called, by its number: a forked child has another."""


@lru_cache(maxsize=1)
def _machine() -> str:
    """This boot of this machine and its pid namespace: pids mean nothing outside of them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink()).removeprefix("pid:")
    except OSError:  # not Linux: only the lease's end tells
        return ""
    return f"{boot}/{namespace}"


def _started(pid: int) -> str:
    """When a process started, in clock ticks since the boot; empty where that cannot be read.

    Tells it from a later process with the same pid; see proc(5), field 22 of ``stat``. One that has
    ended, but whose parent has not asked how, never started.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return _NEVER if fields[0] == "Z" else fields[19]

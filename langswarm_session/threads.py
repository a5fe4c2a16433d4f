"""Threads, also where they are greenlets.

After ``gevent.monkey.patch_all()`` what seem to be threads take turns on one thread of the system.
asyncio knows of one running event loop a thread, so that a loop, and whoever runs on one, has to
step back while another greenlet goes on.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def are_greenlets() -> bool:
    """Whether threads are greenlets.

    See https://www.gevent.org/api/gevent.monkey.html#gevent.monkey.is_module_patched.
    """
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def start_thread(run: Callable[[], object], name: str) -> threading.Thread:
    """Start a daemon, so that a forgotten close() cannot keep the interpreter from its exit."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    with others_go_on():
        thread.start()
    return thread


@contextmanager
def others_go_on() -> Iterator[None]:
    """Let greenlets run while this one waits: none of them is on its event loop."""
    running = asyncio._get_running_loop() if are_greenlets() else None
    if running is None:
        yield
        return
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(running)

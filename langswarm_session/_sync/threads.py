"""Threads, also where they are greenlets.

After ``gevent.monkey.patch_all()`` what seem to be threads take turns on one thread of the system,
while asyncio knows of one running event loop a thread: a second loop cannot begin, and whatever
runs next takes the first one for its own (https://github.com/gfmio/asyncio-gevent/issues/12,
https://github.com/django/asgiref/issues/443).
"""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any


def start_thread(run: Callable[[], object], name: str) -> threading.Thread:
    """Start a daemon, so that a forgotten close() cannot keep the interpreter from its exit."""
    if _are_greenlets():
        _give_each_its_loop()
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _are_greenlets() -> bool:
    # https://www.gevent.org/api/gevent.monkey.html#gevent.monkey.is_module_patched
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


class _LoopKeeper:
    """Sets asyncio's running loop aside when a greenlet is left, and puts it back for the next.

    See https://greenlet.readthedocs.io/en/latest/tracing.html.

    Args:
        before: What traced the switches until now, if anything.
    """

    def __init__(self, before: Callable[[str, Any], object] | None) -> None:
        self._before = before
        self._loops: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def __call__(self, event: str, details: Any) -> None:
        if event in ("switch", "throw"):
            left, entered = details
            self._loops[left] = asyncio._get_running_loop()
            asyncio._set_running_loop(self._loops.pop(entered, None))
        if self._before is not None:
            self._before(event, details)


def _give_each_its_loop() -> None:
    """Let each greenlet of this thread have a running loop of its own."""
    greenlet = sys.modules["greenlet"]  # gevent's own
    before = greenlet.gettrace()
    if not isinstance(before, _LoopKeeper):
        greenlet.settrace(_LoopKeeper(before))

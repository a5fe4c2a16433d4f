"""What watches for calls that block an event loop, as ``langgraph dev`` and LangChain's tests do.

A module that imports this one first is skipped where the watcher is not installed.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest

from langswarm_session._sync import bridge
from langswarm_session.storage import owner
from langswarm_session.storage.inline import Contention, LatencyGate

blockbuster = pytest.importorskip("blockbuster", reason="pip install 'langswarm-session[dev]'")

Watch = Literal["langgraph dev", "all"]

_ALLOWED = (
    "os.stat", "os.listdir", "os.remove", "io.BufferedReader.read", "io.BufferedWriter.write",
    "io.TextIOWrapper.read", "io.TextIOWrapper.write", "threading.Lock.acquire",
)  # fmt: skip
"""What ``langgraph dev`` does not watch for, beside ``os.path`` (``langgraph_runtime_inmem``,
``queue._enable_blockbuster``)."""


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, watch: Watch = "all") -> Iterator[None]:
    """Watch for blocking calls in a process that knows nothing yet; fails if there was one.

    Storages do on their callers' threads whatever they ever do there.
    """
    refused: list[str] = []

    class BlockingError(blockbuster.BlockingError):  # type: ignore[misc,name-defined]
        def __init__(self, function: str) -> None:
            refused.append("".join(traceback.format_stack(limit=12)))  # whoever catches it
            super().__init__(function)

    monkeypatch.setattr(blockbuster.blockbuster, "BlockingError", BlockingError)
    monkeypatch.setattr(owner, "_known", {})
    owner._machine.cache_clear()
    monkeypatch.setattr(LatencyGate, "is_open", True)
    monkeypatch.setattr(Contention, "is_likely", False)
    watcher = blockbuster.BlockBuster(excluded_modules=[])
    if watch == "langgraph dev":
        for name in [*watcher.functions]:
            if name in _ALLOWED or name.startswith("os.path."):
                del watcher.functions[name]
    watcher.activate()
    try:
        yield
    finally:
        watcher.deactivate()
    if refused:
        pytest.fail("\n".join(refused))


def run(work: Callable[[], Coroutine[Any, Any, None]], caller: Literal["async", "sync"]) -> None:
    """Run something on an event loop of its own, or for a sync caller."""
    if caller == "async":
        asyncio.run(work())
    else:
        bridge.run(work())

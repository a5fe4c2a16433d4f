"""Building many objects at once."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class _Pauses:
    lock = Lock()
    count = 0


@contextmanager
def collector_paused() -> Iterator[None]:
    """Lets the cyclic garbage collector wait, for all threads, until the last such block is done.

    Building many objects that all survive makes it scan them again and again for nothing, which
    doubles the time.
    """
    with _Pauses.lock:
        pausing = _Pauses.count > 0 or gc.isenabled()
        if pausing:
            _Pauses.count += 1
            gc.disable()
    try:
        yield
    finally:
        if pausing:
            with _Pauses.lock:
                _Pauses.count -= 1
                if not _Pauses.count:
                    gc.enable()

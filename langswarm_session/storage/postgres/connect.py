"""Connecting with asyncpg, also where blocking calls on event loops are refused.

asyncpg looks for a password file and for certificates on the event loop that it connects on
(``connect_utils._parse_connect_dsn_and_args``). Here that is the engine's own, which may wait for a
file; but what refuses blocking calls goes by whether any event loop runs on the thread. There, and
nowhere else, that step runs while none seems to, by a function of asyncpg's that is not public.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

import asyncpg  # type: ignore[import-untyped,import-not-found,unused-ignore]

from langswarm_session.storage.inline import is_watched


async def connect(*, timeout: float, **options: Any) -> Any:  # noqa: ASYNC109 - as the driver's
    """Connect as `asyncpg.connect` does.

    Args:
        timeout: How long it may take, in seconds.
        **options: Further options of `asyncpg.connect`.
    """
    if not is_watched():
        return await asyncpg.connect(timeout=timeout, **options)
    parameters = inspect.signature(asyncpg.connect).parameters.values()
    values = {each.name: each.default for each in parameters if each.name != "timeout"}
    values.update(options, loop=asyncio.get_running_loop())
    async with asyncio.timeout(timeout):
        return await _Unseen(asyncpg.connect_utils._connect(**values))


class _Unseen:
    """Awaits a coroutine whose first step runs on the event loop's thread, unseen by the loop.

    Args:
        work: The coroutine; in that step it must not ask for the running loop.
    """

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = self._first_step
        while True:
            try:
                waits_for = step()
            except StopIteration as stop:
                return stop.value
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001 - it is the coroutine's to deal with
                step = partial(self._work.throw, error)
            else:
                step = partial(self._work.send, None)

    def _first_step(self) -> Any:
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return self._work.send(None)
        finally:
            asyncio._set_running_loop(loop)

"""`python -m provider_server`: serve on a free port, print it, end when stdin closes."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import uvicorn

from .app import app
from .faults import Protocol


def end_with_stdin() -> None:
    """End this process as soon as its parent has closed the pipe, or has died."""
    sys.stdin.buffer.read()
    os._exit(0)


async def main() -> None:
    """Serve until stdin closes."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http=Protocol, ws="none", lifespan="off",
        access_log=False, log_level="warning", timeout_keep_alive=600,
    )  # fmt: skip
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():
        await asyncio.wait({serving}, timeout=0.005)
    if server.started:
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await serving


threading.Thread(target=end_with_stdin, daemon=True).start()
asyncio.run(main())

"""The server as the tests hold it: its process, and one world of it per API key."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from .prefixes import share

FOLDER = Path(__file__).resolve().parent


class ProviderServer:
    """The stand-in server in a process of its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where the server listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start the process and wait until it listens."""
        paths = [str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", FOLDER.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError("the provider server did not start; see its stderr")
        self.port = int(line)
        return self

    def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def world(self, key: str | None = None, **settings: Any) -> ServerWorld:
        """The world of a key, a fresh and empty one when none is given, with these settings."""
        world = ServerWorld(self.port, key or f"key-{uuid.uuid4().hex}")
        if settings:
            world.set(**settings)
        return world


class ServerWorld:
    """One API key's part of the server."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self.key = port, key
        self.openai_url = f"http://127.0.0.1:{port}/openai/v1"
        self.anthropic_url = f"http://127.0.0.1:{port}/anthropic"
        self.vertex_url = f"{self.anthropic_url}/vertex"

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the server's control routes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, f"/_control/{quote(self.key, safe='')}/{path}", sent)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"{method} {path}: {response.status} {answer.decode()}")
        return json.loads(answer)

    def requests(self, path: str | None = None) -> list[dict[str, Any]]:
        """What was asked, in order; `path` is "/v1/x" or "POST /v1/x", `*` one segment of it."""
        asked: list[dict[str, Any]] = self._call(
            "GET", "requests" + (f"?path={quote(path, safe='')}" if path else "")
        )
        return asked

    def shares(self, path: str) -> list[float]:
        """How much of each request to `path` the next one begins with, by parts: 1.0 if all of it."""
        bodies = [one["body"] for one in self.requests(path)]
        return [share(one, other) for one, other in itertools.pairwise(bodies)]

    def reply(self, *replies: dict[str, Any]) -> None:
        """Script the model's next replies."""
        self._call("POST", "replies", list(replies))

    def fail(self, on: str, kind: str, *, times: int = 1, after: int = 0, **options: Any) -> None:
        """Plan a fault for the requests `on`; `times=-1` is for ever."""
        fault = {"on": on, "kind": kind, "times": times, "after": after, "options": options}
        self._call("POST", "faults", fault)

    def set(self, **settings: Any) -> None:
        """Change settings; None takes one away."""
        self._call("POST", "settings", settings)

    def refused(self) -> list[str]:
        """The messages of all refusals, in order."""
        errors = [one["error"] for one in self.state()["refused"]]
        return [str(error.get("error", error).get("message")) for error in errors]

    def state(self) -> dict[str, Any]:
        """What the server keeps: conversations, threads, sessions, refusals..."""
        state: dict[str, Any] = self._call("GET", "state")
        return state

    def lose(self, what: str, id: str | None = None) -> int:  # noqa: A002 - the contract's name
        """Forget a "conversation", "item", "thread" or "session"; all of them without an id."""
        lost: int = self._call("POST", "lose", {"what": what, "id": id})["lost"]
        return lost

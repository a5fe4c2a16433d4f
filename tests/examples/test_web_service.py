"""The example service, over HTTP, by a server of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langswarm_session import SessionManager

FOLDER = Path(__file__).parents[2] / "examples" / "web_service"


class Client:
    def __init__(self, port: int, user: str) -> None:
        self.port, self.user = port, user

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        connection = self.open(method, path, body, **headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(text) if is_json else text

    def open(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = None if body is None else json.dumps(body)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, sent, {"X-User": self.user, **names})
        return connection


class Server:
    """The service, in a process of its own."""

    def __init__(self, db: Path, *options: str) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(self.port)]
        self.db = db
        self.process = subprocess.Popen(
            [*command, "--log-level", "critical", *options],
            cwd=FOLDER,
            env={**os.environ, "DB": str(db)},
            stderr=subprocess.DEVNULL,
        )
        for _ in range(400):
            try:
                Client(self.port, "x").ask("GET", "/sessions")
                break
            except OSError:
                time.sleep(0.05)

    def stop(self, *signals: signal.Signals) -> None:
        """Stop it as whoever runs it does, and wait until it has ended."""
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.3)
        self.process.wait(30)

    def turns(self, session: str) -> list[tuple[str, str]]:
        """How a session's turns stand, each with what is kept of its answer."""

        async def read() -> list[tuple[str, str]]:
            config = {"db_path": str(self.db)}
            async with SessionManager("sqlite", storage_config=config) as manager:
                found = await manager.get_session(session)
                answers = {
                    message.turn_id: message.text
                    for message in await found.get_messages()
                    if message.role == "assistant"
                }
                turns = await found.get_turns()
                return [(turn.status.value, answers.get(turn.id, "")) for turn in turns]

        return asyncio.run(read())

    def ended(self, session: str) -> tuple[str, str]:
        """How a session's only turn ended; waits for that."""
        for _ in range(400):
            found = self.turns(session)
            if found and found[0][0] != "open":
                break
            time.sleep(0.05)
        (turn,) = found
        return turn


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    server = Server(tmp_path_factory.mktemp("service") / "service.db")
    yield server
    server.stop(signal.SIGTERM)


@pytest.fixture
def service(server: Server) -> tuple[int, Path]:
    return server.port, server.db


LONG = "word " * 1000
"""Takes the mock 20 seconds."""


def read_some(client: Client, path: str, text: str = LONG) -> tuple[Any, str]:
    """Read the beginning of a streamed answer.

    Returns:
        What closes the connection, and what was read of the answer.
    """
    connection = client.open("POST", path, {"text": text}, Accept="text/event-stream")
    response = connection.getresponse()
    pieces: list[str] = []
    while len(pieces) < 5:
        line = response.readline().decode()
        assert line, "the stream ended"
        if line.startswith("data: "):
            pieces.append(json.loads(line.removeprefix("data: ")))

    def close() -> None:
        response.close()
        connection.close()

    return close, "".join(pieces)


@pytest.fixture
def ann(service: tuple[int, Path]) -> Client:
    return Client(service[0], "ann")


def new(client: Client) -> str:
    status, body = client.ask("POST", "/sessions")
    assert status == 201
    return str(body["id"])


def test_a_conversation(ann: Client):
    path = f"/sessions/{new(ann)}/messages"
    assert ann.ask("POST", path, {"text": "Hello"})[0] == 200
    status, reply = ann.ask("POST", path, {"text": "Again"})
    assert (status, reply["seq"]) == (200, 4)
    assert "I remember 2 messages" in reply["text"]
    assert [each["role"] for each in ann.ask("GET", path)[1]] == ["user", "assistant"] * 2


def test_a_users_sessions_are_nobody_elses(ann: Client, service: tuple[int, Path]):
    session = new(ann)
    bob = Client(service[0], "bob")
    assert bob.ask("GET", f"/sessions/{session}/messages")[0] == 404
    assert bob.ask("POST", f"/sessions/{session}/messages", {"text": "x"})[0] == 404
    assert bob.ask("DELETE", f"/sessions/{session}")[0] == 404
    assert session not in str(bob.ask("GET", "/sessions")[1])
    assert session in str(ann.ask("GET", "/sessions")[1])
    assert ann.ask("DELETE", f"/sessions/{session}")[0] == 204
    assert ann.ask("GET", f"/sessions/{session}/messages")[0] == 404


def test_a_retry_is_given_the_stored_reply(ann: Client):
    path = f"/sessions/{new(ann)}/messages"
    first = ann.ask("POST", path, {"text": "Hello"}, Idempotency_Key="1")
    assert ann.ask("POST", path, {"text": "Hello"}, Idempotency_Key="1") == first
    assert ann.ask("POST", path, {"text": "Other"}, Idempotency_Key="1")[0] == 409
    assert len(ann.ask("GET", path)[1]) == 2


def test_a_stream(ann: Client):
    path = f"/sessions/{new(ann)}/messages"
    connection = ann.open("POST", path, {"text": "Hello"}, Accept="text/event-stream")
    response = connection.getresponse()
    events = [part.split("\ndata: ") for part in response.read().decode().strip().split("\n\n")]
    connection.close()
    pieces = "".join(json.loads(data) for kind, data in events if kind == "event: text")
    kind, data = events[-1]
    assert kind == "event: message"
    assert json.loads(data)["text"] == pieces


def test_a_client_that_goes_away_cancels_its_turn(ann: Client, server: Server):
    session = new(ann)
    path = f"/sessions/{session}/messages"
    close, read = read_some(ann, path)
    close()
    status, kept = server.ended(session)
    assert status == "cancelled"
    assert kept.startswith(read)
    assert len(kept) < len(LONG)
    assert ann.ask("POST", path, {"text": "Hello"})[0] == 200


def test_an_answer_is_stopped_from_another_connection(ann: Client, server: Server):
    session = new(ann)
    path = f"/sessions/{session}"
    assert ann.ask("POST", f"{path}/cancel") == (200, {"cancelled": False})
    connection = ann.open("POST", f"{path}/messages", {"text": LONG}, Accept="text/event-stream")
    response = connection.getresponse()
    response.readline()
    assert ann.ask("POST", f"{path}/cancel") == (200, {"cancelled": True})
    status, kept = server.ended(session)
    *_, last = response.read().decode().strip().split("\n\n")
    connection.close()
    assert status == "cancelled"
    assert kept.startswith("You ")
    assert last.startswith("event: error\ndata: ")
    assert json.loads(last.partition("data: ")[2])["error"] == "TurnCancelledError"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGTERM], [signal.SIGINT], [signal.SIGINT, signal.SIGINT]],
    ids=["terminated", "interrupted", "interrupted-twice"],
)
def test_a_server_that_is_stopped_keeps_what_was_shown(
    tmp_path: Path, signals: list[signal.Signals], workers: int
):
    pytest.importorskip("uvicorn")
    if workers > 1 and len(signals) > 1:
        pytest.skip("the server's parent process passes the first one on, and takes the second")
    options = ["--timeout-graceful-shutdown", "1", "--workers", str(workers)]
    server = Server(tmp_path / "service.db", *options)
    try:
        ann = Client(server.port, "ann")
        session = new(ann)
        close, read = read_some(ann, f"/sessions/{session}/messages")
        server.stop(*signals)
        (turn,) = server.turns(session)
        close()
    finally:
        server.process.kill()
        server.process.wait()
    assert turn[0] == "cancelled"
    assert turn[1].startswith(read)

    async def go_on() -> str:
        config = {"db_path": str(server.db)}
        async with SessionManager("sqlite", storage_config=config) as manager:
            found = await manager.get_session(session)
            return (await found.send_message("next", wait=0)).text

    assert asyncio.run(go_on())


def test_errors_have_a_status_and_a_name(ann: Client, service: tuple[int, Path]):
    session = new(ann)
    status, body = ann.ask("POST", f"/sessions/{session}/messages", {"text": ""})
    assert (status, body["error"]) == (422, "InvalidInputError")
    for body in ({"txt": "x"}, {"text": 5}, ["x"], "x", None):
        assert ann.ask("POST", f"/sessions/{session}/messages", body)[0] == 422
    assert ann.ask("GET", "/sessions?cursor=nonsense")[0] == 422
    assert Client(service[0], "").ask("GET", "/sessions")[0] == 401


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"text": ' * 50_000, b"\xff", b"", b'{"text": "\\ud800"}', b"9" * 10_000],
    ids=["nested", "nested-objects", "no-text", "empty", "half-a-character", "a-long-number"],
)
def test_a_body_that_means_harm_is_refused(ann: Client, body: bytes):
    connection = http.client.HTTPConnection("127.0.0.1", ann.port, timeout=30)
    connection.request("POST", f"/sessions/{new(ann)}/messages", body, {"X-User": "ann"})
    status = connection.getresponse().status
    connection.close()
    assert status == 422


def test_errors_speak_to_the_client_and_not_to_its_programmer(ann: Client):
    session = new(ann)
    for path, body in (
        ("/sessions/nowhere/messages", {"text": "x"}),
        (f"/sessions/{session}/messages", {"text": ""}),
        ("/sessions/" + "x" * 2000 + "/messages", {"text": "x"}),
    ):
        _, answer = ann.ask("POST", path, body)
        assert set(answer) == {"error", "detail"}
        assert not re.search(r"\(\)|_|session_id|turn_wait", answer["detail"])

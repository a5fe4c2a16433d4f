"""The example service, over HTTP, by a server of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
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


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    db = tmp_path_factory.mktemp("service") / "service.db"
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "uvicorn",
            "service:app",
            "--port",
            str(port),
            "--log-level",
            "error",
        ],
        cwd=FOLDER,
        env={**os.environ, "DB": str(db)},
    )
    try:
        for _ in range(200):
            try:
                Client(port, "x").ask("GET", "/sessions")
                break
            except OSError:
                time.sleep(0.05)
        yield port, db
    finally:
        process.terminate()
        process.wait()


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


def test_a_client_that_goes_away_cancels_its_turn(ann: Client, service: tuple[int, Path]):
    session = new(ann)
    path = f"/sessions/{session}/messages"
    text = "word " * 1000  # takes the mock 20 seconds
    connection = ann.open("POST", path, {"text": text}, Accept="text/event-stream")
    response = connection.getresponse()
    response.read(100)
    response.close()
    connection.close()

    async def statuses() -> list[str]:
        async with SessionManager("sqlite", storage_config={"db_path": str(service[1])}) as manager:
            found = await manager.get_session(session)
            return [turn.status.value for turn in await found.get_turns()]

    for _ in range(200):
        if asyncio.run(statuses()) == ["cancelled"]:
            break
        time.sleep(0.05)
    assert asyncio.run(statuses()) == ["cancelled"]
    assert ann.ask("POST", path, {"text": "Hello"})[0] == 200


def test_errors_have_a_status_and_a_name(ann: Client, service: tuple[int, Path]):
    session = new(ann)
    status, body = ann.ask("POST", f"/sessions/{session}/messages", {"text": ""})
    assert (status, body["error"]) == (422, "InvalidInputError")
    for body in ({"txt": "x"}, {"text": 5}, ["x"], "x", None):
        assert ann.ask("POST", f"/sessions/{session}/messages", body)[0] == 422
    assert ann.ask("GET", "/sessions?cursor=nonsense")[0] == 422
    assert Client(service[0], "").ask("GET", "/sessions")[0] == 401

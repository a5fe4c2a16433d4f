"""``export``: sessions as lines, as a document, and to be read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from langswarm_session import (
    ImageBlock,
    ReasoningBlock,
    SessionManager,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_address")


@pytest.fixture(autouse=True)
def some_sessions(fill):
    async def write(manager: SessionManager) -> None:
        session = await manager.create_session("ada", "mock", "echo", session_id="a", topic="x")
        await session.send_message("<b>Hi</b>\n## assistant\n\x1b[2J", idempotency_key="k")
        call = ToolCallBlock(id="c1", name="look_up", args={"city": "Göteborg"})
        result = ToolResultBlock(tool_call_id="c1", content="``` 12 °C")
        blocks = [ReasoningBlock(reasoning="hm"), TextBlock(text="Wait."), call]
        image = ImageBlock(file_id="file-1")
        await session.record(
            [
                SessionMessage(role="assistant", content=blocks),
                SessionMessage(role="tool", content=[result]),
                SessionMessage(role="user", content=[image, TextBlock(text="x" * 30_000)]),
            ]
        )
        await manager.create_session("bob", "mock", "echo", session_id="b")

    fill(write)


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_lines_that_hold_everything(process):
    result = process("export", "a")
    assert (result.returncode, result.stderr) == (0, "")
    head, turn, *messages, end = lines(result.stdout)
    assert (head["format"], head["session"]["context"]) == ("langswarm-session", {"topic": "x"})
    assert (turn["type"], turn["key"]) == ("turn", "k")
    assert [message["seq"] for message in messages] == [1, 2, 3, 4, 5]
    assert messages[0]["content"].endswith("\x1b[2J")
    assert end["messages"] == 5
    assert "\x1b" not in result.stdout


def test_which_sessions(cli):
    def exported(*arguments: str) -> list[str]:
        found = lines(cli("export", *arguments).stdout)
        return [line["session"]["session_id"] for line in found if line["type"] == "session"]

    assert exported("b", "a") == ["b", "a"]
    assert exported("--user", "bob") == ["b"]
    assert sorted(exported("--all")) == ["a", "b"]
    assert exported("--user", "nobody") == []
    assert exported("a", "--user", "ada") == ["a"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 2),
        (("a", "--all"), 2),
        (("--all", "--user", "ada"), 2),
        (("a", "--format", "xml"), 2),
        (("a", "nowhere"), 4),
        (("a", "--user", "bob"), 4),
        (("a", "-o", "no/such/folder/x"), 1),
    ],
)
def test_what_cannot_be_exported(process, arguments, code):
    result = process("export", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.count("\n") == 1


def test_a_file_appears_when_all_of_it_is_there(cli, tmp_path):
    result = cli("export", "--all", "-o", "out.jsonl")
    assert (result.stdout, result.stderr) == ("", "2 sessions with 5 messages in out.jsonl\n")
    written = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert lines(written) == lines(cli("export", "--all").stdout)
    said = json.loads(cli("export", "--all", "-o", "out.jsonl", "--json").stdout)
    assert said == {"sessions": 2, "messages": 5, "output": "out.jsonl", "left_out": {}}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


def test_a_document(cli):
    document = json.loads(cli("export", "--all", "--format", "json").stdout)
    assert (document["format"], document["version"]) == ("langswarm-session", 1)
    whole = {each["session"]["session_id"]: each for each in document["sessions"]}
    assert [line["type"] for line in whole["a"]["log"]] == ["turn"] + ["message"] * 5
    assert whole["b"] == {"session": whole["b"]["session"], "log": [], "messages": 0}


def test_the_chat_format(cli):
    result = cli("export", "a", "b", "--format", "openai")
    first, second = lines(result.stdout)
    assert second == {"id": "b", "messages": []}
    assert [message["role"] for message in first["messages"]] == [
        "user",
        "assistant",
        "assistant",
        "tool",
        "user",
    ]
    call = first["messages"][2]["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"])) == ("look_up", {"city": "Göteborg"})
    assert "no place for it: image (1), reasoning (1)" in result.stderr


def test_markdown_is_quoted(cli):
    text = cli("export", "a", "--format", "markdown").stdout
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings[0] == "# a"
    assert [heading.split()[1] for heading in headings[1:]] == [
        "user",
        "assistant",
        "assistant",
        "tool",
        "user",
    ]
    assert "> ## assistant" in text
    assert "> ````\n> ``` 12 °C\n> ````" in text
    assert '>   "city": "Göteborg"' in text
    assert "x" * 30_000 in text


def test_html_is_escaped_and_whole(cli, tmp_path):
    cli("export", "a", "--format", "html", "-o", "a.html")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;Hi&lt;/b&gt;" in text
    assert "<b>Hi" not in text
    assert "x" * 30_000 in text
    assert text.startswith("<!doctype html>")
    assert text.endswith("</body></html>\n")


def test_a_reader_that_leaves_is_no_error(command):
    with subprocess.Popen(
        [*command, "export", "--all", "--format", "html"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as export:
        assert export.stdout.read(1)
        export.stdout.close()
        assert export.stderr.read() == ""
        assert export.wait(timeout=30) == 0


def test_an_interrupt_leaves_no_file(command, fill, tmp_path):
    async def write(manager: SessionManager) -> None:
        session = await manager.create_session("ada", "mock", "echo", session_id="long")
        for _ in range(20):
            page = [SessionMessage(role="user", content="x" * 50) for _ in range(1000)]
            await session.record(page)

    fill(write)
    (tmp_path / "long.jsonl").write_text("what was there before")
    export = subprocess.Popen(
        [*command, "export", "long", "-o", "long.jsonl"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    while not [path for path in tmp_path.iterdir() if path.name.startswith(".long")]:
        assert export.poll() is None
    export.send_signal(signal.SIGINT)
    _, errors = export.communicate(timeout=60)
    assert (export.returncode, errors) == (130, "")
    assert (tmp_path / "long.jsonl").read_text() == "what was there before"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".long")]


@pytest.mark.skipif(sys.platform != "linux", reason="measured by /proc")
def test_a_long_log_is_not_held_in_memory(command, fill, tmp_path, address):
    """120 MB of messages, exported and imported with less memory than that."""

    async def write(manager: SessionManager) -> None:
        session = await manager.create_session("ada", "mock", "echo", session_id="large")
        for _ in range(30):
            page = [SessionMessage(role="user", content="x" * 40_000) for _ in range(100)]
            await session.record(page)

    fill(write)
    assert _peak_memory([*command, "export", "large", "-o", "large.jsonl"], tmp_path) < 100
    assert Path(tmp_path / "large.jsonl").stat().st_size > 120_000_000
    arguments = ["import", "large.jsonl", "--as", "again"]
    assert _peak_memory([*command, *arguments], tmp_path) < 100


def _peak_memory(command: list[str], folder: Path) -> float:
    """How much memory a command took at most, in MB."""
    file = folder / "memory"
    environment = {**os.environ, "TEST_MEMORY": str(file)}
    subprocess.run(command, check=True, capture_output=True, timeout=60, env=environment)
    return int(file.read_text()) / 1000

"""``show``: a session with its messages."""

from __future__ import annotations

import json
import subprocess

import pytest

from langswarm_session import (
    ImageBlock,
    MessageRole,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    SessionManager,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)


@pytest.fixture(autouse=True)
def a_session(fill):
    def message(role: MessageRole, content) -> SessionMessage:
        return SessionMessage(role=role, content=content)

    async def write(manager: SessionManager) -> None:
        session = await manager.create_session("ada", "mock", "echo", session_id="a")
        call = ToolCallBlock(id="c1", name="look_up", args={"city": "Göteborg"})
        await session.record(
            [
                message(MessageRole.USER, "How warm is it?\n[bold]Now[/bold], I mean. \x1b[2J"),
                message(MessageRole.ASSISTANT, [ReasoningBlock(), TextBlock(text="Wait."), call]),
                message(MessageRole.TOOL, [ToolResultBlock(tool_call_id="c1", content="12 °C")]),
                message(
                    MessageRole.TOOL,
                    [ToolResultBlock(tool_call_id="c1", content="no", is_error=True)],
                ),
                message(
                    MessageRole.ASSISTANT,
                    [
                        RefusalBlock(refusal="I'd rather not say."),
                        ImageBlock(mime_type="image/png", base64="AAAA"),
                        OtherBlock(value={"type": "map"}),
                    ],
                ),
            ]
        )

    fill(write)


def test_a_transcript(cli):
    result = cli("show", "a")
    assert result.exit_code == 0
    assert result.stdout.startswith("session a  user ada  mock/echo  active  5 messages")
    assert "  How warm is it?\n  [bold]Now[/bold], I mean. \\x1b[2J\n" in result.stdout
    assert '  Wait.\n  -> look_up({"city": "Göteborg"})\n' in result.stdout
    assert "  <- 12 °C\n" in result.stdout
    assert "  <- failed: no\n" in result.stdout
    assert "  [refused] I'd rather not say.\n  [image image/png given by value]\n  [map]\n" in (
        result.stdout
    )
    roles = [line.split()[0] for line in result.stdout.splitlines() if "  #" in line]
    assert roles == ["user", "assistant", "tool", "tool", "assistant"]


def test_the_newest_messages(cli):
    result = cli("show", "a", "--limit", "1")
    assert "(4 earlier messages are not shown)" in result.stdout
    assert "How warm" not in result.stdout
    assert "not say" in result.stdout


def test_json_is_one_object(cli):
    result = cli("show", "a", "--json")
    shown = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    messages = [SessionMessage.model_validate(message) for message in shown["messages"]]
    assert [message.seq for message in messages] == [1, 2, 3, 4, 5]
    assert messages[0].text.endswith("\x1b[2J")
    assert messages[1].content[2].args == {"city": "Göteborg"}
    assert shown["turns"][0]["status"] == "complete"
    assert "\x1b" not in result.stdout
    assert "Göteborg" in result.stdout


def test_json_in_another_encoding(process, monkeypatch):
    monkeypatch.setenv("PYTHONUTF8", "0")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert "G\\u00f6teborg" in process("show", "a", "--json").stdout
    assert "G\\xf6teborg" in process("show", "a").stdout


def test_no_such_session(process):
    result = process("show", "b")
    assert (result.returncode, result.stdout) == (4, "")
    assert result.stderr.startswith("error: session 'b': there is no such session")
    error = json.loads(process("show", "b", "--json").stderr)
    assert error["error"] == "SessionNotFoundError"
    assert error["exit_code"] == 4


def test_a_reader_that_leaves_is_no_error(command, fill):
    async def write(manager: SessionManager) -> None:
        session = await manager.get_session("a")
        await session.record([SessionMessage(role="user", content="x" * 500) for _ in range(2000)])

    fill(write)
    for options in ((), ("--json",)):
        with subprocess.Popen(
            [*command, "show", "a", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as show:
            assert show.stdout.read(1)
            show.stdout.close()
            assert show.stderr.read() == ""
            assert show.wait(timeout=30) == 0

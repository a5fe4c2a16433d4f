"""``chat`` with a pipe: a line is a message, replies are on standard output."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from langswarm_session import SessionManager

QUESTIONS = Path(__file__).parents[4] / "shared/data/two_turn_questions.jsonl"


def test_a_line_is_a_message(cli):
    result = cli("chat", "--session", "a", input="hello\n\nand again\n")
    assert result.exit_code == 0
    assert result.stdout == (
        "You said: hello (That is the first thing I hear from you.)\n"
        "You said: and again (Before that: hello I remember 2 messages.)\n"
    )
    assert result.stderr == "session a is new\n"


def test_it_goes_on_the_next_time(cli):
    cli("chat", "--session", "a", input="hello\nthe last thing said\n")
    result = cli("chat", "--session", "a", input="more\n")
    assert "Before that: the last thing said I remember 3 messages." in result.stdout
    assert "session a goes on: 4 messages so far" in result.stderr
    assert "user: the last thing said" in result.stderr
    assert "assistant: You said: the last thing said" in result.stderr
    assert "hello\n" not in result.stderr


def test_a_session_without_a_name_gets_one(cli):
    first = cli("chat", input="hello\n")
    session_id = first.stderr.split()[1]
    assert f"--session {session_id} goes on with it" in first.stderr
    assert "Before that: hello" in cli("chat", "--session", session_id, input="more\n").stdout


def test_nothing_said_leaves_nothing_behind(cli):
    result = cli("chat", "--session", "a", input="")
    assert (result.exit_code, result.stdout) == (0, "")
    assert cli("show", "a").exit_code == 4


def test_the_demonstration_speaks_when_nobody_does(cli):
    first = cli("chat", "--session", "a", "--demo", input="")
    assert first.stdout.startswith("you> Hello, my name is Ada.\nYou said: Hello")
    again = cli("chat", "--session", "a", "--demo", input="")
    assert "I remember 4 messages" in again.stdout
    assert "you>" not in cli("chat", "--session", "b", "--demo", input="hello\n").stdout


def test_json_has_the_whole_reply_and_nothing_else(cli):
    result = cli("chat", "--session", "a", "--json", "--demo", input="one\ntwo\n")
    first, second = map(json.loads, result.stdout.splitlines())
    assert first["session_id"] == "a"
    assert first["message"]["role"] == "assistant"
    assert second["message"]["seq"] == 4
    assert result.stderr == ""


def test_user_provider_and_model_of_a_new_session(cli):
    result = cli("chat", "--session", "a", "--user", "ada", "--model", "echo", input="hello\n")
    assert result.stdout == "You said: hello\n"
    shown = json.loads(cli("show", "a", "--json").stdout)
    assert (shown["user_id"], shown["provider"], shown["model"]) == ("ada", "mock", "echo")


def test_another_model_takes_over_when_asked_for(cli):
    cli("chat", "--session", "a", input="hello\n")
    assert cli("chat", "--session", "a", "--model", "echo", input="x\n").stdout == "You said: x\n"
    assert cli("chat", "--session", "a", input="y\n").stdout == "You said: y\n"


def test_another_users_session_is_refused(cli):
    cli("chat", "--session", "a", "--user", "ada", input="hello\n")
    result = cli("chat", "--session", "a", "--user", "bob", input="hello\n")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "the user 'bob' has no such session" in result.stderr


def test_an_archived_session_takes_no_message(cli, fill):
    cli("chat", "--session", "a", input="hello\n")
    fill(lambda manager: manager.archive_session("a"))
    result = cli("chat", "--session", "a", input="hello\n")
    assert result.exit_code == 1
    assert "archived" in result.stderr


def test_a_framework_s_session_needs_a_provider(cli, fill):
    async def write(manager: SessionManager) -> None:
        session = await manager.get_or_create_session("a", provider="langchain")
        await session.add_system_message("Be brief.")

    fill(write)
    result = cli("chat", "--session", "a", input="hello\n")
    assert result.exit_code == 1
    assert "--provider" in result.stderr
    assert cli("chat", "--session", "a", "--provider", "mock", input="hello\n").exit_code == 0


def test_a_failed_reply_costs_no_other(process):
    options = ("--session", "a", "--provider", "flaky", "--model", "recall")
    result = process("chat", *options, stdin="1\n2\nthree is long enough\n4\n")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("fine", "fine again")
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "Traceback" not in result.stderr
    shown = process("show", "a").stdout
    assert shown.count("(this turn was failed: Provider") == 2


def test_errors_are_json_with_json(process):
    options = ("--session", "a", "--provider", "flaky", "--model", "recall", "--json")
    result = process("chat", *options, stdin="1\n2\n")
    error = json.loads(result.stderr)
    assert error["error"] == "ProviderRateLimitError"
    assert error["exit_code"] == result.returncode == 1


def test_a_tool_call_is_readable(process):
    result = process("chat", "--provider", "calls", "--model", "recall", stdin="weather?\n")
    assert result.stdout == '-> look_up({"city": "Uppsala"})\n'


def test_nothing_in_a_reply_steers_the_terminal(process):
    result = process("chat", "--provider", "escapes", "--model", "recall", stdin="\x1b[1mhi\n")
    assert "\x1b" not in result.stdout + result.stderr
    assert "\x9b" not in result.stdout
    assert result.stdout.startswith("\\x1b[31mred\\x1b[0m \\x1b]0;title\\x07 \\x9b2J [bold]not")
    assert ":smile: \\u202eabc" in result.stdout


def test_bytes_that_are_no_text_are_replaced(command):
    result = subprocess.run(
        [*command, "chat", "--model", "echo"],
        input=b"caf\xe9\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert result.stdout.decode() == "You said: caf\ufffd\n"


def test_an_interrupt_ends_a_pipe_s_chat_and_cancels_the_turn(command, process):
    with subprocess.Popen(
        [*command, "chat", "--session", "a", "--provider", "slow", "--model", "recall"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as chat:
        chat.stdin.write("a reply of many words\nand another\n")
        chat.stdin.flush()
        assert chat.stdout.read(4) == "You "
        chat.send_signal(signal.SIGINT)
        _, errors = chat.communicate(timeout=30)
    assert chat.returncode == 130
    assert "Traceback" not in errors
    shown = process("show", "a").stdout
    assert "(this turn was cancelled)" in shown
    assert "and another" not in shown


def test_a_reader_that_leaves_ends_the_chat_quietly(command):
    with subprocess.Popen(
        [*command, "chat", "--provider", "slow", "--model", "recall"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as chat:
        chat.stdin.write("a reply of many words\n")
        chat.stdin.close()
        assert chat.stdout.read(4) == "You "
        chat.stdout.close()
        assert chat.stderr.read().count("\n") == 1  # the session's name
        assert chat.wait(timeout=30) == 0


@pytest.mark.skipif(not QUESTIONS.exists(), reason="the questions are not on this machine")
def test_the_eighty_questions_go_through_a_pipe(process):
    rows = map(json.loads, QUESTIONS.read_text(encoding="utf-8").splitlines())
    lines = [" ".join(turn.split()) for row in rows for turn in row["turns"]]
    result = process("chat", "--session", "q", "--model", "echo", stdin="\n".join(lines))
    assert result.returncode == 0
    assert result.stdout.splitlines() == [f"You said: {line}" for line in lines]
    shown = json.loads(process("show", "q", "--json").stdout)
    assert shown["metrics"]["message_count"] == 2 * len(lines) == 320

"""What is asked of a person before something is gone for good, and what people see."""

from __future__ import annotations

import json

import pytest

from langswarm_session import SessionManager

pytest.importorskip("pty", reason="there are no pseudo-terminals here")


@pytest.fixture(autouse=True)
def a_session(fill):
    async def write(manager: SessionManager) -> None:
        session = await manager.create_session("ada", "mock", "echo", session_id="a")
        await session.send_message("A needle \x1b[2J")

    fill(write)


def there(process) -> bool:
    return bool(json.loads(process("list", "--json").stdout)["sessions"])


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (["erase", "--user", "ada"], "Erase 1 sessions with 2 messages of 'ada' for good?"),
        (["cleanup", "--delete", "--inactive-hours", "0"], "Delete 1 sessions for good?"),
    ],
)
def test_yes_no_and_ctrl_c(terminal, command, process, arguments, question):
    person = terminal([*command, *arguments])
    person.sees(question)
    assert person.interrupts() == 130
    assert there(process)
    person = terminal([*command, *arguments])
    person.sees(question)
    person.type("n\n")
    person.sees("nothing was done")
    assert person.process.wait(timeout=30) == 1
    assert there(process)
    person = terminal([*command, *arguments])
    person.sees(question)
    person.type("y\n")
    person.sees("1 sessions ")
    assert person.process.wait(timeout=30) == 0
    assert not there(process)


def test_nothing_to_delete_is_nothing_to_ask(terminal, command):
    person = terminal([*command, "cleanup", "--delete"])
    person.sees("0 sessions deleted")
    assert person.process.wait(timeout=30) == 0


def test_a_match_has_a_colour_of_its_own_and_no_message_has_one(terminal, command):
    person = terminal([*command, "search", "needle"])
    seen = person.sees("\\x1b[2J")
    assert "\x1b[1;7mneedle\x1b[0m" in seen
    assert "\x1b[2J" not in seen
    assert "**" not in seen


def test_markdown_does_not_steer_a_terminal(terminal, command):
    person = terminal([*command, "export", "a", "--format", "markdown"])
    assert "\x1b" not in person.sees("\\x1b[2J")

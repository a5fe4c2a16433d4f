"""``chat`` with a person, at a terminal."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator

import pytest

pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")

CTRL_C, CTRL_D = "\x03", "\x04"


class Person:
    """Somebody at a terminal that runs the command line."""

    def __init__(self, command: list[str]) -> None:
        self.screen = ""
        self._terminal, terminal = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
        )
        os.close(terminal)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def sees(self, text: str) -> str:
        """Wait for a text; returns what was on the screen up to it, once."""
        deadline = time.monotonic() + 30
        while text not in self.screen:
            wait = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._terminal], [], [], wait)
            assert ready, f"no {text!r} in {self.screen!r}"
            self.screen += os.read(self._terminal, 4096).decode(errors="replace")
        seen, found, self.screen = self.screen.partition(text)
        return seen + found

    def leave(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@pytest.fixture
def person(command: list[str]) -> Iterator[Person]:
    options = ["--session", "p", "--provider", "slow", "--model", "recall"]
    somebody = Person([*command, "chat", *options])
    yield somebody
    somebody.leave()


def test_a_person_talks_stops_a_reply_and_goes_on(person, command, process):
    person.sees("session p is new")
    person.sees("you> ")
    person.type("hello there\n")
    person.sees("hear from you.)")
    person.sees("you> ")
    person.type("a reply to be stopped\n")
    person.sees("You said: a ")
    person.type(CTRL_C)
    person.sees("(the reply was cancelled)")
    person.sees("you> ")
    time.sleep(1)  # a Ctrl-C in the very moment of the prompt waits for the next key
    person.type(CTRL_C)
    person.sees("(Ctrl-D ends the chat)")
    person.sees("you> ")
    person.type("go on\n")
    person.sees("I remember 3 messages.)")
    person.sees("you> ")
    person.type(CTRL_D)
    assert person.process.wait(timeout=30) == 0
    assert process("show", "p").stdout.count("(this turn was cancelled)") == 1

    back = Person([*command, "chat", "--session", "p"])
    seen = back.sees("you> ")
    assert "session p goes on: 6 messages so far" in seen
    assert "go on" in seen
    back.leave()


def test_an_error_does_not_end_a_person_s_chat(command):
    options = ["--session", "p", "--provider", "flaky", "--model", "recall"]
    person = Person([*command, "chat", *options])
    try:
        for expected in ("fine", "error: ", "error: ", "fine again"):
            person.sees("you> ")
            person.type("say something\n")
            person.sees(expected)
        person.sees("you> ")
        person.type(CTRL_D)
        assert person.process.wait(timeout=30) == 0
    finally:
        person.leave()


def test_a_reply_does_not_steer_the_person_s_terminal(command):
    person = Person([*command, "chat", "--provider", "escapes", "--model", "recall"])
    try:
        person.sees("you> ")
        person.type("hello\n")
        seen = person.sees("abc")
        assert "\x1b[31m" not in seen
        assert "\x1b]0;" not in seen
        assert "\\x1b[31mred" in seen
        assert "[bold]not bold[/bold]" in seen
    finally:
        person.leave()

"""``chat`` with a person, at a terminal."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("pty", reason="there are no pseudo-terminals here")

CTRL_C, CTRL_D = "\x03", "\x04"


def test_a_person_talks_stops_a_reply_and_goes_on(terminal, command, process):
    options = ["--session", "p", "--provider", "slow", "--model", "recall"]
    person = terminal([*command, "chat", *options])
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

    back = terminal([*command, "chat", "--session", "p"])
    seen = back.sees("you> ")
    assert "session p goes on: 6 messages so far" in seen
    assert "go on" in seen


def test_an_error_does_not_end_a_person_s_chat(terminal, command):
    options = ["--session", "p", "--provider", "flaky", "--model", "recall"]
    person = terminal([*command, "chat", *options])
    for expected in ("fine", "error: ", "error: ", "fine again"):
        person.sees("you> ")
        person.type("say something\n")
        person.sees(expected)
    person.sees("you> ")
    person.type(CTRL_D)
    assert person.process.wait(timeout=30) == 0


def test_a_reply_does_not_steer_the_person_s_terminal(terminal, command):
    person = terminal([*command, "chat", "--provider", "escapes", "--model", "recall"])
    person.sees("you> ")
    person.type("hello\n")
    seen = person.sees("abc")
    assert "\x1b[31m" not in seen
    assert "\x1b]0;" not in seen
    assert "\\x1b[31mred" in seen
    assert "[bold]not bold[/bold]" in seen

"""``list``: a table for people, JSON for programs."""

from __future__ import annotations

import json
import shlex

import pytest

from langswarm_session import SessionManager


@pytest.fixture(autouse=True)
def some_sessions(fill):
    async def write(manager: SessionManager) -> None:
        for number, user in enumerate(("ada", "bob", "ada")):
            session = await manager.create_session(
                user, "mock", "echo", session_id=f"s{number}", topic=f"[red]{number}"
            )
            await session.send_message("hello")
        await manager.archive_session("s0")

    fill(write)


def ids(result) -> list[str]:
    return [session["session_id"] for session in json.loads(result.stdout)["sessions"]]


def test_everybody_s_sessions_newest_activity_first(cli):
    result = cli("list")
    header, *rows = result.stdout.splitlines()
    assert result.exit_code == 0
    assert header.split() == ["SESSION", "USER", "STATUS", "MODEL", "MESSAGES", "LAST", "ACTIVITY"]
    assert [row.split()[:5] for row in rows] == [
        ["s2", "ada", "active", "mock/echo", "2"],
        ["s1", "bob", "active", "mock/echo", "2"],
        ["s0", "ada", "archived", "mock/echo", "2"],
    ]


def test_one_user_and_one_status(cli):
    assert ids(cli("list", "--json", "--user", "ada")) == ["s2", "s0"]
    assert ids(cli("list", "--json", "--user", "ada", "--status", "active")) == ["s2"]
    assert ids(cli("list", "--json", "--user", "nobody")) == []


def test_json_has_context_and_figures(cli):
    oldest = json.loads(cli("list", "--json").stdout)["sessions"][-1]
    assert oldest["session_id"] == "s0"
    assert oldest["status"] == "archived"
    assert oldest["metrics"]["message_count"] == 2
    assert oldest["context"]["topic"] == "[red]0"


def test_page_by_page(cli):
    first = cli("list", "--json", "--limit", "2")
    cursor = json.loads(first.stdout)["next_cursor"]
    second = cli("list", "--json", "--limit", "2", "--cursor", cursor)
    assert ids(first) + ids(second) == ["s2", "s1", "s0"]
    assert json.loads(second.stdout)["next_cursor"] is None
    assert f"--cursor {shlex.quote(cursor)}" in cli("list", "--limit", "2").stderr


def test_no_sessions_is_no_error(cli):
    result = cli("list", "--user", "nobody")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no sessions\n")


@pytest.mark.parametrize(
    "options",
    [
        ("--limit", "0"),
        ("--limit", "-1"),
        ("--limit", "many"),
        ("--status", "lost"),
        ("--cursor", "x"),
        ("--user", ""),
    ],
)
def test_what_cannot_be_is_a_usage_error(process, options):
    result = process("list", *options)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_a_name_is_not_markup(cli, fill):
    fill(lambda manager: manager.create_session("[red]x[/red]", "mock", "echo", session_id="[/b]"))
    assert "[/b]     [red]x[/red]" in cli("list").stdout


def test_ids_are_not_cut_in_a_pipe(process, fill):
    fill(lambda manager: manager.create_session("ada", "mock", "echo", session_id="x" * 300))
    assert "x" * 300 + "  ada" in process("list").stdout

"""``search``: messages by their text."""

from __future__ import annotations

import json
import shlex

import pytest

from langswarm_session import SessionManager, SessionMessage, ToolCallBlock


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_address")


@pytest.fixture(autouse=True)
def some_sessions(fill):
    async def write(manager: SessionManager) -> None:
        for user in ("ada", "bob"):
            session = await manager.create_session(user, "mock", "echo", session_id=f"of-{user}")
            await session.record(
                SessionMessage(role="user", content=f"A TRAIN for {user}\n\x1b[2J")
            )
        call = ToolCallBlock(id="1", name="book", args={"to": "Göteborg by train"})
        await session.record(SessionMessage(role="assistant", content=[call]))

    fill(write)


def found(result) -> list[str]:
    return [f"{hit['session_id']}#{hit['seq']}" for hit in json.loads(result.stdout)["hits"]]


def test_a_table_with_the_match_marked(process):
    result = process("search", "train")
    header, *rows = result.stdout.splitlines()
    assert result.returncode == 0
    assert header.split() == ["SESSION", "#", "TIME", "USER", "ROLE", "TEXT"]
    assert [row.split()[:2] for row in rows] == [["of-bob", "2"], ["of-bob", "1"], ["of-ada", "1"]]
    assert rows[0].rstrip().endswith("Göteborg by **train**")
    assert "A **TRAIN** for ada \\x1b[2J" in rows[2]
    assert "\x1b" not in result.stdout


def test_json(cli):
    result = cli("search", "göteborg", "--json")
    (hit,) = json.loads(result.stdout)["hits"]
    assert hit["snippet"] == {"before": "", "match": "Göteborg", "after": " by train"}
    assert (hit["session_id"], hit["user_id"], hit["seq"]) == ("of-bob", "bob", 2)
    assert (hit["role"], hit["turn_id"]) == ("assistant", 2)


def test_whose_and_where(cli):
    assert found(cli("search", "train", "--json", "--user", "ada")) == ["of-ada#1"]
    assert found(cli("search", "train", "--json", "--session", "of-bob")) == [
        "of-bob#2",
        "of-bob#1",
    ]
    assert found(cli("search", "train", "--json", "--role", "assistant")) == ["of-bob#2"]
    assert cli("search", "train", "--session", "nowhere").exit_code == 4
    assert cli("search", "train", "--session", "of-bob", "--user", "ada").exit_code == 4


def test_page_by_page(cli):
    first = cli("search", "train", "--json", "--limit", "2")
    cursor = json.loads(first.stdout)["next_cursor"]
    second = cli("search", "train", "--json", "--limit", "2", "--cursor", cursor)
    assert found(first) + found(second) == ["of-bob#2", "of-bob#1", "of-ada#1"]
    hint = cli("search", "train", "--limit", "2").stderr
    assert shlex.split(hint)[-2:] == ["--cursor", cursor]


def test_nothing_found_is_no_error(cli):
    result = cli("search", "boat")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "nothing found\n")
    assert json.loads(cli("search", "boat", "--json").stdout) == {"hits": [], "next_cursor": None}


@pytest.mark.parametrize("options", [("",), ("x", "--role", "robot"), ("x", "--cursor", "1"), ()])
def test_what_cannot_be_searched(process, options):
    result = process("search", *options)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1


def test_a_session_that_is_not_there(process):
    result = process("search", "train", "--session", "nope")
    assert (result.returncode, result.stdout) == (4, "")
    assert "`list` shows which there are" in result.stderr

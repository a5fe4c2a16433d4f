"""``erase``: everything of a person is gone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from langswarm_session import SessionManager
from langswarm_session.models import SessionStatus
from langswarm_session.records import SessionChanges


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_address")


@pytest.fixture(autouse=True)
def some_sessions(fill):
    async def write(manager: SessionManager) -> None:
        for number, user in enumerate(("PERSON", "bob", "PERSON")):
            session = await manager.create_session(user, "mock", "echo", session_id=f"s{number}")
            await session.send_message(f"I am {user}")

    fill(write)


def users(cli) -> list[str]:
    return [each["user_id"] for each in json.loads(cli("list", "--json").stdout)["sessions"]]


def test_it_is_gone_and_the_others_are_not(process, cli, address):
    result = process("erase", "--user", "PERSON", "--yes")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "2 sessions with 4 messages erased\n"
    assert users(cli) == ["bob"]
    assert json.loads(cli("search", "person", "--json").stdout)["hits"] == []
    if "://" not in address:
        for file in Path(address).parent.glob(f"{Path(address).name}*"):
            assert b"PERSON" not in file.read_bytes()


def test_nobody_to_ask(process, cli):
    result = process("erase", "--user", "PERSON")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--yes" in result.stderr
    assert len(users(cli)) == 3


def test_what_is_left_is_told(cli, fill):
    async def write(manager: SessionManager) -> None:
        session = await manager.get_session("s0")
        await session.update_context(provider_session_id="conv_1")
        changes = SessionChanges(provider="nobody", status=SessionStatus.ARCHIVED)
        await manager.storage.update_session(session.ref, changes)

    fill(write)
    result = cli("erase", "--user", "PERSON", "--yes", "--json")
    said = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (said["complete"], said["sessions"]) == (False, ["s2"])
    (left,) = said["not_erased"]
    assert left["at_providers"] == [{"provider": "nobody", "id": "conv_1"}]
    again = cli("erase", "--user", "PERSON", "--yes")
    assert again.exit_code == 1
    assert "not erased: session 's0'" in again.stderr
    local = cli("erase", "--user", "PERSON", "--yes", "--local-only")
    assert local.exit_code == 1
    assert "nobody still keeps conv_1" in local.stderr
    assert users(cli) == ["bob"]
    assert cli("erase", "--user", "PERSON", "--yes").exit_code == 0


def test_a_user_is_needed(process):
    assert process("erase", "--yes").returncode == 2
    assert process("erase", "--yes", "--user", "").returncode == 2


def test_without_overwriting(cli):
    result = cli("erase", "--user", "PERSON", "--yes", "--no-scrub")
    assert result.exit_code == 0
    assert "--no-scrub" in result.stdout

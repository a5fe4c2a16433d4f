"""``stats``: figures over many sessions."""

from __future__ import annotations

import json

import pytest

from langswarm_session import SessionManager, SessionMessage, TokenUsage


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_address")


@pytest.fixture(autouse=True)
def some_sessions(fill):
    async def write(manager: SessionManager) -> None:
        for number, (user, model) in enumerate((("ada", "m1"), ("bob", "m1"), ("ada", "m2"))):
            session = await manager.create_session(user, "mock", model, session_id=f"s{number}")
            usage = TokenUsage(input_tokens=10, output_tokens=number, cached_tokens=5)
            await session.record(SessionMessage(role="assistant", content="hi", usage=usage))
        await manager.archive_session("s0")

    fill(write)


def test_json(cli):
    said = json.loads(cli("stats", "--json").stdout)
    assert said["total"]["sessions"] == 3
    assert said["total"]["input_tokens"] == 30
    assert said["total"]["output_tokens"] == 3
    assert said["by_status"] == {"active": 2, "archived": 1}
    models = {each["model"]: each for each in said["by_model"]}
    assert (models["m1"]["sessions"], models["m2"]["output_tokens"]) == (2, 2)
    users = {each["user_id"]: each for each in said["by_user"]}
    assert (users["ada"]["messages"], users["bob"]["output_tokens"]) == (2, 1)
    assert said["storage"]["ok"] is True
    assert said["storage"]["messages"] == 3
    assert said["storage"]["size_bytes"] > 0


def test_one_user(cli):
    said = json.loads(cli("stats", "--user", "ada", "--json").stdout)
    assert said["total"]["sessions"] == 2
    assert [each["user_id"] for each in said["by_user"]] == ["ada"]


def test_tables(process):
    result = process("stats", "--top", "1")
    assert result.returncode == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["sessions:", "3", "(2", "active,", "1", "archived)"]
    assert ["mock/m1", "2", "2", "2", "0", "20", "10", "1", "21"] in lines
    assert ["ada", "2", "2", "2", "0", "20", "10", "2", "22"] in lines
    assert not [line for line in lines if line[:1] == ["bob"]]
    assert "1 more users" in result.stderr

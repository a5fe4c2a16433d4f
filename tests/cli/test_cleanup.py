"""``cleanup``: archive or delete what nobody uses any more."""

from __future__ import annotations

import json

import pytest

from langswarm_session import SessionManager, SessionMessage
from langswarm_session.records import Lease


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_address")


@pytest.fixture(autouse=True)
def some_sessions(fill):
    async def write(manager: SessionManager) -> None:
        for name in ("a", "b"):
            session = await manager.create_session("ada", "mock", "echo", session_id=name)
            await session.send_message("hello")
        await session.archive()
        await manager.create_session("ada", "mock", "echo", session_id="kept", auto_archive=False)
        await manager.create_session("ada", "mock", "echo", session_id="running")
        message = SessionMessage(role="user", content="hello")
        lease = Lease("token", "elsewhere:1:1", 3600.0)
        await manager.storage.begin_turn("running", [message], lease)

    fill(write)


def statuses(cli) -> dict[str, str]:
    sessions = json.loads(cli("list", "--json").stdout)["sessions"]
    return {each["session_id"]: each["status"] for each in sessions}


def test_the_active_ones_are_archived(process, cli):
    assert process("cleanup").stdout == "0 sessions archived\n"
    result = process("cleanup", "--inactive-hours", "0")
    assert (result.returncode, result.stdout) == (0, "2 sessions archived\n")
    assert statuses(cli) == {
        "a": "archived",
        "b": "archived",
        "kept": "active",
        "running": "archived",
    }


def test_a_dry_run(cli):
    before = statuses(cli)
    result = cli("cleanup", "--inactive-hours", "0", "--dry-run")
    assert [row.split()[0] for row in result.stdout.splitlines()] == ["SESSION", "running", "a"]
    assert "2 sessions would be archived" in result.stderr
    said = json.loads(
        cli("cleanup", "--inactive-hours", "0", "--dry-run", "--delete", "--json").stdout
    )
    assert said == {"dry_run": True, "deleted": 2, "sessions": ["b", "a"]}
    assert statuses(cli) == before


def test_deleting(cli):
    refused = cli("cleanup", "--inactive-hours", "0", "--delete")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--yes" in refused.stderr
    result = cli("cleanup", "--inactive-hours", "0", "--delete", "--yes", "--json")
    assert json.loads(result.stdout) == {"dry_run": False, "deleted": 2, "failed": []}
    assert statuses(cli) == {"kept": "active", "running": "active"}


def test_what_a_provider_cannot_delete_is_told(cli, fill):
    async def write(manager: SessionManager) -> None:
        session = await manager.create_session("ada", "mock", "echo", session_id="odd")
        await session.update_context(provider_session_id="conv_1")
        record = await manager.storage.get_session("odd")
        from langswarm_session.models import SessionStatus
        from langswarm_session.records import SessionChanges

        changes = SessionChanges(provider="nobody", status=SessionStatus.ARCHIVED)
        await manager.storage.update_session("odd", changes, expected_revision=record.revision)

    fill(write)
    result = cli("cleanup", "--inactive-hours", "0", "--delete", "--yes")
    assert result.exit_code == 1
    assert "error: session 'odd'" in result.stderr
    assert result.stdout == "2 sessions deleted\n"


@pytest.mark.parametrize("options", [("--inactive-hours", "-1"), ("--inactive-hours", "x")])
def test_what_cannot_be(process, options):
    assert process("cleanup", *options).returncode == 2

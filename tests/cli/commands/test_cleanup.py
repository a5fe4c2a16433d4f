"""``cleanup``: archive or delete what nobody uses any more."""

from __future__ import annotations

import json

import pytest

from langswarm_session import ISessionLifecycleHook, SessionManager, SessionMessage
from langswarm_session.cli.commands.cleanup import Wish, cleanup
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
        running = await manager.create_session("ada", "mock", "echo", session_id="running")
        message = SessionMessage(role="user", content="hello")
        lease = Lease("token", "elsewhere:1:1", 3600.0)
        await manager.storage.begin_turn(running.ref, [message], lease)

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
        record = await manager.storage.find_session("odd")
        from langswarm_session.models import SessionStatus
        from langswarm_session.records import SessionChanges

        changes = SessionChanges(provider="nobody", status=SessionStatus.ARCHIVED)
        await manager.storage.update_session(record.ref, changes, expected_revision=record.revision)

    fill(write)
    result = cli("cleanup", "--inactive-hours", "0", "--delete", "--yes")
    assert result.exit_code == 1
    assert "error: session 'odd'" in result.stderr
    assert result.stdout == "2 sessions deleted\n"


@pytest.mark.parametrize("delete", [False, True], ids=["archiving", "deleting"])
def test_what_is_written_to_meanwhile_is_left_alone(fill, capsys, delete):
    class Returning(ISessionLifecycleHook):
        """Somebody who goes on with one session while another is cleaned up."""

        went_on: str | None = None

        async def go_on(self, session):
            if self.went_on is None:
                self.went_on = "a" if session.session_id == "b" else "b"
                other = await session.manager.get_session(self.went_on)
                await other.record(SessionMessage(role="user", content="I am back"))

        on_session_archived = on_session_deleted = go_on

    async def work(manager: SessionManager) -> None:
        await manager.delete_session("running")
        await (await manager.get_session("b")).set_status("active")
        manager.add_global_hook(hook := Returning())
        await cleanup(manager, Wish(hours=0, delete=delete, dry_run=False), as_json=False)
        left = {each.session_id async for each in manager.iter_sessions(status="active")}
        assert left == {"kept", hook.went_on}

    fill(work)
    assert capsys.readouterr().out == f"1 sessions {'deleted' if delete else 'archived'}\n"


def test_a_turn_that_goes_on_is_left_alone(fill, capsys):
    """Its lease had run out by the time of the listing, and was renewed since."""

    class Renewing(ISessionLifecycleHook):
        async def on_session_deleted(self, session):
            storage = session.manager.storage
            running = await storage.find_session("running")
            await storage.renew_turns({"token": running.ref}, 3600)

    async def work(manager: SessionManager) -> None:
        running = await manager.get_session("running")
        await manager.storage.renew_turns({"token": running.ref}, 0)
        newest = await manager.get_session("a")
        await newest.record(SessionMessage(role="user", content="so that it comes first"))
        manager.add_global_hook(Renewing())
        await cleanup(manager, Wish(hours=0, delete=True, dry_run=False), as_json=False)
        assert await manager.get_session("running")

    fill(work)
    assert capsys.readouterr().out == "2 sessions deleted\n"


@pytest.mark.parametrize("options", [("--inactive-hours", "-1"), ("--inactive-hours", "x")])
def test_what_cannot_be(process, options):
    assert process("cleanup", *options).returncode == 2

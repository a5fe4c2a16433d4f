"""``doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from langswarm_session import SessionManager, SessionMessage
from langswarm_session.models import SessionBackend
from langswarm_session.records import Lease, NewSession


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_address")


def findings(result) -> dict[str, dict[str, str]]:
    said = json.loads(result.stdout)
    return {each["check"]: each for each in said["findings"]}


def one_session(fill) -> None:
    async def write(manager: SessionManager) -> None:
        session = await manager.create_session("ada", "mock", "echo", session_id="a")
        await session.send_message("hello", idempotency_key="k")

    fill(write)


def change(address: str, *statements: str) -> None:
    """Do what only somebody else would do to a database."""
    if "://" not in address:
        with sqlite3.connect(address) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()
        return
    import postgres_server

    schema = address.partition("schema=")[2]
    for statement in statements:
        for table in ("sessions", "messages", "turns"):
            statement = statement.replace(f" {table} ", f' "{schema}".langswarm_{table} ')
        postgres_server.query(statement)


def test_all_is_well(process, fill):
    one_session(fill)
    for options in ((), ("--full",)):
        result = process("doctor", *options)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.rstrip().endswith("0 problems, 0 warnings")
        assert "ok      schema" in result.stdout
        assert "ok      figures" in result.stdout


def test_json_and_what_is_installed(cli, fill, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    one_session(fill)
    result = cli("doctor", "--json", "--full")
    found = findings(result)
    assert json.loads(result.stdout)["healthy"] is True
    assert found["messages"]["message"] == "every one can be read"
    assert found["extra cli"]["message"].startswith("typer ")
    assert found["key of openai"]["message"] == "OPENAI_API_KEY set: yes"
    assert found["key of anthropic"]["message"] == "ANTHROPIC_API_KEY set: no"
    assert "secret" not in result.output


def test_a_turn_that_was_left_behind_is_a_warning(cli, fill):
    async def write(manager: SessionManager) -> None:
        for name, seconds in (("left", 0.0), ("running", 3600.0)):
            new = NewSession(name, "ada", "mock", "m", SessionBackend.HYBRID)
            record = await manager.storage.create_session(new)
            lease = Lease(name, "elsewhere:1:1", seconds)
            message = SessionMessage(role="user", content="hello")
            await manager.storage.begin_turn(record.ref, [message], lease)

    fill(write)
    result = cli("doctor", "--json")
    assert result.exit_code == 0
    found = findings(result)["open turns"]
    assert found["level"] == "warning"
    assert found["message"].startswith("1 running, 1 left behind")
    assert "'left'" in found["message"]
    assert "next turn" in found["advice"]


def test_figures_that_do_not_fit_the_log(cli, fill, address):
    one_session(fill)
    change(
        address,
        "UPDATE sessions SET message_count = 7",
        "UPDATE messages SET session = 99 WHERE seq = 1",
        "UPDATE turns SET session = 99",
    )
    result = cli("doctor", "--json")
    assert result.exit_code == 1
    found = findings(result)["figures"]
    assert found["level"] == "problem"
    for words in ("miscounted: 'a'", "1 messages belong to no session", "1 notes on turns"):
        assert words in found["message"]
    assert found["advice"]


def test_a_message_that_cannot_be_read(cli, fill, address):
    one_session(fill)
    change(address, "UPDATE messages SET extra = '{' WHERE seq = 2")
    assert cli("doctor").exit_code == 0
    result = cli("doctor", "--json", "--full")
    assert result.exit_code == 1
    assert "1 cannot be read" in findings(result)["messages"]["message"]


class TestFile:
    """What can be wrong with a file."""

    @pytest.fixture
    def address(self, sqlite_address: str) -> str:
        return sqlite_address

    def test_there_is_none(self, process, tmp_path):
        result = process("doctor")
        assert result.returncode == 1
        assert "problem file" in result.stdout
        assert "there is no database" in result.stdout
        assert "-> name another with --db" in result.stdout
        assert list(tmp_path.iterdir()) == []

    def test_it_is_no_database(self, cli, address):
        Path(address).write_text("This is no database. " * 1000)
        result = cli("doctor", "--json")
        assert result.exit_code == 1
        assert "cannot be read" in json.loads(result.stdout)["findings"][4]["message"]

    def test_it_is_somebody_elses(self, cli, address):
        change(address, "CREATE TABLE x (y)")
        assert "another program" in cli("doctor").stdout

    def test_it_is_newer(self, cli, fill, address):
        one_session(fill)
        change(address, "PRAGMA user_version = 99")
        result = cli("doctor")
        assert result.exit_code == 1
        assert "upgrade the package" in result.stdout

    def test_it_was_cut_short(self, cli, fill, address):
        one_session(fill)
        content = Path(address).read_bytes()
        Path(address).write_bytes(content[:-10])
        result = cli("doctor")
        assert result.exit_code == 1
        assert "it ends within a page" in result.stdout

    def test_it_is_damaged(self, cli, fill, address):
        async def write(manager: SessionManager) -> None:
            session = await manager.create_session("ada", "mock", "echo", session_id="a")
            for n in range(50):
                await session.record(SessionMessage(role="user", content=f"{n} " * 500))

        fill(write)
        content = bytearray(Path(address).read_bytes())
        middle = len(content) // 2 // 4096 * 4096
        content[middle : middle + 4096] = os.urandom(4096)
        Path(address).write_bytes(content)
        result = cli("doctor", "--json")
        assert result.exit_code == 1
        problems = [each for each in findings(result).values() if each["level"] == "problem"]
        assert any("copy of the file" in each["advice"] for each in problems)

    def test_another_journal(self, cli, fill, address):
        one_session(fill)
        change(address, "PRAGMA journal_mode = DELETE")
        found = findings(cli("doctor", "--json"))["journal"]
        assert (found["level"], found["message"]) == ("warning", "delete")

    def test_a_figure_that_is_no_count(self, cli, fill, address):
        one_session(fill)
        change(address, "UPDATE sessions SET input_tokens = 9223372036854775807 + 1")
        result = cli("doctor", "--json")
        assert result.exit_code == 1
        assert "miscounted: 'a'" in findings(result)["figures"]["message"]
        for command in (["list"], ["stats"], ["export", "--all"]):
            result = cli(*command)
            assert result.exit_code == 1
            assert "session 'a': its row cannot be decoded" in result.stderr

    def test_looking_writes_nothing(self, cli, fill, address):
        one_session(fill)
        before = Path(address).read_bytes()
        cli("doctor", "--full")
        assert Path(address).read_bytes() == before


class TestServer:
    """What can be wrong with a server."""

    @pytest.fixture
    def address(self, postgres_address: str) -> str:
        return postgres_address

    def test_it_does_not_answer(self, process):
        nowhere = "postgresql://ann:secret@127.0.0.1:1/none"
        result = process("--db", nowhere, "doctor")
        assert result.returncode == 1
        assert "problem server" in result.stdout
        assert "secret" not in result.stdout + result.stderr

    def test_it_is_empty_and_stays_so(self, cli, address):
        result = cli("doctor", "--json")
        assert result.exit_code == 0
        assert findings(result)["schema"]["level"] == "warning"
        import postgres_server

        schema = address.partition("schema=")[2]
        assert not postgres_server.query("SELECT 1 FROM pg_namespace WHERE nspname = $1", schema)

    def test_an_index_that_is_not_valid(self, cli, fill, address):
        one_session(fill)
        schema = address.partition("schema=")[2]
        change(
            address,
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = "
            f"'{schema}.langswarm_turns_by_key'::regclass",
        )
        result = cli("doctor", "--json")
        assert result.exit_code == 1
        assert "langswarm_turns_by_key" in findings(result)["indexes"]["message"]

    def test_settings_are_shown(self, cli, fill):
        one_session(fill)
        found = findings(cli("doctor", "--json"))
        assert found["synchronous_commit"]["message"] == "on"
        assert "PostgreSQL" in found["server"]["message"]


def test_any_other_storage(cli, capsys):
    from langswarm_session.cli import main

    assert main(["--storage", "memory", "doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [each["check"] for each in said["findings"]][:2] == ["storage", "open turns"]


def test_it_ends_when_its_time_is_over(process, fill, monkeypatch):
    one_session(fill)
    result = process("doctor", "--full", "--timeout", "60", "--json")
    assert result.returncode == 0
    assert "time" not in findings(result)
    assert process("doctor", "--timeout", "0").returncode == 2

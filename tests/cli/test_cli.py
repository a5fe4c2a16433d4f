"""What all commands share: where the sessions are, how errors look, what is missing."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from langswarm_session.cli import main

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            if sys.argv[2:]:
                raise KeyboardInterrupt
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
from langswarm_session.cli import main
sys.exit(main(["list"]))
""".replace("{{", "{").replace("}}", "}")


COMMANDS = {
    "chat": [],
    "list": [],
    "show": ["a"],
    "search": ["x"],
    "export": ["--all"],
    "import": ["-"],
    "doctor": [],
    "cleanup": [],
    "erase": ["--user", "ada", "--yes"],
    "stats": [],
}
"""Every command, with what it needs."""


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_a_missing_extra_is_named(module):
    result = subprocess.run(
        [sys.executable, "-c", BLOCKED, module],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout) == (3, "")
    assert 'pip install "langswarm-session[cli]"' in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_interrupt_while_it_starts_is_no_traceback():
    result = subprocess.run(
        [sys.executable, "-c", BLOCKED, "rich", "interrupt"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_without_a_command_there_is_help(capsys):
    assert main([]) == 2
    assert "Exit codes" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_the_exit_codes(command, capsys):
    assert main([command, "--help"]) == 0
    assert "4 there is no such" in " ".join(capsys.readouterr().out.split())


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("langswarm-session 0.")


@pytest.mark.parametrize(
    "arguments", [["nope"], ["list", "--nope"], ["show"], ["--db"], ["list", "--limit", "x"]]
)
def test_a_command_line_that_is_not_understood(arguments, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("option", ["--db", "--storage"])
def test_where_the_database_is_goes_before_the_command(option, capsys):
    assert main(["list", option, "x.db"]) == 2
    assert "it goes before the command" in capsys.readouterr().err


def test_a_usage_error_is_json_with_json(capsys):
    assert main(["show", "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"] == "UsageError"


def test_the_file_may_be_named_by_the_environment(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("LANGSWARM_SESSION_DB", "elsewhere.db")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["chat", "--session", "a", "--demo"]) == 0
    assert (tmp_path / "elsewhere.db").exists()
    assert main(["--storage", "sqlite:///elsewhere.db", "show", "a"]) == 0
    assert main(["--storage", "memory", "list"]) == 0
    assert "no sessions" in capsys.readouterr().err


def test_the_default_file(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["chat", "--demo"]) == 0
    assert (tmp_path / "langswarm_sessions.db").exists()


@pytest.mark.parametrize(
    "command",
    [
        [name, *given]
        for name, given in COMMANDS.items()
        if name not in ("chat", "import", "doctor")
    ],
)
@pytest.mark.parametrize("place", [["--db", "no.db"], ["--storage", "sqlite:///no.db"]])
def test_looking_makes_no_database(place, command, capsys, tmp_path):
    assert main([*place, *command]) == 1
    assert "there is no database 'no.db'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--db", "x.db", "--storage", "memory"], 2, "not by both"),
        (["--storage", "cloud://x"], 2, "there is no storage 'cloud'"),
        (["--db", ""], 2, "is empty"),
        (["--storage", ""], 2, "is empty"),
        (["--db", "/dev/null/x.db"], 1, "x.db"),
        (["--db", "text.db"], 1, "text.db"),
    ],
)
def test_a_storage_that_cannot_be(options, code, words, capsys, tmp_path):
    (tmp_path / "text.db").write_text("This is no database. " * 100)
    assert main([*options, "chat", "--session", "a"]) == code
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


SECRET = "ann:very-secret@127.0.0.1"


@pytest.mark.parametrize(
    ("address", "command"),
    [
        *((f"postgresql:/{SECRET}/none", command) for command in COMMANDS),
        *((f"cloud://{SECRET}/none", command) for command in COMMANDS),
        ("postgresql://ann:very-secret@[::1", "list"),
        (f"postgresql://{SECRET}:1/none?schema=x", "list"),
        (f"postgres://{SECRET}:1/none", "doctor"),
    ],
)
def test_a_password_in_an_address_is_never_shown(address, command, capsys, monkeypatch):
    PostgresSessionStorage = pytest.importorskip(  # noqa: N806
        "langswarm_session.storage.postgres.storage", exc_type=ImportError
    ).PostgresSessionStorage
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"messages": []}')))
    defaults = {**PostgresSessionStorage.__init__.__kwdefaults__, "connect_timeout": 0.3}
    monkeypatch.setattr(PostgresSessionStorage.__init__, "__kwdefaults__", defaults)
    assert main(["--db", address, command, *COMMANDS[command]]) in (1, 2)
    captured = capsys.readouterr()
    assert "very-secret" not in captured.out + captured.err
    assert captured.out + captured.err


@pytest.mark.parametrize("options", [["--session", ""], ["--session", "a\nb"], ["--provider", "x"]])
def test_a_chat_that_cannot_be(options, capsys):
    assert main(["chat", *options]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_cannot_be_written(cli, command):
    cli("chat", "--session", "a", input="hello\n")
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [*command, "show", "a"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == "error: [Errno 28] No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [[], ["--help"], ["list", "--help"], ["--version"]])
def test_help_that_cannot_be_written(arguments, command):
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [*command, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (result.returncode, result.stderr) == (1, "error: [Errno 28] No space left on device\n")


def test_closed_streams(cli, command):
    cli("chat", "--session", "a", input="hello\n")
    shell = f"{' '.join(command)} show a <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", shell], timeout=60, check=False).returncode == 0

"""``import``: what was exported comes back, and conversations from elsewhere come in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from langswarm_session import SessionManager, SessionMessage

_FOLDERS = (parent / "shared/data" for parent in Path(__file__).parents)
DATA = next(filter(Path.exists, _FOLDERS), Path("none")) / "agent_conversations.jsonl"

CHAT = json.dumps(
    {
        "id": "chat-1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hello"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "1", "name": "f", "content": "done"},
        ],
    }
)


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_address")


@pytest.fixture
def exported(fill, cli, tmp_path) -> Path:
    """Two sessions in a file, and in the database."""

    async def write(manager: SessionManager) -> None:
        for name, user in (("a", "ada"), ("b", "bob")):
            session = await manager.create_session(user, "mock", "echo", session_id=name)
            await session.send_message("hello", idempotency_key="k")
            await session.record(SessionMessage(role="user", content="[b] \u2028 Göteborg \x1b"))

    fill(write)
    cli("export", "a", "b", "-o", "out.jsonl")
    return tmp_path / "out.jsonl"


@pytest.mark.parametrize("form", ["jsonl", "json"])
@pytest.mark.parametrize("other", ["other.db", "sqlite:///other.db"])
def test_what_was_exported_comes_back_elsewhere(process, cli, exported, other, form, monkeypatch):
    given = cli("export", "a", "b", "--format", form).stdout
    result = process("--db", other, "import", "-", stdin=given)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "2 sessions with 6 messages imported\n"
    back = process("--db", other, "export", "a", "b")
    assert back.stdout == cli("export", "a", "b").stdout


def test_ids_that_are_taken(cli, exported):
    refused = cli("import", "out.jsonl")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.count("the id is taken") == 2
    assert "--on-conflict skip" in refused.stderr
    skipped = cli("import", "out.jsonl", "--on-conflict", "skip")
    assert skipped.exit_code == 0
    assert "0 sessions with 0 messages imported, 2 skipped" in skipped.stdout
    copied = cli("import", "out.jsonl", "--on-conflict", "new-id", "--json")
    said = json.loads(copied.stdout)
    assert said["imported"] == 2
    assert {each["source_id"] for each in said["sessions"]} == {"a", "b"}
    assert len(json.loads(cli("list", "--json").stdout)["sessions"]) == 4


def test_one_conflict_and_nothing_is_imported(cli, exported, fill):
    fill(lambda manager: manager.delete_session("a"))
    assert cli("import", "out.jsonl").exit_code == 1
    assert cli("show", "a").exit_code == 4
    assert cli("import", "out.jsonl", "--on-conflict", "skip").exit_code == 0
    assert cli("show", "a").exit_code == 0


def test_one_id_twice_in_a_file_and_nothing_is_imported(cli, exported, fill):
    twice = cli("export", "a", "a").stdout
    fill(lambda manager: manager.delete_session("a"))
    result = cli("import", "-", input=twice)
    assert (result.exit_code, result.stdout) == (1, "")
    assert cli("show", "a").exit_code == 4
    copied = cli("import", "-", "--on-conflict", "new-id", input=twice)
    assert copied.stdout == "2 sessions with 6 messages imported\n"


def test_another_user_and_another_id(cli, exported):
    assert cli("import", "out.jsonl", "--as", "c").exit_code == 1  # there are two
    single = cli("export", "a").stdout
    result = cli("import", "-", "--as", "c", "--user", "cyd", input=single)
    assert result.exit_code == 0
    assert "session a is now c" in result.stderr
    shown = json.loads(cli("show", "c", "--json").stdout)
    assert (shown["user_id"], len(shown["messages"])) == ("cyd", 3)


def test_a_dry_run(cli, exported, fill):
    refused = cli("import", "out.jsonl", "--dry-run")
    assert refused.exit_code == 1
    fill(lambda manager: manager.delete_session("a"))
    fill(lambda manager: manager.delete_session("b"))
    result = cli("import", "out.jsonl", "--dry-run")
    assert result.stdout == "2 sessions with 6 messages could be imported\n"
    assert json.loads(cli("list", "--json").stdout)["sessions"] == []


def test_the_chat_format(cli):
    result = cli(
        "import", "-", "--user", "ada", "--provider", "mock", "--model", "echo", input=CHAT
    )
    assert result.stdout == "1 sessions with 4 messages imported\n"
    assert "no times" in result.stderr
    shown = json.loads(cli("show", "chat-1", "--json").stdout)
    assert [turn["first_seq"] for turn in shown["turns"]] == [1, 2]
    assert cli("chat", "--session", "chat-1", input="go on\n").stdout == "You said: go on\n"
    back = json.loads(cli("export", "chat-1", "--format", "openai").stdout)
    assert back["messages"][:4] == json.loads(CHAT)["messages"]


@pytest.mark.skipif(not DATA.exists(), reason="the conversations are not on this machine")
def test_sixty_conversations_there_and_back(cli):
    assert cli("import", str(DATA)).stdout == "60 sessions with 1878 messages imported\n"
    given = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    names = [each["id"] for each in given]
    back = cli("export", *names, "--format", "openai").stdout
    assert [json.loads(line) for line in back.splitlines()] == given


def test_a_file_that_is_wrong_changes_nothing(process, exported, tmp_path, address):
    cut = exported.read_text(encoding="utf-8").splitlines()[:-1]
    (tmp_path / "cut.jsonl").write_text("\n".join(cut), encoding="utf-8")
    result = process("--db", "new.db", "import", "cut.jsonl")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error: session 'b': the file is cut off: the session has no end\n"
    assert not (tmp_path / "new.db").exists()
    for text, words in (("nonsense", "no JSON"), ('{"a": 1}', "none of")):
        (tmp_path / "odd").write_text(text)
        result = process("import", "odd")
        assert (result.returncode, words in result.stderr) == (1, True), text


def test_an_empty_export_is_no_error(cli):
    result = cli("import", "-", input="")
    assert (result.exit_code, result.stdout) == (0, "0 sessions with 0 messages imported\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nowhere.jsonl",), 1),
        ((".",), 1),
        ((), 2),
        (("x", "--on-conflict", "maybe"), 2),
        (("x", "--as", ""), 2),
    ],
)
def test_what_cannot_be_imported(process, arguments, code):
    result = process("import", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.count("\n") == 1

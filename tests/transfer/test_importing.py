"""Export and import: what comes back is what went out, whichever storage it goes to."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langswarm_session import (
    ImageBlock,
    ImportFormatError,
    ImportOptions,
    InMemorySessionStorage,
    InvalidInputError,
    ISessionStorage,
    MessageRole,
    MissingDependencyError,
    MockFailure,
    MockProviderSession,
    OnConflict,
    ProviderSessionError,
    RevisionConflictError,
    SessionError,
    SessionExistsError,
    SessionManager,
    SessionMessage,
    SQLiteSessionStorage,
    TextBlock,
    TokenUsage,
    export_session,
    import_session,
    import_sessions,
)
from langswarm_session.formats.nesting import MAX_NESTING
from langswarm_session.storage.base import StorageBase
from langswarm_session.testing import strategies
from langswarm_session.transfer.export_formats import Exporter, ExportFormat

_FOLDERS = (parent / "shared/data" for parent in Path(__file__).parents)
DATA = next(filter(Path.exists, _FOLDERS), Path("none")) / "agent_conversations.jsonl"


class WithoutHelp(InMemorySessionStorage):
    get_turn_notes = StorageBase.get_turn_notes
    restore_session = StorageBase.restore_session


async def lines_of(manager: SessionManager, session_id: str) -> list[dict[str, Any]]:
    session = await manager.get_session(session_id)
    return [line async for line in export_session(session)]


async def some_session(manager: SessionManager, session_id: str = "s") -> None:
    """Turns of every kind, keys, tools, gaps and a provider's state."""
    mock = MockProviderSession(["one", MockFailure.RATE_LIMIT, "three", "four"])
    manager.add_provider_session("mock", mock)
    session = await manager.create_session(
        "ann", "mock", "m", session_id=session_id, topic="trains"
    )
    await session.add_system_message("Be brief.")
    await session.send_message("first", idempotency_key="order-1", metadata={"a": [1, None]})
    with pytest.raises(ProviderSessionError):
        await session.send_message("second")
    await session.send_message("third")
    await session.edit_messages(expected_revision=session.revision, remove=[2])
    await session.send_message("fourth", idempotency_key="order-4")
    await session.set_summary("They talked.", 3)
    await session.update_context(provider_session_id="conv_1", provider_context={"k": None})
    await session.set_status("completed")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def other(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionManager]:
    """A manager on another storage, with nothing in it."""
    storage: ISessionStorage
    if request.param == "postgres":
        import postgres_server

        from langswarm_session import PostgresSessionStorage

        with postgres_server.schema() as schema:
            storage = PostgresSessionStorage(postgres_server.dsn(), schema=schema)
            yield SessionManager(storage)
            await storage.close()
        return
    storage = (
        SQLiteSessionStorage(tmp_path / "other.db")
        if request.param == "sqlite"
        else InMemorySessionStorage()
    )
    yield SessionManager(storage)
    await storage.close()


async def test_the_lines_of_a_session(manager: SessionManager):
    await some_session(manager)
    lines = await lines_of(manager, "s")
    head, *log, end = lines
    assert (head["format"], head["version"]) == ("langswarm-session", 1)
    assert head["session"]["context"]["topic"] == "trains"
    assert head["session"]["status"] == "completed"
    assert head["session"]["provider_state"]["provider_session_id"] == "conv_1"
    assert end == {"type": "end", "session_id": "s", "messages": 7}
    assert [(line["type"], line.get("seq", line.get("turn"))) for line in log] == [
        ("message", 1),
        ("turn", 2),  # it lost a message, and its key with it
        ("message", 3),
        ("turn", 4),
        ("message", 4),
        ("message", 5),
        ("message", 6),
        ("turn", 7),
        ("message", 7),
        ("message", 8),
    ]
    assert "key" not in log[1]
    assert log[3]["status"] == "failed"
    assert log[7]["key"] == "order-4"
    assert json.loads(json.dumps(lines)) == lines


async def test_what_comes_back_is_what_went_out(manager: SessionManager, other: SessionManager):
    await some_session(manager)
    lines = await lines_of(manager, "s")
    backup = [json.dumps(line) for line in lines]
    imported = await import_session(other, backup, ImportOptions(trusted=True))
    assert (imported.session_id, imported.messages, imported.turns) == ("s", 7, 5)
    assert (imported.notes, imported.skipped, imported.error) == ((), False, None)
    assert await lines_of(other, "s") == lines
    before, after = await manager.get_session("s"), await other.get_session("s")
    assert after.metrics == before.metrics
    assert after.context == before.context
    assert await after.get_turns() == await before.get_turns()
    assert await after.get_messages() == await before.get_messages()


@pytest.mark.parametrize("place", ["provider_state", "context", "provider_states"])
@pytest.mark.parametrize(
    "options",
    [
        ImportOptions(),
        ImportOptions(user_id="ann"),
        ImportOptions(session_id="t"),
        ImportOptions(session_id="t", trusted=True),
        ImportOptions(user_id="bob", trusted=True),
    ],
    ids=["as it is", "user", "id", "trusted with another id", "trusted for another user"],
)
async def test_no_providers_conversation_is_attached(
    manager: SessionManager, other: SessionManager, place: str, options: ImportOptions
):
    await manager.create_session("ann", "mock", "m", session_id="s", topic="trains")
    lines = await lines_of(manager, "s")
    row = lines[0]["session"]
    state = {"provider_session_id": "conv_1", "provider_seq": 1, "provider_context": {"k": 1}}
    if place == "context":
        row["context"].update(state)
    elif place == "provider_state":
        row["provider_state"] = state
    else:
        row["context"]["provider_states"] = {"openai": {**state, "provider_calls": []}}
    imported = await import_session(other, [json.dumps(line) for line in lines], options)
    assert [("--trusted" in note) for note in imported.notes] == [True]
    session = await other.get_session(imported.session_id)
    context = session.context
    assert (context.provider_session_id, context.provider_context, context.provider_seq) == (
        None,
        {},
        0,
    )
    assert context.provider_states == {}
    assert context.model_extra == {"topic": "trains"}
    fork = await session.fork()
    assert fork.context.provider_session_id is None


async def test_a_new_id_leaves_the_providers_conversation(
    manager: SessionManager, other: SessionManager
):
    await some_session(manager)
    lines = await lines_of(manager, "s")
    options = ImportOptions(trusted=True, on_conflict=OnConflict.NEW_ID)
    first, second = [await import_session(other, lines, options) for _ in range(2)]
    assert (await other.get_session(first.session_id)).context.provider_session_id == "conv_1"
    assert (await other.get_session(second.session_id)).context.provider_session_id is None
    assert "conversation" in second.notes[0]


async def test_names_of_local_files_are_left_out(manager: SessionManager, other: SessionManager):
    session = await manager.create_session("ann", "mock", "m", session_id="s")
    await session.record(
        SessionMessage(
            role="user",
            content=[ImageBlock(url="file:///etc/passwd"), TextBlock(text="see")],
            native={"llama_index": {"blocks": [{"path": {"$path": "/etc/passwd"}}, {}]}},
        )
    )
    lines = [json.dumps(line) for line in await lines_of(manager, "s")]
    imported = await import_session(other, lines)
    assert "local files" in imported.notes[0]
    (message,) = await (await other.get_session("s")).get_messages()
    assert "passwd" not in message.model_dump_json()
    await other.delete_session("s")
    imported = await import_session(other, lines, ImportOptions(trusted=True))
    assert imported.notes == ()
    assert [json.dumps(line) for line in await lines_of(other, "s")] == lines


async def test_names_of_local_files_are_left_out_of_other_formats(other: SessionManager):
    part = {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}
    line = json.dumps({"id": "s", "messages": [{"role": "user", "content": [part]}]})
    imported = await import_session(other, [line])
    assert any("local files" in note for note in imported.notes)
    (message,) = await (await other.get_session("s")).get_messages()
    assert "passwd" not in message.model_dump_json()


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("form", [ExportFormat.JSON, ExportFormat.JSONL])
async def test_what_was_accepted_can_be_exported_and_imported(
    manager: SessionManager, other: SessionManager, form: ExportFormat
):
    deepest = MAX_NESTING - 1
    session = await manager.create_session("u", "mock", "m", session_id="s", k=nested(deepest))
    await session.record(SessionMessage(role="user", content="x", metadata=nested(deepest)))
    for refused in (nested(MAX_NESTING), nested(196)):
        with pytest.raises(InvalidInputError, match="nested|stored"):
            await session.record(SessionMessage(role="user", content="x", metadata=refused))
        with pytest.raises(InvalidInputError):
            await session.update_context(k=refused)
    written = Exporter(form).write(manager.iter_sessions())
    text = "".join([piece async for piece in written])
    assert [each.error async for each in import_sessions(other, text.splitlines())] == [None]
    (message,) = await (await other.get_session("s")).get_messages()
    assert message.metadata == nested(deepest)


THREAD_MESSAGE = {
    "object": "thread.message",
    "thread_id": "t",
    "created_at": 1,
    "role": "user",
    "content": "x",
}


def assistants(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "assistant", **fields}]}


@pytest.mark.parametrize(
    "document",
    [
        assistants(tool_calls=5),
        assistants(tool_calls={"id": "a"}),
        assistants(tool_calls=[{"id": "a", "function": {"name": "f", "arguments": 5}}]),
        assistants(tool_calls=[{"id": "a", "function": {"name": 5}}]),
        assistants(tool_calls=[{"id": {}, "function": {"name": "f"}}]),
        assistants(tool_calls=[{"id": "a", "custom": {"name": [], "input": "x"}}]),
        assistants(function_call={"name": "f", "arguments": {}}),
        assistants(content=[{"type": "file", "file": {"file_id": "x", "filename": 5}}]),
        assistants(refusal=5),
        *({**THREAD_MESSAGE, "content": value} for value in (5, True, {"a": 1})),
        *({**THREAD_MESSAGE, "attachments": value} for value in (5, {"a": 1})),
        *({**THREAD_MESSAGE, "created_at": at} for at in (10**14, 10**18, 10**30, -(10**30), True)),
        {**THREAD_MESSAGE, "metadata": [1]},
        {**THREAD_MESSAGE, "id": {}},
    ],
    ids=lambda document: json.dumps(document)[:70],
)
async def test_what_cannot_be_imported_is_a_typed_error(
    manager: SessionManager, document: dict[str, Any]
):
    with pytest.raises(ImportFormatError):
        await import_session(manager, [json.dumps(document)])


JUNK = st.recursive(
    st.sampled_from([None, True, 5, -1, 10**30, 1.5, "x", ""]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["type", "id", "a", "$path", "$class", "$dict", "$tuple", "$document"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=3,
)
WHOLE_CHAT = {
    "id": "c",
    "messages": [
        {"role": "user", "name": "n", "content": [{"type": "text", "text": "x"}]},
        {
            "role": "assistant",
            "content": None,
            "refusal": "r",
            "function_call": {"name": "f", "arguments": "{}"},
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "b", "type": "custom", "custom": {"name": "n", "input": "i"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "x"},
    ],
}
NATIVE = {
    "llama_index": {"role": "user", "blocks": [{"$class": "TextBlock", "text": "x"}], "of": 1},
    "langchain": {"id": "1", "artifact": {"$document": {"page_content": "x"}}},
    "openai_agents": {"items": [{"role": "user", "content": "x"}, None]},
    "openai_chat": {"set": {"a": 1}, "without": ["b"]},
}


@st.composite
def damaged(draw: st.DrawFn, whole: Any) -> Any:
    """A document with something else in the place of a part of it."""
    parts = list(whole.items() if isinstance(whole, dict) else enumerate(whole))
    if not parts or draw(st.integers(0, 4)) == 0:
        return draw(JUNK)
    at, inner = draw(st.sampled_from(parts))
    copy = dict(whole) if isinstance(whole, dict) else list(whole)
    copy[at] = draw(damaged(inner) if isinstance(inner, dict | list) else JUNK)
    return copy


@given(document=damaged(WHOLE_CHAT) | damaged({**THREAD_MESSAGE, "attachments": [{"a": "b"}]}))
@settings(max_examples=150)
async def test_any_damaged_document_is_imported_or_refused(document: Any):
    async with SessionManager("memory") as manager:
        try:
            imported = await import_session(manager, [json.dumps(document)])
        except SessionError:
            return
        await assert_is_usable(manager, imported.session_id)


@given(native=damaged(NATIVE))
@settings(max_examples=150)
async def test_whatever_a_format_is_said_to_have_kept_can_be_read(native: Any):
    async with SessionManager("memory") as manager:
        session = await manager.create_session("ann", "mock", "m", session_id="s")
        await session.record(SessionMessage(role="user", content="x"))
        lines = await lines_of(manager, "s")
        lines[1]["native"] = native
        lines[0]["session"]["session_id"] = "t"
        try:
            await import_session(manager, [json.dumps(line) for line in lines])
        except ImportFormatError:
            return
        await assert_is_usable(manager, "t")


async def assert_is_usable(manager: SessionManager, session_id: str) -> None:
    """It can be shown, read through each door, exported and imported again."""
    session = await manager.get_session(session_id)
    messages = await session.get_messages()
    assert messages._repr_html_()
    for target in ("langchain", "llama-index", "openai-agents", "openai", "anthropic"):
        try:
            await session.fidelity(target)
        except MissingDependencyError:
            continue
    for form in ExportFormat:
        exporter = Exporter(form)
        text = "".join([piece async for piece in exporter.write(manager.iter_sessions())])
        if form in (ExportFormat.JSON, ExportFormat.JSONL, ExportFormat.OPENAI):
            async with SessionManager("memory") as again:
                assert [each.error async for each in import_sessions(again, text.splitlines())]


async def test_it_goes_on_after_the_import(manager: SessionManager, other: SessionManager):
    await some_session(manager)
    await import_session(other, await lines_of(manager, "s"))
    other.add_provider_session("mock", MockProviderSession(["five"]))
    session = await other.get_session("s", user_id="ann")
    await session.set_status("active")
    again = await session.send_message("fourth", idempotency_key="order-4")
    assert again.text == "four"
    assert (await session.send_message("fifth")).seq == 10


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(log=strategies.logs(), data=st.data())
async def test_whatever_a_session_holds_comes_back(
    other: SessionManager, log: list[SessionMessage], data: st.DataObject
):
    session_id = uuid.uuid4().hex
    async with SessionManager("memory") as manager:
        context = data.draw(strategies.json_objects())
        session = await manager.create_session(
            "ann", "mock", "m", session_id=session_id, anything=context
        )
        for message in log:
            key = data.draw(st.none() | st.uuids().map(str))
            await session.record(message, idempotency_key=key)
        lines = [json.dumps(line) for line in await lines_of(manager, session_id)]
    await import_session(other, lines)
    assert [json.dumps(line) for line in await lines_of(other, session_id)] == lines


async def test_a_storage_without_help_keeps_what_it_can(manager: SessionManager):
    await some_session(manager)
    lines = await lines_of(manager, "s")
    other = SessionManager(WithoutHelp())
    await import_session(other, lines)
    before, after = await manager.get_session("s"), await other.get_session("s")
    kept = {"exclude": {"seq", "turn_id"}}
    assert [m.model_dump(**kept) for m in await after.get_messages()] == [
        m.model_dump(**kept) for m in await before.get_messages()
    ]
    assert [t.status for t in await after.get_turns()] == [
        t.status for t in await before.get_turns()
    ]
    assert after.context.summary.last_seq == 2
    assert after.context.provider_session_id is None
    assert after.status == before.status


async def test_a_turn_that_is_open_comes_back_as_failed(
    manager: SessionManager, other: SessionManager
):
    session = await manager.create_session("ann", "mock", "m", session_id="s")
    async with await session.begin_turn("hello", idempotency_key="k") as turn:
        lines = await lines_of(manager, "s")
        await turn.complete([SessionMessage(role=MessageRole.ASSISTANT, content="hi")])
    assert [line["type"] for line in lines] == ["session", "turn", "message", "end"]
    assert lines[1]["status"] == "open"
    imported = await import_session(other, lines)
    assert "open" in imported.notes[0]
    (failed,) = await (await other.get_session("s")).get_turns()
    assert (failed.status.value, failed.idempotency_key) == ("failed", "k")
    assert (await other.get_session("s")).metrics.errors == 1


async def test_messages_that_go_away_meanwhile_are_told_of(manager: SessionManager):
    session = await manager.create_session("ann", "mock", "m", session_id="s")
    await session.record([SessionMessage(role="user", content=str(n)) for n in range(3)])
    lines = export_session(session)
    await anext(lines)
    await session.record(SessionMessage(role="user", content="one more is no matter"))
    await session.edit_messages(expected_revision=session.revision, remove=[2])
    with pytest.raises(RevisionConflictError, match="export it again"):
        _ = [line async for line in lines]


async def test_a_session_that_is_miscounted_can_be_rescued(tmp_path: Path, other: SessionManager):
    path = tmp_path / "x.db"
    async with SessionManager("sqlite", storage_config={"db_path": path}) as manager:
        await some_session(manager)
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE sessions SET message_count = 99")
        connection.close()
        imported = await import_session(other, await lines_of(manager, "s"))
    assert "counted anew" in imported.notes[0]
    assert (await other.get_session("s")).metrics.message_count == 7


async def test_numbers_that_json_has_no_form_for(manager: SessionManager, other: SessionManager):
    session = await manager.create_session("ann", "mock", "m", session_id="s", odd=[float("nan")])
    await session.record(SessionMessage(role="user", content="a", metadata={"x": float("-inf")}))
    lines = [json.dumps(line) for line in await lines_of(manager, "s")]
    assert '"odd": [NaN]' in lines[0]
    assert '"x": -Infinity' in lines[1]
    await import_session(other, lines)
    assert [json.dumps(line) for line in await lines_of(other, "s")] == lines


async def test_the_largest_figures(manager: SessionManager, other: SessionManager):
    await some_session(manager)
    head, *log = await lines_of(manager, "s")
    names = ("revision", "turn_count", "errors", "input_tokens", "output_tokens", "cached_tokens")
    figures = dict.fromkeys(names, 2**53 - 1) | {"status": "active"}
    await import_session(other, [{**head, "session": {**head["session"], **figures}}, *log])
    session = await other.get_session("s")
    usage = TokenUsage(input_tokens=2**40)
    await session.record(SessionMessage(role="assistant", content="more", usage=usage))
    assert session.revision == session.metrics.turn_count == 2**53
    assert session.metrics.input_tokens == 2**53 - 1 + 2**40


@pytest.mark.parametrize("name", ["revision", "last_seq", "turn_count", "errors", "input_tokens"])
async def test_a_figure_that_leaves_no_room_is_refused(manager: SessionManager, name: str):
    await some_session(manager)
    head, *log = await lines_of(manager, "s")
    error = await _wrong([{**head, "session": {**head["session"], name: 2**53}}, *log])
    assert (error.line, name in str(error)) == (1, True)


# Names


async def test_an_id_that_is_taken(manager: SessionManager):
    await some_session(manager)
    lines = await lines_of(manager, "s")
    with pytest.raises(SessionExistsError):
        await import_session(manager, lines)
    skipped = await import_session(manager, lines, ImportOptions(on_conflict=OnConflict.SKIP))
    assert skipped.skipped
    assert await lines_of(manager, "s") == lines
    copy = await import_session(manager, lines, ImportOptions(on_conflict=OnConflict.NEW_ID))
    assert copy.session_id != copy.source_id == "s"
    assert "provider" in copy.notes[0]
    context = (await manager.get_session(copy.session_id)).context
    assert context.provider_session_id is None
    assert context.topic == "trains"


async def test_another_name_and_another_user(manager: SessionManager):
    await some_session(manager)
    options = ImportOptions(user_id="bob", session_id="t")
    imported = await import_session(manager, await lines_of(manager, "s"), options)
    session = await manager.get_session("t", user_id="bob")
    assert imported.user_id == "bob"
    assert session.context.provider_session_id is None
    assert len(await session.get_messages()) == 7


async def test_many_in_one_file_and_some_are_there(manager: SessionManager, other: SessionManager):
    lines = []
    for name in "abc":
        await some_session(manager, name)
        lines += await lines_of(manager, name)
    await other.create_session("bob", "mock", "m", session_id="b")
    results = [each async for each in import_sessions(other, lines)]
    assert [(each.session_id, type(each.error).__name__) for each in results] == [
        ("a", "NoneType"),
        ("b", "SessionExistsError"),
        ("c", "NoneType"),
    ]
    with pytest.raises(ImportFormatError, match="more than one"):
        await import_session(SessionManager("memory"), lines)


async def test_a_dry_run_writes_nothing(manager: SessionManager, other: SessionManager):
    await some_session(manager)
    lines = await lines_of(manager, "s")
    for target, expected in ((other, type(None)), (manager, SessionExistsError)):
        results = [e async for e in import_sessions(target, lines, ImportOptions(dry_run=True))]
        assert [type(each.error) for each in results] == [expected]
    assert [session async for session in other.iter_sessions()] == []


async def test_one_id_twice_in_a_file(manager: SessionManager, other: SessionManager):
    await some_session(manager)
    lines = await lines_of(manager, "s")
    for options in (ImportOptions(dry_run=True), ImportOptions()):
        results = [each async for each in import_sessions(other, [*lines, *lines], options)]
        assert [type(each.error) for each in results] == [type(None), SessionExistsError]


# What is wrong


async def _wrong(lines: list[Any]) -> ImportFormatError:
    manager = SessionManager("memory")
    with pytest.raises(ImportFormatError) as caught:
        await import_session(manager, lines)
    assert [session async for session in manager.iter_sessions()] == []
    return caught.value


def _changed(line: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {**line, **values}


def _named(line: dict[str, Any], **values: Any) -> dict[str, Any]:
    return _changed(line, session=_changed(line["session"], **values))


@pytest.mark.parametrize(
    ("change", "number", "words"),
    [
        (lambda all_: all_[:-1], None, "cut off"),
        (lambda all_: all_[:6] + all_[7:], 11, "6 messages, and 7 there should be"),
        (lambda all_: all_[1:], 1, "none of"),
        (lambda all_: [all_[0], *all_], 2, "before the one before it has ended"),
        (lambda all_: [_changed(all_[0], version=2), *all_[1:]], 1, "upgrade"),
        (lambda all_: [_changed(all_[0], format="x"), *all_[1:]], 1, "no session of the format"),
        (lambda all_: [_changed(all_[0], session={"a": 1}), *all_[1:]], 1, "session_id"),
        (lambda all_: [_named(all_[0], provider=""), *all_[1:]], 1, "provider is empty"),
        (lambda all_: [_named(all_[0], provider="a\nb"), *all_[1:]], 1, "provider 'a\\nb' has"),
        (lambda all_: [_named(all_[0], model="\ud800"), *all_[1:]], 1, "model '\\ud800' has"),
        (lambda all_: [all_[0], all_[1], all_[1], *all_[2:]], 3, "does not follow"),
        (lambda all_: [all_[0], all_[3], all_[1]], 3, "does not follow"),
        (lambda all_: [all_[0], _changed(all_[1], role="robot"), *all_[2:]], 2, "role"),
        (lambda all_: [all_[0], _changed(all_[1], odd=1), *all_[2:]], 2, "odd"),
        (lambda all_: [all_[0], _changed(all_[1], turn_id=2), *all_[2:]], 2, "not in order"),
        (lambda all_: [all_[0], _changed(all_[1], seq=None), *all_[2:]], 2, "no seq"),
        (lambda all_: [*all_[:3], _changed(all_[3], id=all_[1]["id"])], 4, "twice"),
        (lambda all_: [*all_[:4], _changed(all_[4], turn=3), *all_[5:]], 6, "no message"),
        (lambda all_: [*all_[:4], _changed(all_[4], turn=2), *all_[5:]], 5, "does not go before"),
        (lambda all_: [*all_[:4], _changed(all_[4], key="order-4"), *all_[5:]], 9, "twice"),
        (lambda all_: [all_[0], {"type": "note"}], 2, "no line of the type"),
        (lambda all_: [all_[0], "{"], 2, "no JSON"),
        (lambda all_: [all_[0], "[1]"], 2, "something else"),
        (lambda _: ["nonsense"], 1, "no JSON"),
        (lambda all_: [all_[0], 5], 2, "not int"),
        (lambda _: [None], 1, "not NoneType"),
        (lambda _: ['{"a":', "1"], 1, "no JSON"),
        (lambda _: [{"a": 1}], 1, "none of"),
        (lambda _: [], None, "no session"),
        (lambda _: [{"messages": [{"role": "robot"}]}], 1, "roles"),
        (lambda _: [{"id": 5, "messages": []}], 1, "id must be a string"),
        (lambda _: [{"messages": [{"role": "user", "content": 5}]}], 1, "content"),
        (lambda _: [{"format": "langswarm-session", "version": 1}], 1, "no list of sessions"),
    ],
)
async def test_what_is_wrong_is_told_and_nothing_is_written(
    manager: SessionManager, change: Any, number: int | None, words: str
):
    await some_session(manager)
    error = await _wrong(change(await lines_of(manager, "s")))
    assert words in str(error)
    assert error.line == number


async def test_what_has_no_lines(manager: SessionManager):
    lines: Any = 5
    with pytest.raises(InvalidInputError, match="expected lines, not int"):
        await import_session(manager, lines)


# Other formats


@pytest.mark.skipif(not DATA.exists(), reason="the conversations are not on this machine")
async def test_sixty_conversations_of_the_chat_format(other: SessionManager):
    lines = DATA.read_text(encoding="utf-8").splitlines()
    options = ImportOptions(user_id="ann", provider="openai", model="gpt-5.4")
    imported = [each async for each in import_sessions(other, lines, options)]
    assert len(imported) == 60
    assert not any(each.error for each in imported)
    for line, each in zip(map(json.loads, lines), imported, strict=True):
        session = await other.get_session(line["id"], user_id="ann")
        messages = await session.get_messages()
        assert len(messages) == each.messages == len(line["messages"])
        users = sum(message["role"] == "user" for message in line["messages"])
        assert session.metrics.turn_count <= users + 1
        assert (session.context.provider, session.context.model) == ("openai", "gpt-5.4")
    hits = await other.search_messages("mia_li_3668", limit=5)
    assert hits


async def test_a_thread_of_the_assistants_api(other: SessionManager):
    def message(number: int, role: str, text: str) -> dict[str, Any]:
        content = [{"type": "text", "text": {"value": text, "annotations": []}}]
        return {
            "id": f"msg_{number}",
            "object": "thread.message",
            "created_at": 1_699_000_000 + number // 2,
            "thread_id": "thread_abc",
            "role": role,
            "content": content,
            "metadata": {"a": "b"},
            "attachments": [{"file_id": "file-1", "tools": []}] if number == 0 else [],
        }

    said = [message(n, "assistant" if n % 2 else "user", f"text {n}") for n in range(6)]
    listing = {"object": "list", "data": said[::-1], "has_more": False}
    document = json.dumps(listing, indent=2).splitlines(keepends=True)
    imported = await import_session(other, document, ImportOptions(user_id="ann"))
    assert (imported.session_id, imported.turns) == ("thread_abc", 3)
    session = await other.get_session("thread_abc", user_id="ann")
    messages = await session.get_messages()
    assert [each.text for each in messages] == [f"text {n}" for n in range(6)]
    assert [each.id for each in messages] == [f"msg_{n}" for n in range(6)]
    assert messages[0].content[1].file_id == "file-1"
    assert messages[0].native["openai_thread"] == said[0]
    assert session.metrics.created_at.timestamp() == 1_699_000_000
    other.add_provider_session("mock", MockProviderSession(["I remember."]))
    await session.update_context(provider="mock", model="m")
    assert (await session.send_message("Do you remember?")).text == "I remember."


async def test_a_thread_that_is_cut_off_is_told_of(manager: SessionManager):
    one = {"id": "m", "object": "thread.message", "created_at": 1, "thread_id": "t", "role": "user"}
    listing = {"object": "list", "data": [one], "has_more": True}
    imported = await import_session(manager, [json.dumps(listing)])
    assert any("has_more" in note for note in imported.notes)


async def test_lines_may_come_slowly(manager: SessionManager, other: SessionManager):
    await some_session(manager)

    async def slowly() -> AsyncIterator[bytes]:
        for line in await lines_of(manager, "s"):
            await asyncio.sleep(0)
            yield json.dumps(line).encode() + b"\n"
            yield b"\n"

    assert (await import_session(other, slowly())).messages == 7

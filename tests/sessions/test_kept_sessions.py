"""A session object that is kept while its session is deleted, and its id created again."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from langswarm_session import (
    BaseSession,
    MockProviderSession,
    SessionManager,
    SessionMessage,
    SessionNotFoundError,
    SQLiteSessionStorage,
    export_session,
)
from langswarm_session.requests.window import Beginning, load
from langswarm_session.transfer.export_formats import Exporter, ExportFormat

SECRET = "the new owner's"

Call = Callable[[BaseSession], Awaitable[Any]]


def user(text: str) -> SessionMessage:
    return SessionMessage(role="user", content=text)


async def all_of(source: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in source]


async def only(session: BaseSession) -> AsyncIterator[BaseSession]:
    yield session


METHODS: dict[str, Call] = {
    "add_system_message": lambda session: session.add_system_message("x"),
    "archive": lambda session: session.archive(),
    "begin_turn": lambda session: session.begin_turn("x"),
    "cancel": lambda session: session.cancel(),
    "clear_messages": lambda session: session.clear_messages(),
    "compact": lambda session: session.compact(),
    "delete": lambda session: session.delete(),
    "edit_messages": lambda session: session.edit_messages(expected_revision=2, remove=[1]),
    "fidelity": lambda session: session.fidelity("openai"),
    "fork": lambda session: session.fork(),
    "get_current_messages": lambda session: session.get_current_messages(),
    "get_messages": lambda session: session.get_messages(),
    "get_turns": lambda session: session.get_turns(),
    "get_window": lambda session: session.get_window(),
    "iter_messages": lambda session: all_of(session.iter_messages()),
    "measure": lambda session: session.measure(),
    "read_window": lambda session: session.read_window(),
    "read_messages": lambda session: session.read_messages(limit=5),
    "reconcile": lambda session: session.reconcile(),
    "record": lambda session: session.record(user("x")),
    "refresh": lambda session: session.refresh(),
    "regenerate": lambda session: session.regenerate(),
    "send_message": lambda session: session.send_message("x"),
    "set_status": lambda session: session.set_status("paused"),
    "set_summary": lambda session: session.set_summary("x"),
    "stream_message": lambda session: all_of(session.stream_message("x")),
    "stream_regenerated": lambda session: all_of(session.stream_regenerated()),
    "switch_provider": lambda session: session.switch_provider("mock", "other"),
    "update_context": lambda session: session.update_context(x=1),
}
OTHERS: dict[str, Call] = {
    "export_session": lambda session: all_of(export_session(session)),
    **{
        f"export as {form}": lambda session, form=form: all_of(Exporter(form).write(only(session)))
        for form in ExportFormat
    },
    "a window": lambda session: load(
        session.manager.storage, session.ref, Beginning(0, 0, 0, None), before=99, max_messages=5
    ),
}
NO_STORAGE = {"call_tools"}

every_call = pytest.mark.parametrize("call", [*METHODS.values(), *OTHERS.values()],
                                     ids=[*METHODS, *OTHERS])  # fmt: skip
every_owner = pytest.mark.parametrize("owner", ["ann", "bob", None], ids=["same", "other", "none"])


def test_no_method_is_forgotten() -> None:
    methods = {
        name
        for name, method in inspect.getmembers(BaseSession, inspect.isfunction)
        if not name.startswith("_")
        and (inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method))
    }
    generators = {"stream_message", "stream_regenerated", "iter_messages"}
    assert methods | generators == METHODS.keys() | NO_STORAGE


async def replaced(manager: SessionManager, owner: str | None) -> tuple[BaseSession, Any]:
    """A session object whose session is gone, and who has its id by now."""
    old = await manager.create_session("ann", "mock", "echo", session_id="s")
    await old.send_message("mine")
    await manager.delete_session("s")
    if owner is None:
        return old, None
    new = await manager.create_session(owner, "mock", "echo", session_id="s")
    await new.send_message(SECRET)
    return old, new


async def state(manager: SessionManager) -> list[Any]:
    page = await manager.storage.list_sessions()
    return [(each, await manager.storage.get_messages(each.ref)) for each in page.records]


@every_owner
@every_call
async def test_it_neither_shows_nor_changes_the_new_one(
    manager: SessionManager, owner: str | None, call: Call
) -> None:
    old, _ = await replaced(manager, owner)
    before = await state(manager)
    with pytest.raises(SessionNotFoundError) as refused:
        await call(old)
    assert refused.value.session_id == "s"
    assert SECRET not in str(refused.value)
    assert await state(manager) == before
    assert (old.session_id, old.user_id) == ("s", "ann")


@every_owner
async def test_a_notebook_shows_nothing_of_the_new_one(
    manager: SessionManager, owner: str | None
) -> None:
    old, _ = await replaced(manager, owner)
    assert SECRET not in old._repr_html_()
    assert SECRET not in repr(old)


class TestTurns:
    async def test_a_turn_that_is_open_adds_nothing_to_the_new_one(
        self, manager: SessionManager
    ) -> None:
        old = await manager.create_session("ann", "mock", "echo", session_id="s")
        turn = await old.begin_turn("mine")
        await manager.delete_session("s")
        new = await manager.create_session("bob", "mock", "echo", session_id="s")
        for call in (old.record(user("x")), turn.add([user("x")]), turn.complete([user("x")])):
            with pytest.raises(SessionNotFoundError):
                await call
        assert await new.get_messages() == []

    async def test_the_new_one_is_free_inside_and_beside_it(self, manager: SessionManager) -> None:
        """Whose turn is open, and who waits for whom, goes by the session and not by its id."""
        old = await manager.create_session("ann", "mock", "echo", session_id="s")
        turn = await old.begin_turn("mine")
        await manager.delete_session("s")
        new = await manager.create_session("bob", "mock", "echo", session_id="s")
        reply = await new.send_message("theirs", wait=0)
        assert reply.text
        assert await new.record(user("more"), wait=0)
        assert [each.status.value for each in await new.get_turns()] == ["complete", "complete"]
        await turn.cancel()
        assert len(await new.get_messages()) == 3


class TestRaces:
    async def test_a_delete_removes_what_was_read_and_nothing_else(
        self, db_path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between looking the session up and removing it, its id goes to another user."""
        storage = SQLiteSessionStorage(db_path)
        manager = SessionManager(storage, providers={"mock": MockProviderSession()})
        find = storage.find_session
        await manager.create_session("ann", "mock", "echo", session_id="s")

        async def found_and_replaced(session_id: str, **options: Any) -> Any:
            record = await find(session_id, **options)
            monkeypatch.undo()
            await storage.delete_session(record.ref)
            new = await manager.create_session("bob", "mock", "echo", session_id="s")
            await new.send_message(SECRET)
            return record

        monkeypatch.setattr(storage, "find_session", found_and_replaced)
        with pytest.raises(SessionNotFoundError):
            await manager.delete_session("s", user_id="ann")
        assert len(await (await manager.get_session("s", user_id="bob")).get_messages()) == 2
        await manager.close()
        await storage.close()

    async def test_an_erasure_removes_the_users_own(self, manager: SessionManager) -> None:
        """What was listed, and belongs to another user by now, stays."""
        await manager.create_session("ann", "mock", "echo", session_id="s")
        await manager.create_session("ann", "mock", "echo", session_id="t")
        listing = manager.storage.list_sessions

        async def listed_and_replaced(**options: Any) -> Any:
            page = await listing(**options)
            for record in page.records:
                if record.session_id == "s" and record.user_id == "ann":
                    await manager.storage.delete_session(record.ref)
                    await manager.create_session("bob", "mock", "echo", session_id="s")
            return page

        manager.storage.list_sessions = listed_and_replaced  # type: ignore[method-assign]
        report = await manager.erase_user("ann", scrub=False)
        assert (report.sessions, report.complete) == (["t"], True)
        assert (await manager.get_session("s")).user_id == "bob"

    async def test_a_cleanup_archives_what_it_listed(self, manager: SessionManager) -> None:
        await manager.create_session("ann", "mock", "echo", session_id="s")
        listing = manager.storage.list_sessions

        async def listed_and_replaced(**options: Any) -> Any:
            page = await listing(**options)
            for record in page.records:
                if record.user_id == "ann":
                    await manager.storage.delete_session(record.ref)
                    await manager.create_session("bob", "mock", "echo", session_id="s")
            return page

        manager.storage.list_sessions = listed_and_replaced  # type: ignore[method-assign]
        assert await manager.cleanup_inactive_sessions(0) == 0
        assert (await manager.get_session("s")).status.value == "active"

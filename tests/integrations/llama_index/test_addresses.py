"""Stores that were written down, and who may read them again."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index_langswarm import AsyncSessionChatStore, SessionChatStore, addresses

from langswarm_session import (
    InvalidInputError,
    SessionManager,
    set_session_manager,
)
from langswarm_session._sync.bridge import run

Chats = Callable[[str], list[ChatMessage]]
KINDS: list[Any] = [SessionChatStore, AsyncSessionChatStore]

SECRET = "hunter2"


def elsewhere(call: Callable[[], Any]) -> Any:
    """Call a function in a task in which no store was made."""
    return contextvars.Context().run(call)


def written(manager: SessionManager, user_id: str, kind: Any = SessionChatStore) -> dict[str, Any]:
    """A store of a user's, written down in another task."""
    return elsewhere(lambda: json.loads(kind(manager=manager, user_id=user_id).model_dump_json()))


def read(data: dict[str, Any], kind: Any = SessionChatStore) -> Any:
    """A store that was written down, read in another task."""
    return elsewhere(lambda: kind.model_validate(data))


@pytest.fixture
def another_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Makes this process another one: it has signed nothing, and has no managers."""

    def become_another() -> None:
        monkeypatch.setattr(addresses, "_own_key", os.urandom(32))
        addresses._managers.clear()

    yield become_another
    set_session_manager(None)


@pytest.mark.parametrize("kind", KINDS)
def test_this_process_reads_what_it_has_written(manager: SessionManager, kind: Any) -> None:
    data = written(manager, "ann", kind)
    store = read(data, kind)
    assert (store.manager, store.user_id) == (manager, "ann")
    assert read(store.model_dump(), kind).manager is manager


@pytest.mark.parametrize("kind", KINDS)
def test_another_user_is_refused(manager: SessionManager, kind: Any) -> None:
    written(manager, "bob", kind)
    for user in ("bob", "default"):
        with pytest.raises(ValueError, match="nothing shows"):
            read({**written(manager, "ann", kind), "user_id": user}, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_user_is_refused(manager: SessionManager, kind: Any) -> None:
    data = written(manager, "ann", kind)
    for user in (None, "", [], True):
        with pytest.raises(ValueError, match="user_id"):
            read({**data, "user_id": user}, kind)
    del data["user_id"]
    with pytest.raises(ValueError, match="nothing shows"):
        read(data, kind)


@pytest.mark.parametrize("signature", ["", "#", "#0", "#" + "0" * 32, "#ü"])
def test_an_address_that_is_not_signed_is_refused(manager: SessionManager, signature: str) -> None:
    data = written(manager, "ann")
    place = data["address"].rpartition("#")[0]
    with pytest.raises(ValueError, match="give the store its manager|nothing shows"):
        read({**data, "address": place + signature})


def test_another_place_is_refused(manager: SessionManager, tmp_path: Path) -> None:
    data = written(manager, "ann")
    path = tmp_path / "other.db"
    other = SessionManager("sqlite", storage_config={"db_path": path})
    hers = written(other, "ann")["address"]
    _, _, signature = data["address"].rpartition("#")
    for address in (
        f"sqlite:///{tmp_path}/none.db#{signature}",
        f"sqlite:///{path}#{signature}",
        f"{hers.rpartition('#')[0]}#{signature}",
        f"{path}",
    ):
        with pytest.raises(ValueError, match="give the store its manager|nothing shows"):
            read({**data, "address": address})
    assert not path.exists()
    run(other.close())


@pytest.mark.parametrize("address", [1, "", "#", "memory#0123", [], {}])
def test_what_is_no_address_is_refused(address: Any) -> None:
    with pytest.raises(InvalidInputError, match="give the store its manager"):
        SessionChatStore(address=address)


def test_a_task_that_opened_the_users_store_reads_another_process_s(
    manager: SessionManager, another_process: Callable[[], None]
) -> None:
    data = written(manager, "ann")
    another_process()

    def task() -> None:
        opened = SessionChatStore(manager, user_id="ann")
        assert SessionChatStore.model_validate(data).manager is opened.manager
        with pytest.raises(ValueError, match="'bob'"):
            SessionChatStore.model_validate({**data, "user_id": "bob"})

    if manager.storage.address is None:
        return  # another process cannot reach it
    elsewhere(task)
    with pytest.raises(ValueError, match="nothing shows"):
        read(data)


def test_a_thread_that_served_a_user_before_shows_nothing(manager: SessionManager) -> None:
    """The threads of a WSGI server answer one user after the other in one context."""
    forged = {**written(manager, "bob"), "user_id": "ann"}

    def thread() -> None:
        SessionChatStore(manager, user_id="ann")
        with pytest.raises(ValueError, match="nothing shows"):
            SessionChatStore.model_validate(forged)

    elsewhere(thread)


def test_what_a_program_opens_at_its_start_shows_nothing_in_tasks(manager: SessionManager) -> None:
    forged = {**written(manager, "bob"), "user_id": "admin"}

    async def request() -> None:
        with pytest.raises(ValueError, match="nothing shows"):
            SessionChatStore.model_validate(forged)

    def program() -> None:
        store = SessionChatStore(manager, user_id="admin")
        asyncio.run(request())
        assert store.user_id == "admin"

    elsewhere(program)


def test_tasks_show_nothing_to_those_that_come_after_them(manager: SessionManager) -> None:
    forged = {**written(manager, "bob"), "user_id": "ann"}

    async def request(user_id: str) -> contextvars.Context:
        SessionChatStore(manager, user_id=user_id)
        await asyncio.create_task(reads())
        return contextvars.copy_context()

    async def reads() -> None:
        assert SessionChatStore.model_validate(forged).user_id == "ann"

    async def server() -> None:
        context = await asyncio.create_task(request("ann"))
        with pytest.raises(ValueError, match="nothing shows"):
            await asyncio.create_task(reads(), context=context)

    elsewhere(lambda: asyncio.run(server()))


def test_processes_may_share_a_key(
    tmp_path: Path, another_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(addresses.KEY_VARIABLE, "k" * 32)
    here = SessionManager("sqlite", storage_config={"db_path": tmp_path / "a.db"})
    data = written(here, "ann")
    another_process()
    with pytest.raises(ValueError, match="give the store its manager"):
        read(data)
    there = SessionManager("sqlite", storage_config={"db_path": tmp_path / "a.db"})
    set_session_manager(there)
    assert read(data).manager is there
    with pytest.raises(ValueError, match="'bob'"):
        read({**data, "user_id": "bob"})
    monkeypatch.setenv(addresses.KEY_VARIABLE, "other" * 8)
    with pytest.raises(ValueError, match="nothing shows"):
        read(data)
    monkeypatch.setenv(addresses.KEY_VARIABLE, "short")
    with pytest.raises(ValueError, match=f"{addresses.KEY_VARIABLE} has 5 characters"):
        read(data)


def test_the_shared_manager_is_not_taken_for_another(
    tmp_path: Path, another_process: Callable[[], None]
) -> None:
    data = written(SessionManager("sqlite", storage_config={"db_path": tmp_path / "a.db"}), "ann")
    another_process()
    set_session_manager(SessionManager("sqlite", storage_config={"db_path": tmp_path / "b.db"}))
    with pytest.raises(ValueError, match="give the store its manager"):
        read(data)


def test_only_so_many_stores_are_remembered(manager: SessionManager) -> None:
    def task() -> None:
        stores = [SessionChatStore(manager, user_id=f"user {n}") for n in range(50)]
        stores.append(SessionChatStore(manager, user_id="user 45"))
        assert len(addresses._opened.get()) == 32
        assert len({entry.user_id for entry in addresses._opened.get()}) == 32

    elsewhere(task)


def test_a_manager_is_not_kept() -> None:
    def task() -> None:
        SessionChatStore(SessionManager("memory"), user_id="ann")
        gc.collect()
        assert addresses._opened.get()[0].manager() is None

    elsewhere(task)


def test_nothing_that_is_written_down_is_secret() -> None:
    pytest.importorskip("asyncpg")
    dsn = f"postgresql://ann:{SECRET}@db.example/sessions?password={SECRET}&schema=s"
    manager = SessionManager(dsn)
    store = SessionChatStore(manager, user_id="ann")
    memory = AsyncSessionChatStore(manager, user_id="ann")
    for text in (store.model_dump_json(), memory.model_dump_json(), repr(store), repr(memory)):
        assert "db.example/sessions?schema=s" in text
        assert SECRET not in text
        assert "ann:" not in text
    assert SECRET.encode() not in pickle.dumps(store)


def test_sessions_in_the_memory_of_another_process_are_gone() -> None:
    with pytest.raises(InvalidInputError, match="give the store its manager"):
        SessionChatStore(address="memory#0123")


def test_managers_in_memory_are_told_apart(chats: Chats) -> None:
    stores = [SessionChatStore(SessionManager("memory")) for _ in range(2)]
    stores[0].set_messages("chat", chats("ab"))
    assert [SessionChatStore.from_dict(s.to_dict()).get_keys() for s in stores] == [["chat"], []]


@pytest.mark.parametrize("opens", [True, False])
def test_another_process_gives_the_store_its_manager(
    tmp_path: Path, chats: Chats, opens: bool
) -> None:
    path = tmp_path / "a b#%.db"
    manager = SessionManager("sqlite", storage_config={"db_path": path})
    store = SessionChatStore(manager)
    store.set_messages("chat", chats("ab"))
    code = (
        "import sys\nfrom langswarm_session import SessionManager\n"
        "from llama_index_langswarm import SessionChatStore\n"
        "manager = SessionManager('sqlite', storage_config={'db_path': sys.argv[2]})\n"
        "opened = SessionChatStore(manager) if int(sys.argv[3]) else None\n"
        "store = SessionChatStore.from_dict(eval(sys.argv[1]))\n"
        "print([m.content for m in store.get_messages('chat')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, repr(store.to_dict()), str(path), str(int(opens))],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert done.stdout.strip() == ("['a', 'b']" if opens else ""), done.stderr
    assert opens or "give the store its manager" in done.stderr
    run(manager.close())

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from langswarm_session import (
    ISessionStorage,
    SessionError,
    StorageBusyError,
    StorageClosedError,
    StorageUnavailableError,
)
from langswarm_session.records import SessionChanges, SessionRef
from langswarm_session.storage.naming import names_session
from langswarm_session.storage.sqlite.storage import SQLiteSessionStorage
from langswarm_session.testing.making import completed, lease, new_session, ref, user


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> ISessionStorage:
    """One that nothing can be opened with."""
    if request.param == "sqlite":
        return SQLiteSessionStorage(tmp_path)
    postgres = pytest.importorskip(
        "langswarm_session.storage.postgres.storage", exc_type=ImportError
    )
    made: ISessionStorage = postgres.PostgresSessionStorage(
        "postgresql://127.0.0.1:1/none", connect_timeout=0.01
    )
    return made


async def errors_of(storage: ISessionStorage, name: str) -> list[SessionError]:
    """What the methods that are about one session raise."""
    held = lease()
    calls = [
        storage.find_session(name),
        storage.update_session(ref(name), SessionChanges()),
        storage.delete_session(ref(name)),
        storage.append(ref(name), [user()]),
        storage.append(ref(name), [user()], token="t"),
        storage.begin_turn(ref(name), [user()], held),
        storage.end_turn(ref(name), completed(held), []),
        storage.get_messages(ref(name)),
        storage.get_messages(ref(name), limit=1),
        storage.get_turns(ref(name)),
        storage.get_turn_notes(ref(name)),
        storage.clear_messages(ref(name)),
        storage.edit_messages(ref(name), expected_revision=0),
        storage.fork_session(ref(name), new_session("fork")),
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    errors = [each for each in outcomes if isinstance(each, SessionError)]
    assert len(errors) == len(calls)
    return errors


async def test_each_error_names_its_own_session(storage: ISessionStorage) -> None:
    names = ["a", "b", "c"]
    for kind in (StorageUnavailableError, StorageClosedError):
        found = await asyncio.gather(*(errors_of(storage, name) for name in names))
        for name, errors in zip(names, found, strict=True):
            assert [type(each) for each in errors] == [kind] * len(errors)
            assert {each.session_id for each in errors} == {name}
            assert all(str(each).startswith(f"session '{name}': ") for each in errors)
        await storage.close()


async def test_what_was_raised_stays_as_it_was() -> None:
    cause = OSError("the disk")
    shared = StorageBusyError("busy")
    shared.__cause__ = cause
    own = StorageBusyError("busy", session_id="other")

    class Storage:
        @names_session
        async def fail(self, session_id: str, error: SessionError) -> None:
            raise error

        @names_session
        async def fail_of(self, ref: SessionRef, error: SessionError) -> None:
            raise error

    with pytest.raises(StorageBusyError, match="^session 's': busy$") as caught:
        await Storage().fail("s", error=shared)
    assert (caught.value.session_id, caught.value.__cause__) == ("s", cause)
    assert (str(shared), shared.session_id) == ("busy", None)
    with pytest.raises(StorageBusyError) as caught:
        await Storage().fail(session_id="s", error=own)
    assert caught.value is own
    for call in (
        Storage().fail_of(ref("s"), shared),
        Storage().fail_of(ref=ref("s"), error=shared),
    ):
        with pytest.raises(StorageBusyError, match="^session 's': busy$"):
            await call

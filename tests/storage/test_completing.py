"""A storage from outside that is derived from the interface alone, with the methods it must have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from langswarm_session import (
    InMemorySessionStorage,
    ISessionStorage,
    MessageRole,
    SessionManager,
    SessionMessage,
)
from langswarm_session.storage.completing import completed
from langswarm_session.testing import StorageConformance


class Bare:
    """What it has beside the interface."""

    name = "memory"

    def __init__(self) -> None:
        self.memory = InMemorySessionStorage()

    def __repr__(self) -> str:
        return "Bare()"


def delegated(name: str) -> Callable[..., Any]:
    async def method(storage: Bare, *args: Any, **options: Any) -> Any:
        return await getattr(storage.memory, name)(*args, **options)

    return method


def make_bare() -> ISessionStorage:
    methods = {name: delegated(name) for name in ISessionStorage.__abstractmethods__}
    storage: ISessionStorage = type("BareStorage", (Bare, ISessionStorage), methods)()
    return storage


def test_nineteen_methods_are_enough() -> None:
    assert len(ISessionStorage.__abstractmethods__) == 19


def test_a_whole_storage_stays_as_it_is() -> None:
    storage = InMemorySessionStorage()
    assert completed(storage) is storage


def test_it_looks_like_the_storage_that_it_completes() -> None:
    bare = make_bare()
    storage = completed(bare)
    assert (storage.name, storage.address, repr(storage)) == ("memory", None, "Bare()")
    assert storage.memory is bare.memory


class TestCompletedStorage(StorageConformance):
    def make_storage(self, tmp_path: Path) -> ISessionStorage:
        return completed(make_bare())


@pytest.mark.asyncio
async def test_a_manager_completes_its_storage() -> None:
    async with SessionManager(make_bare()) as manager:
        session = await manager.create_session("ann", "mock", "m")
        await session.record(SessionMessage(role=MessageRole.USER, content="a train to Rome"))
        hits = await manager.search_messages("train", user_id="ann")
    assert [hit.session_id for hit in hits] == [session.session_id]

"""A storage from outside that writes by facts and plans, at the version that was read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from langswarm_session import InMemorySessionStorage, StorageBusyError
from langswarm_session.storage.base import StorageBase
from langswarm_session.storage.decisions import Facts, FactsChangedError, Plan, Write
from langswarm_session.storage.rows import encode_message
from langswarm_session.testing.making import new_session, ref, texts, user
from langswarm_session.testing.storage_again import AskedAgainTests
from langswarm_session.testing.storage_log import LogTests
from langswarm_session.testing.storage_replace import EditTests
from langswarm_session.testing.storage_turns import TurnTests


class Optimistic(InMemorySessionStorage):
    """Memory, with a plan that is written only if nobody wrote meanwhile."""

    write = StorageBase.write

    def __init__(self, meanwhile: Callable[[InMemorySessionStorage], Any] | None = None) -> None:
        super().__init__()
        self.meanwhile = meanwhile

    async def facts(self, write: Write[Any]) -> Facts:
        for message in (*write.messages, *write.changed()):
            encode_message(message)
        with self._lock:
            return self._log(write.ref).facts(write)

    async def apply(self, facts: Facts, plan: Plan[Any]) -> None:
        if self.meanwhile is not None:
            await self.meanwhile(self)
        with self._lock:
            log = self._log(facts.record.ref)
            if log.record != facts.record:
                raise FactsChangedError
            log.apply(plan)


class TestOptimistic(LogTests, EditTests, TurnTests, AskedAgainTests):
    def make_storage(self, tmp_path: Path) -> Optimistic:
        return Optimistic()


async def test_a_write_is_decided_again_after_another_one() -> None:
    overtaken = []

    async def once(storage: InMemorySessionStorage) -> None:
        if not overtaken:
            overtaken.append(True)
            with storage._lock:
                log = storage._log(ref("s"))
                log.record = log.record._replace(revision=log.record.revision + 1)

    storage = Optimistic(once)
    await storage.create_session(new_session("s"))
    appended = await storage.append(ref("s"), [user("mine")])
    assert (appended.record.revision, overtaken) == (2, [True])
    assert texts(await storage.get_messages(ref("s"))) == ["mine"]


async def test_a_write_that_others_always_overtake_is_busy() -> None:
    async def always(storage: InMemorySessionStorage) -> None:
        raise FactsChangedError

    storage = Optimistic(always)
    storage.retry_seconds = 0.01
    await storage.create_session(new_session("s"))
    with pytest.raises(StorageBusyError) as refused:
        await storage.append(ref("s"), [user("mine")])
    assert refused.value.session_id == "s"
    assert await storage.get_messages(ref("s")) == []

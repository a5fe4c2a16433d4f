"""Conformance of a storage: how much of a log there is."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session.blocks import ToolResultBlock
from langswarm_session.errors import SessionNotFoundError
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.records import SessionRef
from langswarm_session.testing.making import new_session, ref, reply, user
from langswarm_session.testing.storage_base import StorageTests
from langswarm_session.testing.storage_log import property_based


def results(*ids: str) -> SessionMessage:
    """A message with the results of so many tools."""
    content = [ToolResultBlock(tool_call_id=each, content=f"of {each}") for each in ids]
    return SessionMessage(role=MessageRole.TOOL, content=list(content))


async def created(storage: ISessionStorage) -> SessionRef:
    """A new session."""
    return (await storage.create_session(new_session(uuid4().hex))).ref


class MeasureTests(StorageTests):
    """Counting messages, and finding one by its position."""

    async def test_a_log_is_measured(self, storage: ISessionStorage) -> None:
        """Messages are counted from any number on; a position is that number's, or nobody's."""
        session = await created(storage)
        empty = await storage.measure_log(session, skip=0)
        assert (empty.count, empty.at, empty.several) == (0, None, [])
        await storage.append(session, [user(str(n)) for n in range(5)])
        for after, skip, count, at in (
            (0, None, 5, None),
            (0, 0, 5, 1),
            (0, 4, 5, 5),
            (0, 5, 5, None),
            (2, 1, 3, 4),
            (5, 0, 0, None),
            (99, 0, 0, None),
        ):
            measure = await storage.measure_log(session, after=after, skip=skip)
            assert (measure.count, measure.at, measure.several) == (count, at, [])

    async def test_messages_of_several_results_are_found(self, storage: ISessionStorage) -> None:
        """However they came to be there; what says so without having them may be found as well."""
        session = await created(storage)
        quoted = user('"tool_result" and "tool_result"')
        await storage.append(session, [results("a"), results("b", "c"), quoted, results("d")])
        assert (await storage.measure_log(session)).several == [2]
        assert (await storage.measure_log(session, after=1)).several == [2]
        assert (await storage.measure_log(session, after=2)).several == []
        log = await storage.get_messages(session)
        revision = (await storage.get_session(session)).revision
        changed = log[3].replaced(content=[*log[3].blocks, *results("e").blocks])
        await storage.edit_messages(
            session, expected_revision=revision, remove=[2], change=[changed], add=[results(*"xyz")]
        )
        assert (await storage.measure_log(session)).several == [4, 5]

    @property_based
    @given(
        size=st.integers(0, 12),
        removed=st.sets(st.integers(1, 12)),
        after=st.integers(0, 14),
        skip=st.none() | st.integers(0, 14),
    )
    async def test_missing_numbers_are_not_counted(
        self,
        storage: ISessionStorage,
        size: int,
        removed: set[int],
        after: int,
        skip: int | None,
    ) -> None:
        """A position is that among the messages that are there."""
        session = await created(storage)
        await storage.append(session, [user("a") if n % 2 else reply("b") for n in range(size)])
        revision = (await storage.get_session(session)).revision
        gone = sorted(removed & set(range(1, size + 1)))
        await storage.edit_messages(session, expected_revision=revision, remove=gone)
        left = [n for n in range(after + 1, size + 1) if n not in removed]
        measure = await storage.measure_log(session, after=after, skip=skip)
        assert measure.count == len(left)
        expected = left[skip] if skip is not None and skip < len(left) else None
        assert measure.at == expected

    async def test_no_session_is_not_measured(self, storage: ISessionStorage) -> None:
        """Nor another user's, or another session under the same id."""
        session = await created(storage)
        for other in (session._replace(user_id="other"), session._replace(creation=2**40)):
            with pytest.raises(SessionNotFoundError):
                await storage.measure_log(other)
        with pytest.raises(SessionNotFoundError):
            await storage.measure_log(ref("nobody's"))

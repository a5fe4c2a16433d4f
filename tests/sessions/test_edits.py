"""Editing a session's log: `BaseSession.edit_messages`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

import pytest

from langswarm_session import (
    BaseSession,
    InvalidInputError,
    ISession,
    ISessionLifecycleHook,
    ISessionMiddleware,
    MessageRefusedError,
    MockProviderSession,
    NestedTurnError,
    RevisionConflictError,
    SessionManager,
    SessionMessage,
)


async def said(session: BaseSession) -> list[tuple[int | None, str]]:
    return [(message.seq, message.text) for message in await session.get_messages()]


def user(text: str, **fields: Any) -> SessionMessage:
    return SessionMessage(role="user", content=text, **fields)


@pytest.fixture
async def log(session: BaseSession) -> list[SessionMessage]:
    return await session.record([user("a"), user("b"), user("c")])


async def test_it_removes_changes_and_adds(session: BaseSession, log: list[SessionMessage]) -> None:
    added = await session.edit_messages(
        expected_revision=session.revision,
        remove=[1],
        change=[log[1].replaced(content="B")],
        add=[user("d")],
    )
    assert [(each.seq, each.text) for each in added] == [(4, "d")]
    assert await said(session) == [(2, "B"), (3, "c"), (4, "d")]
    assert (session.metrics.message_count, session.last_seq) == (3, 4)


async def test_another_revision_is_refused(session: BaseSession, log: list[SessionMessage]) -> None:
    revision = session.revision
    await session.record(user("d"))
    with pytest.raises(RevisionConflictError):
        await session.edit_messages(expected_revision=revision, remove=[3])
    assert [text for _, text in await said(session)] == ["a", "b", "c", "d"]


async def test_it_waits_for_the_turn_that_runs(
    session: BaseSession, manager: SessionManager, log: list[SessionMessage]
) -> None:
    other = await manager.get_session(session.session_id)
    turn = await other.begin_turn("question")
    revision = other.revision
    edit = asyncio.create_task(
        session.edit_messages(expected_revision=revision + 1, remove=[1]),
        context=Context(),
    )
    await asyncio.sleep(0)
    await turn.complete([SessionMessage(role="assistant", content="answer")])
    await edit
    assert [text for _, text in await said(session)] == ["b", "c", "question", "answer"]


async def test_inside_a_turn_of_the_session_it_is_refused(session: BaseSession) -> None:
    async with await session.begin_turn("question"):
        with pytest.raises(NestedTurnError):
            await session.edit_messages(expected_revision=session.revision, remove=[1])


class Watch(ISessionMiddleware, ISessionLifecycleHook):
    def __init__(self) -> None:
        self.processed: list[str] = []
        self.stored: list[str] = []

    async def process_outgoing_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        self.processed.append(message.text)
        if message.text == "no":
            raise MessageRefusedError("not that")
        return message.replaced(content=message.text.upper())

    async def on_message_sent(self, session: ISession, message: SessionMessage) -> None:
        self.stored.append(message.text)


async def test_middleware_and_hooks_see_what_is_new(
    session: BaseSession, log: list[SessionMessage]
) -> None:
    watch = Watch()
    session.add_middleware(watch)
    session.add_lifecycle_hook(watch)
    change = [log[0].replaced(content="x")]
    await session.edit_messages(
        expected_revision=session.revision, remove=[2], change=change, add=[user("d"), log[1]]
    )
    assert await said(session) == [(1, "X"), (3, "c"), (4, "D"), (5, "b")]
    assert watch.processed == ["x", "d"]
    assert watch.stored == ["D"]


async def test_a_refused_message_changes_nothing(
    session: BaseSession, log: list[SessionMessage]
) -> None:
    session.add_middleware(Watch())
    with pytest.raises(MessageRefusedError):
        await session.edit_messages(
            expected_revision=session.revision, remove=[1], add=[user("no")]
        )
    assert await session.get_messages() == log


@pytest.mark.parametrize(("seq", "kept"), [(1, False), (2, False), (3, True)])
async def test_a_summary_of_what_is_edited_is_dropped(
    session: BaseSession, log: list[SessionMessage], seq: int, kept: bool
) -> None:
    await session.set_summary("two letters", last_seq=2)
    await session.edit_messages(expected_revision=session.revision, remove=[seq])
    assert (session.context.summary is not None) is kept


async def test_a_providers_copy_of_what_is_edited_is_forgotten(
    session: BaseSession, log: list[SessionMessage]
) -> None:
    await session.update_context(provider_context={"previous_response_id": "resp_1"})
    await session.edit_messages(expected_revision=session.revision, add=[user("d")])
    assert session.context.provider_context, "the copy lacks what is new, as ever"
    await session.edit_messages(expected_revision=session.revision, remove=[3])
    assert not session.context.provider_context


async def test_the_next_turn_has_what_is_left(
    session: BaseSession, mock: MockProviderSession, texts: Callable[[BaseSession], Any]
) -> None:
    for text in ("one", "two"):
        await session.send_message(text)
    await session.edit_messages(expected_revision=session.revision, remove=[1, 2])
    await session.send_message("three")
    assert len(await texts(session)) == 4
    sent = [each.text for each in mock.requests[-1].messages]
    assert sent == ["two", "You said: two", "three"]


async def test_requests_begin_where_they_did(
    session: BaseSession, mock: MockProviderSession
) -> None:
    """Though a provider's copy, or a summary, goes with what is removed."""
    await session.update_context(max_messages=4)
    for text in ("one", "two", "three"):
        await session.send_message(text)
    before = [each.text for each in mock.requests[-1].messages]
    await session.update_context(provider_session_id="conv")
    mock.delete_provider_session = _nothing  # type: ignore[method-assign]
    await session.edit_messages(expected_revision=session.revision, remove=[session.last_seq])
    assert session.context.provider_session_id is None
    assert (
        [each.text for each in await session.get_window()]
        == before
        == ["two", "You said: two", "three"]
    )


async def _nothing(provider_session_id: str) -> None:
    """Stand for a provider that removes its copy."""


async def test_what_cannot_be_edited_is_refused(session: BaseSession) -> None:
    with pytest.raises(InvalidInputError):
        await session.edit_messages(expected_revision=session.revision, remove=[5])

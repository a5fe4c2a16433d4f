"""The user of a run, as its context names it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, RunContextWrapper, Runner
from agents.memory import session as sdk
from openai_agents_langswarm import AgentSession

from langswarm_session import InvalidInputError, SessionManager, SessionNotFoundError

sys.path.insert(0, str(Path(__file__).parent))
from agents_model import ScriptedModel, assistant_message

OpenChat = Callable[..., AgentSession]

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


def run_of(user_id: Any) -> RunContextWrapper[Any]:
    return RunContextWrapper({"user_id": user_id})


async def test_the_sdk_hands_the_context_to_all_methods(chat: AgentSession) -> None:
    accepts = getattr(sdk, "_session_accepts_wrapper", None)
    if accepts is None:
        pytest.skip("this version of the SDK hands sessions no context")
    assert accepts(chat)


@pytest.mark.parametrize("context", [{"user_id": "ann"}, SimpleNamespace(user_id="ann")])
async def test_a_run_writes_its_users_session(
    chat: AgentSession, manager: SessionManager, context: Any
) -> None:
    if not hasattr(sdk, "_session_accepts_wrapper"):
        pytest.skip("this version of the SDK hands sessions no context")
    agent = Agent[Any](name="a", model=ScriptedModel([[assistant_message("hi")]]))
    await Runner.run(agent, "hello", session=chat, context=context)
    assert (await manager.get_session("chat")).user_id == "ann"
    assert len(await chat.get_items(wrapper=RunContextWrapper(context))) == 2


async def test_other_users_sessions_do_not_exist(chat: AgentSession) -> None:
    await chat.add_items(HELLO, wrapper=run_of("ann"))
    assert await chat.get_items(wrapper=run_of("bob")) == []
    assert await chat.pop_item(wrapper=run_of("bob")) is None
    await chat.clear_session(wrapper=run_of("bob"))
    with pytest.raises(SessionNotFoundError):
        await chat.add_items(HELLO, wrapper=run_of("bob"))
    assert await chat.get_items(wrapper=run_of("ann")) == HELLO


async def test_another_user_than_the_sessions_own_is_refused(open_chat: OpenChat) -> None:
    chat = open_chat(user_id="ann")
    await chat.add_items(HELLO, wrapper=run_of("ann"))
    for call in (chat.get_items, chat.pop_item, chat.clear_session):
        with pytest.raises(InvalidInputError, match="'bob'.*'ann'"):
            await call(wrapper=run_of("bob"))
    with pytest.raises(InvalidInputError, match="'bob'.*'ann'"):
        await chat.add_items(HELLO, wrapper=run_of("bob"))
    assert await chat.get_items() == HELLO


@pytest.mark.parametrize("user", [None, "", " ", True, 1.5, [], "a\0b"])
async def test_what_is_no_user_is_refused(chat: AgentSession, user: Any) -> None:
    with pytest.raises(InvalidInputError, match="user_id"):
        await chat.add_items(HELLO, wrapper=run_of(user))


@pytest.mark.parametrize(
    ("user", "text"), [(7, "7"), (UUID(int=1), "00000000-0000-0000-0000-000000000001")]
)
async def test_numbers_and_uuids_are_taken_as_text(
    chat: AgentSession, manager: SessionManager, user: Any, text: str
) -> None:
    await chat.add_items(HELLO, wrapper=run_of(user))
    assert (await manager.get_session("chat")).user_id == text


@pytest.mark.parametrize("context", [None, {}, {"team": 1}, "text", SimpleNamespace()])
async def test_a_context_without_a_user_changes_nothing(
    open_chat: OpenChat, context: Any, manager: SessionManager
) -> None:
    await open_chat(user_id="ann").add_items(HELLO, wrapper=RunContextWrapper(context))
    assert (await manager.get_session("chat")).user_id == "ann"

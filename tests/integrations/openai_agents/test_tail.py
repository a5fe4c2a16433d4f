"""Windows of items, as a limit in the settings makes them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from agents.memory import SessionSettings
from openai_agents_langswarm import AgentSession

OpenChat = Callable[..., AgentSession]

REASONING = {"type": "reasoning", "id": "rs_1", "summary": []}


def call(n: int) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{n}",
        "call_id": f"call_{n}",
        "name": "f",
        "arguments": "{}",
        "status": "completed",
    }


def result(n: int) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": f"call_{n}", "output": f"{n}"}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


async def window(open_chat: OpenChat, items: list[Any], limit: int) -> list[Any]:
    chat = open_chat(session_settings=SessionSettings(limit=limit))
    await chat.clear_session()
    await chat.add_items(items)
    return await chat.get_items()


TOOLS = [user("a"), REASONING, call(1), call(2), result(1), result(2), user("b"), user("c")]


@pytest.mark.parametrize("limit", range(1, 10))
async def test_a_window_begins_with_a_users_message(open_chat: OpenChat, limit: int) -> None:
    got = await window(open_chat, TOOLS, limit)
    assert got == (TOOLS if limit >= 8 else TOOLS[-2:] if limit > 1 else TOOLS[-1:])


@pytest.mark.parametrize(("limit", "size"), [(1, 0), (2, 0), (3, 0), (4, 0), (5, 5), (6, 6)])
async def test_within_a_turn_it_begins_with_all_that_a_model_gave_in_a_row(
    open_chat: OpenChat, limit: int, size: int
) -> None:
    items = TOOLS[:6]
    assert await window(open_chat, items, limit) == items[len(items) - size :]


async def test_a_window_begins_with_a_compaction(open_chat: OpenChat) -> None:
    compaction = {"type": "compaction", "id": "cmp_1", "encrypted_content": "x"}
    items = [user("a"), compaction, call(1), result(1), user("b")]
    assert await window(open_chat, items, 4) == items[1:]


async def test_no_result_is_in_a_window_without_its_call(open_chat: OpenChat) -> None:
    items = [call(1), user("a"), result(1), call(2), result(2), user("b")]
    assert await window(open_chat, items, 5) == [user("a"), *items[3:]]


async def test_another_limit_is_the_exact_number(open_chat: OpenChat) -> None:
    chat = open_chat(session_settings=SessionSettings(limit=4))
    await chat.add_items(TOOLS)
    assert await chat.get_items() == await chat.get_items(4) == TOOLS[-2:]
    assert await chat.get_items(3) == TOOLS[-3:]


@pytest.mark.parametrize("limit", [12, 20, 50])
@pytest.mark.parametrize("steps", [0, 1, 3])
async def test_a_window_begins_where_it_did(open_chat: OpenChat, limit: int, steps: int) -> None:
    """For every reader: each is a session of its own, as in another process."""
    count = 2 + 2 * steps
    windows = []
    for number in range(60):
        chat = open_chat(session_settings=SessionSettings(limit=limit))
        calls = [item for n in range(steps) for item in (call(n), result(n))]
        await chat.add_items([user(f"q {number}"), *calls])
        windows.append(await chat.get_items())
        await chat.add_items([{"role": "assistant", "content": f"a {number}"}])
    assert max(map(len, windows)) <= limit
    assert all(window[0]["role"] == "user" for window in windows)
    full = windows[limit // count + 1 :]
    assert min(map(len, full)) >= limit // 2 - count
    pairs = list(pairwise(windows))
    new = sum(window[: len(before)] != before for before, window in pairs)
    # One that begins at about the middle lasts for half of the limit; roundness costs some.
    assert new <= 1 + 2 * len(pairs) * count / (limit / 2)
    assert new < len(pairs) or limit // 2 <= count

from __future__ import annotations

import pytest

from langswarm_session import (
    InvalidInputError,
    SessionManager,
    SessionMessage,
    SessionNotFoundError,
    ToolCallBlock,
)
from langswarm_session.search import MAX_TEXT, MessageHit, Place, folded


def hit(text: str, wanted: str) -> MessageHit:
    return MessageHit("s", "u", SessionMessage(role="user", content=text), wanted)


async def test_a_user_finds_only_what_is_the_user_s(manager: SessionManager):
    for user in ("ann", "bob"):
        session = await manager.create_session(user, "mock", "echo", session_id=f"of-{user}")
        await session.send_message("A secret.")
    anns = manager.for_user("ann")
    hits = await anns.search_messages("SECRET")
    assert [(each.session_id, each.message.seq) for each in hits] == [("of-ann", 2), ("of-ann", 1)]
    with pytest.raises(SessionNotFoundError):
        await anns.search_messages("secret", session_id="of-bob")
    assert len(await manager.search_messages("secret")) == 4
    assert len(await manager.search_messages("secret", role="user")) == 2


async def test_page_by_page(manager: SessionManager):
    session = await manager.create_session("ann", "mock", "echo")
    await session.record([SessionMessage(role="user", content=f"word {n}") for n in range(5)])
    first = await manager.search_messages("word", limit=3)
    rest = await manager.search_messages("word", limit=3, cursor=first.next_cursor)
    assert [each.message.seq for each in (*first, *rest)] == [5, 4, 3, 2, 1]
    assert rest.next_cursor is None
    assert await manager.search_messages("word", limit=0) == []


@pytest.mark.parametrize(
    "options",
    [
        {"text": ""},
        {"text": " "},
        {"text": "\ud800"},
        {"text": "x" * (MAX_TEXT + 1)},
        {"text": 1},
        {"text": "x", "limit": -1},
        {"text": "x", "role": "robot"},
        {"text": "x", "user_id": ""},
        {"text": "x", "cursor": "1.2"},
        {"text": "x", "cursor": "a.b.c"},
        {"text": "x", "cursor": f"{2**70}.1.s"},
    ],
)
async def test_what_cannot_be_searched(manager: SessionManager, options):
    with pytest.raises(InvalidInputError):
        await manager.search_messages(**options)


def test_a_snippet_is_one_line_around_the_match():
    snippet = hit("before\n" * 20 + "The Needle.\n" + "after\n" * 20, "needle").snippet(40)
    assert snippet.match == "Needle"
    assert str(snippet).startswith("...")
    assert str(snippet).endswith("...")
    assert "\n" not in str(snippet)
    assert 40 <= len(str(snippet)) <= 46
    assert str(hit("Needle", "needle").snippet()) == "Needle"
    assert hit("x" * 100, "x" * 90).snippet(40).match == "x" * 90


def test_a_snippet_of_a_tool_call():
    message = SessionMessage(
        role="assistant", content=[ToolCallBlock(name="f", args={"k": ["v1"]})]
    )
    assert MessageHit("s", "u", message, "V1").snippet() == ("", "v1", "")


def test_folding_keeps_each_character_s_place():
    every = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    assert len(folded(every)) == len(every)
    assert not any(folded(char).isascii() for char in every if not char.isascii())


def test_a_cursor_comes_back():
    place = Place(-5, "a.b.c", 7)
    assert Place.of_cursor(place.to_cursor()) == place

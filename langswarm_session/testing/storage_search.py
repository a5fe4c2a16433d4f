"""Conformance of a storage: finding messages by their text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session.blocks import (
    FileBlock,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.errors import SessionNotFoundError
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import MessageRole, SessionMessage, new_id
from langswarm_session.search import Search, SearchPage, pieces
from langswarm_session.testing import strategies
from langswarm_session.testing.making import new_session, ref, reply, user
from langswarm_session.testing.storage_base import StorageTests
from langswarm_session.testing.storage_log import property_based

_NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def at(minutes: float, text: str, **fields: object) -> SessionMessage:
    """A user's message of so many minutes after noon."""
    return user(text, timestamp=_NOON + timedelta(minutes=minutes), **fields)


async def _found(storage: ISessionStorage, text: str, **options: object) -> list[str]:
    page = await storage.search_messages(Search(text, **options))  # type: ignore[arg-type]
    return [f"{hit.session_id}{hit.message.seq}" for hit in page.hits]


class SearchTests(StorageTests):
    """Finding messages."""

    async def test_what_is_found(self, storage: ISessionStorage) -> None:
        """Newest first by the messages' time, over all sessions, exactly as they are stored."""
        await storage.create_session(new_session("a", "ann"))
        await storage.create_session(new_session("b", "bob"))
        mine = [at(1, "A train to Uppsala."), at(4, "trains"), at(2, "a plane")]
        await storage.append(ref("a", "ann"), mine)
        await storage.append(ref("b", "bob"), [at(3, "By TRAIN.")])
        page = await storage.search_messages(Search("train"))
        assert page.next_cursor is None
        assert [(hit.session_id, hit.user_id, hit.message.text) for hit in page.hits] == [
            ("a", "ann", "trains"),
            ("b", "bob", "By TRAIN."),
            ("a", "ann", "A train to Uppsala."),
        ]
        stored = await storage.get_messages(ref("a", "ann"))
        assert [hit.message for hit in page.hits if hit.session_id == "a"] == [stored[1], stored[0]]
        assert await _found(storage, "boat") == []

    async def test_where_and_whose(self, storage: ISessionStorage) -> None:
        """One user's, one session's, one role's."""
        for session, owner in (("a", "ann"), ("b", "bob"), ("c", "ann")):
            await storage.create_session(new_session(session, owner))
            await storage.append(ref(session, owner), [at(1, "hello"), reply("Hello!")])
        assert sorted(await _found(storage, "hello", user_id="ann")) == ["a1", "a2", "c1", "c2"]
        assert await _found(storage, "hello", session=ref("b", "bob")) == ["b2", "b1"]
        assert await _found(storage, "hello", session=ref("b", "bob"), user_id="ann") == []
        assert await _found(storage, "hello", session=ref("b", "bob"), role=MessageRole.USER) == [
            "b1"
        ]
        with pytest.raises(SessionNotFoundError):
            await storage.search_messages(Search("hello", session=ref("nowhere")))

    @pytest.mark.parametrize(
        ("text", "there"),
        [
            ("100%", True),
            ("100_", False),
            ("1%0", False),
            ("a!b", True),
            ("a!%b", False),
            ("\\", True),
            ('say "yes"', True),
            ("line\nbreak", True),
            ("göteborg", True),
            ("GÖTEBORG", True),
            ("goteborg", False),
            ("οδος", True),
            ("straße", True),
            ("after\0nul", True),
            ("\U0001f469\u200d\U0001f680", True),
            ("\u0130stanbul", True),
            ("\u212a", True),
            ("kelvin", False),
        ],
    )
    async def test_any_text_is_a_text(
        self, storage: ISessionStorage, text: str, there: bool
    ) -> None:
        """There are no wildcards; letters match whatever their case, in any alphabet."""
        said = (
            '100% a!b C:\\x Say "yes" line\nbreak Göteborg ΟΔΟΣ STRAßE \U0001f469\u200d\U0001f680 '
            "\u0130stanbul \u212aelvin after\0nul"
        )
        await storage.create_session(new_session("s"))
        await storage.append(
            ref("s"), [at(1, said), user("").replaced(content=[TextBlock(text=said)])]
        )
        assert await _found(storage, text) == (["s2", "s1"] if there else [])

    async def test_blocks_are_found_by_what_can_be_read(self, storage: ISessionStorage) -> None:
        """Not by the names of fields and keys, nor by what is kept beside a message."""
        blocks = [
            TextBlock(text="The needle-text"),
            RefusalBlock(refusal="a needle-refusal"),
            ReasoningBlock(reasoning="a needle-thought", signature="needle-signature"),
            ToolCallBlock(
                id="needle-call", name="needle_tool", args={"needlekey": ["needle-value", 4711]}
            ),
            ToolResultBlock(tool_call_id="1", content=[TextBlock(text="a needle-result")]),
            FileBlock(filename="needle-file.pdf", base64="bmVlZGxl"),
            OtherBlock(value={"needle": "needle-other"}),
        ]
        odd = {"metadata": {"needle-meta": "needle-meta"}, "native": {"x": "needle-native"}}
        await storage.create_session(new_session("s"))
        await storage.append(
            ref("s"), [reply("", **odd).replaced(content=blocks), user("nothing", **odd)]
        )
        found = ("text", "refusal", "thought", "value", "result", "file.pdf")
        for word in (*(f"needle-{each}" for each in found), "needle_tool", "4711"):
            assert await _found(storage, word) == ["s1"], word
        kept = ("signature", "call", "other", "meta", "native")
        for word in (*(f"needle-{each}" for each in kept), "needlekey", "tool_call_id", '"text"'):
            assert await _found(storage, word) == [], word

    async def test_page_by_page(self, storage: ISessionStorage) -> None:
        """Each is found once, also where times are the same and others are written meanwhile."""
        for session in ("b", "a"):
            await storage.create_session(new_session(session))
            await storage.append(ref(session), [at(n // 3, f"word {n}") for n in range(10)])
        everything = await _found(storage, "word", limit=100)
        assert len(everything) == len(set(everything)) == 20
        pages: list[str] = []
        cursor = None
        for _ in range(7):
            page: SearchPage = await storage.search_messages(Search("word", limit=3, cursor=cursor))
            pages += [f"{hit.session_id}{hit.message.seq}" for hit in page.hits]
            cursor = page.next_cursor
            await storage.append(ref("a"), [at(99, "a later word")])
        assert (pages, cursor) == (everything, None)

    @property_based
    @given(log=strategies.logs(4), data=st.data())
    async def test_whatever_can_be_read_is_found(
        self, storage: ISessionStorage, log: list[SessionMessage], data: st.DataObject
    ) -> None:
        """Any part of any piece, in any case of its letters."""
        session = new_id()
        await storage.create_session(new_session(session))
        await storage.append(ref(session), log)
        said = [piece for message in log for piece in pieces(message) if piece.strip()]
        if not said:
            return
        piece = data.draw(st.sampled_from(said))
        start = data.draw(st.integers(0, len(piece) - 1))
        part = piece[start : start + data.draw(st.integers(1, 20))]
        part = part.swapcase() if part.isascii() else part
        if not part.strip():
            return
        search = Search(part, session=ref(session), limit=10)
        page = await storage.search_messages(search)
        stored = await storage.get_messages(ref(session))
        wanted = [message for message in stored if search.matches(message)]
        assert wanted
        found = [hit.message for hit in page.hits]
        assert sorted(each.seq or 0 for each in found) == [each.seq for each in wanted]
        assert all(str(hit.snippet()) for hit in page.hits)

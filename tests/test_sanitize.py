from __future__ import annotations

import io
import logging

import pytest
import rich.console
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session import (
    LoggingHook,
    LoggingMiddleware,
    ReasoningBlock,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session._sanitize import UNSAFE, one_line, printable

# The window's title, the clipboard, the cursor, 8-bit forms, writing directions, other line ends,
# and sequences that never end (https://github.com/vercel/ai/pull/20052).
NASTY = (
    "\x1b]0;title\x07\x1b]52;c;cHduZWQ=\x07\x1b[2J\x9b31m\x9d0;x\x9c\x1bP+q\x1b\\\x1b_x\x1bc"
    "\u202eabc\u202c\u2066\u2069\u200f\u061c\r\x7f\x00\x1b]8;;https://e.org\x1b]"
)


def test_what_could_steer_a_terminal_is_written_out():
    assert printable("a\x1b[2Jb\x9b\u202e\tc\r\nd") == "a\\x1b[2Jb\\x9b\\u202e\tc\nd"
    assert printable("Grüße, 世界 👩‍🚀") == "Grüße, 世界 👩‍🚀"


@given(st.text())
def test_any_text_is_printable_and_in_one_line(text):
    assert not UNSAFE.search(printable(text))
    assert len(one_line(text).splitlines()) <= 1


def shown(value) -> str:
    out = io.StringIO()
    rich.console.Console(file=out, force_terminal=True, width=300).print(value)
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        NASTY,
        [TextBlock(text=NASTY)],
        [ReasoningBlock(reasoning=NASTY)],
        [ToolCallBlock(name=NASTY, args={NASTY: NASTY})],
        [ToolResultBlock(tool_call_id="c", content=NASTY)],
    ],
    ids=["text", "block", "reasoning", "call", "result"],
)
async def test_no_rich_output_steers_the_terminal(session, content):
    await session.record(SessionMessage(role="user", content=content))
    with pytest.raises(RuntimeError):
        async with await session.begin_turn("q"):
            raise RuntimeError(NASTY)
    messages = await session.get_messages()
    for value in (messages, messages[0], (await session.get_turns())[-1], session):
        text = shown(value)
        # What rich itself writes are colours.
        assert not any(mark in text for mark in ("\x1b]", "\x1b[2J", "\x1bP", "\x1b_", "\x1bc"))
        assert not UNSAFE.search(text.replace("\x1b[", ""))


async def test_rich_output_is_no_markup(session):
    text = "[bold red]x[/] :smile: [link=https://e.org]y[/link] \\\\[z] \\"
    await session.record(SessionMessage(role="user", content=text))
    assert text in shown(await session.get_messages())


async def test_no_log_line_is_forged(session, caplog):
    forged = "x\nWARNING root: forged \x1b[2J"
    caplog.set_level(logging.DEBUG)
    session.add_middleware(LoggingMiddleware())
    session.manager.add_global_hook(LoggingHook())
    message = SessionMessage(id=forged, role="user", content="hi")
    await session.send_message(message)
    logged = [record.getMessage() for record in caplog.records if "forged" in record.getMessage()]
    assert logged
    assert all(len(line.splitlines()) == 1 and "\x1b" not in line for line in logged)

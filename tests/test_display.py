from __future__ import annotations

import base64
import io
import re

import pytest
from hypothesis import given, settings

from langswarm_session import (
    ImageBlock,
    ReasoningBlock,
    RefusalBlock,
    SessionManager,
    SessionMessage,
    TextBlock,
    TokenUsage,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session._display import message_html, messages_html
from langswarm_session.models import MessageList
from langswarm_session.testing.strategies import messages

NASTY = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"

TAGS = re.compile(r"<(\w+)")
ALLOWED = {"div", "b", "span", "details", "summary", "i", "img", "table", "tr", "th", "td"}


def test_a_transcript_says_who_said_what_and_what_it_took():
    html = message_html(
        SessionMessage(
            role="assistant",
            content="It is 12 degrees.",
            model="gpt-5.4",
            usage=TokenUsage(input_tokens=10, output_tokens=5),
            finish_reason="length",
            seq=2,
        )
    )
    for part in ("assistant", "It is 12 degrees.", "gpt-5.4", "10 + 5 tokens", "length", "#2"):
        assert part in html


def test_tool_calls_results_and_reasoning_are_folded():
    html = message_html(
        SessionMessage(
            role="assistant",
            content=[
                ReasoningBlock(reasoning="hm"),
                ToolCallBlock(id="1", name="weather", args={"city": "Uppsala"}),
                ToolResultBlock(tool_call_id="1", name="weather", content="12", is_error=True),
                RefusalBlock(refusal="no"),
            ],
        )
    )
    assert html.count("<details>") == 3
    for part in ("calls weather", "Uppsala", "error of weather", "refused"):
        assert part in html


@pytest.mark.parametrize(
    "content",
    [
        NASTY,
        [TextBlock(text=NASTY)],
        [ToolCallBlock(id=NASTY, name=NASTY, args={NASTY: NASTY})],
        [ToolResultBlock(tool_call_id=NASTY, name=NASTY, content=NASTY)],
        [ReasoningBlock(reasoning=NASTY)],
        [ImageBlock(url=NASTY)],
        [ImageBlock(base64=NASTY, mime_type="image/png")],
        [ImageBlock(base64="aGk=", mime_type=NASTY)],
        [ImageBlock(url=f"data:image/png;base64,{NASTY}")],
    ],
)
def test_nothing_that_is_said_is_markup(content):
    message = SessionMessage(role="user", content=content, name=NASTY, model=NASTY)
    html = message_html(message)
    assert "<script" not in html
    assert "onerror=alert(1)>" not in html
    assert set(TAGS.findall(html)) <= ALLOWED


@given(messages())
@settings(max_examples=80)
def test_every_message_can_be_shown_and_has_no_tags_of_its_own(message):
    html = message._repr_html_()
    assert set(TAGS.findall(html)) <= ALLOWED
    assert html.count("<div") == html.count("</div>")


def test_a_picture_in_the_message_is_shown_and_one_on_the_web_is_not_fetched():
    data = base64.b64encode(b"\x89PNG").decode()
    own = ImageBlock(base64=data, mime_type="image/png")
    assert "<img src=" in message_html(SessionMessage(role="user", content=[own]))
    web = ImageBlock(url="https://example.org/spy.png")
    assert "<img" not in message_html(SessionMessage(role="user", content=[web]))


def test_of_many_messages_the_newest_are_shown():
    log = [SessionMessage(role="user", content=f"message {i:03}") for i in range(60)]
    html = messages_html(log)
    assert "message 059" in html
    assert "message 009" not in html
    assert "10 messages before" in html


async def test_sessions_lists_turns_and_managers_show_themselves(manager, session):
    await session.send_message("Hello <b>you</b>", idempotency_key="k")
    found = await session.get_messages()
    assert isinstance(found, MessageList)
    assert "Hello &lt;b&gt;you" in found._repr_html_()
    assert "Hello &lt;b&gt;you" in session._repr_html_()  # within a running loop, as in a notebook
    (turn,) = await session.get_turns()
    assert "complete" in turn._repr_html_()
    sessions = await manager.list_sessions()
    assert session.session_id in sessions._repr_html_()
    assert session.session_id in manager._repr_html_()


async def test_a_session_is_shown_with_what_others_wrote_to_it(manager, session):
    await session.send_message("one")
    other = await manager.get_session(session.session_id)
    await other.send_message("two")
    html = session._repr_html_()
    assert "4 messages" in html
    assert "two" in html
    assert "2 messages" not in html


async def test_a_closed_manager_is_shown_as_such():
    manager = SessionManager("memory")
    session = await manager.create_session("ann", "mock", "echo")
    await manager.close()
    assert "closed" in session._repr_html_()
    assert "closed" in manager._repr_html_()


def in_a_terminal(*shown):
    rich = pytest.importorskip("rich.console")
    console = rich.Console(width=160, record=True, file=io.StringIO())
    for each in shown:
        console.print(each)
    return console.export_text()


async def test_a_terminal_shows_them_too(manager, session):
    await session.send_message("[red]Hello[/red]")
    messages = await session.get_messages()
    assert "[red]Hello[/red]" in in_a_terminal(messages)
    assert "[red]Hello[/red]" in in_a_terminal(messages[0])
    assert "You said" not in in_a_terminal(messages[0])
    assert session.session_id in in_a_terminal(session)
    assert session.session_id in in_a_terminal(await manager.list_sessions())
    shown = in_a_terminal(manager)  # within a running loop, as in IPython
    assert session.session_id in shown
    assert repr(manager) in shown


async def test_a_terminal_shows_a_turn_as_a_line(session):
    await session.send_message("x", idempotency_key="k")
    turn = (await session.get_turns())[0]
    (line,) = in_a_terminal(turn).splitlines()
    assert line.startswith("turn 1 · complete · messages 1 to 2")
    failed = turn.model_copy(update={"error": "[bold]no[/bold]"})
    assert "[bold]no[/bold]" in in_a_terminal(failed), "nothing of it is markup"


async def test_a_terminal_shows_a_closed_manager_as_such():
    manager = SessionManager("memory")
    await manager.close()
    assert "closed" in in_a_terminal(manager)

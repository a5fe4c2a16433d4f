from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langswarm_session import (
    FileBlock,
    ImageBlock,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    SessionManager,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.transfer.export_formats import Exporter, ExportFormat

markdown_it = pytest.importorskip("markdown_it")

LIVE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![](https://tracker.example/p.png?q=secret)",
    "![x][r]\n\n[r]: https://tracker.example/p.png",
    "[x](javascript:alert(1))",
    "[x]( data:text/html,<b>)",
    "[x][r]\n\n[r]: javascript:alert(1)",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<https://tracker.example>",
    "```\n<script>alert(1)</script>",
    "~~~\n``````\n<b>",
    "<!-- x -->",
    "a\r<script>alert(1)</script>",
    "a\x0b<script>alert(1)</script>",
    "a\u2028<script>alert(1)</script>",
    "- [x]: javascript:alert(1)\n\n[click][x]",
    "1. > [x]: javascript:alert(1)\n\n[click][x]",
    "[a\nb]: javascript:alert(1)\n\n[click][a b]",
    "a\r\r[x]: javascript:alert(1)\r\r[click][x]",
    "a\u2028\u2028[x]: data:text/html,x\u2028\u2028[click][x]",
    "*\t[x]:\n  javascript:alert(1)\n\n[x]",
]
ALLOWED = {
    "a", "blockquote", "br", "code", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol",
    "p", "pre", "strong", "ul",
}  # fmt: skip


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag, attrs) -> None:
        self.found.add(tag)
        for name, value in attrs:
            assert name in ("class", "href", "start", "title"), (tag, name, value)
            if name == "href":
                assert re.match("https?://", value), value


def assert_inert(markdown: str) -> None:
    parser = Tags()
    # Without its own check of links, which other renderers may not have.
    renderer = markdown_it.MarkdownIt("commonmark")
    renderer.validateLink = lambda url: True
    parser.feed(renderer.render(markdown))
    assert parser.found <= ALLOWED


async def written(session_id: str, message: SessionMessage) -> str:
    async with SessionManager("memory") as manager:
        session = await manager.create_session("u<b>", "mock", "m*<i>", session_id=session_id)
        await session.record(message)
        exporter = Exporter(ExportFormat.MARKDOWN)
        return "".join([piece async for piece in exporter.write(manager.iter_sessions())])


@pytest.mark.parametrize("text", LIVE)
async def test_markdown_is_inert_wherever_a_text_stands(text):
    blocks = [
        TextBlock(text=text),
        TextBlock(text="```"),  # never closed
        TextBlock(text=text),
        RefusalBlock(refusal=text),
        ReasoningBlock(reasoning=text),
        ToolCallBlock(name=text, args={text: text}),
        ToolResultBlock(tool_call_id="c", content=text),
        FileBlock(filename=text, text=text),
        ImageBlock(url=text),
        OtherBlock(value={text: text}),
    ]
    for content in (text, blocks):
        message = SessionMessage(role="user", content=content, name=text)
        assert_inert(await written("<img src=x onerror=alert(1)> ![](https://e.org) `x", message))


pieces = st.sampled_from([*LIVE, "`", "``", "```", "~~~", "\n", "\n\n", "> ", "    ", "\t", "- "])


@given(st.lists(st.lists(pieces, max_size=4).map("".join), max_size=3))
@settings(max_examples=100)
async def test_any_mixture_is_inert(texts):
    content = [TextBlock(text=text) for text in texts]
    assert_inert(await written("s", SessionMessage(role="assistant", content=content)))


async def test_what_is_harmless_stays_markdown():
    text = "**bold** `a < b` 1 < 2 [link](https://e.org)\n\n- item\n\n```python\nx = 1\n```"
    markdown = await written("s_1", SessionMessage(role="assistant", content=text))
    html = markdown_it.MarkdownIt("commonmark").render(markdown)
    for part in ("<strong>bold</strong>", '<a href="https://e.org">', "<li>item</li>", "x = 1"):
        assert part in html
    assert "<h1>s_1</h1>" in html


async def test_what_is_not_stays_readable_as_it_is():
    text = "Use `<div>`:\n```html\n<div>&amp;</div>\n```"
    markdown = await written("s", SessionMessage(role="assistant", content=text))
    assert "> ````\n> Use `<div>`:\n> ```html\n> <div>&amp;</div>\n> ```\n> ````" in markdown

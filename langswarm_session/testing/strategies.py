"""Hypothesis strategies for whatever a session may hold.

Texts have NUL, astral and combining characters and every line break, but no lone surrogates, which
no message can have. Numbers are finite: JSON has no others.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Any

from hypothesis import strategies as st

from langswarm_session.blocks import (
    AudioBlock,
    Block,
    FileBlock,
    ImageBlock,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    VideoBlock,
)
from langswarm_session.models import MessageRole, SessionMessage, TokenUsage

_AWKWARD = [
    "",
    "\0",
    "a\0b",
    "\U0001f469\u200d\U0001f680",
    "e\u0301",
    "\r\n",
    "\u2028",
    "'; --",
    "\ufeff",
]
_MEDIA = (ImageBlock, AudioBlock, VideoBlock)


def texts(max_size: int = 40) -> st.SearchStrategy[str]:
    """Any text that can be stored."""
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=max_size) | st.sampled_from(
        _AWKWARD
    )


@cache
def json_values() -> st.SearchStrategy[Any]:
    """Any JSON value."""
    scalars = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | texts()
    )
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(8), inner, max_size=3),
        max_leaves=6,
    )


@cache
def json_objects() -> st.SearchStrategy[dict[str, Any]]:
    """Any JSON object, the empty one too."""
    return st.dictionaries(texts(8), json_values(), max_size=3)


@cache
def moments() -> st.SearchStrategy[datetime]:
    """Any aware point in time, in any offset from UTC."""
    offsets = st.integers(-14 * 60, 14 * 60).map(
        lambda minutes: timezone(timedelta(minutes=minutes))
    )
    return st.datetimes(
        datetime(1, 1, 2),
        datetime(9999, 12, 30),
        timezones=st.just(UTC) | offsets,
    )


@cache
def message_ids() -> st.SearchStrategy[str]:
    """Any message id: our own form, look-alikes of it, and any text."""
    own = st.uuids().map(lambda uuid: uuid.hex)
    digits = st.text("0123456789abcdefABCDEF", min_size=31, max_size=33)
    return own | digits | texts(60).filter(bool) | st.text("x", min_size=512, max_size=512)


@cache
def blocks() -> st.SearchStrategy[Block]:
    """Any block, tool results with blocks inside included."""
    return st.recursive(_simple_blocks(), _tool_results, max_leaves=3)


@cache
def usages() -> st.SearchStrategy[TokenUsage]:
    """Any token usage."""
    counts = st.integers(0, 2**40)
    return st.builds(
        TokenUsage,
        input_tokens=counts,
        output_tokens=counts,
        cached_tokens=counts,
        reasoning_tokens=counts,
        details=_optional(json_objects()),
    )


@cache
def messages() -> st.SearchStrategy[SessionMessage]:
    """Any message, not stored yet."""
    optional = _optional(texts())
    return st.builds(
        SessionMessage,
        id=message_ids(),
        role=st.sampled_from(MessageRole),
        content=texts(200) | st.lists(blocks(), max_size=4),
        timestamp=moments(),
        name=optional,
        metadata=json_objects(),
        provider=optional,
        model=optional,
        provider_message_id=optional,
        usage=_optional(usages()),
        finish_reason=optional,
        native=_optional(json_objects()),
    )


def logs(max_size: int = 6) -> st.SearchStrategy[list[SessionMessage]]:
    """Some messages with ids of their own."""
    return st.lists(messages(), max_size=max_size, unique_by=lambda message: message.id)


def _optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def _common() -> dict[str, st.SearchStrategy[Any]]:
    return {"id": _optional(texts()), "extras": _optional(json_objects())}


def _simple_blocks() -> st.SearchStrategy[Block]:
    optional, common = _optional(texts()), _common()
    media = {"url": optional, "base64": optional, "file_id": optional, "mime_type": optional}
    annotations = _optional(st.lists(json_objects(), max_size=2))
    return st.one_of(
        st.builds(TextBlock, text=texts(200), annotations=annotations, **common),
        st.builds(
            ReasoningBlock, reasoning=texts(), signature=optional, encrypted=optional, **common
        ),
        *(st.builds(kind, **media, **common) for kind in _MEDIA),
        st.builds(FileBlock, filename=optional, text=optional, **media, **common),
        st.builds(ToolCallBlock, name=texts(), args=json_objects(), **common),
        st.builds(RefusalBlock, refusal=texts(), **common),
        st.builds(OtherBlock, value=json_objects(), **common),
    )


def _tool_results(inner: st.SearchStrategy[Block]) -> st.SearchStrategy[Block]:
    return st.builds(
        ToolResultBlock,
        tool_call_id=texts(),
        content=texts(200) | st.lists(inner, max_size=2),
        name=_optional(texts()),
        is_error=st.booleans(),
        **_common(),
    )

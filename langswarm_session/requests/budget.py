"""How many tokens messages take, and what of a window fits a budget of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

from pydantic_core import to_json

from langswarm_session._sanitize import one_line
from langswarm_session.blocks import (
    Block,
    FileBlock,
    OtherBlock,
    ReasoningBlock,
    ToolCallBlock,
    ToolResultBlock,
    text_of,
)
from langswarm_session.errors import (
    MissingDependencyError,
    ProviderCapabilityError,
    ProviderSessionError,
)
from langswarm_session.interfaces import IProviderSession
from langswarm_session.models import SessionMessage, TokenCounter
from langswarm_session.records import ProviderRequest
from langswarm_session.requests.window import (
    BYTES_PER_TOKEN,
    Window,
    begin,
    calls_needed,
    is_lasting,
    place_of,
)

logger = logging.getLogger(__name__)

Counter = Callable[[SessionMessage], int]

PER_MESSAGE = 4
"""Tokens that a message takes besides its text: its role and the marks around it."""

PER_MEDIA = 1000
"""Tokens assumed for a picture or document; what they really take is the provider's own affair."""

COUNTS = 3
"""How often a provider is asked at most: what one count leaves of a window may be too much."""


def estimate(message: SessionMessage) -> int:
    """Tokens of a message by the length of its text in UTF-8. Never less than one."""
    texts, media = _parts(message)
    size = sum(len(text.encode()) for text in texts)
    return PER_MESSAGE + math.ceil(size / BYTES_PER_TOKEN) + media * PER_MEDIA


def tiktoken_counter(model: str) -> Counter:
    """Return a counter that uses OpenAI's tokenizer for a model.

    Its vocabulary is fetched over the network when it is first used on a machine.

    Raises:
        MissingDependencyError: If tiktoken is not installed.
    """
    try:
        import tiktoken
    except ImportError as error:
        raise MissingDependencyError(
            'the token_counter "tiktoken" needs a package: pip install '
            '"langswarm-session[tiktoken]"'
        ) from error
    try:
        encoding = tiktoken.encoding_for_model(model)
    except KeyError:
        encoding = tiktoken.get_encoding("o200k_base")

    def count(message: SessionMessage) -> int:
        texts, media = _parts(message)
        tokens = sum(len(encoding.encode(text, disallowed_special=())) for text in texts)
        return PER_MESSAGE + tokens + media * PER_MEDIA

    return count


def _parts(message: SessionMessage) -> tuple[list[str], int]:
    """Return the texts of a message, and how many pictures and files it has."""
    if isinstance(message.content, str):
        return [message.content], 0
    texts: list[str] = []
    media = 0
    for block in message.content:
        inner, more = _block_parts(block)
        texts += inner
        media += more
    return texts, media


def _block_parts(block: Block) -> tuple[list[str], int]:
    if isinstance(block, ToolCallBlock):
        return [block.name, _json(block.args)], 0
    if isinstance(block, OtherBlock):
        return [_json(block.value)], 0
    if isinstance(block, ToolResultBlock) and not isinstance(block.content, str):
        parts = [_block_parts(each) for each in block.content]
        return [text for texts, _ in parts for text in texts], sum(media for _, media in parts)
    if isinstance(block, ReasoningBlock):
        return [block.reasoning], 0
    if isinstance(block, FileBlock) and block.text:
        return [block.text], 0
    text = text_of([block])
    return ([text], 0) if text or block.type in _TEXTS else ([], 1)


_TEXTS = ("text", "refusal", "tool_result")


def _json(value: Any) -> str:
    return to_json(value, inf_nan_mode="constants").decode()


async def within_budget(request: ProviderRequest, provider: IProviderSession) -> Window:
    """Return the request's window, or a new beginning of it that its context's budget has room for.

    Where a provider is to count and gives no count, for whatever reason, the tokens are estimated:
    if it is down, the request itself meets the same.

    Args:
        request: What is to be asked.
        provider: Who is to be asked.

    Raises:
        MissingDependencyError: If the counter that the context names is not installed.
    """
    context = request.context
    budget = context.max_input_tokens
    if budget is None:
        return Window(list(request.window), None)
    if context.token_counter is TokenCounter.TIKTOKEN:
        return _fitted(request, budget, tiktoken_counter(context.model))
    if context.token_counter is TokenCounter.PROVIDER and provider not in _unable:
        try:
            return await _counted(request, budget, provider)
        except ProviderSessionError as error:
            _note_estimate(provider, error)
    return _fitted(request, budget, estimate)


def _note_estimate(provider: IProviderSession, error: ProviderSessionError) -> None:
    """Say once that a provider's tokens are estimated, and ask it no more if it counts none."""
    if isinstance(error, ProviderCapabilityError):
        _unable.add(provider)
    if provider not in _estimated:
        _estimated.add(provider)
        logger.warning(
            "provider %r: tokens are estimated, as token_counter='provider' gave no count: %s",
            provider.name,
            one_line(error),
        )


_unable: WeakSet[IProviderSession] = WeakSet()
"""Providers that count no tokens, so that no request is spent on asking again."""

_estimated: WeakSet[IProviderSession] = WeakSet()
"""Providers of which it was said that their tokens are estimated."""


async def _counted(request: ProviderRequest, budget: int, provider: IProviderSession) -> Window:
    """Return the window within a budget by the provider's count, shared out by the estimates."""
    window = Window(list(request.window), None)
    for _ in range(COUNTS):
        counted = await provider.count_tokens(request)
        if counted <= budget:
            return window
        estimated = sum(map(estimate, request.window))
        smaller = _fitted(request, budget, _scaled(counted / max(1, estimated)))
        if smaller.start is None:
            return window
        window, request = smaller, request.with_window(smaller.messages)
    return window


def _scaled(factor: float) -> Counter:
    return lambda message: math.ceil(estimate(message) * factor)


def _fitted(request: ProviderRequest, budget: int, count: Counter) -> Window:
    window = request.window
    keep = len(window) - request.new_count
    needed = calls_needed(window[keep:])
    if needed:
        keep = min(keep, place_of(window, needed))
    return fit(window, budget, count, keep)


def fit(messages: Sequence[SessionMessage], budget: int, count: Counter, keep_from: int) -> Window:
    """Return messages within a budget: all, or a new beginning that takes about half of it.

    System messages and what is new are kept in any case.

    Args:
        messages: Oldest first.
        budget: In tokens.
        count: Tokens of one message.
        keep_from: From this place on everything is kept.
    """
    sizes = [count(message) for message in messages]
    if sum(sizes) <= budget or keep_from == 0:
        return Window(list(messages), None)
    older, kept = messages[:keep_from], messages[keep_from:]
    fixed = sum(sizes[keep_from:])
    fixed += sum(size for size, m in zip(sizes, older, strict=False) if is_lasting(m))
    for room in (budget // 2, budget):
        start = _first_within(older, sizes, room - fixed)
        begun = begin(older, start)
        if len(begun.messages) > sum(map(is_lasting, older)):
            break
    return Window([*begun.messages, *kept], begun.start)


def _first_within(older: Sequence[SessionMessage], sizes: Sequence[int], room: int) -> int:
    """Return the place from which on older messages take no more than there is room for."""
    start = len(older)
    while start:
        room -= 0 if is_lasting(older[start - 1]) else sizes[start - 1]
        if room < 0:
            break
        start -= 1
    return start

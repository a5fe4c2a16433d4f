"""LangChain's ``usage_metadata`` as token usage, and back."""

from __future__ import annotations

from typing import Any

from langswarm_session.models import TokenUsage


def usage_of(metadata: Any) -> TokenUsage | None:
    """Convert LangChain's token counts; what is not a count is left out."""
    if not isinstance(metadata, dict):
        return None
    return TokenUsage(
        input_tokens=_count(metadata, "input_tokens"),
        output_tokens=_count(metadata, "output_tokens"),
        cached_tokens=_count(metadata.get("input_token_details"), "cache_read"),
        reasoning_tokens=_count(metadata.get("output_token_details"), "reasoning"),
    )


def _count(counts: Any, name: str) -> int:
    value = counts.get(name) if isinstance(counts, dict) else None
    # Differences between the chunks of a stream may be below 0.
    return max(0, value) if isinstance(value, int) else 0


def to_usage_metadata(usage: TokenUsage) -> dict[str, Any]:
    """Our counts as LangChain's."""
    metadata: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.cached_tokens:
        metadata["input_token_details"] = {"cache_read": usage.cached_tokens}
    if usage.reasoning_tokens:
        metadata["output_token_details"] = {"reasoning": usage.reasoning_tokens}
    return metadata

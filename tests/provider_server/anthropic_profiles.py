"""Anthropic's API as others serve it: what a world refuses beside the vendor's own rules (setting `anthropic`).

- "bedrock": no top-level `cache_control` ("Amazon Bedrock does not support automatic caching",
  https://platform.claude.com/docs/en/build-with-claude/prompt-caching#automatic-caching), a beta that it
  does not know is `{"message": "invalid beta flag"}` (https://github.com/BerriAI/litellm, its
  tests of Bedrock's beta headers), no compaction on demand, no inline tools
  (.../compaction-on-demand, .../mid-conversation-system-messages: "on the Claude API").
- "vertex": as the vendor, without threads and inline tools; an unknown beta is refused alike.
- "gateway": a proxy in front of an API: no betas at all ("Unexpected value(s) for the
  `anthropic-beta` header", https://code.claude.com/docs/en/errors), no top-level `cache_control`, no
  `system` role in `messages`, roles that alternate, and no count_tokens (404).
- "unsigned": DeepSeek's, whose thinking has no signature, whose turns with a `tool_use` must bring it
  back ("The `content[].thinking` in the thinking mode must be passed back to the API."), and which
  ignores `cache_control` and betas (https://api-docs.deepseek.com/guides/anthropic_api).
"""

from __future__ import annotations

from dataclasses import dataclass

from .anthropic_context import blocks_of
from .anthropic_errors import Refusal
from .worlds import Json, World

FIRST_PARTY_ONLY = {
    "message-threads-2026-08-12",
    "inline-tools-2026-09-15",
    "mcp-client-2026-09-15",
}
NOT_ON_BEDROCK = FIRST_PARTY_ONLY | {
    "compact-2026-09-04",
    "prompt-caching-scope-2026-01-05",
    "advanced-tool-use-2025-11-20",
    "files-api-2025-04-14",
    "skills-2025-10-02",
}
NO_SUCH_BETA = (
    "Unexpected value(s) `{beta}` for the `anthropic-beta` header. Please consult our documentation "
    "at platform.claude.com/docs or try again without the header."
)


@dataclass(frozen=True)
class Profile:
    """What a server refuses, or does not need."""

    automatic_cache: bool = True
    betas: str = "all"
    """Which betas it knows: "all", "bedrock", "vertex", "none"; "ignored" where it does not look."""
    system_messages: bool = True
    alternates: bool = False
    counts: bool = True
    signs: bool = True
    """Whether thinking is signed; where it is not, a turn with calls must bring it back."""


PROFILES = {
    "first-party": Profile(),
    "bedrock": Profile(automatic_cache=False, betas="bedrock", counts=False),
    "vertex": Profile(betas="vertex"),
    "gateway": Profile(
        automatic_cache=False, betas="none", system_messages=False, alternates=True, counts=False
    ),
    "unsigned": Profile(betas="ignored", system_messages=False, counts=False, signs=False),
}


def profile_of(world: World) -> Profile:
    """The profile of a world."""
    return PROFILES[world.settings.get("anthropic", "first-party")]


def check_profile(world: World, body: Json, betas: set[str]) -> None:
    """Refuse what this server does not take though the vendor does."""
    profile = profile_of(world)
    if not profile.automatic_cache and "cache_control" in body:
        raise Refusal("cache_control: Extra inputs are not permitted")
    _check_betas(profile, betas)
    if not profile.system_messages and any(m["role"] == "system" for m in _messages(body)):
        raise Refusal("messages: Unexpected role \"system\". The Messages API accepts a top-level "
                      "`system` parameter, not \"system\" as an input message role.")  # fmt: skip
    if not profile.signs and (body.get("thinking") or {}).get("type") != "disabled":
        _check_thinking_back(_messages(body))


def _messages(body: Json) -> list[Json]:
    return [one for one in body.get("messages") or () if isinstance(one, dict) and "role" in one]


def _check_betas(profile: Profile, betas: set[str]) -> None:
    unknown = {
        "all": set(),
        "ignored": set(),
        "none": betas,
        "bedrock": betas & NOT_ON_BEDROCK,
        "vertex": betas & FIRST_PARTY_ONLY,
    }[profile.betas]
    for beta in sorted(unknown):
        if profile.betas == "bedrock":
            raise Refusal("invalid beta flag")
        raise Refusal(NO_SUCH_BETA.format(beta=beta))


def _check_thinking_back(messages: list[Json]) -> None:
    """A turn with calls has its thinking, an empty one too."""
    for message in messages:
        kinds = {block.get("type") for block in blocks_of(message.get("content"))}
        if message["role"] == "assistant" and "tool_use" in kinds and "thinking" not in kinds:
            raise Refusal(
                "The `content[].thinking` in the thinking mode must be passed back to the API."
            )

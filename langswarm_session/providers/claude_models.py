"""What Anthropic's models do and take: the one table of it.

A model that is newer than this table is taken to follow the newest rules, as the vendor says that
later models keep them: https://platform.claude.com/docs/en/build-with-claude/preserved-thinking
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

# The pages that the rules below name are under https://platform.claude.com/docs/en/.

Version = tuple[int, int]

_ID = re.compile(
    r"claude[-_.](?P<family>[a-z]+)[-_.](?P<major>\d{1,2})(?:[-_.](?P<minor>\d{1,2})(?!\d))?(?!\d)"
)
"""A name behind any platform's prefix and before any date: ``us.anthropic.claude-opus-4-8-...``."""

_OLD_ID = re.compile(r"claude-(?:v?[12]\b|instant|3(?!\d))")
"""Models that were named before the family came first."""

_NEWEST: Version = (98, 0)


class Since(NamedTuple):
    """Since which version the models of each family do something."""

    opus: Version
    sonnet: Version
    haiku: Version
    fable: Version  # and Mythos, which is the same model for verified organizations


BINDS = Since(opus=(5, 5), sonnet=(5, 5), haiku=(5, 5), fable=(5, 1))
"""Thinking is valid only behind the prefix that it was made under.
`build-with-claude/preserved-thinking/prefix-checks`, the list of supported models."""

BINDS_EVERYWHERE = Since(opus=_NEWEST, sonnet=_NEWEST, haiku=_NEWEST, fable=(5, 2))
"""... and that is checked for every account, not only for those made since 2026-08-31.
`models/fable-5-2/whats-new-fable-5-2#editing-earlier-turns-invalidates-thinking-blocks`."""

SYSTEM_MESSAGES = Since(opus=(4, 8), sonnet=(5, 5), haiku=(5, 5), fable=(5, 0))
"""Messages with ``role: "system"`` behind a user's, with ``clear_at`` and changes of tools in them.
`build-with-claude/mid-conversation-system-messages`: "not available on Claude Sonnet 5"."""

EFFORT_MESSAGES = Since(opus=(5, 0), sonnet=(5, 5), haiku=(5, 5), fable=(5, 1))
"""``output_config.effort`` on such a message.
`build-with-claude/effort#change-effort-mid-conversation`."""

MEDIUM_EFFORT = Since(opus=(5, 5), sonnet=_NEWEST, haiku=(5, 5), fable=_NEWEST)
"""The effort is ``medium`` where a request names none; that of others is ``high``.
`build-with-claude/effort`, and each model's "What's new" page."""

COMPACTION = Since(opus=(4, 6), sonnet=(4, 6), haiku=(5, 6), fable=(5, 0))
"""Compaction on demand. `build-with-claude/compaction-on-demand`, the list of supported models."""

ALWAYS_THINKS = Since(opus=(5, 5), sonnet=_NEWEST, haiku=_NEWEST, fable=(5, 0))
"""Thinking cannot be turned off: leaving it out means ``{"type": "adaptive"}``.
`models/opus-5-5/whats-new-opus-5-5#thinking-cant-be-disabled`."""


class Model(NamedTuple):
    """A model of Anthropic's, by its family and version.

    Attributes:
        family: ``opus``, ``sonnet``, ``haiku``, ``fable`` (Mythos too), or "" where it is unknown.
        version: Its version; that of the newest where it is unknown.
    """

    family: str
    version: Version

    def does(self, since: Since) -> bool:
        """Return whether the model is as new as the first that does something."""
        first: Version = getattr(since, self.family or "opus")
        return self.version >= first


@lru_cache(maxsize=256)
def model_of(name: str) -> Model | None:
    """Return which of Anthropic's models a name means; None for the models of others."""
    lowered = name.lower()
    if _OLD_ID.search(lowered):
        return Model("", (3, 0))
    found = _ID.search(lowered)
    if found is None:
        return Model("", _NEWEST) if "claude" in lowered else None
    family = found["family"].replace("mythos", "fable")
    if family not in Since._fields:
        return Model("", _NEWEST)
    return Model(family, (int(found["major"]), int(found["minor"] or 0)))


def reads(reader: str, writer: str) -> bool:
    """Return whether a model can read another one's thinking on the Claude API.

    `build-with-claude/preserved-thinking#switching-models` and each model's "What's new" page.
    Where it cannot, the API leaves the thinking out without an error. The page advises to send it
    all the same: it can be read again when the conversation goes back, while thinking that a client
    leaves out and puts back invalidates what was made in between.
    """
    one, two = model_of(reader), model_of(writer)
    if reader == writer:
        return True
    if one is None or two is None or not (one.family and two.family):
        return False
    if one == two:
        return True
    if two.family == "fable" and two.does(BINDS):
        return one.family == "fable" and one.version > two.version
    if two.family == "haiku" and two.does(BINDS):
        return True  # not locked to its model; see Bedrock's claude-messages-thinking-block-binding
    if one.family == "haiku" and one.does(BINDS):
        return False
    if one.family == "sonnet" and one.does(BINDS):
        return two.version < (5, 0) or (two.family, two.version) == ("sonnet", (5, 0))
    if two.does(BINDS):  # Opus 5.5 is read by Fable, Sonnet 5.5 by Opus 5.5
        pair = (one.family, two.family)
        return one.does(BINDS) and pair in {("fable", "opus"), ("opus", "sonnet")}
    return not (two.family == "fable" and one.family != "fable")

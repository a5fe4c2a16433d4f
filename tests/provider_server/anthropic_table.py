"""What each Claude model takes and reads, as Anthropic's pages say.

Sources, each read in November 2026:
- who checks prefixes: https://platform.claude.com/docs/en/build-with-claude/preserved-thinking/prefix-checks
  and .../docs/en/models/fable-5-2/whats-new-fable-5-2 ("applies to every account"); Mythos 5.1 does not
  run it: https://github.com/anomalyco/opencode/pull/46848
- who reads whose thinking: .../docs/en/models/fable-5-1/whats-new-fable-5-1, .../fable-5-2/...,
  .../opus-5-5/whats-new-opus-5-5, .../sonnet-5-5/whats-new-sonnet-5-5
- system messages and tool changes: .../docs/en/build-with-claude/mid-conversation-system-messages;
  Sonnet 5 has the first only: https://github.com/langchain-ai/langchainjs/releases/tag/@langchain%2Fanthropic@1.5.13
- effort in a message: .../docs/en/build-with-claude/effort#change-effort-mid-conversation-beta
- compaction: .../docs/en/build-with-claude/compaction-on-demand (supportedModels)
- thinking that cannot be turned off, forced tools: .../docs/en/build-with-claude/thinking
"""

from __future__ import annotations

import re
from dataclasses import dataclass

EVERY, NEW, NEVER = "every account", "accounts since 2026-08-31", "never"


@dataclass(frozen=True)
class Claude:
    """One model's row. A name that has no row is an early model that takes system messages."""

    line: str = ""
    version: tuple[int, ...] = (0,)
    checks: str = NEVER
    """On whose accounts a thinking block's prefix is checked."""
    system: bool = True
    tool_changes: bool = True
    effort_changes: bool = False
    compacts: bool = True
    budget: bool = True
    """Whether `thinking: {"type": "enabled"}` is taken."""
    silenced: bool = True
    """Whether `thinking: {"type": "disabled"}` is taken."""
    thinks_unasked: bool = False
    forced: bool = True
    omits: bool = False
    """Whether thinking is signed and empty when the request does not say how to show it."""

    @property
    def binds(self) -> bool:
        """Whether the model checks what a thinking block was made behind, on some account."""
        return self.checks != NEVER


FRONTIER = {"budget": False, "thinks_unasked": True, "omits": True}
ALWAYS = FRONTIER | {"silenced": False}
ROWS: dict[str, Claude] = {
    "fable-5-2": Claude("fable", (5, 2), EVERY, effort_changes=True, forced=False, **ALWAYS),
    "mythos-5-2": Claude("mythos", (5, 2), EVERY, effort_changes=True, forced=False, **ALWAYS),
    "fable-5-1": Claude("fable", (5, 1), NEW, effort_changes=True, forced=False, **ALWAYS),
    "mythos-5-1": Claude("mythos", (5, 1), effort_changes=True, forced=False, **ALWAYS),
    "fable-5": Claude("fable", (5,), **ALWAYS),
    "mythos-5": Claude("mythos", (5,), **ALWAYS),
    "opus-5-5": Claude("opus", (5, 5), NEW, effort_changes=True, forced=False, **ALWAYS),
    "sonnet-5-5": Claude("sonnet", (5, 5), NEW, forced=False, **ALWAYS),
    "haiku-5-5": Claude("haiku", (5, 5), NEW, compacts=False, **FRONTIER),
    "opus-5": Claude("opus", (5,), effort_changes=True, **FRONTIER),
    "sonnet-5": Claude("sonnet", (5,), tool_changes=False, **FRONTIER),
    "opus-4-8": Claude("opus", (4, 8), budget=False, omits=True),
    "opus-4-7": Claude("opus", (4, 7), system=False, budget=False, omits=True),
    "opus-4-6": Claude("opus", (4, 6), system=False),
    "sonnet-4-6": Claude("sonnet", (4, 6), system=False),
    "opus-4-5": Claude("opus", (4, 5), system=False, compacts=False),
    "sonnet-4-5": Claude("sonnet", (4, 5), system=False, compacts=False),
    "haiku-4-5": Claude("haiku", (4, 5), system=False, compacts=False),
}
NAME = re.compile(r"(?:.*\.)?claude-(?P<row>[a-z]+-\d+(?:-\d{1,2})?)(?:[-@].*)?")


def claude(name: str) -> Claude:
    """The row of a model's name; a date or a platform's prefix makes no difference."""
    match = NAME.fullmatch(name)
    if match and match["row"] in ROWS:
        return ROWS[match["row"]]
    return Claude(line=name, system="nosystem" not in name)


def reads(reader: str, maker: str) -> bool:
    """Whether a model is shown the thinking of another; what it may not read is dropped."""
    if reader == maker:
        return True
    mine, its = claude(reader), claude(maker)
    if mine.version == (0,) or its.version == (0,):
        return False
    if mine.line in {"fable", "mythos"} and mine.version == (5, 2):
        return True
    if its.version >= (5, 2) and its.line in {"fable", "mythos"}:
        return False
    if mine.line in {"fable", "mythos"} and mine.version == (5, 1):
        return its.line in {"fable", "mythos"} or its.version <= (5,) or its == ROWS["opus-5-5"]
    if its.line in {"fable", "mythos"}:
        return mine.line in {"fable", "mythos"} and its.version <= mine.version
    if mine == ROWS["opus-5-5"]:
        return its.version <= (5,) or its == ROWS["sonnet-5-5"]
    if mine == ROWS["sonnet-5-5"]:
        return its.version <= (4, 8) or its == ROWS["sonnet-5"]
    return its.version <= mine.version and not its.binds

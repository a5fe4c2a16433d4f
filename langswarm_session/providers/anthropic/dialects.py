"""What the servers of Anthropic's API take: Anthropic itself, the clouds, and compatible ones.

`anthropic_models` has which models do something; here is where it can be asked for. Pages are those
of https://platform.claude.com/docs/en/.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from langswarm_session._sanitize import one_line
from langswarm_session.errors import InvalidInputError, ProviderRequestError, SessionError
from langswarm_session.providers.claude_models import (
    BINDS,
    COMPACTION,
    EFFORT_MESSAGES,
    SYSTEM_MESSAGES,
    Model,
    model_of,
)

logger = logging.getLogger(__name__)


class CacheStyle(StrEnum):
    """How a server is asked to cache a request."""

    AUTOMATIC = "automatic"
    """One ``cache_control`` on the request."""
    BLOCKS = "blocks"
    """``cache_control`` on content blocks."""
    NONE = "none"
    """Not at all: the server refuses it, or caches in its own way."""


class ToolChanges(StrEnum):
    """How tools can change in the middle of a conversation."""

    INLINE = "inline"
    """By messages that define tools."""
    REFERENCE = "reference"
    """By messages that name tools of the request's list."""
    NONE = "none"
    """Not without another list, and so another beginning."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server takes, of what not all servers take.

    Attributes:
        name: The server's name.
        cache: How it is asked to cache, where the model is one of Anthropic's.
        system_messages: Whether system messages may stand behind a user's.
        tool_changes: How tools change in the middle of a conversation.
        clear_at: Whether a system message may be for one turn only.
        effort_messages: Whether a system message may change the effort.
        compaction: Whether it compacts on demand.
        binding_controls: Whether it tells and is told what to do about thinking that became
            invalid.
        checks_signatures: Whether thinking goes back only with its signature, and that of
            Anthropic's other models as well. Where it is False, what has none goes back to the
            model that gave it.
        empty_texts: Whether a model's own empty text goes back.
        images: Whether pictures may be sent; else they are put into words.
        documents: Whether documents may be.
        wants_thinking: Whether each reply must have thinking, an empty one where it had none.
    """

    name: str
    cache: CacheStyle = CacheStyle.BLOCKS
    system_messages: bool = False
    tool_changes: ToolChanges = ToolChanges.NONE
    clear_at: bool = False
    effort_messages: bool = False
    compaction: bool = False
    binding_controls: bool = False
    checks_signatures: bool = True
    empty_texts: bool = True
    images: bool = True
    documents: bool = True
    wants_thinking: bool = False


ANTHROPIC = Dialect(
    "anthropic",
    cache=CacheStyle.AUTOMATIC,
    system_messages=True,
    tool_changes=ToolChanges.INLINE,
    clear_at=True,
    effort_messages=True,
    compaction=True,
    binding_controls=True,
)
"""The Claude API."""

HOSTED = replace(ANTHROPIC, name="hosted", tool_changes=ToolChanges.REFERENCE)
"""The Claude API that Anthropic runs at AWS and at Google Cloud. Tools by definition are "available
on the Claude API" only (`build-with-claude/mid-conversation-system-messages`)."""

BEDROCK = Dialect(
    "bedrock",
    system_messages=True,
    tool_changes=ToolChanges.REFERENCE,
    clear_at=True,
    binding_controls=True,
)
"""Amazon Bedrock. It refuses a top-level ``cache_control`` ("Extra inputs are not permitted":
https://github.com/UKGovernmentBEIS/inspect_ai/pull/3851) and has no compaction on demand
(`build-with-claude/compaction-on-demand`) nor effort by message (`build-with-claude/effort`)."""

VERTEX = replace(BEDROCK, name="vertex", effort_messages=True, compaction=True)
"""Claude on Google Cloud, managed by Google. The same refusal of ``cache_control``:
https://github.com/langchain-ai/langchain-google/issues/1612."""

FOUNDRY = Dialect("foundry", cache=CacheStyle.AUTOMATIC, compaction=True)
"""Microsoft Foundry. System messages in the middle are not listed for it."""

COMPATIBLE = Dialect("compatible", checks_signatures=False, empty_texts=False)
"""Any other server. Several refuse the role ``system`` in the middle
(https://github.com/ogx-ai/ogx/issues/5982), unknown betas and top-level ``cache_control``; those
that serve other models want unsigned thinking back
(https://github.com/agentscope-ai/agentscope-java/issues/2400)."""

DIALECTS: Mapping[str, Dialect] = {
    each.name: each for each in (ANTHROPIC, HOSTED, BEDROCK, VERTEX, FOUNDRY, COMPATIBLE)
}

_BY_HOST = (
    (re.compile(r"^api\.anthropic\.com$"), ANTHROPIC),
    (re.compile(r"\.api\.aws$"), HOSTED),
    (re.compile(r"^bedrock[-.].*\.amazonaws\.com$"), BEDROCK),
    (re.compile(r"(^|-)aiplatform\..*googleapis\.com$"), VERTEX),
    (re.compile(r"\.services\.ai\.azure\.com$"), FOUNDRY),
)

_BY_CLIENT = (
    ("GoogleCloud", HOSTED),
    ("AWS", HOSTED),
    ("Bedrock", BEDROCK),
    ("Vertex", VERTEX),
    ("Foundry", FOUNDRY),
)
"""The SDK's clients for clouds, by what their classes are called."""


def dialect_of(client: Any) -> Dialect:
    """Return the dialect of the server that a client of the SDK speaks to."""
    names = [kind.__name__ for kind in type(client).__mro__]
    for part, dialect in _BY_CLIENT:
        if any(part in name for name in names):
            return dialect
    return dialect_at(str(client.base_url))


def dialect_at(address: str) -> Dialect:
    """Return the dialect of the server at an address, the strictest where it is unknown."""
    host = urlsplit(address).hostname or ""
    found = (dialect for pattern, dialect in _BY_HOST if pattern.search(host))
    return next(found, COMPATIBLE)


def dialect_named(given: str | Dialect | None) -> Dialect | None:
    """Return the dialect that a caller names; None where the server's address decides.

    Raises:
        InvalidInputError: If there is no dialect of that name.
    """
    if given is None or isinstance(given, Dialect):
        return given
    if given not in DIALECTS:
        raise InvalidInputError(f"dialect must be one of {', '.join(DIALECTS)}, got {given!r}")
    return DIALECTS[given]


class Abilities(NamedTuple):
    """What can be asked of one model at one server.

    Attributes:
        model: Which of Anthropic's models it is; None for another's.
        dialect: What the server takes, as far as the model does it.
    """

    model: Model | None
    dialect: Dialect


@lru_cache(maxsize=256)
def abilities(dialect: Dialect, model: str) -> Abilities:
    """Return what can be asked of a model at a server."""
    known = model_of(model)
    if known is None:
        is_unknown = dialect.name == COMPATIBLE.name
        return Abilities(None, replace(dialect, cache=CacheStyle.NONE) if is_unknown else dialect)
    takes_system = dialect.system_messages and known.does(SYSTEM_MESSAGES)
    return Abilities(
        known,
        replace(
            dialect,
            system_messages=takes_system,
            tool_changes=dialect.tool_changes if takes_system else ToolChanges.NONE,
            clear_at=dialect.clear_at and takes_system,
            effort_messages=dialect.effort_messages and known.does(EFFORT_MESSAGES),
            compaction=dialect.compaction and known.does(COMPACTION),
            # Earlier models refuse theirs: https://github.com/anthropics/anthropic-sdk-python/issues/461
            empty_texts=dialect.empty_texts and known.does(BINDS),
        ),
    )


_NO_CACHE = re.compile(r"cache_control", re.IGNORECASE)
_NO_SYSTEM = re.compile(
    r"role '?\"?system|Unexpected role \"system\"|Input should be '?user'? or '?assistant'?",
    re.IGNORECASE,
)
_NO_EMPTY = re.compile(r"must be non-empty|must contain non-whitespace", re.IGNORECASE)
_WITHOUT_BETAS: Mapping[str, Any] = {
    "tool_changes": ToolChanges.NONE,
    "clear_at": False,
    "effort_messages": False,
    "compaction": False,
    "binding_controls": False,
}
_NO_THINKING = re.compile(r"thinking.* must be passed back", re.IGNORECASE)
"""What DeepSeek says of a reply with calls that had none: https://github.com/leookun/cursor-byok/pull/276."""

_NO_IMAGES = re.compile(
    # https://github.com/ollama/ollama/issues/17301, https://github.com/github/app/issues/2163,
    # https://github.com/1jehuang/jcode/issues/848, https://github.com/Wei-Shaw/sub2api/issues/6899.
    r"support\w*( for)? image|does not support (vision|multimodal)|not a multimodal model"
    r"|unknown variant `?image(_url)?`?, expected|image input.{0,20}(is|are) not supported"
    "|\u4e0d\u652f\u6301\u56fe\u50cf",
    re.IGNORECASE,
)
_NO_DOCUMENTS = re.compile(
    r"support\w*( for)? (document|pdf|file)|unknown variant `?document`?, expected", re.IGNORECASE
)
_NO_EFFORT = re.compile(r"messages\.\d+\S*: output_config", re.IGNORECASE)
_NO_DEFINITION = re.compile(r"tool_definition", re.IGNORECASE)
_NO_TOOL_CHANGE = re.compile(r"tool_(?:addition|removal|reference)", re.IGNORECASE)
"""What a message may not say to a model that the tables take for one of those that let it: each
page lists its own models (`build-with-claude/effort-per-message`,
`build-with-claude/mid-conversation-system-messages`)."""

_NO_BETA = re.compile(r"anthropic-beta|invalid beta flag", re.IGNORECASE)


_SIMPLER_CACHE = {
    CacheStyle.AUTOMATIC: CacheStyle.BLOCKS,
    CacheStyle.BLOCKS: CacheStyle.NONE,
    CacheStyle.NONE: CacheStyle.NONE,
}

_SIMPLER_TOOLS = {
    ToolChanges.INLINE: ToolChanges.REFERENCE,
    ToolChanges.REFERENCE: ToolChanges.REFERENCE,
    ToolChanges.NONE: ToolChanges.NONE,
}

_LESSONS: Sequence[tuple[re.Pattern[str], Callable[[Dialect], Mapping[str, Any]]]] = (
    (_NO_CACHE, lambda dialect: {"cache": _SIMPLER_CACHE[dialect.cache]}),
    (_NO_SYSTEM, lambda _: {"system_messages": False}),
    (_NO_EMPTY, lambda _: {"empty_texts": False}),
    (_NO_THINKING, lambda _: {"wants_thinking": True}),
    (_NO_IMAGES, lambda _: {"images": False}),
    (_NO_DOCUMENTS, lambda _: {"documents": False}),
    (_NO_EFFORT, lambda _: {"effort_messages": False}),
    (_NO_DEFINITION, lambda dialect: {"tool_changes": _SIMPLER_TOOLS[dialect.tool_changes]}),
    (_NO_TOOL_CHANGE, lambda _: {"tool_changes": ToolChanges.NONE}),
)
"""What a refusal says, and what the dialect is without what was refused."""


def learned(dialect: Dialect, refusal: str) -> Dialect | None:
    """Return the dialect without what a server refuses; None if that is nothing it has.

    Args:
        dialect: What the server was taken to take.
        refusal: What it said to a request that it refused.
    """
    for words, without in _LESSONS:
        if words.search(refusal):
            changed = replace(dialect, **without(dialect))
            if changed != dialect:
                return changed
    if _NO_BETA.search(refusal) and "signature" not in refusal:
        bare = replace(dialect, **_WITHOUT_BETAS)
        return None if bare == dialect else bare
    return None


class Server:
    """A server, with what was learned of it: what it refuses is not asked for again.

    Args:
        dialect: What it takes, as far as that is known beforehand.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._learned: dict[str, Dialect] = {}

    def abilities(self, model: str) -> Abilities:
        """Return what can be asked of a model there."""
        return abilities(self._learned.get(model, self._dialect), model)

    def known(self, model: str) -> Dialect | None:
        """Return what was learned of a model, if anything."""
        return self._learned.get(model)

    def keep(self, model: str, dialect: Dialect | None) -> None:
        """Take this for what was learned of a model: None for nothing."""
        self._learned.pop(model, None)
        if dialect is not None:
            self._learned[model] = dialect

    def learns(self, model: str, error: SessionError) -> bool:
        """Return whether a refusal tells what to leave out, so that it is worth asking again.

        Args:
            model: The model that was asked for.
            error: What came of it.
        """
        if not isinstance(error, ProviderRequestError):
            return False
        # What the model does not do was not asked for, so that nothing can be learned of it.
        able = self.abilities(model).dialect
        less = learned(able, str(error))
        if less is None:
            return False
        self._learned[model] = less
        logger.warning(
            "%s: the server refuses what dialect %r takes, so it is left out from now on: %s",
            model,
            self._dialect.name,
            one_line(error),
        )
        return True

"""A request of Anthropic's Messages API that begins as the one before did.

The top-level system text and the list of tools stay what they were. Later system messages and
changes of tools stand where they were made. Reasoning that is not valid any more is left out.
https://platform.claude.com/docs/en/build-with-claude/preserved-thinking/change-tools-or-instructions
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langswarm_session.blocks import OtherBlock
from langswarm_session.formats.anthropic import (
    NAME,
    Param,
    Writing,
    container_of,
    needs_files_api,
    system,
    to_messages,
)
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.providers.anthropic.changes import Arguments, Effort, Tools
from langswarm_session.providers.anthropic.dialects import Abilities, CacheStyle
from langswarm_session.providers.claude_models import (
    ALWAYS_THINKS,
    BINDS,
    BINDS_EVERYWHERE,
    reads,
)
from langswarm_session.records import ProviderRequest
from langswarm_session.requests.prefix import Prefix
from langswarm_session.requests.tool_changes import Changes
from langswarm_session.requests.window import SUMMARY

FILES_BETA = "files-api-2025-04-14"
CLEAR_BETA = "mid-conversation-system-clear-at-2026-08-21"
BINDING_BETA = "thinking-binding-controls-2026-08-01"
COMPACT_BETA = "compact-2026-09-04"
EFFORT_BETA = "mid-conversation-output-config-2026-07-01"

COMPACTION_NOTE = "compaction"
"""The key of the notes under which the block is kept that stands for older messages."""

_FORCED = ("any", "tool")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a caller wants of every request.

    Attributes:
        max_tokens: How long a reply may be unless a call says.
        cache: Whether, or for how long (``5m``, ``1h``), what was sent is to be cached.
        block_binding: What the API is to do about thinking that is not valid any more: ``error`` or
            ``drop_block``. When None that is left to it, but for the models that check every
            account's: theirs is dropped.
    """

    max_tokens: int
    cache: bool | str = True
    block_binding: str | None = None


@dataclass(slots=True)
class Draft:
    """What a request says, before it is known how it travels.

    Attributes:
        fixed: Keywords of ``messages.create`` but for the messages.
        messages: The whole window.
        latest: The changes of tools that are new with this request: the end of the messages.
        ahead: The change of effort that is new with it: before what the user says.
        notes: The notes of the conversation, if they changed.
        betas: The betas that the messages make necessary.
    """

    fixed: Arguments
    messages: list[Param] = field(default_factory=list)
    latest: list[Param] = field(default_factory=list)
    ahead: list[Param] = field(default_factory=list)
    notes: dict[str, Any] | None = None

    def whole(self) -> Arguments:
        """Return the arguments of a request with the whole window."""
        return {**self.fixed, "messages": self.messages}


def draft(request: ProviderRequest, options: Arguments, able: Abilities, wishes: Wishes) -> Draft:
    """Return what a request says.

    Args:
        request: The request; what it has to be told is reported to it.
        options: The caller's keywords, which the ones here are added to.
        able: What the server takes for the model.
        wishes: What the caller wants of every request.
    """
    betas = list(options.pop("betas", None) or ())
    block = _compacted(request, able, betas)
    _set_system(request, options)
    tools = Tools(request, options.pop("tools", None), able)
    drafted = Draft({"model": request.context.model, **options})
    tools.declare(drafted.fixed, betas)
    _bind(drafted.fixed, able, wishes, betas)
    _set_limits(drafted.fixed, wishes)
    container = container_of(request.messages)
    if container is not None:
        drafted.fixed.setdefault("container", container)
    effort = Effort(request, drafted.fixed, able)
    _write(drafted, request, tools, effort, able, block)
    if needs_files_api(request.window):
        betas.append(FILES_BETA)
    if any("clear_at" in message for message in drafted.messages):
        betas.append(CLEAR_BETA)
    if betas:
        drafted.fixed["betas"] = list(dict.fromkeys(betas))
    drafted.ahead = effort.latest
    if effort.changes:
        drafted.fixed["betas"] = [*drafted.fixed.get("betas", ()), EFFORT_BETA]
    if tools.noted or effort.noted:
        drafted.notes = {**request.notes, **tools.noted, **effort.noted}
    _cache(drafted, able, wishes)
    return drafted


def _write(
    drafted: Draft,
    request: ProviderRequest,
    tools: Tools,
    effort: Effort,
    able: Abilities,
    block: Param | None,
) -> None:
    """Write the messages, and note what their reply will be made under."""
    binds = able.model is not None and able.model.does(BINDS)
    prefix = Prefix(
        request, system=drafted.fixed.get("system"), tools=tools.bound(drafted.fixed), binds=binds
    )
    if block is not None:
        said: Param = {"role": "assistant", "content": [dict(block)]}
        drafted.messages.append(said)
        prefix.add(said)
    writing = Writing(
        allows=prefix.allows,
        add=prefix.add,
        before_reply=Changes(tools.ledger, tools.written).before,
        before_user=effort.before_user,
        reads=lambda reply: reads(request.context.model, reply.model or ""),
        clears=able.dialect.clear_at,
        cites=binds,
        thinks=able.dialect.wants_thinking,
    )
    drafted.messages += to_messages(request.messages, request.report, writing)
    drafted.latest = tools.latest
    prefix.end()


def _compacted(request: ProviderRequest, able: Abilities, betas: list[str]) -> Param | None:
    """Return the block that stands for older messages, which are left out of the window.

    It is that of the newest compaction in the record, or one that was noted. The system messages
    that it covers are sent again at the beginning, as a summary carries no instructions.
    https://platform.claude.com/docs/en/build-with-claude/compaction-on-demand#how-it-fits-with-the-rest-of-the-api
    """
    block, through = _newest_compaction(request)
    if block is None:
        return None
    left = [
        message
        for message in request.window
        if message.role is MessageRole.SYSTEM or message.seq is None or message.seq > through
    ]
    if not able.dialect.compaction:
        told = f"{SUMMARY}{block.get('content') or ''}"
        said = SessionMessage(role=MessageRole.USER, content=told)
        others = (place for place, each in enumerate(left) if each.role is not MessageRole.SYSTEM)
        left.insert(next(others, len(left)), said)
        block = None
    else:
        betas.append(COMPACT_BETA)
    request.window = left
    return block


def _newest_compaction(request: ProviderRequest) -> tuple[Param | None, int]:
    """Return the newest compaction's block, and the number of the last message it stands for."""
    noted = request.notes.get(COMPACTION_NOTE)
    through = noted["through"] if isinstance(noted, Mapping) else -1
    for message in reversed(request.window):
        if (message.seq or 0) > through and compaction_block(message) is not None:
            return compaction_block(message), message.seq or 0
    return (dict(noted["block"]), through) if isinstance(noted, Mapping) else (None, through)


def compaction_block(message: SessionMessage) -> Param | None:
    """Return the block of a message that is a compaction on demand, and nothing else.

    Only Anthropic makes one: what a user, or another provider, says stands for nothing else.
    """
    if message.role is not MessageRole.ASSISTANT or message.provider != NAME:
        return None
    if message.finish_reason != "compaction" or isinstance(message.content, str):
        return None
    values = (block.value for block in message.content if isinstance(block, OtherBlock))
    return next((dict(value) for value in values if value.get("type") == "compaction"), None)


def _set_system(request: ProviderRequest, options: Arguments) -> None:
    """Return what the record's first system messages say, then the caller's own."""
    said = [system(request.messages), options.pop("instructions", None)]
    given = options.pop("system", None)
    if isinstance(given, list):
        said_first = [{"type": "text", "text": text} for text in said if text]
        options["system"] = [*said_first, *map(dict, given)]
    elif any((*said, given)):
        options["system"] = "\n\n".join(str(text) for text in (*said, given) if text)


def _set_limits(fixed: Arguments, wishes: Wishes) -> None:
    if "max_tokens" not in fixed:
        thinking = fixed.get("thinking")
        budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
        fixed["max_tokens"] = wishes.max_tokens + (budget if isinstance(budget, int) else 0)


def _bind(fixed: Arguments, able: Abilities, wishes: Wishes, betas: list[str]) -> None:
    """Have the API tell what thinking it leaves out, and leave out what is not valid any more.

    The beta alone changes nothing but the report. The field turns the check on for accounts made
    before 2026-08-31, so it is the caller's choice except where every account is checked:
    https://platform.claude.com/docs/en/build-with-claude/preserved-thinking#preserved-thinking-controls
    """
    if able.model is None or not (able.dialect.binding_controls and able.model.does(BINDS)):
        return
    betas.append(BINDING_BETA)
    behavior = wishes.block_binding
    if behavior is None and able.model.does(BINDS_EVERYWHERE):
        behavior = "drop_block"
    thinking = fixed.get("thinking")
    if thinking is None and able.model.family and able.model.does(ALWAYS_THINKS):
        thinking = {"type": "adaptive"}  # what leaving it out means
    if behavior is None or not isinstance(thinking, Mapping):
        return
    if thinking.get("type") in ("adaptive", "enabled") and "block_binding" not in thinking:
        binding = {"prefix_mismatch_behavior": behavior}
        fixed["thinking"] = {**thinking, "block_binding": binding}


# Caching


def _cache(drafted: Draft, able: Abilities, wishes: Wishes) -> None:
    """Ask for caching, in the server's way; markers are no part of what thinking is bound to.

    https://platform.claude.com/docs/en/build-with-claude/prompt-caching
    """
    fixed = drafted.fixed
    asked = fixed.pop("cache_control", _marker(wishes.cache))
    style = able.dialect.cache
    if asked is None or style is CacheStyle.NONE:
        return
    if style is CacheStyle.AUTOMATIC:
        fixed["cache_control"] = asked
        return
    given = fixed.get("system")
    if isinstance(given, str):
        given = fixed["system"] = [{"type": "text", "text": given}]
    if given and not any("cache_control" in block for block in given):
        given[-1] = {**given[-1], "cache_control": asked}
    users = [message for message in drafted.messages if message["role"] == "user"]
    for message in users[-2:]:  # what is read, and what is written
        last = message["content"][-1]
        if last.get("type") != "text" or last["text"]:
            message["content"][-1] = {**last, "cache_control": asked}


def _marker(wish: bool | str) -> Param | None:
    if isinstance(wish, str):
        return {"type": "ephemeral", "ttl": wish}
    return {"type": "ephemeral"} if wish else None


# Compaction


def compaction_of(drafted: Draft) -> Arguments:
    """Return the arguments of a request that is answered with a summary of its messages.

    https://platform.claude.com/docs/en/build-with-claude/compaction-on-demand#request-a-summary
    """
    arguments = drafted.whole()
    messages = list(drafted.messages)
    while messages and messages[-1]["role"] != "assistant" and not _has_results(messages[-1]):
        messages.pop()  # what was only added so that the assistant answers
    arguments["messages"] = messages or drafted.messages
    for name in ("stop_sequences", "context_management", "container", "stream"):
        arguments.pop(name, None)
    if (arguments.get("tool_choice") or {}).get("type") in _FORCED:
        del arguments["tool_choice"]
    output = {
        k: v for k, v in (arguments.pop("output_config", None) or {}).items() if k != "format"
    }
    if output:
        arguments["output_config"] = output
    arguments["compaction"] = {"type": "summarize"}
    arguments["betas"] = list(dict.fromkeys([*(arguments.get("betas") or ()), COMPACT_BETA]))
    return arguments


def _has_results(message: Param) -> bool:
    """Return whether a message answers calls, which are never sent without their results."""
    return any(block.get("type") == "tool_result" for block in message["content"])

"""What the messages of the user and the assistant must be to each other.

Neighbours of one role are combined into one turn: "Consecutive `user` or `assistant` turns in your
request will be combined into a single turn" (https://platform.claude.com/docs/en/api/messages).
Only the setting `alternates`, for strict servers, refuses them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .anthropic_binding import THINKING, seal_of
from .anthropic_context import blocks_of
from .anthropic_errors import Refusal
from .worlds import Json, World

Placed = tuple[str, Json]


@dataclass
class Turn:
    """What one role says until the other speaks: blocks with the path of their message."""

    role: str
    blocks: list[Placed] = field(default_factory=list)

    @property
    def at(self) -> str:
        """The path of its first message."""
        return self.blocks[0][0] if self.blocks else "messages"

    def ids(self, kind: str, key: str) -> list[str]:
        """The ids of its blocks of a kind."""
        return [block[key] for _, block in self.blocks if block.get("type") == kind]


def turns_of(messages: list[Json], stored: int = 0) -> list[Turn]:
    """The turns of a conversation; system messages part none that they stand between."""
    turns: list[Turn] = []
    for index, message in enumerate(messages):
        if message["role"] == "system":
            continue
        if not turns or turns[-1].role != message["role"]:
            turns.append(Turn(message["role"]))
        at = "thread" if index < stored else f"messages.{index - stored}"
        turns[-1].blocks += [(at, block) for block in blocks_of(message.get("content"))]
    return turns


def check_turns(turns: list[Turn]) -> None:
    """Every call has its result, client's or server's, where it belongs."""
    known: set[str] = set()
    asked: Turn | None = None
    for turn in turns:
        if turn.role == "user":
            _check_results_first(turn)
            _check_answers(asked, turn)
            asked = None
            continue
        if asked is not None:  # pragma: no cover - turns alternate
            raise AssertionError("two assistant's turns in a row")
        asked = turn
        for tool_id in turn.ids("tool_use", "id"):
            if tool_id in known:
                raise Refusal(f"{turn.at}: `tool_use` ids must be unique. Found twice: {tool_id}")
            known.add(tool_id)
    if asked is not None and asked.ids("tool_use", "id"):
        _refuse_unanswered(asked.at, asked.ids("tool_use", "id"))
    check_server_tools(turns)


def _check_results_first(turn: Turn) -> None:
    """Results come before anything else that the user says: a block before one leaves it unanswered.

    https://platform.claude.com/docs/en/agents-and-tools/tool-use/handle-tool-calls
    """
    other = False
    for number, (at, block) in enumerate(turn.blocks):
        if block["type"] == "tool_result" and other:
            raise Refusal(
                f"{at}.content.{number}: `tool_result` blocks must come first in a `user` message"
            )
        other = other or block["type"] != "tool_result"


def _check_answers(asked: Turn | None, turn: Turn) -> None:
    open_ids = asked.ids("tool_use", "id") if asked else []
    results: list[str] = []
    for number, (at, block) in enumerate(turn.blocks):
        if block["type"] != "tool_result":
            continue
        tool_id = block["tool_use_id"]
        if tool_id not in open_ids:
            raise Refusal(
                f"{at}.content.{number}: unexpected `tool_use_id` found in `tool_result` blocks: "
                f"{tool_id}. Each `tool_result` block must have a corresponding `tool_use` block "
                "in the previous message."
            )
        if tool_id in results:
            raise Refusal(
                f"{at}.content.{number}: each tool_use must have a single result. Found multiple "
                f"`tool_result` blocks with id: {tool_id}"
            )
        results.append(tool_id)
    missing = [tool_id for tool_id in open_ids if tool_id not in results]
    if missing and asked:
        _refuse_unanswered(asked.at, missing)


def _refuse_unanswered(at: str, ids: list[str]) -> None:
    raise Refusal(
        f"{at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(ids)}. Each `tool_use` block must have a corresponding `tool_result` block "
        "in the next message."
    )


def _is_result(block: Json) -> bool:
    """Whether this is a server tool's result."""
    return str(block["type"]).endswith("_tool_result")


def only_results(turn: Turn) -> bool:
    """Whether a user's turn goes on with the assistant's, because it holds nothing but results."""
    return turn.role == "user" and all(b["type"] == "tool_result" for _, b in turn.blocks)


def check_server_tools(turns: list[Turn]) -> None:
    """A server tool's call has its result before the assistant's turn is over.

    The turn goes on behind nothing but `tool_result` blocks; any other block ends it: "`web_fetch`
    tool use with id `srvtoolu_...` was found without a corresponding `web_fetch_tool_result` block"
    (https://platform.claude.com/docs/en/agents-and-tools/tool-use/server-tools). A result that comes
    without its call: https://github.com/anthropics/claude-code/issues/64383.
    """
    open_calls: dict[str, tuple[str, str]] = {}
    for turn in turns:
        if turn.role == "user":
            if open_calls and not only_results(turn):
                _refuse_open(open_calls)
            continue
        for number, (at, block) in enumerate(turn.blocks):
            if block["type"] in {"server_tool_use", "mcp_tool_use"}:
                open_calls[block["id"]] = (at, str(block["name"]))
            elif _is_result(block) and open_calls.pop(block["tool_use_id"], None) is None:
                raise Refusal(
                    f"{at}.content.{number}: unexpected `tool_use_id` found in `{block['type']}` "
                    f"blocks: {block['tool_use_id']}. Each `{block['type']}` block must have a "
                    "corresponding `server_tool_use` block before it."
                )


def _refuse_open(calls: dict[str, tuple[str, str]]) -> None:
    tool_id, (at, name) = next(iter(calls.items()))
    raise Refusal(
        f"{at}: `{name}` tool use with id `{tool_id}` was found without a corresponding "
        f"`{name}_tool_result` block"
    )


def pending_server_tools(turns: list[Turn]) -> list[Json]:
    """The calls of server tools that run when the model goes on."""
    open_calls: dict[str, Json] = {}
    for turn in turns:
        for _, block in turn.blocks if turn.role == "assistant" else ():
            if block["type"] == "server_tool_use":
                open_calls[block["id"]] = block
            elif _is_result(block):
                open_calls.pop(block["tool_use_id"], None)
    return list(open_calls.values())


def check_container(turns: list[Turn], container: object) -> None:
    """Code that waits for our tools needs the container that it runs in.

    The sentence: https://platform.claude.com/docs/en/agents-and-tools/tool-use/programmatic-tool-calling
    and many reports, e.g. https://github.com/vercel/ai/issues (container_id is required).
    """
    waits = any("code_execution" in call["name"] for call in pending_server_tools(turns))
    if not waits and turns and turns[-1].role == "user":
        asked = turns[-2].blocks if len(turns) > 1 else []
        waits = any(
            str((block.get("caller") or {}).get("type", "direct")).startswith("code_execution")
            for _, block in asked
        )
    named = container.get("id") if isinstance(container, dict) else container
    if waits and not named:
        raise Refusal(
            "container_id is required when there are pending tool uses generated by code "
            "execution with tools."
        )


def remember_reply(world: World, content: list[Json]) -> None:
    """Keep the order of a reply's blocks, by the thinking in it."""
    order = list(_order(content))
    replies: dict[str, list[str]] = world.anthropic.setdefault("replies", {})
    for name in order:
        if name.startswith("thinking_"):
            replies[name] = order


def _order(content: list[Json]) -> Iterator[str]:
    """Each block's type, or the thinking's own name."""
    for block in content:
        held = seal_of(block) if block["type"] in THINKING else None
        yield held["id"] if held else block["type"]


def check_latest(world: World, turns: list[Turn]) -> None:
    """The latest assistant message's thinking is all there, in its order, or not there at all.

    https://platform.claude.com/docs/en/build-with-claude/thinking-troubleshooting ("cannot be
    modified": a block left out, or the message rebuilt); without any it is taken (the probe of
    https://github.com/tdavison784/context-runtime, R2).
    """
    said = [turn for turn in turns if turn.role == "assistant"]
    if not said:
        return
    blocks = [block for _, block in said[-1].blocks]
    order = list(_order(blocks))
    replies: dict[str, list[str]] = world.anthropic.get("replies", {})
    for place, name in enumerate(order):
        whole = replies.get(name)
        if whole is None:
            continue
        start = place - whole.index(name)
        if order[max(start, 0) : max(start, 0) + len(whole)] != whole or start < 0:
            raise Refusal(
                f"{said[-1].blocks[place][0]}.content.{place}: `thinking` or `redacted_thinking` "
                "blocks in the latest assistant message cannot be modified. These blocks must "
                "remain as they were in the original response."
            )

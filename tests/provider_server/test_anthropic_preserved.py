"""The stand-in's Anthropic side: preserved thinking, system messages, compaction, server tools, caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest

from .anthropic_table import ROWS, reads
from .client import ProviderServer, ServerWorld

MODEL = "claude-opus-5-5"
BINDING = "thinking-binding-controls-2026-08-01"
DROP = {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}
ADD: dict[str, Any] = {"name": "add", "input_schema": {"type": "object", "properties": {}}}
SUB: dict[str, Any] = ADD | {"name": "sub"}
BOUND = "The block is bound to a different conversation"


@pytest.fixture(scope="module")
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def world(server: ProviderServer) -> ServerWorld:
    return server.world(reasoning=True)


def client_of(world: ServerWorld) -> Any:
    return anthropic.Anthropic(api_key=world.key, base_url=world.anthropic_url, max_retries=0)


@pytest.fixture
def client(world: ServerWorld) -> Iterator[Any]:
    with client_of(world) as client:
        yield client


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def said(reply: Any) -> dict[str, Any]:
    content = [block.to_dict() for block in reply.content]
    return {"role": "assistant", "content": content}


def ask(client: Any, messages: list[Any], **more: Any) -> Any:
    given: Any = {"model": MODEL, "max_tokens": 100, "messages": messages} | more
    return client.beta.messages.create(**given)


def talk(client: Any, turns: int = 3, **more: Any) -> list[Any]:
    """A conversation that was only ever added to."""
    messages: list[Any] = []
    for number in range(turns):
        messages.append(user(f"say {number}"))
        messages.append(said(ask(client, messages, **more)))
    return messages


def refusal(client: Any, messages: list[Any], **more: Any) -> str:
    with pytest.raises(anthropic.BadRequestError) as caught:
        ask(client, messages, **more)
    return str(caught.value)


def dropped(reply: Any) -> list[tuple[str, str]]:
    return [(one.path, one.reason) for one in reply.input_transformations]


# What counts as an edit: https://platform.claude.com/docs/en/build-with-claude/preserved-thinking

Edit = Callable[[list[Any]], dict[str, Any]]


def edit_first(messages: list[Any]) -> dict[str, Any]:
    messages[0]["content"] += "!"
    return {}


def leave_the_first_out(messages: list[Any]) -> dict[str, Any]:
    del messages[:2]
    return {}


def new_system(messages: list[Any]) -> dict[str, Any]:
    return {"system": "Be brief."}


def new_tool(messages: list[Any]) -> dict[str, Any]:
    return {"tools": [ADD]}


def gap(messages: list[Any]) -> dict[str, Any]:
    del messages[3]["content"][0]
    return {}


def edit_a_reply(messages: list[Any]) -> dict[str, Any]:
    messages[1]["content"][1]["text"] = "other"
    return {}


def summary(messages: list[Any]) -> dict[str, Any]:
    messages[:2] = [user("A summary.")]
    return {}


@pytest.mark.parametrize(
    ("edit", "fails"),
    [
        (edit_first, 3), (leave_the_first_out, 2), (new_system, 3), (new_tool, 3), (gap, 1),
        (edit_a_reply, 2), (summary, 2),
    ],
)  # fmt: skip
def test_an_edit_is_refused_or_dropped(client: Any, edit: Edit, fails: int) -> None:
    messages = talk(client)
    more = edit(messages)
    messages.append(user("more"))
    message = refusal(client, messages, **more)
    assert BOUND in message
    assert BINDING in message  # the request did not send the header
    assert BINDING not in refusal(client, messages, betas=[BINDING], **more)
    reply = ask(client, messages, thinking=DROP, betas=[BINDING], **more)
    assert [why for _, why in dropped(reply)] == ["prefix_binding_mismatch"] * fails
    messages.append(said(reply))
    messages.append(user("and more"))
    again = ask(client, messages, thinking=DROP, betas=[BINDING], **more)
    assert len(dropped(again)) == fails  # what was thought since is valid


def keep(messages: list[Any]) -> dict[str, Any]:
    return {}


def mark(messages: list[Any]) -> dict[str, Any]:
    messages[2]["content"] = [
        {"type": "text", "text": messages[2]["content"], "cache_control": {"type": "ephemeral"}}
    ]
    return {}


def first_thought_out(messages: list[Any]) -> dict[str, Any]:
    del messages[1]["content"][0]
    return {}


def last_thought_out(messages: list[Any]) -> dict[str, Any]:
    del messages[-1]["content"][0]
    return {}


def all_thoughts_out(messages: list[Any]) -> dict[str, Any]:
    for message in messages[1::2]:
        del message["content"][0]
    return {}


def shown_text(messages: list[Any]) -> dict[str, Any]:
    messages[1]["content"][0]["thinking"] = "other words"
    return {}


def effort(messages: list[Any]) -> dict[str, Any]:
    return {"output_config": {"effort": "low"}, "max_tokens": 50}


def deferred(messages: list[Any]) -> dict[str, Any]:
    return {"tools": [ADD | {"defer_loading": True}]}


@pytest.mark.parametrize(
    "edit",
    [
        keep,
        mark,
        first_thought_out,
        last_thought_out,
        all_thoughts_out,
        shown_text,
        effort,
        deferred,
    ],
)
def test_what_is_no_edit(client: Any, edit: Edit) -> None:
    messages = talk(client)
    more = edit(messages)
    messages.append(user("more"))
    assert dropped(ask(client, messages, betas=[BINDING], **more)) == []


def test_a_thought_put_back_fails_what_was_made_without(client: Any) -> None:
    messages = talk(client, 1)
    thought = messages[1]["content"].pop(0)
    messages.append(user("more"))
    messages.append(said(ask(client, messages)))
    messages[1]["content"].insert(0, thought)
    messages.append(user("again"))
    reply = ask(client, messages, thinking=DROP, betas=[BINDING])
    assert dropped(reply) == [("messages.3.content.0", "prefix_binding_mismatch")]


def test_the_error_names_the_first_change(client: Any) -> None:
    messages = talk(client)
    messages[2]["content"] = "other"
    message = refusal(client, [*messages, user("x")])
    assert "messages.3.content.0: Invalid `signature` in `thinking` block." in message
    assert message.count("first at `messages.2.content.0`") == 1
    messages[1]["content"][0]["signature"] = "forged"
    message = refusal(client, [*messages, user("x")], thinking=DROP, betas=[BINDING])
    assert "Invalid `signature`" in message
    assert BOUND not in message


def test_an_old_account_is_told_and_not_refused(client: Any, world: ServerWorld) -> None:
    world.set(account="old")
    messages = [*talk(client), user("more")]
    edit_first(messages)
    assert ask(client, messages).content
    told = ask(client, messages, betas=[BINDING]).input_transformations
    assert [one.type for one in told] == ["thinking_mismatch_allowed"] * 3
    assert len(dropped(ask(client, messages, thinking=DROP, betas=[BINDING]))) == 3
    error = {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "error"}}
    assert BOUND in refusal(client, messages, thinking=error, betas=[BINDING])
    messages = [*talk(client, model="claude-fable-5-2"), user("more")]
    edit_first(messages)
    assert BOUND in refusal(client, messages, model="claude-fable-5-2")


def test_the_controls_need_their_beta(client: Any) -> None:
    message = refusal(client, [user("x")], thinking=DROP)
    assert "thinking.adaptive.block_binding: Extra inputs are not permitted" in message
    assert ask(client, [user("x")]).input_transformations is None
    with client.beta.messages.stream(
        model=MODEL, max_tokens=9, messages=[user("x")], betas=[BINDING]
    ) as stream:
        assert stream.get_final_message().input_transformations == []


def test_counting_checks_alike(client: Any) -> None:
    messages = [*talk(client), user("more")]
    edit_first(messages)
    with pytest.raises(anthropic.BadRequestError, match="different conversation"):
        client.beta.messages.count_tokens(model=MODEL, messages=messages)


def test_models_that_do_not_bind(client: Any) -> None:
    for model in ("claude-sonnet-5", "claude-opus-5", "claude-mythos-5-1", "claude-test-1"):
        messages = [*talk(client, model=model), user("more")]
        edit_first(messages)
        assert dropped(ask(client, messages, model=model, betas=[BINDING])) == []


def test_who_reads_whose_thinking(client: Any, world: ServerWorld) -> None:
    messages = [*talk(client, 1), user("more")]
    other = ask(client, messages, model="claude-sonnet-5", betas=[BINDING])
    assert dropped(other) == [("messages.1.content.0", "model_binding_mismatch")]
    assert dropped(ask(client, messages, model="claude-fable-5-1", betas=[BINDING])) == []
    messages += [said(other), user("back")]
    assert dropped(ask(client, messages, betas=[BINDING])) == []  # it reads Sonnet 5's
    world.set(organization="org_2")
    reply = ask(client, messages, betas=[BINDING])
    assert dropped(reply)[0] == ("messages.1.content.0", "organization_binding_mismatch")
    for name in ROWS:
        assert reads(f"claude-{name}", f"claude-{name}")
        assert reads("claude-fable-5-2", f"claude-{name}")
        assert reads(f"claude-{name}", "claude-fable-5-2") == name.endswith("5-2")


def test_thinking_is_there_and_not_shown(client: Any) -> None:
    thought = ask(client, [user("x")]).content[0]
    assert (thought.type, thought.thinking) == ("thinking", "")
    shown = ask(client, [user("x")], thinking={"type": "adaptive", "display": "summarized"})
    assert shown.content[0].thinking


SHAPE = [
    {"type": "thinking", "thinking": "a"},
    {"type": "text", "text": "Let me see."},
    {"type": "tool_use", "id": "toolu_a", "name": "add", "input": {}},
    {"type": "thinking", "thinking": "b"},
    {"type": "tool_use", "id": "toolu_b", "name": "sub", "input": {}},
]
RESULTS = [
    {"type": "tool_result", "tool_use_id": "toolu_a", "content": "1"},
    {"type": "tool_result", "tool_use_id": "toolu_b", "content": "2"},
]


@pytest.mark.parametrize("model", [MODEL, "claude-opus-4-8", "claude-test-1"])
def test_the_latest_turn_goes_back_as_it_came(client: Any, world: ServerWorld, model: str) -> None:
    more: dict[str, Any] = {"tools": [ADD, SUB], "model": model}
    world.reply({"blocks": SHAPE})
    turn = said(ask(client, [user("go")], **more))
    a, text, call_a, b, call_b = turn["content"]
    for wrong in ([a, b, text, call_a, call_b], [b, a, text, call_a, call_b],
                  [a, text, call_a, call_b], [text, a, call_a, b, call_b]):  # fmt: skip
        messages = [user("go"), {"role": "assistant", "content": wrong}, user(RESULTS)]
        assert "cannot be modified" in refusal(client, messages, **more)
    without = {"role": "assistant", "content": [text, call_a, call_b]}
    for right in (turn, without):
        assert ask(client, [user("go"), right, user(RESULTS)], **more).content


# System messages

SYSTEM = {"role": "system", "content": "From now on in blue."}
CLEAR = "mid-conversation-system-clear-at-2026-08-21"
TOOLS = "mid-conversation-tool-changes-2026-07-01"
INLINE = "inline-tools-2026-09-15"
EFFORT = "mid-conversation-output-config-2026-07-01"
REMINDER = SYSTEM | {"clear_at": "next_user_message"}
LOW: dict[str, Any] = {"role": "system", "content": [], "output_config": {"effort": "low"}}


def change(kind: str, tool: Any) -> dict[str, Any]:
    named = tool if isinstance(tool, dict) else {"type": "tool_reference", "name": tool}
    return {"role": "system", "content": [{"type": kind, "tool": named}]}


REPLY = {"role": "assistant", "content": "Yes."}


@pytest.mark.parametrize(
    ("words", "messages", "more"),
    [
        ("use the top-level 'system' parameter", [SYSTEM, user("x")], {}),
        ("must follow a 'user' message", [user("x"), REPLY, SYSTEM, user("y")], {}),
        ("must precede an 'assistant' message", [user("x"), SYSTEM, user("y")], {}),
        ("is not supported on this model", [user("x"), SYSTEM], {"model": "claude-opus-4-7"}),
        ("at least one block", [user("x"), SYSTEM | {"content": []}], {}),
        ("clear_at: Extra inputs", [user("x"), REMINDER], {}),
        ("text blocks only", [user("x"), change("tool_removal", "add") | {"clear_at": "next_user_message"}],
         {"betas": [CLEAR, TOOLS], "tools": [ADD]}),
        ("output_config: Extra inputs", [user("x"), LOW], {}),
        ("Input tag 'tool_removal'", [user("x"), change("tool_removal", "add")], {"tools": [ADD]}),
        ("not declared", [user("x"), change("tool_addition", "sub")], {"tools": [ADD], "betas": [TOOLS]}),
        ("Input tag 'tool_definition'",
         [user("x"), change("tool_addition", {"type": "tool_definition", "definition": SUB})],
         {"tools": [ADD], "betas": [TOOLS]}),
        ("is not supported on this model", [user("x"), change("tool_removal", "add")],
         {"tools": [ADD], "betas": [TOOLS], "model": "claude-sonnet-5"}),
    ],
)  # fmt: skip
def test_system_messages_that_are_refused(
    client: Any, words: str, messages: list[Any], more: dict[str, Any]
) -> None:
    assert words in refusal(client, messages, **more)


def test_system_messages_that_are_taken(client: Any) -> None:
    messages = talk(client, 1)
    messages += [user("more"), SYSTEM, REMINDER]
    messages.append(said(ask(client, messages, betas=[CLEAR])))
    messages += [LOW, user("again")]
    reply = ask(client, messages, betas=[CLEAR, EFFORT, BINDING])
    assert dropped(reply) == []
    messages.remove(REMINDER)
    assert BOUND in refusal(client, messages, betas=[CLEAR, EFFORT])


def test_a_reminder_that_is_cleared_costs_nothing(client: Any) -> None:
    kept = [user("a" * 40), {"role": "system", "content": "b" * 40}, REPLY, user("c")]
    cleared = [kept[0], kept[1] | {"clear_at": "next_user_message"}, *kept[2:]]
    both = [ask(client, messages, betas=[CLEAR]).usage.input_tokens for messages in (kept, cleared)]
    assert both[0] - both[1] == 10


def test_tools_come_and_go(client: Any) -> None:
    more: dict[str, Any] = {"tools": [ADD, SUB | {"defer_loading": True}], "betas": [INLINE]}
    one = [user("call sub {}")]
    assert ask(client, one, **more).stop_reason == "end_turn"
    added = [*one, change("tool_addition", "sub")]
    assert ask(client, added, **more).content[-1].name == "sub"
    gone = [user("call add {}"), change("tool_removal", "add")]
    assert ask(client, gone, **more).stop_reason == "end_turn"
    defined = {"type": "tool_definition", "definition": ADD | {"name": "mul"}}
    asked = [user("call mul {}"), change("tool_addition", defined)]
    assert ask(client, asked, **more).content[-1].name == "mul"


# Compaction

COMPACT = "compact-2026-09-04"


def test_compaction_on_demand(client: Any) -> None:
    messages = talk(client, 3)
    more: dict[str, Any] = {"betas": [COMPACT, BINDING]}
    reply = ask(client, messages[:2], compaction={"type": "summarize"}, **more)
    assert (reply.stop_reason, [b.type for b in reply.content]) == ("compaction", ["compaction"])
    block = reply.content[0].to_dict()
    kept = [{"role": "assistant", "content": [block]}, *messages[2:], user("more")]
    after = ask(client, kept, **more)
    assert dropped(after) == []  # the kept turns' thinking is valid behind the block
    assert after.content[-1].text == "I see 6 messages. The last says: more"
    kept += [said(after), user("again")]
    assert dropped(ask(client, kept, **more)) == []
    whole = ask(client, kept, compaction={"type": "summarize"}, **more).content[0].to_dict()
    twice = [{"role": "assistant", "content": [whole]}, user("new")]
    assert "I see 2 messages" in ask(client, twice, **more).content[-1].text
    changed = [*kept[:1], user("other"), *kept[2:]]
    assert BOUND in refusal(client, changed, **more)
    assert BOUND in refusal(client, kept, system="new", **more)


def test_what_compaction_refuses(client: Any) -> None:
    summarize: Any = {"type": "summarize"}
    assert "compaction: Extra" in refusal(client, [user("x")], compaction=summarize)
    more: dict[str, Any] = {"betas": [COMPACT]}
    edits = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    both = {"compaction": summarize, "context_management": edits}
    assert "cannot be combined" in refusal(client, [user("x")], **both, **more)
    haiku = {"model": "claude-haiku-5-5"}
    assert "not supported" in refusal(client, [user("x")], compaction=summarize, **haiku, **more)
    reply = ask(client, [user("x")], compaction=summarize, **more)
    block = reply.content[0].to_dict()
    turn = {"role": "assistant", "content": [block]}
    assert "must be sent first" in refusal(client, [user("x"), turn, user("y")], **more)
    assert "Input tag 'compaction'" in refusal(client, [turn, user("y")])
    older = {"betas": ["compact-2026-01-12"]}
    assert "requires anthropic-beta" in refusal(client, [turn, user("y")], **older)
    forged = {"role": "assistant", "content": [block | {"content": "other"}]}
    assert "differs from what was signed" in refusal(client, [forged, user("y")], **more)
    forged = {"role": "assistant", "content": [block | {"signature": "x"}]}
    assert "invalid `signature`" in refusal(client, [forged, user("y")], **more)


def test_compaction_at_a_threshold(client: Any, world: ServerWorld) -> None:
    edit = {"type": "compact_20260112", "trigger": {"type": "input_tokens", "value": 50_000}}
    more: dict[str, Any] = {
        "context_management": {"edits": [edit]},
        "betas": ["compact-2026-01-12"],
    }
    first = [user("a" * 200_000)]
    world.reply({"text": "Long."})
    reply = ask(client, first, **more)
    assert [block.type for block in reply.content] == ["compaction", "thinking", "text"]
    messages = [*first, said(reply), user("more")]
    assert ask(client, messages, **more).usage.input_tokens < 100
    assert ask(client, messages[1:], **more).content
    assert "require a `compact_20260112` strategy" in refusal(
        client, messages, betas=["compact-2026-01-12"]
    )
    edit["trigger"]["value"] = 10  # type: ignore[index]
    assert "at least 50000" in refusal(client, first, **more)


# Server tools

SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "3"}
TEXT = {"type": "text", "text": "Well."}


def turn(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def test_a_search_that_waits_for_our_tool(client: Any, world: ServerWorld) -> None:
    tools = [ADD, {"type": "web_search_20250305", "name": "web_search"}]
    more: dict[str, Any] = {"tools": tools, "model": "claude-test-1"}
    paused = [user("x"), turn(TEXT, SEARCH, CALL)]
    world.reply({"blocks": [FOUND, TEXT]})
    after = ask(client, [*paused, user([RESULT])], **more)
    assert [block.type for block in after.content] == ["web_search_tool_result", "text"]
    assert "without a corresponding `web_search_tool_result`" in refusal(
        client, [*paused, user([RESULT, TEXT])], **more
    )
    alone = [user("x"), turn(TEXT, SEARCH), user("y")]
    assert "without a corresponding" in refusal(client, alone, **more)
    orphan = [user("x"), turn(FOUND, TEXT), user("y")]
    assert "unexpected `tool_use_id` found in `web_search_tool_result`" in refusal(
        client, orphan, **more
    )
    whole = [*paused, user([RESULT]), turn(FOUND, TEXT), user("y")]
    assert ask(client, whole, **more).content


def test_code_that_waits_needs_its_container(client: Any, world: ServerWorld) -> None:
    caller = {"type": "code_execution_20250825", "tool_id": "srvtoolu_1"}
    code = SEARCH | {"name": "code_execution"}
    tools = [ADD, {"type": "code_execution_20250825", "name": "code_execution"}]
    container = {"id": "container_1", "expires_at": "2026-12-01T00:00:00Z"}
    more: dict[str, Any] = {"tools": tools, "model": "claude-test-1"}
    world.reply({"blocks": [code, CALL | {"caller": caller}], "container": container})
    first = ask(client, [user("x")], **more)
    assert first.container.id == "container_1"
    messages = [user("x"), said(first), user([RESULT])]
    assert "container_id is required" in refusal(client, messages, **more)
    assert ask(client, messages, container="container_1", **more).content


# Caches


def test_the_share_that_is_found_in_a_cache(client: Any, world: ServerWorld) -> None:
    messages: list[Any] = []
    for number in range(20):
        messages.append(user("a" * 400))
        reply = ask(client, messages, cache_control={"type": "ephemeral"}, system="s" * 400)
        usage = reply.usage
        assert usage.input_tokens == 0
        assert bool(usage.cache_read_input_tokens) is bool(number)
        messages.append(said(reply))
    tokens = world.state()["tokens"]
    assert tokens["requests"] == 20
    assert tokens["read"] / tokens["given"] > 0.8
    assert tokens["read"] + tokens["written"] == tokens["given"]
    ask(client, [*messages[2:], user("x")], cache_control={"type": "ephemeral"}, thinking=DROP,
        betas=[BINDING], system="s" * 400)  # fmt: skip
    assert world.state()["tokens"]["read"] == tokens["read"]  # the beginning has changed


def test_a_breakpoint_is_not_looked_for_far_back(client: Any) -> None:
    marked = {"type": "text", "text": "a" * 400, "cache_control": {"type": "ephemeral"}}
    few = [{"type": "text", "text": "x"}] * 10
    many = [{"type": "text", "text": "x"}] * 30
    assert ask(client, [user([marked])]).usage.cache_creation_input_tokens == 100
    near = ask(client, [user([marked | {"cache_control": None}, *few, {"type": "text", "text": "y", "cache_control": {"type": "ephemeral"}}])])  # fmt: skip
    assert near.usage.cache_read_input_tokens == 100
    far = ask(client, [user([marked | {"cache_control": None}, *many, {"type": "text", "text": "y", "cache_control": {"type": "ephemeral", "ttl": "1h"}}])])  # fmt: skip
    assert far.usage.cache_read_input_tokens == 0
    assert far.usage.cache_creation.ephemeral_1h_input_tokens > 100


# Profiles and models


def test_bedrock(server: ProviderServer) -> None:
    with client_of(server.world(anthropic="bedrock")) as client:
        cache = {"type": "ephemeral"}
        assert "cache_control: Extra" in refusal(client, [user("x")], cache_control=cache)
        assert "invalid beta flag" in refusal(client, [user("x")], betas=[COMPACT])
        assert ask(client, [user("x")], betas=[BINDING]).content
        with pytest.raises(anthropic.NotFoundError):
            client.messages.count_tokens(model=MODEL, messages=[user("x")])


def test_a_gateway(server: ProviderServer) -> None:
    with client_of(server.world(anthropic="gateway")) as client:
        assert "`anthropic-beta` header" in refusal(client, [user("x")], betas=[BINDING])
        assert "roles must alternate" in refusal(client, [user("x"), user("y")])
        assert "Unexpected role" in refusal(client, [user("x"), SYSTEM])
        assert client.messages.create(model=MODEL, max_tokens=9, messages=[user("x")]).content


def test_thinking_without_signatures(server: ProviderServer) -> None:
    world = server.world(anthropic="unsigned", reasoning=True)
    with client_of(world) as client:
        more: dict[str, Any] = {"tools": [ADD], "model": "claude-test-1",
                                "thinking": {"type": "adaptive"}}  # fmt: skip
        first = ask(client, [user("call add {}")], **more)
        assert [block.type for block in first.content] == ["thinking", "tool_use"]
        assert "signature" not in first.content[0].to_dict()
        result = user([RESULT | {"tool_use_id": first.content[1].id}])
        messages = [user("call add {}"), said(first), result]
        assert ask(client, messages, **more).content
        del messages[1]["content"][0]  # type: ignore[index]
        assert "must be passed back" in refusal(client, messages, **more)
    with client_of(server.world()) as client:
        unsigned = [user("x"), turn({"type": "thinking", "thinking": "a"}), user("y")]
        assert "Field required" in refusal(client, unsigned)


@pytest.mark.parametrize(
    ("model", "more", "words"),
    [
        (MODEL, {"thinking": {"type": "disabled"}}, "thinking.type.disabled"),
        (MODEL, {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000},
         "thinking.type.enabled"),
        (MODEL, {"tools": [ADD], "tool_choice": {"type": "any"}}, "are not supported for this model"),
    ],
)  # fmt: skip
def test_what_a_model_does_not_take(client: Any, model: str, more: Any, words: str) -> None:
    assert words in refusal(client, [user("x")], model=model, **more)


def test_neighbours_are_combined(client: Any, world: ServerWorld) -> None:
    messages = [user("a"), user("b"), REPLY, REPLY, user("c")]
    assert ask(client, messages).content[-1].text.startswith("I see 5")
    world.set(alternates=True)
    assert "roles must alternate" in refusal(client, messages)


def test_by_google_clouds_paths(server: ProviderServer) -> None:
    world = server.world(anthropic="vertex", reasoning=True)
    where: Any = {"region": "us-east5", "project_id": "p", "base_url": world.vertex_url}
    with anthropic.AnthropicVertex(access_token=world.key, **where) as client:
        given: Any = {"model": MODEL, "max_tokens": 9, "messages": [user("x")]}
        reply = client.messages.create(**given, cache_control={"type": "ephemeral"})
        assert [block.type for block in reply.content] == ["thinking", "text"]
        with client.messages.stream(**given) as stream:
            assert stream.get_final_text().startswith("I see 1")
        assert client.messages.count_tokens(model=MODEL, messages=[user("x")]).input_tokens == 1
        with pytest.raises(anthropic.BadRequestError, match="anthropic-beta"):
            client.beta.messages.create(**given, betas=["inline-tools-2026-09-15"])


def test_how_much_of_a_request_the_next_begins_with(client: Any, world: ServerWorld) -> None:
    talk(client)
    assert world.shares("POST /v1/messages") == [1.0, 1.0]
    ask(client, [user("say 0"), REPLY, user("other")], system="new")
    assert world.shares("POST /v1/messages")[-1] == 0.0

"""Anthropic's requests as a conversation goes on: each begins with the whole of the one before."""

from __future__ import annotations

from itertools import pairwise

import pytest

from langswarm_session import (
    AnthropicProviderSession,
    ProviderCapabilityError,
    SessionManager,
    Tool,
)
from langswarm_session.blocks import ReasoningBlock
from langswarm_session.requests.prefix import Prefix
from langswarm_session.requests.window import SUMMARY

POST = "POST /v1/messages"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ADD = Tool("add", "Adds.", SCHEMA, lambda a: a)
SUB = Tool("sub", "Subtracts.", SCHEMA, lambda a: -a)
BINDS = "claude-opus-5-5"
WORDS = "word " * 20


@pytest.fixture
async def make(world):
    """Makes sessions of a model with a provider for the world."""
    managers = []

    async def make(model=BINDS, *, dialect="anthropic", mode="messages", context=(), **options):
        own = {"base_url": world.anthropic_url, "mode": mode, "dialect": dialect, "timeout": 20}
        provider = AnthropicProviderSession(world.key, **own, **options)
        provider._threads._knows_threads = True
        manager = SessionManager("memory", {"anthropic": provider})
        managers.append(manager)
        return await manager.create_session("ann", "anthropic", model, **dict(context))

    world.set(reasoning=True)
    yield make
    for manager in managers:
        await manager.close()


def bodies(world):
    return [request["body"] for request in world.requests(POST)]


def refused(world):
    return world.state()["refused"]


def plain(value):
    """A part of a request without cache markers."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != "cache_control"}
    return [plain(item) for item in value] if isinstance(value, list) else value


def begins(before, after):
    """Whether a request begins with the whole of another."""
    said = plain(before["messages"])
    return (
        plain(after.get("system")) == plain(before.get("system"))
        and [tool for tool in plain(after.get("tools") or []) if not tool.get("defer_loading")]
        == [tool for tool in plain(before.get("tools") or []) if not tool.get("defer_loading")]
        and plain(after["messages"])[: len(said)] == said
    )


def noted(reply):
    return reply.metadata["langswarm"]


def thoughts(body):
    return [
        block["type"]
        for message in body["messages"]
        if message["role"] == "assistant"
        for block in message["content"]
        if "thinking" in block["type"]
    ]


async def later_system(session, turn):
    if turn in (2, 4):
        await session.add_system_message(f"From now on {turn}.")
    return {}


async def other_tools(session, turn):
    return {"tools": [[ADD], [ADD], [SUB, ADD], [SUB], [], [ADD]][turn]}


async def tools_that_come_late(session, turn):
    return {"tools": [ADD]} if turn > 2 else {}


async def what_is_new_each_turn(session, turn):
    return {"turn_context": f"It is day {turn}."}


async def another_effort(session, turn):
    effort = [None, "low", "low", None, "high", "high"][turn]
    return {} if effort is None else {"output_config": {"effort": effort}}


CHANGES = [
    later_system,
    other_tools,
    tools_that_come_late,
    what_is_new_each_turn,
    another_effort,
]


class TestAppendOnly:
    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("model", [BINDS, "claude-fable-5-2", "claude-opus-4-8"])
    async def test_what_changes_is_added(self, make, world, change, model):
        session = await make(model)
        for turn in range(6):
            reply = await session.send_message(f"{turn} {WORDS}", **await change(session, turn))
            assert "prefix_change" not in noted(reply)
        sent = bodies(world)
        assert all(begins(*pair) for pair in pairwise(sent))
        assert refused(world) == []
        assert len(thoughts(sent[-1])) in (0, 5)

    @pytest.mark.parametrize("account", ["new", "old"])
    async def test_where_it_cannot_the_thinking_is_left_out(self, make, world, account):
        world.set(account=account)
        session = await make(dialect="compatible")
        replies = [
            await session.send_message(f"{turn} {WORDS}", **await other_tools(session, turn))
            for turn in range(3)
        ]
        assert [noted(reply).get("prefix_change", {}).get("reason") for reply in replies] == [
            *(None, None, "tools")
        ]
        assert [repair["kind"] for repair in noted(replies[2])["repairs"]] == [
            *("reasoning_dropped", "reasoning_dropped")
        ]
        assert thoughts(bodies(world)[-1]) == []
        assert refused(world) == []

    async def test_a_tool_that_comes_back_is_named_and_not_defined_again(self, make, world):
        session = await make()
        for tools in ([ADD], [ADD, SUB], [ADD], [ADD, SUB]):
            await session.send_message(WORDS, tools=tools)
        changes = [m["content"] for m in bodies(world)[-1]["messages"] if m["role"] == "system"]
        assert [[block["type"] for block in content] for content in changes] == [
            *(["tool_addition"], ["tool_removal"], ["tool_addition"])
        ]
        kinds = [content[0]["tool"]["type"] for content in changes]
        assert kinds == ["tool_definition", "tool_reference", "tool_reference"]

    async def test_where_tools_are_named_only_new_ones_wait_in_the_list(self, make, world):
        world.set(anthropic="bedrock")
        session = await make(dialect="bedrock")
        for tools in ([ADD], [ADD, SUB], [SUB]):
            reply = await session.send_message(WORDS, tools=tools)
            assert "prefix_change" not in noted(reply)
        first, *others = bodies(world)
        assert all(body["tools"][0] == first["tools"][0] for body in others)
        assert [tool.get("defer_loading") for tool in others[-1]["tools"]] == [None, True]
        assert refused(world) == []
        changed = Tool("add", "Adds otherwise.", SCHEMA, lambda a: a)
        reply = await session.send_message(WORDS, tools=[changed])
        assert noted(reply)["prefix_change"]["reason"] == "tools"
        assert refused(world) == []

    async def test_another_process_sends_the_same(self, make, world):
        session = await make()
        await session.send_message(WORDS, tools=[ADD])
        await session.send_message(WORDS, tools=[SUB])
        state = session.context.request_state["notes"]["anthropic"]["tools"]
        assert [tool["name"] for tool in state["declared"]] == ["add"]
        assert [change["removed"] for change in state["changes"]] == [["add"]]


class TestEffort:
    @pytest.mark.parametrize("mode", ["messages", "threads"])
    async def test_changes_in_place(self, make, world, mode):
        session = await make(mode=mode)
        for turn in range(6):
            await session.send_message(f"{turn}", **await another_effort(session, turn))
        said = [
            message["output_config"]["effort"]
            for body in (bodies(world)[-1:] if mode == "messages" else bodies(world))
            for message in body["messages"]
            if message["role"] == "system"
        ]
        assert said == ["low", "medium", "high"]  # the model's own is medium
        assert not any("output_config" in body for body in bodies(world))
        assert refused(world) == []

    async def test_is_what_the_first_request_says_until_then(self, make, world):
        session = await make()
        for effort in ("low", "low", "max"):
            config = {"effort": effort, "format": None} if effort == "max" else {"effort": effort}
            await session.send_message(WORDS, output_config=config)
        assert [body["output_config"]["effort"] for body in bodies(world)] == ["low"] * 3
        assert bodies(world)[-1]["messages"][-2] == {
            "role": "system", "content": [], "output_config": {"effort": "max"},
        }  # fmt: skip

    async def test_is_said_with_each_request_where_it_cannot_change(self, make, world):
        session = await make("claude-opus-4-8")
        for effort in ("low", "high"):
            await session.send_message(WORDS, output_config={"effort": effort})
        assert [body["output_config"]["effort"] for body in bodies(world)] == ["low", "high"]


class TestModels:
    async def test_thinking_of_another_model_stays_and_what_cannot_be_read_is_told(
        self, make, world
    ):
        session = await make("claude-opus-5")
        await session.send_message(WORDS)
        await session.update_context(model=BINDS)
        reply = await session.send_message(WORDS)  # reads Opus 5
        assert "repairs" not in noted(reply)
        await session.update_context(model="claude-opus-5")
        reply = await session.send_message(WORDS)
        assert [repair["kind"] for repair in noted(reply)["repairs"]] == ["reasoning_dropped"]
        assert len(thoughts(bodies(world)[-1])) == 2  # the API leaves out the one of Opus 5.5
        assert refused(world) == []

    async def test_an_organization_that_changes_is_told_and_changes_nothing(self, make, world):
        session = await make("claude-sonnet-5-5")
        await session.send_message(WORDS)
        world.set(organization="org_2")
        reply = await session.send_message(WORDS)
        (told,) = noted(reply)["input_transformations"]
        assert told["reason"] == "organization_binding_mismatch"
        await session.send_message(WORDS)
        assert len(thoughts(bodies(world)[-1])) == 2


class TestTheNetBeneath:
    """What happens where a change is not noticed here."""

    @pytest.fixture(autouse=True)
    def blind(self, monkeypatch):
        def allows(self, message):
            return message.seq is None or message.seq > self._request.reasoning_after

        monkeypatch.setattr(Prefix, "allows", allows)

    async def test_a_refusal_is_asked_once_more_without_thinking(self, make, world):
        session = await make(dialect="compatible")
        await session.send_message(WORDS, system="one")
        reply = await session.send_message(WORDS, system="two")
        assert reply.finish_reason == "stop"
        assert len(refused(world)) == 1
        assert "bound to a different conversation" in str(refused(world))
        assert thoughts(bodies(world)[-1]) == []
        await session.send_message(WORDS, system="two")
        assert len(refused(world)) == 1

    @pytest.mark.parametrize("mode", ["messages", "threads"])
    async def test_or_the_api_leaves_it_out_and_so_do_later_requests(self, make, world, mode):
        session = await make(block_binding="drop_block", mode=mode)
        await session.send_message(WORDS, system="one")
        reply = await session.send_message(WORDS, system="two")
        (told,) = noted(reply)["input_transformations"]
        assert told["reason"] == "prefix_binding_mismatch"
        events = [e async for e in session.stream_message(WORDS, system="two")]
        assert "input_transformations" not in noted(events[-1].message)
        assert refused(world) == []
        assert len(thoughts(bodies(world)[-1])) == 1

    async def test_a_stream_tells_it_too(self, make, world):
        session = await make(block_binding="drop_block")
        await session.send_message(WORDS, system="one")
        events = [e async for e in session.stream_message(WORDS, system="two")]
        (told,) = noted(events[-1].message)["input_transformations"]
        assert told["type"] == "thinking_dropped"


class TestBinding:
    @pytest.mark.parametrize(
        ("model", "wish", "thinking", "asked"),
        [
            (BINDS, None, None, None),
            (BINDS, "drop_block", None, "drop_block"),
            (BINDS, "error", {"type": "adaptive"}, "error"),
            ("claude-fable-5-2", None, None, "drop_block"),
            ("claude-haiku-5-5", "drop_block", None, None),
            ("claude-opus-4-8", "drop_block", {"type": "adaptive"}, None),
        ],
    )
    async def test_is_asked_for_where_thinking_is_on(
        self, make, world, model, wish, thinking, asked
    ):
        session = await make(model, block_binding=wish)
        options = {} if thinking is None else {"thinking": thinking}
        await session.send_message(WORDS, **options)
        binding = (bodies(world)[0].get("thinking") or {}).get("block_binding") or {}
        assert binding.get("prefix_mismatch_behavior") == asked
        betas = world.requests(POST)[0]["headers"].get("anthropic-beta", "")
        assert ("thinking-binding-controls-2026-08-01" in betas) is (model != "claude-opus-4-8")


class TestCompaction:
    async def test_above_a_size_the_summary_stands_for_what_was(self, make, world):
        session = await make(compact_above=150)
        await session.add_system_message("Be kind.")
        for turn in range(8):
            reply = await session.send_message(f"{turn} {WORDS}")
            assert reply.finish_reason == "stop"
        assert refused(world) == []
        asked = [body for body in bodies(world) if body.get("compaction")]
        assert asked
        assert all(body["messages"][-1]["role"] == "assistant" for body in asked)
        last = bodies(world)[-1]
        assert last["messages"][0]["content"][0]["type"] == "compaction"
        assert last["system"] == "Be kind."
        assert len(await session.get_messages()) == 17  # the record is whole

    @pytest.mark.parametrize("how", ["clear", "edit"])
    async def test_what_is_removed_does_not_live_on_in_the_summary(self, make, world, how):
        session = await make(compact_above=1)
        first = await session.send_message("secret")
        await session.send_message("two")
        assert "compaction" in session.context.request_state["notes"]["anthropic"]
        if how == "clear":
            await session.clear_messages()
        else:
            await session.edit_messages(
                expected_revision=session.revision, remove=[first.seq - 1, first.seq]
            )
        assert "secret" not in str(session.context.request_state)
        await session.send_message("three")
        assert "secret" not in str(bodies(world)[-1])
        assert refused(world) == []

    @pytest.mark.parametrize("mode", ["messages", "threads"])
    async def test_one_in_the_record_begins_what_is_sent(self, make, world, mode):
        session = await make(mode=mode)
        await session.send_message(WORDS)
        await session.compact()
        for _ in range(2):
            reply = await session.send_message(WORDS)
            assert reply.finish_reason == "stop"
        kinds = [
            [part["content"][0]["type"] for part in body["messages"]] for body in bodies(world)
        ]
        assert kinds[-2] == ["compaction", "text"]
        whole = ["compaction", "text", "thinking", "text"]
        assert kinds[-1] == (whole if mode == "messages" else ["text"])
        assert refused(world) == []

    async def test_where_it_is_not_known_its_text_is_told(self, make, world):
        session = await make()
        await session.send_message(WORDS)
        compaction = await session.compact()
        await session.update_context(model="claude-haiku-5-5")  # which compacts nothing
        await session.send_message("two")
        told = bodies(world)[-1]["messages"][0]["content"][0]["text"]
        assert told == f"{SUMMARY}{compaction.blocks[0].value['content']}"
        assert refused(world) == []

    async def test_not_between_a_call_and_its_result(self, make, world):
        session = await make(compact_above=1)
        call = await session.send_message('call add {"a": 1}', tools=[ADD])
        await session.send_message(await session.call_tools(call, [ADD]), tools=[ADD])
        assert not any(body.get("compaction") for body in bodies(world))

    async def test_a_failure_leaves_the_conversation_as_it_is(self, make, world):
        session = await make(compact_above=1, max_retries=0)
        await session.send_message(WORDS)
        world.fail(POST, "status", status=400)
        reply = await session.send_message("two")
        assert reply.text == "I see 3 messages. The last says: two"

    async def test_where_there_is_none_it_is_an_error(self, make, world):
        session = await make("claude-haiku-5-5", compact_above=1)
        await session.send_message(WORDS)
        assert (await session.send_message("two")).finish_reason == "stop"
        provider = AnthropicProviderSession(world.key, base_url=world.anthropic_url)
        with pytest.raises(ProviderCapabilityError, match="does not compact"):
            from langswarm_session.records import ProviderRequest

            await provider.compact(ProviderRequest("s", session.context, []))
        await provider.close()


class TestServers:
    @pytest.mark.parametrize("profile", ["gateway", "bedrock", "vertex"])
    async def test_what_a_server_refuses_is_left_out_from_then_on(self, make, world, profile):
        world.set(anthropic=profile)
        session = await make()
        for tools in ([ADD], [ADD, SUB], [SUB]):
            await session.add_system_message("Be brief.")
            reply = await session.send_message(WORDS, tools=tools)
            assert reply.finish_reason == "stop"
        count = len(refused(world))
        assert count
        await session.send_message(WORDS, tools=[SUB])
        assert len(refused(world)) == count

    async def test_a_server_that_is_not_known_is_asked_for_nothing_special(self, make, world):
        world.set(anthropic="gateway")
        session = await make(dialect=None)
        for tools in ([ADD], [SUB]):
            await session.add_system_message("Be brief.")
            await session.send_message(WORDS, tools=tools)
        assert refused(world) == []

    async def test_unsigned_thinking_goes_back_to_who_gave_it(self, make, world):
        world.set(anthropic="unsigned")
        session = await make("claude-test-1", dialect=None)
        options = {"tools": [ADD], "thinking": {"type": "adaptive"}}
        call = await session.send_message('call add {"a": 1}', **options)
        assert isinstance(call.blocks[0], ReasoningBlock)
        assert not call.blocks[0].signature
        await session.send_message(await session.call_tools(call, [ADD]), **options)
        assert refused(world) == []
        assert thoughts(bodies(world)[-1]) == ["thinking"]

    async def test_counting_that_is_not_there_is_said(self, make, world):
        world.set(anthropic="gateway")
        session = await make(dialect=None, context={"max_input_tokens": 50})
        await session.update_context(token_counter="provider")
        assert (await session.send_message(WORDS)).finish_reason == "stop"


class TestWhatAnotherModelWasTold:
    """Found by a random walk of two processes over the rules of the vendor's pages."""

    async def test_changed_tools_are_declared_to_a_model_that_takes_no_changes(self, make, world):
        # "not available on Claude Sonnet 5": build-with-claude/mid-conversation-system-messages
        session = await make()
        await session.send_message("a", tools=[ADD])
        await session.send_message("b", tools=[ADD, SUB])
        for model in ("claude-sonnet-5", "claude-sonnet-4-6"):
            await session.switch_provider("anthropic", model)
            await session.send_message("c", tools=[ADD, SUB])
            assert [tool["name"] for tool in bodies(world)[-1]["tools"]] == ["add", "sub"]
        await session.switch_provider("anthropic", BINDS)
        await session.send_message("d", tools=[ADD, SUB])
        sent = bodies(world)
        assert begins(sent[1], sent[-1])
        assert len(thoughts(sent[-1])) >= 2
        assert refused(world) == []

    async def test_a_fork_at_a_reply_begins_as_the_original_did(self, make, world):
        session = await make()
        await session.send_message("a", tools=[ADD])
        reply = await session.send_message("b", tools=[ADD, SUB])
        await session.send_message("c", tools=[SUB])
        fork = await session.fork(reply)
        said = await fork.send_message("d", tools=[ADD, SUB])
        assert "prefix_change" not in noted(said)
        sent = bodies(world)
        assert begins(sent[1], sent[-1])
        assert len(thoughts(sent[-1])) == 2

    async def test_a_call_that_waits_keeps_its_result_in_a_compaction(self, make, world):
        session = await make()
        await session.send_message('call add {"a": 1}', tools=[ADD])
        await session.compact()
        await session.send_message("go on", tools=[ADD])
        assert refused(world) == []

    @pytest.mark.parametrize("model", ["claude-haiku-5-5", "claude-sonnet-5-5"])
    async def test_an_effort_that_a_message_may_not_set_is_set_at_the_top(self, make, world, model):
        session = await make(model)
        await session.send_message("a")
        for text in "bc":
            await session.send_message(text, output_config={"effort": "low"})
        assert bodies(world)[-1]["output_config"] == {"effort": "low"}
        assert len(refused(world)) == 1

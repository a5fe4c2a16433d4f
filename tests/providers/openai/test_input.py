"""What OpenAI itself is sent, turn after turn: its address decides that."""

from __future__ import annotations

import json
from itertools import pairwise

import httpx2
import openai
import pytest

from langswarm_session import (
    OpenAIProviderSession,
    OtherBlock,
    ProviderCapabilityError,
    ProviderRequest,
    ReasoningBlock,
    SessionManager,
    SessionMessage,
    SQLiteSessionStorage,
    ToolCallBlock,
    ToolResultBlock,
)

USAGE = {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10}


def tool(name, **more):
    return {"type": "function", "name": name, "parameters": {"type": "object"}, **more}


class Vendor:
    """OpenAI: keeps what it was asked, and thinks before each answer."""

    def __init__(self):
        self.bodies = []
        self.outputs = []
        self.more = {}
        self.refusals = []

    def answer(self, request):
        body = json.loads(request.content)
        if self.refusals:
            status, error = self.refusals.pop(0)
            return httpx2.Response(status, json={"error": error})
        self.bodies.append(body)
        n = len(self.bodies)
        if request.url.path.endswith("/compact"):
            made = {"id": "resp_c", "object": "response.compaction", "created_at": 1}
            body = made | {"output": self.compactions, "usage": USAGE}
            return httpx2.Response(200, json=body)
        thought = {"type": "reasoning", "id": f"rs_{n}", "summary": [], "encrypted_content": "e"}
        text = {"type": "output_text", "text": f"Answer {n}.", "annotations": [], "logprobs": []}
        said = {"type": "message", "id": f"msg_{n}", "role": "assistant", "status": "completed"}
        output = self.outputs.pop(0) if self.outputs else [said | {"content": [text]}]
        return httpx2.Response(
            200,
            json={
                "id": f"resp_{n}",
                "object": "response",
                "created_at": 1,
                "model": body["model"],
                "status": "completed",
                "output": [thought, *output],
                "usage": USAGE,
                **self.more,
            },
        )


@pytest.fixture
def vendor():
    return Vendor()


@pytest.fixture
async def manager(vendor, tmp_path):
    transport = httpx2.MockTransport(vendor.answer)
    client = openai.AsyncOpenAI(
        api_key="key-12345678",
        base_url="https://api.openai.com/v1",
        http_client=httpx2.AsyncClient(transport=transport),
    )
    provider = OpenAIProviderSession(client=client, mode="responses")
    storage = SQLiteSessionStorage(str(tmp_path / "s.db"))
    async with SessionManager(storage, providers={"openai": provider}) as manager:
        yield manager


def check_appended(bodies):
    """Each request begins with the whole of the one before."""
    for before, after in pairwise(bodies):
        assert after["input"][: len(before["input"])] == before["input"]
        for name in ("instructions", "tools", "reasoning", "text", "prompt_cache_key", "include"):
            assert after.get(name) == before.get(name), name


def notes_of(reply):
    return reply.metadata["langswarm"]


class TestAppendOnly:
    async def test_replies_go_back_as_they_came(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-6.2-sol")
        for n in range(4):
            reply = await session.send_message(f"Question {n}")
            assert "prefix_change" not in notes_of(reply)
        check_appended(vendor.bodies)
        assert vendor.bodies[-1]["input"][1:3] == [
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "e"},
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Answer 1.", "annotations": []}],
            },
        ]
        assert len(vendor.bodies[0]["prompt_cache_key"]) <= 64
        assert vendor.bodies[0]["prompt_cache_key"] != "u"

    @pytest.mark.parametrize("model", ["gpt-5.4", "gpt-6.2-sol"])
    async def test_system_messages_stay_where_they_were_said(self, vendor, manager, model):
        session = await manager.create_session("u", "openai", model)
        await session.add_system_message("Be brief.")
        await session.send_message("one")
        await session.add_system_message("Be kind.")
        await session.send_message("two")
        await session.send_message("three")
        check_appended(vendor.bodies)
        said = [i["content"] for i in vendor.bodies[-1]["input"] if i.get("role") == "developer"]
        if model == "gpt-5.4":
            assert (vendor.bodies[-1]["instructions"], said) == ("Be brief.", ["Be kind."])
        else:
            assert said == ["Be brief.", "Be kind."]
            assert "instructions" not in vendor.bodies[-1]

    async def test_instructions_of_one_turn_are_no_part_of_what_is_kept(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-6.2-sol")
        await session.send_message("one", instructions="In French.")
        reply = await session.send_message("two", instructions="In Latin.")
        assert vendor.bodies[-1]["instructions"] == "In Latin."
        assert "prefix_change" not in notes_of(reply)
        assert any(item["type"] == "reasoning" for item in vendor.bodies[-1]["input"])

    async def test_a_later_tool_is_added_and_one_is_taken_away(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-6.2-sol")
        await session.send_message("one", tools=[tool("a"), tool("b")])
        await session.send_message("two", tools=[tool("b"), tool("a"), tool("c")])
        await session.send_message("three", tools=[tool("c"), tool("a")])
        await session.send_message("four", tools=[tool("a"), tool("b"), tool("c")])
        check_appended(vendor.bodies)
        assert [t["name"] for t in vendor.bodies[-1]["tools"]] == ["a", "b"]
        kinds = [item["type"] for item in vendor.bodies[-1]["input"]]
        assert kinds[:5] == ["message", "reasoning", "message", "message", "additional_tools"]
        assert kinds.count("additional_tools") == 1
        choices = [body.get("tool_choice") for body in vendor.bodies]
        assert choices[:2] == [None, None]
        assert choices[2]["mode"] == "auto"
        assert {t["name"] for t in choices[2]["tools"]} == {"a", "c"}
        assert choices[3] is None

    async def test_a_tool_that_changes_is_a_new_beginning(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-6.2-sol")
        await session.send_message("one", tools=[tool("a")])
        reply = await session.send_message("two", tools=[tool("a", description="Other.")])
        assert notes_of(reply)["prefix_change"]["reason"] == "tools"
        assert notes_of(reply)["repairs"][0]["kind"] == "reasoning_dropped"
        assert not any(item["type"] == "reasoning" for item in vendor.bodies[-1]["input"])
        message = vendor.bodies[-1]["input"][1]
        assert "id" not in message  # it belongs to the reasoning that is left out

    async def test_effort_and_format_change_by_items(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-6-astra")
        effort = {"reasoning": {"effort": "low", "summary": "auto"}}
        await session.send_message("one", **effort)
        for level in ("high", "high", "low"):
            await session.send_message(level, reasoning={"effort": level, "summary": "auto"})
        check_appended(vendor.bodies)
        updates = [i for i in vendor.bodies[-1]["input"] if i["type"] == "configuration_update"]
        assert [u["reasoning"]["effort"] for u in updates] == ["high", "low"]
        assert vendor.bodies[-1]["input"][-1] == updates[-1]

    async def test_an_effort_that_is_left_out_again_is_a_new_beginning(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-6.2-sol")
        await session.send_message("one", reasoning={"effort": "low"})
        reply = await session.send_message("two")
        assert "reasoning" not in vendor.bodies[-1]
        assert notes_of(reply)["prefix_change"]["reason"] == "system"

    async def test_older_models_are_declared_what_there_is(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-5.4")
        await session.send_message("one", tools=[tool("a")], reasoning={"effort": "low"})
        await session.send_message("two", tools=[tool("b")], reasoning={"effort": "high"})
        assert [t["name"] for t in vendor.bodies[-1]["tools"]] == ["b"]
        assert vendor.bodies[-1]["reasoning"] == {"effort": "high"}
        kinds = {item["type"] for item in vendor.bodies[-1]["input"]}
        assert kinds == {"message", "reasoning"}

    async def test_the_same_from_another_process(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-6.2-sol", session_id="s")
        await session.send_message("one", tools=[tool("a")])
        await session.send_message("two", tools=[tool("a"), tool("b")])
        other = await manager.get_session("s")
        await other.send_message("three", tools=[tool("a"), tool("b")])
        check_appended(vendor.bodies)

    async def test_tool_loops(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-6.2-sol")
        call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "a"}
        vendor.outputs.append([call | {"arguments": '{"x": 1}', "status": "completed"}])
        reply = await session.send_message("one", tools=[tool("a")])
        (made,) = [block for block in reply.blocks if isinstance(block, ToolCallBlock)]
        result = ToolResultBlock(tool_call_id=made.id, content="done")
        await session.send_message([result], role="tool", tools=[tool("a"), tool("b")])
        await session.send_message("two", tools=[tool("a"), tool("b")])
        check_appended(vendor.bodies)
        sent = vendor.bodies[-1]["input"]
        assert [i["type"] for i in sent[:5]] == [
            "message",
            "reasoning",
            "function_call",
            "function_call_output",
            "additional_tools",
        ]
        assert sent[2] == call | {"arguments": '{"x": 1}'}


class TestReasoning:
    async def test_what_openai_dropped_is_told_and_left_out_from_then_on(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-6.2-sol")
        await session.send_message("one")
        dropped = {"type": "reasoning", "id": "rs_1", "action": "removed"}
        vendor.more = {"input_transformations": [dropped | {"reason": "organization_mismatch"}]}
        reply = await session.send_message("two")
        assert notes_of(reply)["input_transformations"][0]["id"] == "rs_1"
        vendor.more = {}
        await session.send_message("three")
        thoughts = [i["id"] for i in vendor.bodies[-1]["input"] if i["type"] == "reasoning"]
        assert "rs_1" not in thoughts

    async def test_reasoning_of_earlier_turns_that_is_not_read_is_no_fault(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-6.2-sol")
        await session.send_message("one")
        dropped = {"type": "reasoning", "id": "rs_1", "action": "removed"}
        vendor.more = {"input_transformations": [dropped | {"reason": "turn_boundary"}]}
        await session.send_message("two")
        await session.send_message("three")
        check_appended(vendor.bodies)

    async def test_a_refusal_is_asked_once_without_reasoning(self, vendor, manager):
        """https://github.com/openai/codex/issues/8145"""
        session = await manager.create_session("u", "openai", "gpt-5.4")
        await session.send_message("one")
        error = {
            "message": "The encrypted content gAAA...DQ== could not be verified.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_encrypted_content",
        }
        vendor.refusals.append((400, error))
        reply = await session.send_message("two")
        assert reply.text == "Answer 2."
        assert not any(i["type"] == "reasoning" for i in vendor.bodies[-1]["input"])
        assert "id" not in vendor.bodies[-1]["input"][1]

    @pytest.mark.parametrize(
        ("param", "message", "name"),
        [
            ("include", "Encrypted content is not supported with this model.", "include"),
            ("prompt_cache_key", "Unknown parameter: 'prompt_cache_key'.", "prompt_cache_key"),
            (None, "Unrecognized request argument supplied: prompt_cache_key", "prompt_cache_key"),
        ],
    )
    async def test_what_nobody_asked_for_is_not_asked_twice(
        self, vendor, manager, param, message, name
    ):
        session = await manager.create_session("u", "openai", "gpt-5.4")
        error = {"message": message, "type": "invalid_request_error", "param": param}
        vendor.refusals.append((400, error))
        await session.send_message("one")
        await session.send_message("two")
        assert len(vendor.bodies) == 2
        assert all(name not in body for body in vendor.bodies)

    async def test_the_callers_own_are_not_taken_away(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-5.4")
        error = {"message": "No.", "type": "invalid_request_error", "param": "include"}
        vendor.refusals.append((400, error))
        include = ["web_search_call.action.sources"]
        await session.send_message("one", include=include, prompt_cache_key="mine")
        assert vendor.bodies[-1]["include"] == include
        assert vendor.bodies[-1]["prompt_cache_key"] == "mine"

    async def test_models_that_do_not_reason_are_not_asked(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-4.1")
        await session.send_message("one")
        assert "include" not in vendor.bodies[-1]


class TestCompaction:
    async def test_what_is_before_a_compaction_is_not_sent(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-6.2-sol")
        await session.add_system_message("Be brief.")
        await session.send_message("one")
        item = {"type": "compaction", "id": "cmp_1", "encrypted_content": "c"}
        text = {"type": "output_text", "text": "So.", "annotations": []}
        said = {"type": "message", "id": "msg_9", "role": "assistant", "status": "completed"}
        vendor.outputs.append([item, said | {"content": [text]}])
        rule = [{"type": "compaction", "compact_threshold": 1000}]
        await session.send_message("two", context_management=rule)
        reply = await session.send_message("three")
        sent = vendor.bodies[-1]["input"]
        assert [i.get("content") for i in sent[:1]] == ["Be brief."]
        assert [i["type"] for i in sent[1:]] == ["compaction", "message", "message"]
        assert notes_of(reply)["prefix_change"]["reason"] == "summary"
        reply = await session.send_message("four")
        check_appended(vendor.bodies[-2:])
        assert "prefix_change" not in notes_of(reply)

    async def test_a_compaction_on_demand_begins_the_next_requests(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-6.2-sol")
        await session.send_message("one")
        await session.send_message("two")
        said = {"type": "input_text", "text": "one"}
        kept = {"type": "message", "role": "user", "status": "completed"}
        item = {"type": "compaction", "id": "cmp_1", "encrypted_content": "c"}
        repeated = kept | {"id": "msg_7", "content": [said]}
        vendor.compactions = [repeated, item | {"created_by": "x"}]
        provider = manager.core.providers.of("openai", "s")
        context = session.context
        history = await session.get_messages()
        request = ProviderRequest(
            session.session_id,
            context,
            history,
            0,
            target=provider.target(context, {}),
        )
        (message,) = (await provider.compact(request)).messages
        assert "instructions" not in vendor.bodies[-1]
        assert [i["type"] for i in vendor.bodies[-1]["input"]][:3] == [
            "message",
            "reasoning",
            "message",
        ]
        marked = message.replaced(metadata={"langswarm": {"compaction": True}})
        thanks = SessionMessage(role="user", content="Thanks.")
        request = ProviderRequest(
            session.session_id,
            context,
            [*history, marked, thanks],
            1,
            target=provider.target(context, {}),
        )
        await provider.send_message(request)
        first, second, last = vendor.bodies[-1]["input"]
        # The SDK has no id in the type of a user's message (`response_input_item_param.Message`).
        assert first == {k: v for k, v in kept.items() if k != "id"} | {"content": [said]}
        assert second == item
        assert last["content"] == "Thanks."

    async def test_what_the_agents_sdk_left_of_a_conversation_is_sent(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-6.2-sol")
        item = {"type": "compaction", "id": "cmp_1", "encrypted_content": "c"}
        block = OtherBlock(value=item | {"created_by": "x"})
        await session.record([SessionMessage(role="user", content=[block])])
        await session.send_message("one")
        assert vendor.bodies[-1]["input"][0] == item

    async def test_a_server_that_makes_no_compactions(self, vendor, manager):
        session = await manager.create_session("u", "openai", "gpt-6.2-sol")
        vendor.refusals.append((404, {"message": "Invalid URL (POST /v1/responses/compact)"}))
        provider = manager.core.providers.of("openai", "s")
        said = [SessionMessage(role="user", content="one")]
        with pytest.raises(ProviderCapabilityError, match="this server makes no compactions"):
            await provider.compact(ProviderRequest("s", session.context, said))


async def test_reasoning_that_was_stored_before_is_bound_to_nothing_known(vendor, manager):
    session = await manager.create_session("u", "openai", "gpt-6.2-sol")
    thought = ReasoningBlock(id="rs_9", encrypted="e")
    await session.record(
        [
            SessionMessage(role="user", content="before"),
            SessionMessage(
                role="assistant",
                content=[thought, *SessionMessage(role="user", content="said").blocks],
                provider="openai",
                model="gpt-6.2-sol",
            ),
        ]
    )
    await session.send_message("one")
    assert not any(item["type"] == "reasoning" for item in vendor.bodies[-1]["input"])

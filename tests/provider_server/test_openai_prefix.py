"""The stand-in's OpenAI side: reasoning behind a changed prefix, calls of every kind, caches, sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openai import APIStatusError, OpenAI

from .client import ProviderServer, ServerWorld

MODEL = "gpt-6.2-astra"
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": False}
SUB = TOOL | {"name": "sub"}


@pytest.fixture(scope="module")
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


@pytest.fixture
def world(server: ProviderServer) -> ServerWorld:
    return server.world(reasoning=True)


@pytest.fixture
def api(world: ServerWorld) -> Iterator[Any]:
    with OpenAI(api_key=world.key, base_url=world.openai_url, max_retries=0) as client:
        yield client


def ask(api: Any, items: list[Any], **more: Any) -> Any:
    given = {"model": MODEL, "input": items, "store": False} | more
    return api.responses.create(**given | {"include": ["reasoning.encrypted_content"]})


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def developer(text: str) -> dict[str, Any]:
    return {"role": "developer", "content": text}


def dumped(reply: Any) -> list[Any]:
    return [item.to_dict(mode="json", exclude_unset=True) for item in reply.output]


def talk(api: Any, **more: Any) -> list[Any]:
    items: list[Any] = [developer("Be kind.")]
    for number in range(3):
        items.append(user(f"say {number}"))
        items += dumped(ask(api, items, **more))
    return [*items, user("more")]


def removed(reply: Any) -> list[str]:
    return [one.reason for one in reply.input_transformations]


def nothing(items: list[Any]) -> dict[str, Any]:
    return {}


def appended(items: list[Any]) -> dict[str, Any]:
    items += [
        developer("Be brief."),
        {"type": "configuration_update", "reasoning": {"effort": "low"}},
        {"type": "additional_tools", "role": "developer", "tools": [TOOL]},
    ]
    return {"instructions": "For this turn.", "max_output_tokens": 900}


def without_ids(items: list[Any]) -> dict[str, Any]:
    for item in items:
        if item.get("type") == "message":
            del item["id"]
    return {}


def first_changed(items: list[Any]) -> dict[str, Any]:
    items[0] = developer("Be rude.")
    return {}


def second_turn_changed(items: list[Any]) -> dict[str, Any]:
    items[4] = user("other")
    return {}


def new_tools(items: list[Any]) -> dict[str, Any]:
    return {"tools": [TOOL]}


def new_format(items: list[Any]) -> dict[str, Any]:
    schema = {"type": "json_schema", "name": "a", "schema": {"type": "object"}}
    return {"text": {"format": schema}}


@pytest.mark.parametrize(
    ("edit", "dropped"),
    [(nothing, 0), (appended, 0), (without_ids, 0), (first_changed, 3), (second_turn_changed, 2),
     (new_tools, 3), (new_format, 3)],
)  # fmt: skip
def test_reasoning_behind_a_change_is_dropped(
    api: Any, edit: Callable[[list[Any]], dict[str, Any]], dropped: int
) -> None:
    items = talk(api)
    reply = ask(api, items, **edit(items))
    assert removed(reply) == ["prefix_mismatch"] * dropped
    assert reply.output_text


def test_models_organizations_and_what_they_may_read(api: Any, world: ServerWorld) -> None:
    items = talk(api)
    with pytest.raises(APIStatusError, match="could not be verified"):
        ask(api, items, model="gpt-6-astra")
    older = talk(api, model="gpt-6-astra")
    older[0] = developer("Other.")
    assert removed(ask(api, older)) == []  # it was not bound to anything
    assert (
        ask(api, talk(api, model="gpt-6-astra"), model="gpt-6-astra").input_transformations is None
    )
    assert removed(ask(api, items, model="gpt-6.2-sol")) == ["model_mismatch"] * 3
    world.set(organization="org_2")
    assert removed(ask(api, items)) == ["organization_mismatch"] * 3


def test_reasoning_behind_a_compaction_stays(api: Any, world: ServerWorld) -> None:
    rule = [{"type": "compaction", "compact_threshold": 10}]
    world.reply({"text": "a" * 100})
    items = [user("x" * 100)]
    items += dumped(ask(api, items, context_management=rule))
    assert [item["type"] for item in items[1:]] == ["compaction", "reasoning", "message"]
    items.append(user("more"))
    assert removed(ask(api, items[1:])) == []
    items[0] = user("other")
    assert removed(ask(api, items)) == []
    before = talk(api)
    compaction = items[1]
    assert removed(ask(api, [compaction, *before[4:]])) == []


def test_added_tools_may_be_called_and_others_not(api: Any) -> None:
    added = {"type": "additional_tools", "role": "developer", "tools": [SUB]}
    items = [added, user("call sub {}")]
    assert ask(api, items, tools=[TOOL]).output[-1].name == "sub"
    choice = {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "add"}],
    }
    assert ask(api, items, tools=[TOOL], tool_choice=choice).output[-1].type == "message"


COMPUTER = {"type": "computer_call", "id": "cu_1", "call_id": "c1", "status": "completed",
            "pending_safety_checks": [], "action": {"type": "screenshot"}}  # fmt: skip
SCREEN = {"type": "computer_call_output", "call_id": "c1",
          "output": {"type": "computer_screenshot", "image_url": "data:image/png;base64,iVBORw0KGgo="}}  # fmt: skip
SHELL = {"type": "shell_call", "id": "sh_1", "call_id": "c1", "action": {"commands": ["ls"]}}
LISTED = {"type": "shell_call_output", "call_id": "c1", "output": []}
LOCAL = {"type": "local_shell_call", "id": "lsh_1", "call_id": "c1", "status": "completed",
         "action": {"type": "exec", "command": ["ls"], "env": {}}}  # fmt: skip
RAN = {"type": "local_shell_call_output", "id": "c1", "output": "a"}
PATCH = {"type": "apply_patch_call", "id": "ap_1", "call_id": "c1", "status": "completed",
         "operation": {"type": "delete_file", "path": "a"}}  # fmt: skip
PATCHED = {"type": "apply_patch_call_output", "call_id": "c1", "status": "completed"}
CUSTOM = {"type": "custom_tool_call", "call_id": "c1", "name": "add", "input": "x"}
DONE = {"type": "custom_tool_call_output", "call_id": "c1", "output": "y"}


@pytest.mark.parametrize(
    ("call", "output"),
    [(COMPUTER, SCREEN), (SHELL, LISTED), (LOCAL, RAN), (PATCH, PATCHED), (CUSTOM, DONE)],
    ids=lambda item: item["type"],
)
def test_calls_of_every_kind_need_their_output(api: Any, call: Any, output: Any) -> None:
    assert ask(api, [user("x"), call, output]).output_text
    name = call["type"].replace("_", " ")
    with pytest.raises(APIStatusError, match=f"No tool output found for {name} c1."):
        ask(api, [user("x"), call, user("y")])
    with pytest.raises(APIStatusError, match=f"No tool call found for {name}"):
        ask(api, [user("x"), output])
    with pytest.raises(APIStatusError, match="created_by"):
        ask(api, [user("x"), call | {"created_by": "x"}, output])


def test_the_share_that_is_found_in_a_cache(api: Any, world: ServerWorld) -> None:
    items = [developer("s" * 400)]
    for _ in range(10):
        items.append(user("x" * 400))
        items += dumped(ask(api, items, prompt_cache_key="k"))
    tokens = world.state()["tokens"]
    assert tokens["requests"] == 10
    assert tokens["read"] / tokens["given"] > 0.7
    assert tokens["read"] + tokens["written"] == tokens["given"]
    usage = ask(api, [*items, user("y")], instructions="i" * 400).usage
    assert usage.input_tokens - usage.input_tokens_details.cached_tokens > 100


def test_what_does_not_fit(api: Any, world: ServerWorld) -> None:
    world.set(max_input_tokens=10)
    with pytest.raises(APIStatusError) as caught:
        ask(api, [user("x" * 400)])
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(APIStatusError) as caught:
        api.chat.completions.create(model=MODEL, messages=[user("x" * 400)])
    assert caught.value.code == "context_length_exceeded"


def test_what_include_is_refused(api: Any, world: ServerWorld) -> None:
    with pytest.raises(APIStatusError, match="not supported with this model"):
        ask(api, [user("x")], model="gpt-4.1")
    world.set(refuses_include=True)
    with pytest.raises(APIStatusError, match="include"):
        ask(api, [user("x")])
    assert api.responses.create(model=MODEL, input="x").output_text


def test_stored_reasoning_is_bound_alike(api: Any) -> None:
    conversation = api.conversations.create()
    for number in range(2):
        reply = api.responses.create(
            model=MODEL, input=f"say {number}", conversation=conversation.id
        )
        assert removed(reply) == []
    reply = api.responses.create(model=MODEL, input="x", conversation=conversation.id, tools=[TOOL])
    assert removed(reply) == ["prefix_mismatch"] * 2


def test_compaction_as_a_request_of_its_own(api: Any, world: ServerWorld) -> None:
    items = talk(api)
    compacted = api.responses.compact(model=MODEL, input=items)
    assert [item.type for item in compacted.output] == ["message"] * 4 + ["compaction"]
    window = [compacted.output[-1].to_dict(mode="json", exclude_unset=True)]
    reply = ask(api, [*window, user("next")])
    assert removed(reply) == []
    assert world.shares("POST /v1/responses")[:2] == [1.0, 1.0]

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from anthropic.types import message_create_params
from anthropic.types.beta import message_create_params as beta_create_params
from hypothesis import example, given, settings
from hypothesis import strategies as st
from provider_server.anthropic_binding import redact, sign
from provider_server.anthropic_rules import Context, check_request
from provider_server.anthropic_shape import shape_error
from provider_server.client import ProviderServer
from provider_server.openai_chat import check_body
from provider_server.openai_conversations import checked_items
from provider_server.openai_items import sealed
from provider_server.openai_responses import begin
from provider_server.openai_state import keep_item, new_conversation
from provider_server.worlds import World

from langswarm_session import (
    AnthropicProviderSession,
    AudioBlock,
    FileBlock,
    ImageBlock,
    MessageRole,
    OpenAIProviderSession,
    OtherBlock,
    ProviderRequest,
    ReasoningBlock,
    RefusalBlock,
    SessionContext,
    SessionManager,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    VideoBlock,
)
from langswarm_session.formats import anthropic, openai_chat, openai_responses
from langswarm_session.formats.dialects import Dialect
from langswarm_session.providers.openai.dialects import DIALECTS
from langswarm_session.requests.normalize import (
    Repair,
    RepairKind,
    SystemPlacement,
    Target,
    describe_repairs,
    normalize,
)
from langswarm_session.requests.normalize.pairing import NO_RESULT
from langswarm_session.requests.normalize.speakers import CONTINUE, NOTED, OPENING
from langswarm_session.testing import strategies
from langswarm_session.tools import Tool, to_anthropic

GPT, CLAUDE = "gpt-5.4", "claude-opus-5-5"
MODELS = [
    ("openai", GPT),
    ("openai", "gpt-5.4-mini"),
    ("anthropic", CLAUDE),
    ("anthropic", "claude-sonnet-5-5"),
    ("mock", "echo"),
    (None, None),
]
PNG = "iVBORw0KGgo="


def context_of(provider: str, model: str) -> SessionContext:
    return SessionContext(session_id="s", user_id="u", provider=provider, model=model)


def openai_target(mode: str) -> Target:
    return OpenAIProviderSession("key", mode=mode).target(context_of("openai", GPT), {})


TARGETS = {
    "responses": openai_target("responses"),
    "conversations": openai_target("conversations"),
    "chat": openai_target("chat"),
    "anthropic": AnthropicProviderSession("key", mode="messages").target(
        context_of("anthropic", CLAUDE), {}
    ),
}


# What the stand-in server refuses, in this process


def accepted_by_responses(messages: Sequence[SessionMessage]) -> None:
    items = openai_responses.to_items(messages)
    begin(World("key"), {"model": GPT, "input": items, "store": False})


def accepted_by_chat(messages: Sequence[SessionMessage]) -> None:
    check_body({"model": GPT, "messages": openai_chat.to_chat(messages)})


def accepted_by_conversations(messages: Sequence[SessionMessage]) -> None:
    """As a new conversation is filled: the older messages as items, the newest as input."""
    window = [message._placed(seq, seq) for seq, message in enumerate(messages, 1)]
    request = ProviderRequest(
        "s", context_of("openai", GPT), window, target=TARGETS["conversations"], turn_id=len(window)
    )
    history, new = request.split()
    world = World("key")
    conversation = new_conversation(world, None)
    items = openai_responses.to_items(history)
    for start in range(0, len(items), 20):
        for item in checked_items(world, items[start : start + 20], conversation):
            keep_item(world, item, conversation)
    new_items = openai_responses.to_items(new, known=messages)
    begin(world, {"model": GPT, "input": new_items, "conversation": conversation["id"]})


def accepted_by_anthropic(
    messages: Sequence[SessionMessage], stored: Sequence[dict[str, Any]] = ()
) -> None:
    sent = anthropic.to_messages(messages)
    names = {block["name"] for message in [*stored, *sent] for block in message["content"]
             if block["type"] == "tool_use"}  # fmt: skip
    tools = [to_anthropic(Tool(name)) for name in names]
    body = {"model": CLAUDE, "max_tokens": 9, "messages": sent, "tools": tools}
    with_files = anthropic.needs_files_api(messages)
    plain, beta = (each.MessageCreateParamsBase for each in
                   (message_create_params, beta_create_params))  # fmt: skip
    assert shape_error(body, beta if with_files else plain) is None
    check_request(
        Context(
            CLAUDE,
            [*stored, *sent],
            tools=tools,
            betas={"files-api-2025-04-14"} if with_files else set(),
            stored=len(stored),
        )
    )


ACCEPTED: dict[str, Callable[[Sequence[SessionMessage]], None]] = {
    "responses": accepted_by_responses,
    "conversations": accepted_by_conversations,
    "chat": accepted_by_chat,
    "anthropic": accepted_by_anthropic,
}


# Logs with everything in them that providers refuse

CALL_IDS = ["a", "b", "c", "call_1", "functions.look:0", "x" * 70, "é" * 41, "", None]
NAMES = ["look", "add", "web search", "", "n" * 70, "résumé"]
TEXTS = ["hello", "Continue.", "", " ", "\n\t", "\0", "e\u0301"]
texts = st.sampled_from(TEXTS) | strategies.texts(20)
call_ids = st.sampled_from(CALL_IDS)

OTHERS = {
    "openai": [
        {"type": "web_search_call", "id": "ws_1", "status": "completed",
         "action": {"type": "search", "query": "x"}},
        {"type": "web_search_call", "id": "ws_2", "status": "completed",
         "action": {"type": "search", "query": "y"}},
    ],
    "anthropic": [{"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}}],
}  # fmt: skip
FOREIGN = [{}, {"type": "image_url", "image_url": {"url": "x"}}, {"type": 3, "id": "x"}, {"id": 1}, {"type": {}},
           {"type": ["x"]}, {"type": {"a": 1}, "id": {}}, {"type": None}, {"type": "document"},
           {"type": "server_tool_use", "id": {}}, {"type": "web_search_call", "id": []},
           {"type": "web_search_tool_result", "tool_use_id": {}}, {"type": "computer_call_output"}]  # fmt: skip

URLS = [None, "", "https://example.com/a.png", "http://e.org",
        "https://a b", "ftp://x/y", f"data:image/png;base64,{PNG}", "data:,x",
        "data:image/png;base64,???", "data:text/plain;base64,aGk="]  # fmt: skip
DATA = [None, None, "", PNG]
KINDS = [
    None,
    "image/png",
    "image/tiff",
    "audio/wav",
    "audio/mpeg",
    "application/pdf",
    "text/plain",
]
FILE_IDS = [None, "", "file-1", "file_1", "x"]
EXTRAS = [None, {}, {"detail": "high"}, {"phase": "commentary"}, {"cache_control": {}}]
CALL_EXTRAS = [
    None,
    {"item_id": "fc_1"},
    {"item_id": 3},
    {"arguments": "{bad"},
    {"arguments": "[1]"},
    {"type": "custom_tool_call"},
]


def media() -> st.SearchStrategy[Any]:
    fields = {
        "url": st.sampled_from(URLS),
        "base64": st.sampled_from(DATA),
        "mime_type": st.sampled_from(KINDS),
        "file_id": st.sampled_from(FILE_IDS),
        "extras": st.sampled_from(EXTRAS),
    }
    texts_or_none = st.none() | texts
    return st.one_of(
        *(st.builds(kind, **fields) for kind in (ImageBlock, AudioBlock, VideoBlock)),
        st.builds(FileBlock, filename=texts_or_none, text=texts_or_none, **fields),
    )


def reasoning(provider: str | None, model: str | None) -> st.SearchStrategy[ReasoningBlock]:
    """Reasoning as its maker gives it, or without what proves its origin."""
    unproven = st.builds(ReasoningBlock, reasoning=texts)
    if provider == "openai":
        ids = st.sampled_from(["rs_1", "rs_2"])
        proven = ids.map(
            lambda id_: ReasoningBlock(
                id=id_, reasoning="hm", encrypted=sealed(model=model, id=id_, text="hm")
            )
        )
    elif provider == "anthropic":
        shown = texts.map(lambda t: ReasoningBlock(reasoning=t, signature=sign(str(model), t)))
        hidden = texts.map(lambda t: ReasoningBlock(encrypted=redact(str(model), t)))
        proven = shown | hidden
    else:
        proven = st.just(ReasoningBlock(id="rs_1", reasoning="hm", signature="s", encrypted="e"))
    return proven | unproven


def others(provider: str | None) -> st.SearchStrategy[OtherBlock]:
    values = OTHERS.get(provider or "", [*FOREIGN, *OTHERS["openai"], *OTHERS["anthropic"]])
    return st.sampled_from(values).map(lambda value: OtherBlock(value=value))


calls = st.builds(
    ToolCallBlock,
    id=call_ids,
    name=st.sampled_from(NAMES),
    args=st.just({}) | strategies.json_objects(),
    extras=st.sampled_from(CALL_EXTRAS),
)


def results(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[ToolResultBlock]:
    return st.builds(
        ToolResultBlock,
        tool_call_id=call_ids.map(lambda call_id: call_id or ""),
        name=st.none() | st.sampled_from(NAMES),
        content=texts | st.lists(inner, max_size=3),
        is_error=st.booleans(),
    )


simple = st.one_of(
    st.builds(TextBlock, text=texts, extras=st.sampled_from(EXTRAS)),
    media(),
    st.builds(RefusalBlock, refusal=texts),
    calls,
    reasoning(None, None),
    st.sampled_from(FOREIGN).map(lambda value: OtherBlock(value=value)),
)
blocks = st.one_of(simple, results(simple))


@st.composite
def said(draw: st.DrawFn) -> SessionMessage:
    """A message of any role with blocks that may stand in any."""
    role = draw(st.sampled_from(MessageRole))
    provider, model = (None, None)
    parts = blocks
    if role is MessageRole.ASSISTANT:
        provider, model = draw(st.sampled_from(MODELS))
        if provider in OTHERS:
            # What a vendor has made itself is what it takes back.
            parts = blocks.filter(lambda block: block.type not in ("reasoning", "non_standard"))
        if provider == "openai":
            parts = st.one_of(parts, others(provider))
        if provider not in OTHERS:
            parts = st.one_of(parts, others(None))
        parts = st.one_of(parts, calls, reasoning(provider, model))
    return SessionMessage(
        id="x",
        role=role,
        content=draw(texts | st.lists(parts, max_size=5)),
        name=draw(st.none() | st.sampled_from(NAMES)),
        provider=provider,
        model=model,
    )


@st.composite
def exchange(draw: st.DrawFn) -> list[SessionMessage]:
    """Calls and their results: late, repeated, missing, and with something in between."""
    made = draw(st.lists(calls, min_size=1, max_size=3))
    answers = [
        ToolResultBlock(tool_call_id=call.id or "", name=call.name, content="of it")
        for call in made
    ]
    given = draw(st.lists(st.sampled_from(answers), max_size=4))
    between = draw(st.lists(said(), max_size=1))
    apart = draw(st.booleans())
    role = draw(st.sampled_from(["tool", "tool", "user", "function"]))
    contents = [[each] for each in given] if apart else [given]
    tool = [SessionMessage(id="x", role=role, content=content) for content in contents]
    provider, model = draw(st.sampled_from(MODELS))
    call = SessionMessage(id="x", role="assistant", content=made, provider=provider, model=model)
    return [call, *tool[:1], *between, *tool[1:]]


def odd_logs() -> st.SearchStrategy[list[SessionMessage]]:
    part = st.one_of(
        said().map(lambda message: [message]),
        exchange(),
        st.just([SessionMessage(id="x", role="user", content="hi")]),
        strategies.messages().map(lambda message: [message]),
    )
    return st.lists(part, min_size=1, max_size=5).map(numbered)


def numbered(parts: Sequence[Sequence[SessionMessage]], prefix: str = "m") -> list[SessionMessage]:
    """The messages one after the other, with ids of their own."""
    whole = [message for part in parts for message in part]
    return [each.model_copy(update={"id": f"{prefix}{n}"}) for n, each in enumerate(whole)]


@st.composite
def cut_logs(draw: st.DrawFn) -> list[SessionMessage]:
    """Such a log, cut anywhere."""
    log = draw(odd_logs())
    start = draw(st.integers(0, len(log) - 1))
    return log[start : draw(st.integers(start + 1, len(log)))]


def by_speaker(messages: Sequence[SessionMessage]) -> list[tuple[str, Any]]:
    """All that is said, with who says it; a user's and a tool's words are the same to a vendor."""
    spoken: list[tuple[str, Any]] = []
    for message in messages:
        who = {"tool": "user", "function": "user"}.get(message.role.value, message.role.value)
        for block in message.blocks:
            spoken.append(("user" if block.type == "tool_result" else who, block))
    return spoken


def without_merging(repairs: Sequence[Repair]) -> list[Repair]:
    """The repairs but for those that the vendor's format makes of what is sent."""
    return [repair for repair in repairs if repair.kind is not RepairKind.MERGED]


@pytest.mark.parametrize("name", TARGETS)
class TestAnyLog:
    @given(log=cut_logs())
    @settings(max_examples=150)
    def test_is_accepted(self, name: str, log: list[SessionMessage]) -> None:
        sent, _ = normalize(log, TARGETS[name])
        ACCEPTED[name](sent)

    @given(log=strategies.logs())
    @settings(max_examples=25)
    def test_of_the_usual_strategy_is_accepted(self, name: str, log: list[SessionMessage]) -> None:
        sent, _ = normalize(log, TARGETS[name])
        ACCEPTED[name](sent)

    @given(log=cut_logs())
    @settings(max_examples=60)
    def test_pairs_every_call_with_one_result(self, name: str, log: list[SessionMessage]) -> None:
        sent, _ = normalize(log, TARGETS[name])
        made = [b.id for m in sent for b in m.blocks if isinstance(b, ToolCallBlock)]
        answered = [
            b.tool_call_id for m in sent for b in m.blocks if isinstance(b, ToolResultBlock)
        ]
        assert sorted(map(str, made)) == sorted(answered)
        assert len(set(made)) == len(made)

    @given(log=cut_logs())
    @settings(max_examples=60)
    def test_says_of_each_difference(self, name: str, log: list[SessionMessage]) -> None:
        sent, repairs = normalize(log, TARGETS[name])
        if not without_merging(repairs):
            assert by_speaker(sent) == by_speaker(log)
        told = {repair.message_id for repair in repairs}
        kept = {message.id for message in sent}
        assert {message.id for message in log} - kept <= told

    @given(log=cut_logs())
    @settings(max_examples=60)
    def test_is_changed_once(self, name: str, log: list[SessionMessage]) -> None:
        sent, _ = normalize(log, TARGETS[name])
        again, repairs = normalize(sent, TARGETS[name])
        assert again == sent
        assert without_merging(repairs) == []

    @given(log=cut_logs())
    @settings(max_examples=50)
    def test_is_itself_as_it_was(self, name: str, log: list[SessionMessage]) -> None:
        before = [message.model_dump() for message in log]
        normalize(log, TARGETS[name])
        assert [message.model_dump() for message in log] == before


WAYS = {
    "conversations": ("openai", GPT, {"mode": "conversations"}),
    "responses": ("openai", GPT, {"mode": "responses"}),
    "chat": ("openai", GPT, {"mode": "chat"}),
    "messages": ("anthropic", CLAUDE, {"mode": "messages"}),
    "threads": ("anthropic", CLAUDE, {"mode": "threads"}),
}


NAMELESS = SessionMessage(
    id="m0",
    role="assistant",
    content=[ToolCallBlock(name=""), ToolResultBlock(tool_call_id="", name="other")],
)


@pytest.mark.parametrize("way", WAYS)
@given(log=cut_logs(), later=cut_logs())
@example(log=[], later=[NAMELESS])
@settings(max_examples=8)
def test_any_log_is_answered_over_the_wire(
    provider_server: ProviderServer,
    way: str,
    log: list[SessionMessage],
    later: list[SessionMessage],
) -> None:
    """A real session, the real SDK: what was recorded never stands in the way of an answer."""
    name, model, options = WAYS[way]
    world = provider_server.world()
    url = world.openai_url if name == "openai" else world.anthropic_url
    options = {"api_key": world.key, "base_url": url, "max_retries": 0, **options}

    async def run() -> None:
        async with SessionManager("memory", {name: options}) as manager:
            session = await manager.create_session("ann", name, model)
            for messages in (log, begins_anew(numbered([later], "n"))):
                await session.record(messages)
                reply = await session.send_message("Are you there?")
                assert "Are you there?" in reply.text

    asyncio.run(run())


# What goes on from a conversation that the provider holds


OPEN = ["a", "b"]
HELD = [
    SessionMessage(id="h0", role="user", content="look twice"),
    SessionMessage(
        id="h1",
        role="assistant",
        content=[ToolCallBlock(id=each, name="look") for each in OPEN],
        provider="openai",
        model=GPT,
    ),
]


def begins_anew(log: Sequence[SessionMessage]) -> list[SessionMessage]:
    """The log without what nobody but the holder of the conversation can have made."""
    return [message for message in log if message.provider not in ("openai", "anthropic")]


class TestGoingOn:
    @given(log=cut_logs().map(begins_anew))
    @settings(max_examples=100)
    def test_any_log_is_accepted_by_a_conversation(self, log: list[SessionMessage]) -> None:
        world = World("key")
        conversation = new_conversation(world, None)
        for item in checked_items(world, openai_responses.to_items(HELD), conversation):
            keep_item(world, item, conversation)
        sent, _ = normalize(log, TARGETS["conversations"], open_calls=OPEN)
        items = openai_responses.to_items(sent)
        begin(world, {"model": GPT, "input": items, "conversation": conversation["id"]})

    @given(log=cut_logs().map(begins_anew))
    @settings(max_examples=100)
    def test_any_log_is_accepted_by_a_thread(self, log: list[SessionMessage]) -> None:
        sent, _ = normalize(log, TARGETS["anthropic"], open_calls=OPEN)
        accepted_by_anthropic(sent, anthropic.to_messages(HELD))

    @pytest.mark.parametrize("name", TARGETS)
    @given(log=cut_logs())
    @settings(max_examples=50)
    def test_is_changed_once(self, name: str, log: list[SessionMessage]) -> None:
        sent, _ = normalize(log, TARGETS[name], open_calls=OPEN)
        again, repairs = normalize(sent, TARGETS[name], open_calls=OPEN)
        assert again == sent
        assert without_merging(repairs) == []

    def test_gives_results_to_the_calls_that_are_open(self) -> None:
        log = [tool(result("b"), result("a")), user("and?")]
        assert normalize(log, TARGETS["responses"], open_calls=OPEN) == (log, [])

    def test_gives_results_to_calls_that_are_open_whoever_spoke_meanwhile(self) -> None:
        log = [user("meanwhile"), assistant("indeed"), tool(result("a"))]
        sent, repairs = normalize(log, TARGETS["responses"], open_calls=["a"])
        assert sent == [log[2], *log[:2]]
        assert kinds(repairs) == ["result_moved"]

    def test_answers_the_calls_that_stay_open(self) -> None:
        sent, repairs = normalize([user("never mind")], TARGETS["chat"], open_calls=["a"])
        assert [(m.role, m.text) for m in sent] == [("tool", NO_RESULT), ("user", "never mind")]
        assert kinds(repairs) == ["call_answered"]

    def test_takes_the_id_of_a_call_that_is_open_for_no_other(self) -> None:
        log = [tool(result("a")), assistant(call("a")), tool(result("a"))]
        sent, repairs = normalize(log, TARGETS["responses"], open_calls=["a"])
        assert [b.tool_call_id for m in sent for b in m.blocks if b.type == "tool_result"] == [
            "a",
            "a_2",
        ]
        assert kinds(repairs) == ["id_changed"]

    def test_needs_a_user_before_the_assistant(self) -> None:
        sent, repairs = normalize(
            [assistant("elsewhere"), user("go on")], TARGETS["anthropic"], open_calls=[]
        )
        assert texts_of(sent) == [CONTINUE, "elsewhere", "go on"]
        assert kinds(repairs) == ["user_added"]


# One case of each


def user(*content: Any) -> SessionMessage:
    return made("user", content)


def assistant(*content: Any, provider: str = "openai", model: str = GPT) -> SessionMessage:
    return made("assistant", content).model_copy(update={"provider": provider, "model": model})


def tool(*content: Any) -> SessionMessage:
    return made("tool", content)


def made(role: str, content: Sequence[Any]) -> SessionMessage:
    only_text = len(content) == 1 and isinstance(content[0], str)
    blocks = [TextBlock(text=each) if isinstance(each, str) else each for each in content]
    return SessionMessage(role=role, content=content[0] if only_text else blocks)


def call(call_id: str | None, name: str = "look") -> ToolCallBlock:
    return ToolCallBlock(id=call_id, name=name, args={"at": "it"})


def result(call_id: str, content: Any = "seen", name: str | None = None) -> ToolResultBlock:
    return ToolResultBlock(tool_call_id=call_id, content=content, name=name)


def kinds(repairs: Sequence[Repair]) -> list[str]:
    return [repair.kind.value for repair in repairs]


def texts_of(messages: Sequence[SessionMessage]) -> list[str]:
    return [message.text for message in messages]


LOOK = [user("look"), assistant(call("a"), call("b")), tool(result("a")), tool(result("b"))]
SEEN = [*LOOK, assistant("I see"), user("and now?")]
EVERY = pytest.mark.parametrize("name", TARGETS)


@EVERY
class TestNothingToDo:
    @pytest.mark.parametrize(
        "log",
        [
            [user("hi")],
            [user("hi"), assistant("hello"), user("bye")],
            [made("system", ["be kind"]), user("hi"), assistant("hello"), user("bye")],
            SEEN,
            LOOK,
            [user("look"), assistant("wait", call("a")), tool(result("a", [TextBlock(text="x")]))],
            [user("hi", ImageBlock(url="https://example.com/a.png"))],
        ],
    )
    def test_is_passed_on_as_it_is(self, name: str, log: list[SessionMessage]) -> None:
        sent, repairs = normalize(log, TARGETS[name])
        assert repairs == []
        assert len(sent) == len(log)
        assert all(a is b for a, b in zip(sent, log, strict=True))


class TestCalls:
    @EVERY
    def test_without_a_result_is_answered(self, name: str) -> None:
        log = [user("look"), assistant(call("a"), call("b")), tool(result("b")), user("well?")]
        sent, repairs = normalize(log, TARGETS[name])
        answers = {b.tool_call_id: b for m in sent for b in m.blocks if b.type == "tool_result"}
        assert answers["b"].content == "seen"
        assert not answers["b"].is_error
        assert answers["a"].content == NO_RESULT
        assert answers["a"].is_error
        assert kinds(repairs) == ["call_answered"]
        ACCEPTED[name](sent)

    @EVERY
    def test_result_without_a_call_is_dropped(self, name: str) -> None:
        lost = tool(result("x"))
        sent, repairs = normalize([lost, user("hi")], TARGETS[name])
        assert texts_of(sent) == ["hi"]
        assert [(r.kind, r.message_id) for r in repairs] == [("result_dropped", lost.id)]

    @EVERY
    def test_second_result_is_dropped(self, name: str) -> None:
        log = [*SEEN[:3], tool(result("a", "again")), *SEEN[3:]]
        sent, repairs = normalize(log, TARGETS[name])
        assert sent == SEEN
        assert kinds(repairs) == ["result_dropped"]

    @EVERY
    def test_late_result_is_moved(self, name: str) -> None:
        late = tool(result("b"))
        log = [*LOOK[:3], user("so?"), late]
        sent, repairs = normalize(log, TARGETS[name])
        assert sent[3] is late
        assert [r.kind for r in repairs if r.message_id == late.id] == ["result_moved"]
        ACCEPTED[name](sent)

    @EVERY
    def test_result_that_a_reply_was_made_without_is_put_into_words(self, name: str) -> None:
        late = tool(result("b", "seen after all"), result("b", "seen again"))
        log = [*LOOK[:3], assistant("hm"), user("so?"), late]
        sent, repairs = normalize(log, TARGETS[name])
        assert texts_of(sent)[3:] == [NO_RESULT, "hm", "so?", "[result of look] seen after all"]
        assert [r.kind for r in repairs if r.message_id == late.id][:2] == [
            "block_converted",
            "result_dropped",
        ]
        ACCEPTED[name](sent)

    def test_results_stay_in_the_order_they_came_in(self) -> None:
        log = [LOOK[0], LOOK[1], LOOK[3], LOOK[2], user("so?")]
        assert normalize(log, TARGETS["anthropic"]) == (log, [])

    @EVERY
    def test_parallel_calls_with_one_id(self, name: str) -> None:
        log = [
            user("look"),
            assistant(call("a"), call("a")),
            tool(result("a", "one")),
            tool(result("a", "two")),
        ]
        sent, repairs = normalize(log, TARGETS[name])
        ids = [block.id for block in sent[1].blocks]
        answers = {m.blocks[0].tool_call_id: m.text for m in sent[2:4]}
        assert answers == {ids[0]: "one", ids[1]: "two"}
        assert kinds(repairs)[:1] == ["id_changed"]

    @EVERY
    def test_an_id_that_comes_again_in_a_later_turn(self, name: str) -> None:
        log = [user("look"), assistant(call("a")), user("again"), assistant(call("a"))]
        log += [tool(result("a", "the second"))]
        sent, _ = normalize(log, TARGETS[name])
        blocks = [block for message in sent for block in message.blocks]
        first, second = (b.id for b in blocks if isinstance(b, ToolCallBlock))
        said = {b.tool_call_id: b.content for b in blocks if isinstance(b, ToolResultBlock)}
        assert said == {first: NO_RESULT, second: "the second"}

    @EVERY
    def test_without_ids_the_results_go_in_order(self, name: str) -> None:
        log = [user("look"), assistant(call(None), call(None)), tool(result(""), result(""))]
        sent, repairs = normalize(log, TARGETS[name])
        ids = [block.id for block in sent[1].blocks]
        assert [block.tool_call_id for block in sent[2].blocks] == ids
        assert set(kinds(repairs)) == {"id_changed"}
        assert normalize(log, TARGETS[name])[0][1] == sent[1]  # the same ids each time

    @EVERY
    def test_legacy_function_results_name_the_tool(self, name: str) -> None:
        log = [
            user("look"),
            assistant(call("a", "look"), call("b", "add")),
            SessionMessage(role="function", name="add", content="3"),
            SessionMessage(role="function", name="look", content="seen"),
        ]
        sent, _ = normalize(log, TARGETS[name])
        assert [m.blocks[0].tool_call_id for m in sent[2:4]] == ["b", "a"]
        ACCEPTED[name](sent)

    @EVERY
    def test_a_result_that_names_nothing_is_put_into_words(self, name: str) -> None:
        sent, repairs = normalize(
            [user("hi"), SessionMessage(role="function", name="add", content="3")], TARGETS[name]
        )
        assert sent[-1].role == "user"
        assert sent[-1].text == "[result of add] 3"
        assert "block_converted" in kinds(repairs)

    @EVERY
    def test_odd_names_are_cleaned(self, name: str) -> None:
        log = [user("look"), assistant(call("a", "web search")), tool(result("a"))]
        sent, repairs = normalize(log, TARGETS[name])
        assert [block.name for block in sent[1].blocks] == ["web_search"]
        assert kinds(repairs) == ["name_changed"]

    def test_ids_may_be_odd_where_the_provider_says_so(self) -> None:
        log = [user("look"), assistant(call("functions.look:0")), tool(result("functions.look:0"))]
        loose = Target(strict=True, any_call_id=True)
        assert normalize(log, loose) == (log, [])
        sent, _ = normalize(log, Target(strict=True))
        assert [block.id for block in sent[1].blocks] == ["functions_look_0"]

    def test_long_ids_stay_apart(self) -> None:
        ids = ["x" * 50 + str(i) for i in range(3)]
        log = [user("look"), assistant(*map(call, ids)), tool(*map(result, ids))]
        sent, _ = normalize(log, Target(strict=True, call_id_length=12))
        made = [block.id for block in sent[1].blocks]
        assert len(set(made)) == 3
        assert max(map(len, made)) == 12
        assert [block.tool_call_id for block in sent[2].blocks] == made

    @EVERY
    def test_call_in_a_users_message_is_left_out(self, name: str) -> None:
        sent, repairs = normalize([user("hi", call("a"))], TARGETS[name])
        assert texts_of(sent) == ["hi"]
        assert len(sent[0].blocks) == 1
        assert kinds(repairs) == ["block_dropped"]

    @EVERY
    def test_result_in_an_assistants_message_is_moved(self, name: str) -> None:
        sent, repairs = normalize([user("hi"), assistant(call("a"), result("a"))], TARGETS[name])
        assert [m.role for m in sent] == ["user", "assistant", "tool"]
        assert kinds(repairs) == ["result_moved"]

    def test_results_of_one_user_message_and_its_text(self) -> None:
        log = [*LOOK[:2], user(result("a"), result("b"), "and now?")]
        sent, repairs = normalize(log, TARGETS["anthropic"])
        assert [(m.role, m.text) for m in sent[2:]] == [("tool", "seenseen"), ("user", "and now?")]
        assert repairs == []


class TestReasoning:
    proven = ReasoningBlock(id="rs_1", reasoning="hm", signature="s", encrypted="e")

    @pytest.mark.parametrize("name", ["responses", "anthropic"])
    def test_of_the_same_model_is_kept(self, name: str) -> None:
        target = TARGETS[name]
        mine = assistant(self.proven, "so", provider=target.provider, model=target.model)
        log = [user("hi"), mine, user("and?")]
        assert normalize(log, target) == (log, [])

    @EVERY
    @pytest.mark.parametrize(("provider", "model"), [("openai", "other"), ("anthropic", "other")])
    def test_of_another_model_is_left_out(self, name: str, provider: str, model: str) -> None:
        log = [user("hi"), assistant(self.proven, "so", provider=provider, model=model), user("?")]
        sent, repairs = normalize(log, TARGETS[name])
        assert sent[1].content == [TextBlock(text="so")]
        assert kinds(repairs) == ["reasoning_dropped"]

    @EVERY
    def test_without_proof_is_left_out(self, name: str) -> None:
        target = TARGETS[name]
        bare = ReasoningBlock(reasoning="hm")
        mine = assistant(bare, "so", provider=target.provider, model=target.model)
        sent, repairs = normalize([user("hi"), mine, user("and?")], target)
        assert texts_of(sent) == ["hi", "so", "and?"]
        assert kinds(repairs) == ["reasoning_dropped"]

    @pytest.mark.parametrize("name", ["responses", "anthropic"])
    def test_that_led_to_nothing_is_left_out(self, name: str) -> None:
        target = TARGETS[name]
        mine = assistant(self.proven, provider=target.provider, model=target.model)
        sent, repairs = normalize([user("hi"), mine, user("and?")], target)
        assert texts_of(sent) == ["hi", "and?"]
        assert kinds(repairs)[:2] == ["reasoning_dropped", "message_dropped"]

    def test_keeps_its_place_in_a_reply_of_the_same_model(self) -> None:
        first, second = (self.proven.model_copy(update={"id": each}) for each in ("r1", "r2"))
        own = assistant(
            first, "so", call("a"), second, call("b"), provider="anthropic", model=CLAUDE
        )
        log = [user("hi"), own, tool(result("a"), result("b"))]
        assert normalize(log, TARGETS["anthropic"]) == (log, [])

    def test_of_another_model_goes_back_where_the_model_reads_it(self) -> None:
        reads = Target(
            "anthropic", CLAUDE, strict=True, reads=lambda model: model == "claude-opus-5"
        )
        for model, repaired in (("claude-opus-5", []), ("claude-fable-5-1", ["reasoning_dropped"])):
            mine = assistant(self.proven, "so", provider="anthropic", model=model)
            _, repairs = normalize([user("hi"), mine, user("?")], reads)
            assert kinds(repairs) == repaired

    def test_goes_back_as_it_is_where_the_provider_says_so(self) -> None:
        bare = ReasoningBlock(reasoning="")
        mine = assistant(bare, TextBlock(text=""), "so", provider="p", model="m")
        log = [user("hi"), mine, user("?")]
        back = Target("p", "m", strict=True, takes_back=lambda block: True)
        assert normalize(log, back) == (log, [])
        assert kinds(normalize(log, Target("p", "n", strict=True))[1]) == [
            "reasoning_dropped",
            "block_dropped",
        ]

    def test_calls_of_another_model_come_last_where_they_must(self) -> None:
        log = [user("hi"), assistant(call("a"), "so"), tool(result("a"))]
        sent, repairs = normalize(log, TARGETS["anthropic"])
        assert [block.type for block in sent[1].blocks] == ["text", "tool_call"]
        assert kinds(repairs) == ["reordered"]

    def test_between_uses_of_the_providers_own_tools_is_kept(self) -> None:
        search = OtherBlock(value={"type": "server_tool_use", "id": "srv_1"})
        first, second = (self.proven.model_copy(update={"id": each}) for each in ("r1", "r2"))
        mine = assistant(first, search, second, "so", provider="anthropic", model=CLAUDE)
        log = [user("hi"), mine, user("?")]
        assert normalize(log, TARGETS["anthropic"]) == (log, [])

    def test_is_kept_behind_another_assistants_message(self) -> None:
        own = {"provider": "anthropic", "model": CLAUDE}
        log = [user("hi"), assistant("one", **own), assistant(self.proven, "two", **own), user("?")]
        sent, repairs = normalize(log, TARGETS["anthropic"])
        assert texts_of(sent) == ["hi", "one", "two", "?"]
        assert kinds(repairs) == ["merged"]

    def test_with_an_id_that_came_before_is_left_out(self) -> None:
        log = [user("hi"), assistant(self.proven, "one"), assistant(self.proven, "two"), user("?")]
        sent, repairs = normalize(log, TARGETS["responses"])
        assert [block.type for message in sent[1:3] for block in message.blocks] == [
            "reasoning",
            "text",
            "text",
        ]
        assert kinds(repairs) == ["block_dropped"]


class TestBlocks:
    @EVERY
    def test_refusals_and_media_of_an_assistant_are_put_into_words(self, name: str) -> None:
        log = [user("hi"), assistant(VideoBlock(url="https://e.org/v.mp4")), user("?")]
        sent, repairs = normalize(log, TARGETS[name])
        assert sent[1].text == "[video https://e.org/v.mp4]"
        assert kinds(repairs) == ["block_converted"]

    @pytest.mark.parametrize(
        ("block", "words"),
        [
            (RefusalBlock(refusal="no"), "no"),
            (RefusalBlock(refusal=" "), "[refused]"),
            (FileBlock(filename="a.txt", text="of it"), "[file a.txt]\nof it"),
            (FileBlock(filename="a.bin"), "[file a.bin]"),
            (AudioBlock(url="data:audio/wav;base64,aGk=", mime_type="audio/wav"), "[audio]"),
            (ImageBlock(), "[image]"),
        ],
    )
    def test_in_words(self, block: Any, words: str) -> None:
        target = Target(strict=True, takes=lambda each, in_result: each.type == "text")
        sent, _ = normalize([user("see", block)], target)
        assert [each.text for each in sent[0].blocks] == ["see", words]

    def test_in_a_result_are_converted_there(self) -> None:
        log = [*LOOK[:2], tool(result("a", [ImageBlock(url="https://e.org/a.png")]), result("b"))]
        sent, repairs = normalize(log, TARGETS["chat"])
        assert sent[2].text == "[image https://e.org/a.png]seen"
        assert [(r.kind, r.message_id) for r in repairs] == [("block_converted", log[2].id)]
        assert normalize(log, TARGETS["anthropic"]) == (log, [])

    def test_of_another_provider_are_left_out(self) -> None:
        search = OtherBlock(value=OTHERS["openai"][0])
        log = [user("hi"), assistant(search, "found"), user("?")]
        assert normalize(log, TARGETS["responses"]) == (log, [])
        sent, repairs = normalize(log, TARGETS["anthropic"])
        assert [block.type for block in sent[1].blocks] == ["text"]
        assert [(r.kind, r.detail) for r in repairs] == [
            ("block_dropped", "web_search_call of another format")
        ]

    @EVERY
    @pytest.mark.parametrize("provider", [None, "openai", "anthropic"])
    @pytest.mark.parametrize("role", ["user", "assistant"])
    @pytest.mark.parametrize("value", FOREIGN)
    def test_that_no_provider_can_be_sent_are_left_out(
        self, name: str, provider: str | None, role: str, value: dict[str, Any]
    ) -> None:
        block = OtherBlock(value=value)
        first = made(role, ["see", block]).model_copy(update={"provider": provider, "model": GPT})
        log = [first, assistant("so"), user("?")]
        sent, repairs = normalize(log, TARGETS[name])
        assert all(block.type == "text" for message in sent for block in message.blocks)
        assert "block_dropped" in kinds(repairs)
        ACCEPTED[name](sent)

    @EVERY
    @pytest.mark.parametrize(
        "content", ["", " \n", [], [TextBlock(text="")], [TextBlock(text=" ")]]
    )
    def test_an_empty_message_is_left_out(self, name: str, content: Any) -> None:
        empty = SessionMessage(role="assistant", content=content)
        sent, repairs = normalize([user("hi"), empty, user("?")], TARGETS[name])
        assert texts_of(sent) == ["hi", "?"]
        assert repairs[-1 if name != "anthropic" else -2].kind == "message_dropped"
        assert {r.message_id for r in repairs if r.kind != "merged"} == {empty.id}

    def test_spaces_between_texts_are_kept_where_they_may(self) -> None:
        log = [user("hi"), assistant("a", " ", "b"), user("?")]
        assert normalize(log, TARGETS["responses"]) == (log, [])

    def test_pictures_in_a_system_message_are_put_into_words(self) -> None:
        system = made("system", ["see", ImageBlock(url="https://e.org/a.png")])
        sent, repairs = normalize([system, user("hi")], TARGETS["responses"])
        assert sent[0].text == "see[image https://e.org/a.png]"
        assert kinds(repairs) == ["block_converted"]


class TestSpeakers:
    def test_begin_and_end_with_the_user_where_they_must(self) -> None:
        sent, repairs = normalize([assistant("so")], TARGETS["anthropic"])
        assert texts_of(sent) == [OPENING, "so", CONTINUE]
        assert kinds(repairs) == ["user_added", "user_added"]

    def test_need_not_end_with_the_user_elsewhere(self) -> None:
        log = [assistant("so")]
        assert normalize(log, TARGETS["responses"]) == (log, [])

    @EVERY
    def test_are_there_at_all(self, name: str) -> None:
        system = made("system", ["be kind"])
        sent, repairs = normalize([system], TARGETS[name])
        assert texts_of(sent) == ["be kind", CONTINUE]
        assert kinds(repairs) == ["user_added"]
        ACCEPTED[name](sent)

    def test_that_follow_each_other_are_said_to_be_merged(self) -> None:
        log = [user("one"), user("two"), assistant("a"), assistant("b"), user("three")]
        sent, repairs = normalize(log, TARGETS["anthropic"])
        assert sent == log
        assert [(r.kind, r.message_id) for r in repairs] == [
            ("merged", log[1].id),
            ("merged", log[3].id),
        ]
        assert normalize(log, TARGETS["chat"]) == (log, [])


class TestLenient:
    """A provider that says nothing of what it takes is spared unpaired calls, and no more."""

    def test_gets_blocks_and_empty_messages_as_they_are(self) -> None:
        blocks = [
            VideoBlock(),
            TextBlock(text=""),
            ReasoningBlock(reasoning="hm"),
            call("a b", "é"),
        ]
        log = [assistant(*blocks), tool(result("a b")), assistant(""), made("system", [""])]
        assert normalize(log, Target()) == (log, [])

    def test_gets_no_call_without_result_nor_the_reverse(self) -> None:
        sent, repairs = normalize([tool(result("x")), assistant(call("a"))], Target())
        assert [message.role for message in sent] == ["user", "assistant", "tool"]
        assert kinds(repairs) == ["result_dropped", "user_added", "call_answered"]

    def test_gets_no_call_or_result_out_of_a_result_that_names_no_call(self) -> None:
        inner = [call("a"), result("b", [result("c")]), TextBlock(text="so")]
        for role in ("user", "assistant"):
            log = [made(role, [result("", inner)])]
            sent, repairs = normalize(log, Target())
            assert {block.type for message in sent for block in message.blocks} == {"text"}
            assert kinds(repairs) == ["block_converted", "block_dropped"]
            assert normalize(sent, Target()) == (sent, [])

    def test_gets_something(self) -> None:
        sent, repairs = normalize([tool(result("x"))], Target())
        assert texts_of(sent) == [CONTINUE]
        assert kinds(repairs) == ["result_dropped", "user_added"]

    @given(log=cut_logs())
    @settings(max_examples=50)
    def test_is_changed_once(self, log: list[SessionMessage]) -> None:
        sent, _ = normalize(log, Target())
        assert normalize(sent, Target()) == (sent, [])


def test_repairs_are_told_as_json() -> None:
    repairs = [Repair(kind=RepairKind.USER_ADDED, detail="at the end")]
    assert describe_repairs(repairs) == [{"kind": "user_added", "detail": "at the end"}]


# What goes on from requests before


PLACEMENTS = [
    *TARGETS.values(),
    *(
        replace(TARGETS["anthropic"], system=place, answers_results=notes, call_id_exact=exact)
        for place in SystemPlacement
        for notes, exact in ((False, None), (True, 9))
    ),
    *(replace(TARGETS["responses"], system=place, needs_user=True) for place in SystemPlacement),
    Target(),
    Target(system=SystemPlacement.FIRST),
]

HOSTED = [
    {"type": "computer_call", "id": "cu", "call_id": "a", "action": {"type": "screenshot"}},
    {"type": "shell_call", "id": "sh", "call_id": "a", "action": {"commands": ["ls"]}},
    {
        "type": "mcp_approval_request",
        "id": "a",
        "arguments": "{}",
        "name": "n",
        "server_label": "s",
    },
]
ANSWERS = [
    {"type": "computer_call_output", "call_id": "a", "output": {"type": "computer_screenshot"}},
    {"type": "shell_call_output", "call_id": "a", "output": []},
    {"type": "mcp_approval_response", "approval_request_id": "a", "approve": True},
]


@st.composite
def hosted(draw: st.DrawFn) -> list[SessionMessage]:
    """A call of the provider's own format and what answers it, if anything, sooner or later."""
    number = draw(st.integers(0, len(HOSTED) - 1))
    calling = assistant("now", OtherBlock(value=HOSTED[number]))
    answering = user(OtherBlock(value=ANSWERS[number]), *draw(st.lists(texts, max_size=1)))
    others = [[], [answering], [user("wait"), answering], [assistant("so"), answering]]
    return [calling, *draw(st.sampled_from(others))]


def said_in(messages: Sequence[SessionMessage]) -> list[tuple[str, Any]]:
    return [(message.role.value, message.blocks) for message in messages]


class TestAppendOnly:
    """What a reply was made to is sent as it was, whatever the log goes on with."""

    @given(
        parts=st.lists(odd_logs() | hosted(), min_size=1, max_size=3),
        target=st.sampled_from(PLACEMENTS),
    )
    @settings(max_examples=400)
    def test_any_log(self, parts: list[list[SessionMessage]], target: Target) -> None:
        log = numbered(parts)
        whole = said_in(normalize(log, target)[0])
        if target.system is SystemPlacement.FIRST:  # a later system message is a new beginning
            whole = [each for each in whole if each[0] != "system"]
        for place, message in enumerate(log):
            before = log[place - 1].role if place else MessageRole.ASSISTANT
            if message.role is MessageRole.ASSISTANT and before in ("user", "tool", "function"):
                sent, _ = normalize(log[:place], target)
                asked = said_in(sent)
                if target.system is SystemPlacement.FIRST:
                    asked = [each for each in asked if each[0] != "system"]
                assert whole[: len(asked)] == asked

    def test_a_user_that_was_added_stays(self) -> None:
        log = [user("hi"), assistant("so"), user(" "), assistant("yes"), user("?")]
        sent, repairs = normalize(log, TARGETS["anthropic"])
        assert texts_of(sent) == ["hi", "so", CONTINUE, "yes", "?"]
        assert kinds(repairs) == ["block_dropped", "message_dropped", "user_added"]


NINE = re.compile(r"[a-zA-Z0-9]{9}")


def written(log: Sequence[SessionMessage], dialect: Dialect) -> list[dict[str, Any]]:
    """What a server is sent that speaks a dialect, messages in a row not yet joined."""
    provider = OpenAIProviderSession("key", mode="chat", dialect=dialect)
    sent, _ = normalize(log, provider.target(context_of("openai", GPT), {}))
    return openai_chat.to_chat(sent, dialect, provider="openai", model=GPT)


class TestDialects:
    """Any log is sent as the strictest servers take it, and grows as the log does."""

    @given(log=cut_logs(), dialect=st.sampled_from(sorted(DIALECTS)))
    @settings(max_examples=300)
    def test_any_log(self, log: list[SessionMessage], dialect: str) -> None:
        speaks = DIALECTS[dialect]
        sent = written(log, speaks)
        if speaks.alternates:
            sent = openai_chat.in_turn(sent)
        roles = [message["role"] for message in sent]
        if speaks.system is SystemPlacement.FIRST:
            assert "system" not in roles[1:]
        if speaks.alternates:
            spoken = [role for role in roles if role in ("user", "assistant", "tool")]
            assert spoken[0] == "user"
            assert spoken[-1] != "assistant"
            pairs = set(itertools.pairwise(spoken))
            assert not pairs & {("user", "user"), ("assistant", "assistant"), ("user", "tool")}
        if speaks.answers_results:
            assert ("tool", "user") not in itertools.pairwise(roles)
        if speaks.needs_user:
            assert roles[-1] != "assistant"
        calls = [call for message in sent for call in message.get("tool_calls", ())]
        if speaks.call_id_exact:
            assert all(NINE.fullmatch(call["id"]) for call in calls)
        answered = [message["tool_call_id"] for message in sent if message["role"] == "tool"]
        assert sorted(call["id"] for call in calls) == sorted(answered)
        for message in sent:
            assert "content" in message
            assert speaks.takes_names or "name" not in message
            if speaks.needs_reasoning and message.get("tool_calls"):
                assert speaks.needs_reasoning in message

    @given(log=odd_logs(), dialect=st.sampled_from(sorted(DIALECTS)))
    @settings(max_examples=150)
    def test_requests_grow_as_the_log_does(self, log: list[SessionMessage], dialect: str) -> None:
        speaks = DIALECTS[dialect]
        log = [m for m in log if m.role is not MessageRole.SYSTEM or not m.text.strip()]
        whole = written(log, speaks)
        for place, message in enumerate(log):
            before = log[place - 1].role if place else MessageRole.ASSISTANT
            if message.role is MessageRole.ASSISTANT and before in ("user", "tool", "function"):
                asked = written(log[:place], speaks)
                assert whole[: len(asked)] == asked


class TestSystemMessages:
    log = [
        made("system", ["be kind"]),
        user("hi"),
        assistant("hello"),
        made("system", ["be brief"]),
        user("so?"),
    ]

    def sent(self, place: SystemPlacement, log: list[SessionMessage]) -> Any:
        sent, repairs = normalize(log, Target("p", "m", strict=True, system=place))
        return texts_of(sent), kinds(repairs)

    def test_stay_where_they_were_said(self) -> None:
        said = texts_of(self.log)
        assert self.sent(SystemPlacement.ANYWHERE, self.log) == (said, [])

    def test_go_behind_the_user(self) -> None:
        said = ["be kind", "hi", "hello", "so?", "be brief"]
        assert self.sent(SystemPlacement.AFTER_USER, self.log) == (said, ["system_moved"])
        again = [*self.log, assistant("yes"), user("and?")]
        more = [*said, "yes", "and?"]
        assert self.sent(SystemPlacement.AFTER_USER, again) == (more, ["system_moved"])

    def test_go_behind_results(self) -> None:
        log = [user("hi"), assistant(call("a")), made("system", ["be brief"]), tool(result("a"))]
        said = ["hi", "", "seen", "be brief"]
        assert self.sent(SystemPlacement.AFTER_USER, log) == (said, ["result_moved"])

    def test_stay_behind_the_user_where_they_are(self) -> None:
        log = [*self.log[:3], self.log[4], self.log[3]]
        assert self.sent(SystemPlacement.AFTER_USER, log) == (texts_of(log), [])

    def test_stay_before_an_assistant_whose_reply_cannot_be_sent(self) -> None:
        """Anthropic refuses a system message that "must precede an 'assistant' message"."""
        log = [user("hi"), made("system", ["be brief"]), assistant(), user("so?")]
        said = ["hi", "be brief", "Noted.", "so?"]
        kinds_of_repairs = ["message_dropped", "assistant_added"]
        assert self.sent(SystemPlacement.AFTER_USER, log) == (said, kinds_of_repairs)

    def test_go_behind_what_continues_a_conversation(self) -> None:
        log = [made("system", ["be brief"]), user("hi")]
        target = Target("p", "m", strict=True, system=SystemPlacement.AFTER_USER)
        sent, _ = normalize(log, target, open_calls=[])
        assert texts_of(sent) == ["hi", "be brief"]

    def test_are_joined_at_the_start(self) -> None:
        said = ["be kind\n\nbe brief", "hi", "hello", "so?"]
        assert self.sent(SystemPlacement.FIRST, self.log) == (said, ["system_moved"])
        late = self.log[1:]
        said = ["be brief", "hi", "hello", "so?"]
        assert self.sent(SystemPlacement.FIRST, late) == (said, ["system_moved"])
        assert self.sent(SystemPlacement.FIRST, self.log[:3])[1] == []


class TestHostedCalls:
    """Calls of a provider's own format: they and their answers go together, or not at all."""

    @pytest.mark.parametrize("number", range(len(HOSTED)))
    def test_with_its_answer_behind_it(self, number: int) -> None:
        calling, answer = OtherBlock(value=HOSTED[number]), OtherBlock(value=ANSWERS[number])
        log = [user("go"), assistant(calling), user(answer), assistant("so"), user("?")]
        assert normalize(log, TARGETS["responses"]) == (log, [])
        late = [user("go"), assistant(calling), user("wait"), user(answer)]
        sent, repairs = normalize(late, TARGETS["responses"])
        assert [m.id for m in sent] == [late[n].id for n in (0, 1, 3, 2)]
        assert kinds(repairs) == ["result_moved"]

    @pytest.mark.parametrize("number", range(len(HOSTED)))
    def test_that_nothing_answers_is_put_into_words(self, number: int) -> None:
        calling, answer = OtherBlock(value=HOSTED[number]), OtherBlock(value=ANSWERS[number])
        thought = ReasoningBlock(id="rs_1", encrypted="e")
        log = [user("go"), assistant(thought, calling), user("stop"), assistant("so"), user(answer)]
        sent, repairs = normalize(log, TARGETS["responses"])
        assert [block.type for message in sent for block in message.blocks] == ["text"] * 5
        assert f"[{HOSTED[number]['type']}]" in sent[1].text
        assert f"[{ANSWERS[number]['type']}]" in sent[4].text
        assert kinds(repairs) == ["block_converted", "reasoning_dropped", "block_converted"]

    def test_an_answer_without_its_call_is_left_out(self) -> None:
        log = [user("go"), assistant("so"), user("?", OtherBlock(value=ANSWERS[0]))]
        sent, repairs = normalize(log, TARGETS["responses"])
        assert texts_of(sent) == ["go", "so", "?"]
        assert len(sent[2].blocks) == 1
        assert kinds(repairs) == ["result_dropped"]

    def test_an_answer_to_a_call_that_the_provider_holds_stays(self) -> None:
        log = [user(OtherBlock(value=ANSWERS[0]))]
        assert normalize(log, TARGETS["conversations"], open_calls=[]) == (log, [])

    @pytest.mark.parametrize("name", ["call_id", "id"])
    def test_of_a_local_shell_by_either_field(self, name: str) -> None:
        calling = {"type": "local_shell_call", "id": "lsh", "call_id": "a", "action": {}}
        answer = {"type": "local_shell_call_output", "id": "out", "output": "{}", name: "a"}
        log = [user("go"), assistant(OtherBlock(value=calling)), user(OtherBlock(value=answer))]
        assert normalize(log, TARGETS["responses"]) == (log, [])


class TestIdsOfALength:
    def test_are_made_of_what_they_were(self) -> None:
        target = Target("p", "m", strict=True, call_id_exact=9)
        ids = ["abcdef123", "call_1", "abc-ef123"]
        log = [user("look"), assistant(*map(call, ids)), tool(*map(result, ids))]
        sent, _ = normalize(log, target)
        made = [block.id for block in sent[1].blocks]
        assert made[0] == ids[0]
        assert all(len(each) == 9 and each.isalnum() for each in made)
        assert [block.tool_call_id for block in sent[2].blocks] == made
        assert len(set(made)) == 3
        longer = [*log, assistant(call("call_1")), tool(result("call_1"))]
        assert normalize(longer, target)[0][:3] == sent


class TestResultsAndUsers:
    def test_have_the_assistant_between_them_where_they_must(self) -> None:
        target = Target("p", "m", strict=True, answers_results=True)
        sent, repairs = normalize([*LOOK, user("well?")], target)
        assert [(m.role, m.text) for m in sent[-2:]] == [("assistant", NOTED), ("user", "well?")]
        assert kinds(repairs) == ["assistant_added"]

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from provider_server.client import ServerWorld
from pydantic import Field

from langswarm_session import (
    BaseSession,
    ImageBlock,
    InvalidInputError,
    MockProviderSession,
    SessionContext,
    SessionManager,
    SessionMessage,
    TextBlock,
    Tool,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.tools import as_tool, as_tools, to_anthropic, to_chat, to_responses

CONTEXT = SessionContext(session_id="s", user_id="ann", provider="mock", model="echo")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

RESPONSES = {
    "type": "function",
    "name": "weather",
    "description": "The weather.",
    "parameters": SCHEMA,
    "strict": True,
}
CHAT = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": SCHEMA,
        "strict": True,
    },
}
ANTHROPIC = {
    "name": "weather",
    "description": "The weather.",
    "input_schema": SCHEMA,
    "strict": True,
}


def weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C") -> str:
    """The weather of a city."""
    return f"{city}: fine for {days} days in {unit}"


async def whose(question: str, context: SessionContext) -> str:
    return f"{context.user_id}: {question}"


class TestFromFunction:
    def test_takes_name_docstring_and_parameters(self) -> None:
        tool = Tool.from_function(weather)
        assert (tool.name, tool.description) == ("weather", "The weather of a city.")
        assert tool.parameters["required"] == ["city"]
        properties = tool.parameters["properties"]
        assert list(properties) == ["city", "days", "unit"]
        assert properties["city"]["type"] == "string"
        assert properties["days"]["default"] == 1
        assert properties["unit"]["enum"] == ["C", "F"]
        assert tool.parameters["additionalProperties"] is False

    def test_takes_descriptions_of_parameters(self) -> None:
        def look(at: Annotated[str, Field(description="What to look at.")], times: int = 3) -> None:
            pass

        assert look("x") is None
        properties = Tool.from_function(look).parameters["properties"]
        assert properties["at"]["description"] == "What to look at."

    def test_leaves_out_the_context(self) -> None:
        assert list(Tool.from_function(whose).parameters["properties"]) == ["question"]

    def test_of_a_function_without_parameters(self) -> None:
        parameters = Tool.from_function(lambda: "x", "nothing").parameters
        assert parameters["type"] == "object"
        assert parameters["properties"] == {}

    @pytest.mark.parametrize("name", ["schema", "json", "copy", "model_dump", "_hidden", "self_"])
    async def test_parameters_may_have_any_name(self, name: str, session: BaseSession) -> None:
        scope: dict[str, Any] = {}
        exec(f"def tool({name}: str) -> str:\n    return {name}", scope)
        tool = Tool.from_function(scope["tool"])
        assert list(tool.parameters["properties"]) == [name]
        answer = await session.call_tools(asking("tool", {name: "x"}), [tool])
        assert answer.text == "x"

    @pytest.mark.parametrize("function", [lambda *args: 1, lambda **named: 1])
    def test_refuses_parameters_without_names(self, function: Callable[..., Any]) -> None:
        with pytest.raises(InvalidInputError, match="has no name"):
            Tool.from_function(function, "tool")

    def test_refuses_what_no_schema_describes(self) -> None:
        def tool(given: object) -> None:
            assert given

        tool.__annotations__["given"] = type("Odd", (), {})
        with pytest.raises(InvalidInputError, match="cannot be described"):
            Tool.from_function(tool)

    @pytest.mark.parametrize("name", ["", "a b", "<lambda>", "x" * 65, "é"])
    def test_refuses_a_name_that_no_model_may_say(self, name: str) -> None:
        with pytest.raises(InvalidInputError, match="name"):
            Tool(name)


class TestDefinitions:
    @pytest.mark.parametrize(
        "given", [RESPONSES, CHAT, ANTHROPIC], ids="responses chat anth".split()
    )
    def test_go_to_every_provider(self, given: dict[str, Any]) -> None:
        tool = as_tool(given)
        assert to_responses(tool) == RESPONSES
        assert to_chat(tool) == CHAT
        assert to_anthropic(tool) == ANTHROPIC

    @pytest.mark.parametrize(
        ("given", "to"),
        [
            ({**RESPONSES, "defer_loading": True}, to_responses),
            ({**CHAT, "extra": 1}, to_chat),
            ({**ANTHROPIC, "cache_control": {"type": "ephemeral"}}, to_anthropic),
            ({"type": "custom", **ANTHROPIC}, to_anthropic),
        ],
    )
    def test_go_as_they_are_to_where_they_fit(
        self, given: dict[str, Any], to: Callable[..., Any]
    ) -> None:
        assert to(as_tool(given)) == given

    def test_of_the_least(self) -> None:
        tool = as_tool({"name": "look"})
        empty = {"type": "object", "properties": {}}
        assert to_responses(tool)["parameters"] == empty
        assert to_chat(tool)["function"]["parameters"] == empty
        assert to_anthropic(tool) == {"name": "look", "input_schema": empty}

    @pytest.mark.parametrize("to", [to_responses, to_chat, to_anthropic])
    @pytest.mark.parametrize(
        "hosted",
        [
            {"type": "web_search"},
            {"type": "web_search_20250305", "name": "web_search"},
            {"type": "custom", "name": "grammar"},
        ],
    )
    def test_of_hosted_tools_go_as_they_are(
        self, hosted: dict[str, Any], to: Callable[..., Any]
    ) -> None:
        assert to(as_tool(hosted)) == hosted

    @pytest.mark.parametrize("given", [3, None, {}, {"name": ""}, {"type": "function"}, "weather"])
    def test_others_are_refused(self, given: Any) -> None:
        with pytest.raises(InvalidInputError):
            as_tool(given)

    @pytest.mark.parametrize("given", [RESPONSES, "tools", b"tools", 3, None])
    def test_tools_are_a_list(self, given: Any) -> None:
        with pytest.raises(InvalidInputError, match="list"):
            as_tools(given)

    async def test_are_looked_at_before_anything_is_stored(self, session: BaseSession) -> None:
        with pytest.raises(InvalidInputError):
            await session.send_message("hi", tools=[{"name": "a b"}])
        assert await session.get_messages() == []


def asking(name: str, args: dict[str, Any], **fields: Any) -> SessionMessage:
    call = ToolCallBlock(id="c1", name=name, args=args, **fields)
    return SessionMessage(role="assistant", content=[TextBlock(text="I look"), call])


def only_result(message: SessionMessage) -> ToolResultBlock:
    (block,) = message.blocks
    assert isinstance(block, ToolResultBlock)
    return block


@dataclass
class Counter:
    """Counts up."""

    count: int = 0

    def up(self, by: int) -> int:
        """Count up."""
        self.count += by
        return self.count

    def __call__(self, by: int) -> int:
        return self.up(by)


def with_context(text: str, where: SessionContext | None = None, /) -> str:
    return f"{text} {where.session_id if where else '-'}"


class TestCalling:
    async def test_gives_one_message_with_all_results(self, session: BaseSession) -> None:
        calls = [ToolCallBlock(id=each, name="weather", args={"city": each}) for each in "ab"]
        reply = SessionMessage(role="assistant", content=[*calls])
        answer = await session.call_tools(reply, [weather])
        assert answer.role == "tool"
        assert [b.tool_call_id for b in answer.blocks if isinstance(b, ToolResultBlock)] == [
            "a",
            "b",
        ]
        assert not any(b.is_error for b in answer.blocks if isinstance(b, ToolResultBlock))
        assert "a: fine for 1 days in C" in answer.text

    async def test_waits_for_async_tools_and_gives_the_context(self, session: BaseSession) -> None:
        answer = await session.call_tools(asking("whose", {"question": "x"}), [whose])
        assert answer.text == "user123: x"

    async def test_gives_the_context_wherever_it_is_named(self, session: BaseSession) -> None:
        answer = await session.call_tools(asking("with_context", {"text": "x"}), [with_context])
        assert answer.text == f"x {session.session_id}"

    async def test_of_methods_objects_and_partials(self, session: BaseSession) -> None:
        counter = Counter()
        by_two = functools.partial(counter.up, 2)
        tools = [
            counter.up,
            Tool.from_function(counter, "object"),
            Tool.from_function(by_two, "partial"),
        ]
        for name, args, text in (("up", {"by": 3}, "3"), ("object", {"by": 1}, "4"), ("partial", {}, "6")):  # fmt: skip
            assert (await session.call_tools(asking(name, args), tools)).text == text

    @pytest.mark.parametrize(
        ("returned", "text"),
        [
            ("text", "text"),
            (None, "null"),
            ({"a": [1, 2.5]}, '{"a":[1,2.5]}'),
            ([], "[]"),
            (CONTEXT, CONTEXT.model_dump_json()),
            ({1, 2} and object, "\"<class 'object'>\""),
        ],
    )
    async def test_anything_becomes_text(
        self, session: BaseSession, returned: Any, text: str
    ) -> None:
        answer = await session.call_tools(asking("tool", {}), [Tool.from_function(lambda: returned, "tool")])  # fmt: skip
        assert only_result(answer).content == text
        assert not only_result(answer).is_error

    async def test_blocks_stay_blocks(self, session: BaseSession) -> None:
        image = ImageBlock(url="https://e.org/a.png")
        for returned in (image, [TextBlock(text="see"), image]):
            tool = Tool.from_function(lambda returned=returned: returned, "tool")
            answer = await session.call_tools(asking("tool", {}), [tool])
            blocks = returned if isinstance(returned, list) else [returned]
            assert only_result(answer).content == blocks

    @pytest.mark.parametrize(
        ("name", "args", "says"),
        [
            ("weather", {}, "the arguments do not fit: city"),
            ("weather", {"city": "x", "day": 2}, "the arguments do not fit"),
            ("weather", {"city": "x", "unit": "K"}, "the arguments do not fit"),
            ("nobody", {}, "there is no tool 'nobody'"),
            ("declared", {}, "there is no tool 'declared'"),
            ("broken", {}, "ZeroDivisionError: division by zero"),
        ],
    )
    async def test_errors_are_results(
        self, session: BaseSession, name: str, args: dict[str, Any], says: str
    ) -> None:
        def broken() -> float:
            return 1 / 0

        result = only_result(
            await session.call_tools(asking(name, args), [weather, broken, {"name": "declared"}])
        )
        assert result.is_error
        assert says in str(result.content)
        assert (result.tool_call_id, result.name) == ("c1", name)

    async def test_an_error_that_cannot_say_itself_is_one(self, session: BaseSession) -> None:
        class SpeechlessError(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        def broken() -> None:
            raise SpeechlessError

        result = only_result(await session.call_tools(asking("broken", {}), [broken]))
        assert (result.content, result.is_error) == ("SpeechlessError", True)

    @pytest.mark.parametrize("reply", [None, "x", [], ToolCallBlock(name="weather")], ids=range(4))
    async def test_of_what_is_no_reply(self, session: BaseSession, reply: Any) -> None:
        with pytest.raises(InvalidInputError, match="reply is a SessionMessage") as caught:
            await session.call_tools(reply, [weather])
        assert caught.value.session_id == session.session_id

    async def test_text_that_cannot_be_stored_is_an_error(self, session: BaseSession) -> None:
        tool = Tool.from_function(lambda: "\ud800", "tool")
        assert only_result(await session.call_tools(asking("tool", {}), [tool])).is_error

    async def test_arguments_that_were_no_json_are_not_left_out(self, session: BaseSession) -> None:
        reply = asking("tool", {}, extras={"arguments": "{bad"})
        result = only_result(
            await session.call_tools(reply, [Tool.from_function(lambda: "deleted", "tool")])
        )
        assert result.is_error
        assert result.content == "the arguments are no JSON object"

    async def test_of_a_reply_without_calls(self, session: BaseSession) -> None:
        with pytest.raises(InvalidInputError, match="calls no tool"):
            await session.call_tools(SessionMessage(role="assistant", content="hi"), [weather])


class TestInASession:
    async def test_with_the_mock(self, session: BaseSession, mock: MockProviderSession) -> None:
        mock.script(ToolCallBlock(id="c1", name="weather", args={"city": "Oslo"}))
        reply = await session.send_message("And the weather?", tools=[weather])
        answer = await session.send_message(await session.call_tools(reply, [weather]))
        assert answer.text == "You said: Oslo: fine for 1 days in C"

    @pytest.mark.parametrize(
        ("provider", "model", "mode"),
        [
            ("openai", "gpt-5.4", "conversations"),
            ("openai", "gpt-5.4", "responses"),
            ("openai", "gpt-5.4", "chat"),
            ("anthropic", "claude-opus-5-5", "messages"),
        ],
    )
    @pytest.mark.parametrize("tool", [weather, RESPONSES, CHAT, ANTHROPIC, as_tool(weather)])
    async def test_with_both_vendors(
        self, world: ServerWorld, provider: str, model: str, mode: str, tool: Any
    ) -> None:
        url = world.openai_url if provider == "openai" else world.anthropic_url
        options = {"api_key": world.key, "base_url": url, "mode": mode}
        async with SessionManager("memory", {provider: options}) as manager:
            session = await manager.create_session("ann", provider, model)
            reply = await session.send_message('call weather {"city": "Oslo"}', tools=[tool])
            assert reply.finish_reason == "tool_calls"
            results = await session.call_tools(reply, [weather])
            answer = await session.send_message(results, tools=[tool])
        assert answer.text.endswith("The last says: Oslo: fine for 1 days in C")
        assert "repairs" not in answer.metadata["langswarm"]

"""Tools: what a model may call, defined once for every provider, and run with the session at hand."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model
from pydantic_core import PydanticSerializationError, to_json

from langswarm_session.blocks import ToolCallBlock, ToolResultBlock
from langswarm_session.checks import describe
from langswarm_session.errors import InvalidInputError
from langswarm_session.models import MessageRole, SessionContext, SessionMessage





@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that a model may call.

    Attributes:
        name: What the model calls it by: letters, digits, ``_`` and ``-``.
        description: What it does, for the model.
        parameters: Its arguments as a JSON Schema of type object.
        function: What runs it, sync or async, if it is run here.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )
    function: Callable[..., Any] | None = None

    @classmethod
    def from_function(cls, function: Callable[..., Any], name: str | None = None) -> Tool:
        """A tool from a function: its name, docstring and annotated parameters.

        A parameter annotated `SessionContext` is not the model's to give: it gets the context of
        the session that the call was made in.

        Raises:
            InvalidInputError: If a parameter's annotation has no JSON Schema.
        """
        chosen = name or getattr(function, "__name__", "tool")
        try:
            schema = _model(function).model_json_schema()
        except Exception as error:
            raise InvalidInputError(
                f"the tool {chosen!r} cannot be described to a model: {error}"
            ) from error
        schema.pop("title", None)
        schema.setdefault("properties", {})
        return cls(chosen, inspect.getdoc(function) or "", schema, function)


def as_tool(given: Any) -> Tool | dict[str, Any]:
    """A tool from whatever a caller gave; what is none of ours (a hosted tool) as it is.

    Raises:
        InvalidInputError: If it is no tool.
    """
    if isinstance(given, Tool):
        return given
    if isinstance(given, Mapping):
        definition = given.get("function") if given.get("type") == "function" else None
        definition = definition if isinstance(definition, Mapping) else given
        hosted = given.get("type", "function") not in ("function", "custom")
        name = definition.get("name")
        schema = definition.get("parameters", definition.get("input_schema"))
        if hosted or given.get("type") == "custom" and schema is None:
            return dict(given)
        if isinstance(name, str) and name:
            description = str(definition.get("description") or "")
            return Tool(name, description, schema or {"type": "object", "properties": {}})
    elif callable(given):
        return Tool.from_function(given)
    raise InvalidInputError(
        f"a tool is a function, a Tool or a definition with a name, not {type(given).__name__}"
    )


def as_tools(given: Any) -> list[Tool | dict[str, Any]]:
    """The tools of a request.

    Raises:
        InvalidInputError: If one of them is no tool.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InvalidInputError("tools is a list of functions, Tools or definitions")
    return [as_tool(each) for each in given]


def to_responses(tool: Tool | dict[str, Any]) -> dict[str, Any]:
    """A tool as OpenAI's Responses API has it."""
    if isinstance(tool, dict):
        return tool
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
        "strict": False,
    }


def to_chat(tool: Tool | dict[str, Any]) -> dict[str, Any]:
    """A tool as OpenAI's Chat Completions API has it."""
    if isinstance(tool, dict):
        return tool
    definition = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    return {"type": "function", "function": definition}


def to_anthropic(tool: Tool | dict[str, Any]) -> dict[str, Any]:
    """A tool as Anthropic's Messages API has it."""
    if isinstance(tool, dict):
        return tool
    schema = {"type": "object", **tool.parameters}
    description = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, "input_schema": schema, **description}


async def call_tools(
    reply: SessionMessage, tools: Sequence[Any], context: SessionContext
) -> SessionMessage:
    """Run the tools that a reply calls, one after the other.

    A tool that raises, an unknown one and arguments that do not fit give a result that says so,
    marked as an error: the model can correct itself, and no call is left without a result.

    Args:
        reply: The reply with the calls.
        tools: What was offered: functions, or Tools with one.
        context: For the tools that ask for it.

    Returns:
        One message with all results, to be sent next.

    Raises:
        InvalidInputError: If the reply calls no tool.
    """
    known = {tool.name: tool for tool in as_tools(tools) if isinstance(tool, Tool)}
    calls = [block for block in reply.blocks if isinstance(block, ToolCallBlock)]
    if not calls:
        raise InvalidInputError("the reply calls no tool", session_id=context.session_id)
    results = [await _call(call, known.get(call.name), context) for call in calls]
    return SessionMessage(role=MessageRole.TOOL, content=list(results))


async def _call(call: ToolCallBlock, tool: Tool | None, context: SessionContext) -> ToolResultBlock:
    text, is_error = "", True
    if tool is None or tool.function is None:
        text = f"there is no tool {call.name!r}"
    else:
        try:
            text, is_error = await _run(tool.function, call.args, context), False
        except ValidationError as error:
            text = f"the arguments do not fit: {describe(error)}"
        except Exception as error:  # whatever a tool raises is its result
            text = f"{type(error).__name__}: {error}"
    return ToolResultBlock(
        tool_call_id=call.id or "", name=call.name, content=text, is_error=is_error
    )


async def _run(
    function: Callable[..., Any], arguments: Mapping[str, Any], context: SessionContext
) -> str:
    checked = _model(function).model_validate(dict(arguments))
    values = {name: getattr(checked, name) for name in type(checked).model_fields}
    for name, hint in _hints(function).items():
        if hint is SessionContext:
            values[name] = context
    result = function(**values)
    if inspect.isawaitable(result):
        result = await result
    return result if isinstance(result, str) else _as_text(result)


def _as_text(result: Any) -> str:
    try:
        return to_json(result).decode()
    except PydanticSerializationError:
        return json.dumps(result, default=str)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(function, include_extras=True)


def _model(function: Callable[..., Any]) -> Any:
    """A pydantic model of the parameters that a model gives."""
    hints = _hints(function)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints.get(name, Any)
        if hint is SessionContext:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InvalidInputError(f"the parameter *{name} has no name for a model to give")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (hint, default)
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
    return create_model("Arguments", __config__=config, **fields)

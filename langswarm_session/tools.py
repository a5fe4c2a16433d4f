"""Tools: what a model may call, defined once for every provider, run with the session at hand."""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticSerializationError, to_json

from langswarm_session._validation import describe, said_by
from langswarm_session.blocks import (
    AudioBlock,
    Block,
    FileBlock,
    ImageBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    VideoBlock,
)
from langswarm_session.errors import InvalidInputError
from langswarm_session.models import MessageRole, SessionContext, SessionMessage

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

_BLOCKS = (TextBlock, ImageBlock, AudioBlock, VideoBlock, FileBlock)
"""What a result may hold beside text."""

_NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that a model may call.

    Attributes:
        name: What the model calls it by: letters, digits, ``_`` and ``-``, 64 at most.
        description: What it does, for the model.
        parameters: Its arguments as a JSON Schema of type object.
        function: What runs it, sync or async, if it is run here.
        strict: Whether the provider is to hold the model to the schema, where it can.
        given: The definition that it was made from: it goes as it is to where it fits.

    Raises:
        InvalidInputError: If a model cannot call it by its name.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=_NOTHING.copy)
    function: Callable[..., Any] | None = None
    strict: bool = False
    given: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InvalidInputError(
                f"a tool's name is 1 to 64 letters, digits, _ or -, not {self.name!r}"
            )

    @classmethod
    def from_function(cls, function: Callable[..., Any], name: str | None = None) -> Tool:
        """Return a tool from a function: its name, docstring and annotated parameters.

        A parameter annotated `SessionContext` is not the model's to give: it gets the context of
        the session that the call was made in.

        Raises:
            InvalidInputError: If a parameter's annotation has no JSON Schema.
        """
        chosen = name or str(getattr(_routine(function), "__name__", "tool"))
        try:
            schema = _model(function).model_json_schema()
        except Exception as error:
            raise InvalidInputError(
                f"the tool {chosen!r} cannot be described to a model: {error}"
            ) from error
        schema.pop("title", None)
        schema.setdefault("properties", {})
        return cls(chosen, inspect.getdoc(_routine(function)) or "", schema, function)


def as_tool(given: Any) -> Tool | dict[str, Any]:
    """Return a tool from a function, a `Tool` or a definition; a hosted tool as it is.

    Definitions may have the shape of OpenAI's Responses or Chat Completions or of Anthropic's
    Messages.

    Raises:
        InvalidInputError: If it is not a tool.
    """
    if isinstance(given, Tool):
        return given
    if isinstance(given, Mapping):
        return _of_definition(given)
    if callable(given):
        return Tool.from_function(given)
    raise InvalidInputError(
        f"a tool is a function, a Tool or a definition with a name, not {type(given).__name__}"
    )


def _of_definition(given: Mapping[str, Any]) -> Tool | dict[str, Any]:
    kind = given.get("type") or "function"
    if kind not in ("function", "custom") or (kind == "custom" and "input_schema" not in given):
        return dict(given)
    nested = given.get("function")
    definition = nested if isinstance(nested, Mapping) else given
    schema = definition.get("parameters", definition.get("input_schema"))
    return Tool(
        name=str(definition.get("name") or ""),
        description=str(definition.get("description") or ""),
        parameters=schema or _NOTHING,
        strict=definition.get("strict") is True,
        given=dict(given),
    )


def as_tools(given: Any) -> list[Tool | dict[str, Any]]:
    """Return the tools of a request.

    Raises:
        InvalidInputError: If one of them is not a tool.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InvalidInputError("tools is a list of functions, Tools or definitions")
    return [as_tool(each) for each in given]


def to_responses(tool: Tool | dict[str, Any]) -> dict[str, Any]:
    """Return a tool as OpenAI's Responses API has it."""
    if isinstance(tool, dict):
        return tool
    if _is_given(tool, "parameters") and tool.given is not None and "type" in tool.given:
        return {"strict": False, **tool.given}
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
        "strict": tool.strict,
    }


def to_chat(tool: Tool | dict[str, Any]) -> dict[str, Any]:
    """Return a tool as OpenAI's Chat Completions API has it."""
    if isinstance(tool, dict):
        return tool
    if _is_given(tool, "function") and tool.given is not None:
        return {**tool.given, "type": "function"}
    definition = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
        **({"strict": True} if tool.strict else {}),
    }
    return {"type": "function", "function": definition}


def to_anthropic(tool: Tool | dict[str, Any]) -> dict[str, Any]:
    """Return a tool as Anthropic's Messages API has it."""
    if isinstance(tool, dict):
        return tool
    if _is_given(tool, "input_schema") and tool.given is not None:
        return dict(tool.given)
    made: dict[str, Any] = {
        "name": tool.name,
        "input_schema": {"type": "object", **tool.parameters},
    }
    if tool.description:
        made["description"] = tool.description
    return {**made, "strict": True} if tool.strict else made


def _is_given(tool: Tool, key: str) -> bool:
    """Return whether a tool was defined in the shape that has this key."""
    return tool.given is not None and isinstance(tool.given.get(key), Mapping)


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
        InvalidInputError: If the reply calls no tool, or is not a message.
    """
    if not isinstance(reply, SessionMessage):
        raise InvalidInputError(
            f"the reply is a SessionMessage, not {type(reply).__name__}",
            session_id=context.session_id,
        )
    known = {tool.name: tool for tool in as_tools(tools) if isinstance(tool, Tool)}
    calls = [block for block in reply.blocks if isinstance(block, ToolCallBlock)]
    if not calls:
        raise InvalidInputError("the reply calls no tool", session_id=context.session_id)
    results = [await _call(call, known.get(call.name), context) for call in calls]
    return SessionMessage(role=MessageRole.TOOL, content=list(results))


async def _call(call: ToolCallBlock, tool: Tool | None, context: SessionContext) -> ToolResultBlock:
    def result(content: str | list[Block], *, is_error: bool) -> ToolResultBlock:
        return ToolResultBlock(
            tool_call_id=call.id or "", name=call.name, content=content, is_error=is_error
        )

    if tool is None or tool.function is None:
        return result(f"there is no tool {call.name!r}", is_error=True)
    if "arguments" in (call.extras or {}):  # as a provider's format keeps what it cannot read
        return result("the arguments are no JSON object", is_error=True)
    try:
        return result(await _run(tool.function, call.args, context), is_error=False)
    except ValidationError as error:
        text = f"the arguments do not fit: {describe(error)}"
    except Exception as error:  # noqa: BLE001 - whatever a tool raises is its result
        text = said_by(error)
    return result(text.encode(errors="replace").decode(), is_error=True)


async def _run(
    function: Callable[..., Any], arguments: Mapping[str, Any], context: SessionContext
) -> str | list[Block]:
    checked = _model(function).model_validate(dict(arguments))
    given: list[Any] = []
    named: dict[str, Any] = {}
    for name, (parameter, hint) in _parameters(function).items():
        is_context = _is_context(hint)
        value = context if is_context else getattr(checked, _field(name))
        if parameter.kind is parameter.POSITIONAL_ONLY:
            given.append(value)
        else:
            named[name] = value
    result = function(*given, **named)
    if inspect.isawaitable(result):
        result = await result
    return _content(result)


def _content(result: Any) -> str | list[Block]:
    """Return what a tool gave back: text and blocks as they are, anything else as JSON."""
    if isinstance(result, str):
        result.encode()  # lone surrogates cannot be stored
        return result
    blocks = result if isinstance(result, list) else [result]
    if blocks and all(isinstance(each, _BLOCKS) for each in blocks):
        return list(blocks)
    try:
        return to_json(result).decode()
    except PydanticSerializationError:
        return json.dumps(result, default=str)


def _routine(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function behind a callable: what has the annotations and the docstring."""
    if isinstance(function, functools.partial):
        return _routine(function.func)
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return type(function).__call__


def _parameters(function: Callable[..., Any]) -> dict[str, tuple[inspect.Parameter, Any]]:
    """Return the parameters of a function with their annotations."""
    routine = _routine(function)
    hints = get_type_hints(routine, include_extras=True)
    found: dict[str, tuple[inspect.Parameter, Any]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InvalidInputError(f"the parameter *{name} has no name for a model to give")
        found[name] = (parameter, hints.get(name, Any))
    return found


def _is_context(hint: Any) -> bool:
    """Return whether a parameter is for the session's context, which no model gives."""
    return hint is SessionContext or (
        get_origin(hint) in (Annotated, Union, UnionType)
        and any(each is SessionContext for each in get_args(hint))
    )


def _field(name: str) -> str:
    """Return a parameter's field name, which cannot clash with those of pydantic's models."""
    return f"given_{name}"


def _model(function: Callable[..., Any]) -> Any:
    """Return a pydantic model of the parameters that a model gives."""
    fields: dict[str, Any] = {}
    for name, (parameter, hint) in _parameters(function).items():
        if not _is_context(hint):
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[_field(name)] = (hint, Field(default, alias=name))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
    return create_model("Arguments", __config__=config, **fields)

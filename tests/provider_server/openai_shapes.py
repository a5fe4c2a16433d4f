"""The shape of requests, by the SDK's own param types, with unknown keys refused."""

from __future__ import annotations

import re
from typing import Any, get_args, get_type_hints

from openai.types.chat import ChatCompletionMessageParam
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.conversations.conversation_create_params import ConversationCreateParams
from openai.types.conversations.conversation_update_params import ConversationUpdateParams
from openai.types.conversations.item_create_params import ItemCreateParams
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from openai.types.responses.response_input_item_param import ResponseInputItemParam
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, SchemaValidator

from .openai_errors import ApiError
from .worlds import Json

FIELD = re.compile(r"[a-z_][a-z0-9_]*")
BRANCHES = {"str", "int", "float", "bool", "none", "constrained-str"}
CODES = {
    "extra_forbidden": ("Unknown parameter: '{at}'.", "unknown_parameter"),
    "missing": ("Missing required parameter: '{at}'.", "missing_required_parameter"),
    "literal_error": ("Invalid value for '{at}': {input}. {msg}.", "invalid_value"),
}


def eager(schema: Any) -> Any:
    """A core schema whose iterables are validated at once instead of when they are read."""
    if isinstance(schema, dict):
        schema = {key: eager(value) for key, value in schema.items()}
        if schema.get("type") == "generator":
            schema["type"] = "list"
        return schema
    return [eager(one) for one in schema] if isinstance(schema, list | tuple) else schema


TAGS = {"type", "role"}


def is_tag(error: ErrorDetails) -> bool:
    """Whether an error rules out a union's branch, by its `type` or `role`."""
    return error["loc"][-1] in TAGS and error["type"] in {"literal_error", "missing"}


def fields(loc: tuple[int | str, ...]) -> list[int | str]:
    """An error's place without the names of the unions' branches."""
    return [
        part
        for part in loc
        if isinstance(part, int) or (FIELD.fullmatch(part) and part not in BRANCHES)
    ]


def telling(errors: list[ErrorDetails]) -> ErrorDetails:
    """The error that says most, out of those of all branches of the unions."""
    wrong = {error["loc"][:-1] for error in errors if is_tag(error)}
    left = [e for e in errors if not any(e["loc"][: len(at)] == at for at in wrong)]
    depth = max((len(fields(e["loc"])) for e in left), default=0)
    tags = [e for e in errors if is_tag(e) and len(fields(e["loc"])) > depth]
    kinds = ("extra_forbidden", "missing")
    ranked = sorted(
        left if left and not tags else tags or errors,
        key=lambda e: (e["type"] not in kinds, -len(fields(e["loc"]))),
    )
    return ranked[0]


def path_of(loc: tuple[int | str, ...], at: str) -> str:
    """An error's place as the vendor writes it: `input[0].content[1].text`."""
    for part in fields(loc):
        if isinstance(part, int):
            at += f"[{part}]"
        else:
            at += f".{part}" if at else part
    return at


class Shape:
    """One type of the SDK's, as a strict validator."""

    def __init__(self, kind: Any) -> None:
        config = ConfigDict(extra="forbid", strict=True)
        adapter: TypeAdapter[Any] = TypeAdapter(list[kind], config=config)
        self._validator = SchemaValidator(eager(adapter.core_schema))

    def check(self, value: Any, at: str = "") -> None:
        """Refuse a value that is not of the type."""
        try:
            self._validator.validate_python([value])
        except ValidationError as error:
            worst = telling(error.errors(include_url=False))
        else:
            return
        text, code = CODES.get(worst["type"], ("Invalid type for '{at}': {msg}.", "invalid_type"))
        place = path_of(worst["loc"][1:], at)
        shown = repr(worst["input"])[:80]
        message = text.format(at=place, msg=worst["msg"], input=shown)
        raise ApiError(message, param=place, code=code)


def by_literal(union: Any, key: str) -> dict[str, Shape]:
    """The members of a union, by the value of the literal that tells them apart."""
    shapes: dict[str, Shape] = {}
    for member in get_args(union):
        for value in literals(get_type_hints(member)[key]):
            shapes.setdefault(value, Shape(member))
    return shapes


def literals(hint: Any) -> list[str]:
    """All strings within a (maybe optional) literal."""
    found: list[str] = []
    for arg in get_args(hint):
        found += [arg] if isinstance(arg, str) else literals(arg)
    return found


RESPONSE = Shape(ResponseCreateParamsBase)
CHAT = Shape(CompletionCreateParamsBase)
CONVERSATION = Shape(ConversationCreateParams)
CONVERSATION_UPDATE = Shape(ConversationUpdateParams)
ITEMS = Shape(ItemCreateParams)

_MEMBERS = {member.__name__: member for member in get_args(ResponseInputItemParam)}
_TYPED = {
    name: member
    for name, member in _MEMBERS.items()
    if name not in {"EasyInputMessageParam", "Message", "ResponseOutputMessageParam"}
}
EASY_MESSAGE = Shape(_MEMBERS["EasyInputMessageParam"])
INPUT_MESSAGE = Shape(_MEMBERS["Message"])
OUTPUT_MESSAGE = Shape(_MEMBERS["ResponseOutputMessageParam"])
ITEM_TYPES: dict[str, Shape] = {
    value: Shape(member)
    for member in _TYPED.values()
    for value in literals(get_type_hints(member)["type"])
}
CHAT_ROLES = by_literal(ChatCompletionMessageParam, "role")


def check_request(shape: Shape, body: Json, lists: tuple[str, ...] = ()) -> None:
    """Refuse a body of the wrong shape; items and messages are checked one by one elsewhere."""
    flat = {key: value for key, value in body.items() if key != "stream"}
    for key in lists:
        if isinstance(flat.get(key), list):
            flat[key] = []
    shape.check(flat)
    if not isinstance(body.get("stream"), bool | None):
        raise ApiError("Invalid type for 'stream': expected a boolean.", param="stream")


def check_metadata(metadata: Json | None) -> None:
    """At most 16 pairs, keys of 64 and values of 512 characters."""
    pairs = metadata or {}
    if len(pairs) > 16:
        raise ApiError(
            f"Invalid 'metadata': too many properties. Expected an object with at most 16 "
            f"properties, but got an object with {len(pairs)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, value in pairs.items():
        for what, text, limit in (("key", key, 64), ("value", value, 512)):
            if len(text) > limit:
                raise ApiError(
                    f"Invalid 'metadata': a {what} is too long. Expected a string with maximum "
                    f"length {limit}, but got a string with length {len(text)} instead.",
                    param=f"metadata.{key[:64]}",
                    code="string_above_max_length",
                )

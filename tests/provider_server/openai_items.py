"""Responses items: checked one by one, stored, shown, and read as the model reads them."""

from __future__ import annotations

import base64
import binascii
import copy
import json
import re
from typing import Any

from . import openai_shapes as shapes
from .openai_errors import ApiError, no_match, too_long
from .worlds import Json, World

NAME = "^[a-zA-Z0-9_-]{1,64}$"
PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "web_search_call": "ws",
    "compaction": "cmp",
    "custom_tool_call": "ctc",
}
CHECKED_PREFIXES = ("message", "function_call", "reasoning", "web_search_call")
# What the caller must answer, as the errors name it: the types of the SDK's input items that have an
# output of their own; https://github.com/openai/openai-agents-python/issues (computer, shell calls).
CALLS = {
    "function_call": "function call",
    "custom_tool_call": "custom tool call",
    "computer_call": "computer call",
    "shell_call": "shell call",
    "local_shell_call": "local shell call",
    "apply_patch_call": "apply patch call",
}
OUTPUTS = {f"{kind}_output": kind for kind in CALLS}
IMAGE_CHARACTERS = 340


def call_id_of(item: Json) -> str:
    """The id by which a call and its output are paired; a local shell's output has it as its own."""
    return str(item.get("call_id") or item.get("id"))


def kind_of(item: Json) -> str:
    """An item's type; without one it is a message, or a reference if it has but an id."""
    if item.get("type") is None:
        return "message" if "role" in item or "content" in item else "item_reference"
    return str(item["type"])


def check_item(item: Any, at: str) -> None:
    """Refuse an item that is wrong by itself."""
    if not isinstance(item, dict):
        raise ApiError(f"Invalid type for '{at}': expected an object.", param=at)
    kind = kind_of(item)
    if kind == "message":
        check_message(item, at)
    elif kind not in shapes.ITEM_TYPES:
        supported = ", ".join(sorted([*shapes.ITEM_TYPES, "message"]))
        raise ApiError(
            f"Invalid value: '{kind}'. Supported values are: {supported}.",
            param=f"{at}.type",
            code="invalid_value",
        )
    else:
        shapes.ITEM_TYPES[kind].check(with_image_details(item), at)
    check_ids(item, kind, at)
    check_call(item, kind, at)
    for number, part in enumerate(parts_of(item)):
        check_image(part, f"{at}.{'content' if kind == 'message' else 'output'}[{number}]")


def check_message(item: Json, at: str) -> None:
    """The shape of a message: what it is by its role, and by whether its content is a list."""
    is_list = isinstance(item.get("content"), list)
    if item.get("role") != "assistant":
        shape = shapes.INPUT_MESSAGE if is_list and "status" in item else shapes.EASY_MESSAGE
        shape.check(with_image_details(item), at)
    elif is_list:
        # The types ask for more here than the vendor does: id, status and annotations.
        filled: Json = {"type": "message", "id": "msg_", "status": "completed"} | item
        filled["content"] = [with_annotations(part) for part in item["content"]]
        shapes.OUTPUT_MESSAGE.check(filled, at)
    else:
        shapes.EASY_MESSAGE.check({k: v for k, v in item.items() if k not in {"id", "status"}}, at)
    if item.get("content") == []:
        raise ApiError(f"Invalid '{at}.content': empty array.", param=f"{at}.content")


def with_annotations(part: Any) -> Any:
    """An output_text part with the annotations that the vendor does not need."""
    if isinstance(part, dict) and part.get("type") == "output_text":
        return {"annotations": []} | part
    return part


def with_image_details(item: Json) -> Json:
    """The item, its images with the detail that the vendor does not need."""
    key = "content" if "content" in item else "output"
    if not isinstance(item.get(key), list):
        return item
    parts = [
        {"detail": "auto"} | part
        if isinstance(part, dict) and part.get("type") == "input_image"
        else part
        for part in item[key]
    ]
    return item | {key: parts}


def check_ids(item: Json, kind: str, at: str) -> None:
    """Ids and call ids have 64 characters at most, and ids begin as their kind's do."""
    for key in ("id", "call_id"):
        value = item.get(key)
        if isinstance(value, str) and (len(value) > 64 or not value):
            if value:
                raise too_long(f"{at}.{key}", 64, len(value))
            raise ApiError(f"Invalid '{at}.{key}': empty string.", param=f"{at}.{key}")
    if kind in CHECKED_PREFIXES and item.get("id") is not None:
        prefix = PREFIXES[kind]
        if not str(item["id"]).startswith(prefix):
            raise ApiError(
                f"Invalid '{at}.id': '{item['id']}'. Expected an ID that begins with '{prefix}'.",
                param=f"{at}.id",
                code="invalid_value",
            )


def check_call(item: Json, kind: str, at: str) -> None:
    """A function call has a proper name and JSON arguments; an output has its call's id."""
    if kind == "function_call_output" and not item.get("call_id"):
        place = f"{at}.call_id"
        code = "missing_required_parameter"
        raise ApiError(f"Missing required parameter: '{place}'.", param=place, code=code)
    if kind != "function_call":
        return
    if not re.fullmatch(NAME, item["name"]):
        raise no_match(f"{at}.name", NAME)
    try:
        json.loads(item["arguments"])
    except ValueError:
        place = f"{at}.arguments"
        message = f"Invalid '{place}': expected a JSON string."
        raise ApiError(message, param=place, code="invalid_value") from None


def check_image(part: Json, at: str) -> None:
    """An image has a URL (http, https or data:) or a file id."""
    if part.get("type") != "input_image" or part.get("file_id"):
        return
    if not good_url(part.get("image_url")):
        raise bad_url(f"{at}.image_url")


def bad_url(at: str) -> ApiError:
    """The 400 for an image without a proper URL."""
    return ApiError(
        f"Invalid '{at}'. Expected a valid URL, but got a value with an invalid format.",
        param=at,
        code="invalid_value",
    )


def good_url(url: str | None) -> bool:
    """Whether this is a URL that the vendor takes for an image."""
    if not url:
        return False
    if url.startswith("data:"):
        head, _, data = url.partition(",")
        try:
            base64.b64decode(data, validate=True)
        except binascii.Error:
            return False
        return bool(data) and head.startswith("data:image/") and head.endswith(";base64")
    return re.fullmatch(r"https?://[^\s/]+\S*", url) is not None


def parts_of(item: Json) -> list[Json]:
    """The content parts of a message, or of a tool's output."""
    content = item.get("content", item.get("output"))
    return [p for p in content if isinstance(p, dict)] if isinstance(content, list) else []


def stored_form(world: World, item: Json) -> Json:
    """An item as the server keeps it: with an id, a status, and its content in parts."""
    kind = kind_of(item)
    kept = {key: value for key, value in copy.deepcopy(item).items() if value is not None}
    kept |= {"type": kind}
    kept.setdefault("id", world.new_id(f"{PREFIXES.get(kind, 'item')}_"))
    if kind in {"message", "function_call", "function_call_output"}:
        kept.setdefault("status", "completed")
    if kind == "message":
        kept["content"] = stored_parts(kept)
    return kept


def stored_parts(message: Json) -> list[Json]:
    """A message's content as parts."""
    content = message["content"]
    if message["role"] == "assistant":
        if isinstance(content, str):
            return [{"type": "output_text", "text": content, "annotations": [], "logprobs": []}]
        return [with_annotations(part) for part in content]
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    parts: list[Json] = with_image_details(message)["content"]
    return parts


def shown(item: Json, include: list[str]) -> Json:
    """An item as the server shows it: some of it only where asked for."""
    view = copy.deepcopy(item)
    if view["type"] == "reasoning" and "reasoning.encrypted_content" not in include:
        view.pop("encrypted_content", None)
    if view["type"] == "message" and "message.input_image.image_url" not in include:
        for part in view["content"]:
            if part["type"] == "input_image":
                part["image_url"] = None
    if view["type"] == "web_search_call" and "web_search_call.action.sources" not in include:
        view.get("action", {}).pop("sources", None)
    return view


def text_of(item: Json) -> str:
    """All text of a message or of a tool's output."""
    content: Any = item.get("content", item.get("output", ""))
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or part.get("refusal") or "" for part in content)


def characters_of(item: Json) -> int:
    """How many characters the model reads for an item."""
    if item["type"] == "compaction":
        return len(unsealed(item["encrypted_content"]).get("summary", ""))
    count = sum(IMAGE_CHARACTERS for part in parts_of(item) if part["type"] == "input_image")
    if item["type"] in {"message", "function_call_output", "custom_tool_call_output"}:
        return count + len(text_of(item))
    if item["type"] == "reasoning":
        return sum(len(part["text"]) for part in item["summary"])
    return len(item.get("name", "")) + len(item.get("arguments", "") or item.get("input", ""))


def sealed(**content: Any) -> str:
    """Encrypted content: opaque to clients, readable here."""
    return "gAAAAA" + base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


def unsealed(text: str) -> Json:
    """What `sealed` has sealed; an empty dict for anything else."""
    try:
        content = json.loads(base64.urlsafe_b64decode(text.removeprefix("gAAAAA")))
    except (ValueError, binascii.Error):
        return {}
    return content if isinstance(content, dict) else {}

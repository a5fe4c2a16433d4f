"""The rules for what the model is given: the whole effective context, stored and sent."""

from __future__ import annotations

import json

from .openai_binding import binds, comparable
from .openai_errors import ApiError
from .openai_items import CALLS, OUTPUTS, call_id_of, characters_of, parts_of, text_of, unsealed
from .openai_state import openai_of
from .worlds import Json, World, tokens_of

FOLLOWERS = {
    *("message", "function_call", "reasoning", "web_search_call", "file_search_call"),
    *("computer_call", "code_interpreter_call", "image_generation_call", "custom_tool_call"),
    *("mcp_call", "mcp_list_tools", "mcp_approval_request", "local_shell_call", "shell_call"),
    *("apply_patch_call", "tool_search_call", "compaction"),
}


def input_error(message: str, code: str | None = None, status: int = 400) -> ApiError:
    """A refusal of the input."""
    return ApiError(message, param="input", code=code, status=status)


def resolve(world: World, item: Json) -> Json:
    """What an item reference stands for; reasoning without content must be stored here."""
    stored: dict[str, Json] = openai_of(world)["items"]
    id_ = str(item.get("id"))
    reference = item["type"] == "item_reference"
    if reference or (item["type"] == "reasoning" and not item.get("encrypted_content")):
        if id_ not in stored:
            raise input_error(
                f"Item with id '{id_}' not found. Items are not persisted when `store` is set "
                "to false. Try again with `store` set to true, or remove this item from your "
                "input.",
                status=404,
            )
        return stored[id_] if reference else stored[id_] | item
    return item


def compacted(context: list[Json]) -> list[Json]:
    """The context from its last compaction on: that stands for all before it."""
    at = [number for number, item in enumerate(context) if item["type"] == "compaction"]
    return context[at[-1] :] if at else context


def without_foreign(context: list[Json], sent: list[Json], model: str) -> list[Json]:
    """The context without stored reasoning of other models (setting `stored_reasoning="drop"`)."""
    ids = {item["id"] for item in sent}

    def foreign(item: Json) -> bool:
        """Whether the server made this, with another model."""
        made_by = unsealed(item.get("encrypted_content") or "").get("model")
        return item["type"] == "reasoning" and item["id"] not in ids and made_by != model

    return [item for item in context if not foreign(item)]


def check_context(world: World, context: list[Json], model: str) -> None:
    """Refuse a context that the vendor does not run a model on."""
    check_unique(context)
    check_calls(context)
    check_abilities(context, model)
    check_encrypted(context, model)
    if not world.settings.get("lenient_partners"):
        check_partners(world, context)


def check_unique(context: list[Json]) -> None:
    """No item id comes twice."""
    seen: set[str] = set()
    for item in context:
        if item["id"] in seen:
            raise duplicate(item["id"])
        seen.add(item["id"])


def duplicate(id_: str) -> ApiError:
    """The 400 for an item id that comes twice."""
    message = f"Duplicate item found with id {id_}. Remove duplicate items from your input and"
    return input_error(f"{message} try again.")


def check_calls(context: list[Json]) -> None:
    """Every output has its call before it, and every call its output before the model runs."""
    open_calls: dict[tuple[str, str], str] = {}
    seen: set[tuple[str, str]] = set()
    for item in context:
        kind = item["type"]
        if kind in CALLS:
            key = (kind, call_id_of(item))
            open_calls[key] = CALLS[kind]
            seen.add(key)
        elif kind in OUTPUTS:
            call = OUTPUTS[kind]
            key = (call, call_id_of(item))
            if key not in seen:
                what = CALLS[call]
                what += " output" if call in {"function_call", "custom_tool_call"} else ""
                raise input_error(f"No tool call found for {what} with call_id {key[1]}.")
            open_calls.pop(key, None)
    for (_, id_), name in open_calls.items():
        raise input_error(f"No tool output found for {name} {id_}.")


def check_encrypted(context: list[Json], model: str) -> None:
    """Encrypted content was made by this server, reasoning by this model."""
    for item in context:
        text = item.get("encrypted_content")
        if item["type"] not in {"reasoning", "compaction"} or not text:
            continue
        content = unsealed(text)
        foreign = content.get("model") != model and not binds(model)
        if not content or (item["type"] == "reasoning" and foreign):
            shown = f"{text[:4]}...{text[-4:]}"
            message = f"The encrypted content {shown} could not be verified."
            raise ApiError(message, code="invalid_encrypted_content")


def check_partners(world: World, context: list[Json]) -> None:
    """A reasoning item is followed by what it came with, and that is not without it."""
    partners: dict[str, Json] = openai_of(world)["partners"]
    drops = world.settings.get("stored_reasoning") == "drop"
    needed = {} if drops else {partner["id"]: id_ for id_, partner in partners.items()}
    for number, item in enumerate(context):
        after = context[number + 1] if number + 1 < len(context) else None
        if item["type"] == "reasoning" and not follows(after, partners.get(item["id"])):
            raise input_error(
                f"Item '{item['id']}' of type 'reasoning' was provided without its required "
                "following item."
            )
        reasoning = needed.get(item["id"])
        before = context[number - 1]["id"] if number else None
        if reasoning and before != reasoning:
            raise input_error(
                f"Item '{item['id']}' of type '{item['type']}' was provided without its "
                f"required 'reasoning' item: '{reasoning}'."
            )


def follows(item: Json | None, partner: Json | None) -> bool:
    """Whether this is what may follow a reasoning item (which came with `partner`)."""
    if item is None or item["type"] not in FOLLOWERS:
        return False
    if item["type"] == "message" and item["role"] != "assistant":
        return False
    if item["type"] == "reasoning" or partner is None or item["id"] == partner["id"]:
        return True
    # Sent again without its id: then its content tells.
    same = item["type"] == partner["type"] and item.get("call_id") == partner.get("call_id")
    return same and (item["type"] != "message" or text_of(item) == text_of(partner))


def check_abilities(context: list[Json], model: str) -> None:
    """Images and reasoning only go to models that take them."""
    if model.startswith("novision"):
        for item in context:
            if any(part.get("type") == "input_image" for part in parts_of(item)):
                raise input_error("This model does not support image inputs.")
    if model.startswith("noreason") and any(item["type"] == "reasoning" for item in context):
        raise input_error(
            "Reasoning input items can only be provided to a reasoning or computer use model. "
            "Remove reasoning items from your input and try again."
        )


def check_model(model: str, *, tools: bool, reasoning: str | None) -> None:
    """Refuse an unknown model, and parameters that a model does not take."""
    if model.startswith("unknown"):
        raise ApiError(
            f"The model '{model}' does not exist or you do not have access to it.",
            status=404,
            code="model_not_found",
        )
    wrong = "tools" if tools and model.startswith("notools") else None
    if reasoning and model.startswith("noreason"):
        wrong = reasoning
    if wrong:
        raise ApiError(
            f"Unsupported parameter: '{wrong}' is not supported with this model.",
            param=wrong,
            code="unsupported_parameter",
        )


def seen_by_model(context: list[Json]) -> tuple[int, str, bool]:
    """Count of user and assistant messages, the last user or tool text, whether a user's."""
    count, last, is_user = 0, "", False
    for item in context:
        if item["type"] == "message" and item["role"] in {"user", "assistant"}:
            count += 1
        if item["type"] == "message" and item["role"] == "user":
            last, is_user = text_of(item), True
        elif item["type"] in {"function_call_output", "custom_tool_call_output"}:
            last, is_user = text_of(item), False
    return count, last, is_user


def count_input(world: World, body: Json, context: list[Json]) -> tuple[int, int]:
    """Input tokens of the whole context, and how many of them an earlier request has cached.

    From GPT-6.2 on `instructions` go behind the input and are never found in the cache
    (https://developers.openai.com/api/docs/guides/keep-prefix-unchanged).
    """
    instructions, tools = body.get("instructions") or "", body.get("tools") or []
    last = binds(body["model"])
    size = len(json.dumps(tools)) if tools else 0
    name = f"{body['model']}|{'' if last else instructions}|{json.dumps(tools)}"
    pieces = [(name, size + (0 if last else len(instructions)))]
    pieces += [
        (json.dumps(comparable(item), sort_keys=True), characters_of(item)) for item in context
    ]
    if last and instructions:
        pieces.append((world.new_id("instructions_"), len(instructions)))
    return count_pieces(world, pieces)


def count_only(context: list[Json], instructions: str, tools: list[Json]) -> int:
    """Input tokens of a context that no model is asked about."""
    head = len(instructions) + (len(json.dumps(tools)) if tools else 0)
    return tokens_of(head + sum(map(characters_of, context)))


def fingerprint(item: Json) -> str:
    """What makes an item the same for the cache."""
    who = item.get("role") or item["type"]
    return f"{who}|{text_of(item)}|{item.get('name')}|{item.get('arguments')}|{item.get('call_id')}"


def count_pieces(world: World, pieces: list[tuple[str, int]]) -> tuple[int, int]:
    """Tokens of all pieces, and of their longest beginning that was sent before."""
    names = [name for name, _ in pieces]
    shared = 0
    earlier: list[list[str]] = openai_of(world)["contexts"]
    for context in earlier:
        same = 0
        while same < min(len(context), len(names)) and context[same] == names[same]:
            same += 1
        shared = max(shared, same)
    earlier.append(names)
    del earlier[:-100]
    total = tokens_of(sum(size for _, size in pieces))
    return total, tokens_of(sum(size for _, size in pieces[:shared]))

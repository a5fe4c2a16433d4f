"""What the OpenAI side keeps of a world: conversations, items, responses, earlier contexts."""

from __future__ import annotations

import time
from typing import Any

from .openai_errors import ApiError, not_found
from .worlds import Json, World, loses, state_view


def openai_of(world: World) -> Json:
    """The OpenAI part of a world, with its tables in place."""
    state = world.openai
    if not state:
        state |= {"conversations": {}, "items": {}, "responses": {}, "orphans": []}
        state |= {"partners": {}, "contexts": []}
    return state


def conversation_of(world: World, id_: str) -> Json:
    """A conversation, or the vendor's 404."""
    found: Json | None = openai_of(world)["conversations"].get(id_)
    if found is None:
        raise not_found("Conversation", id_)
    return found


def new_conversation(world: World, metadata: Json | None) -> Json:
    """An empty conversation."""
    conversation: Json = {
        "id": world.new_id("conv_"),
        "created_at": int(time.time()),
        "metadata": dict(metadata or {}),
        "items": [],
        "busy": False,
    }
    openai_of(world)["conversations"][conversation["id"]] = conversation
    return conversation


def conversation_view(conversation: Json) -> Json:
    """A conversation as the vendor shows it."""
    keys = ("id", "created_at", "metadata")
    return {key: conversation[key] for key in keys} | {"object": "conversation"}


def locked() -> ApiError:
    """The 400 for a second writer on one conversation."""
    return ApiError(
        "Another process is currently operating on this conversation. "
        "Please retry in a few seconds.",
        param="conversation",
        code="conversation_locked",
    )


def keep_item(world: World, item: Json, conversation: Json | None = None) -> None:
    """Keep an item, within a conversation if one is given."""
    openai_of(world)["items"][item["id"]] = item
    if conversation is not None:
        conversation["items"].append(item)


def drop_conversation(world: World, id_: str) -> None:
    """Take a conversation away; its items stay behind as orphans."""
    state = openai_of(world)
    conversation = state["conversations"].pop(id_)
    for item in conversation["items"]:
        state["orphans"].append(item | {"conversation_id": id_})


def drop_item(world: World, id_: str) -> bool:
    """Take an item away from everywhere."""
    state = openai_of(world)
    known = state["items"].pop(id_, None) is not None
    for conversation in state["conversations"].values():
        kept = [item for item in conversation["items"] if item["id"] != id_]
        known = known or len(kept) < len(conversation["items"])
        conversation["items"][:] = kept
    state["orphans"][:] = [item for item in state["orphans"] if item["id"] != id_]
    return known


@loses("conversation")
def lose_conversation(world: World, id_: str | None) -> int:
    """Forget conversations with all their items, as on expiry."""
    state = openai_of(world)
    gone = [one for one in list(state["conversations"]) if id_ in {None, one}]
    for one in gone:
        for item in state["conversations"].pop(one)["items"]:
            state["items"].pop(item["id"], None)
    return len(gone)


@loses("item")
def lose_item(world: World, id_: str | None) -> int:
    """Forget an item, or all."""
    ids = list(openai_of(world)["items"]) if id_ is None else [id_]
    return sum(drop_item(world, one) for one in ids)


@loses("response")
def lose_response(world: World, id_: str | None) -> int:
    """Forget a stored response, or all."""
    responses: dict[str, Any] = openai_of(world)["responses"]
    gone = [one for one in list(responses) if id_ in {None, one}]
    for one in gone:
        del responses[one]
    return len(gone)


@state_view
def view(world: World) -> Json:
    """What `ServerWorld.state()` shows of it."""
    state = openai_of(world)
    conversations = {
        id_: conversation_view(one) | {"items": one["items"], "busy": one["busy"]}
        for id_, one in state["conversations"].items()
    }
    responses = {id_: one["response"] for id_, one in state["responses"].items()}
    return {
        "conversations": conversations,
        "orphan_items": state["orphans"],
        "responses": responses,
    }

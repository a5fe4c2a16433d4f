"""Real conversations with an agent go through LangChain's messages into the record, and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import BaseMessage, convert_to_messages, convert_to_openai_messages
from langchain_langswarm import (
    RunnableWithSession,
    SessionChatMessageHistory,
    from_langchain,
    to_langchain,
)

from langswarm_session import (
    SessionManager,
    ToolCallBlock,
    ToolResultBlock,
)

SOURCE = Path(__file__).parents[4] / "shared" / "data" / "agent_conversations.jsonl"
WRITER = Path(__file__).with_name("conversation_writer.py")

pytestmark = pytest.mark.skipif(not SOURCE.exists(), reason=f"there is no {SOURCE}")

Conversations = dict[str, list[BaseMessage]]


@pytest.fixture(scope="module")
def raw() -> list[dict[str, Any]]:
    """The conversations as they are in the file."""
    conversations = [json.loads(line) for line in SOURCE.read_text(encoding="utf-8").splitlines()]
    assert len(conversations) == 60
    return conversations


@pytest.fixture(scope="module")
def conversations(raw: list[dict[str, Any]]) -> Conversations:
    return {each["id"]: convert_to_messages(each["messages"]) for each in raw}


def test_in_one_process(manager: SessionManager, conversations: Conversations) -> None:
    for session_id, messages in conversations.items():
        history = SessionChatMessageHistory(session_id, manager)
        for message in messages:
            history.add_message(message)
    for session_id, messages in conversations.items():
        back = SessionChatMessageHistory(session_id, manager).messages
        assert back == messages
        assert [type(message) for message in back] == [type(message) for message in messages]


def test_their_neutral_form_has_every_call_and_result(conversations: Conversations) -> None:
    for messages in conversations.values():
        blocks = [block for message in messages for block in from_langchain(message).blocks]
        calls = [block.id for block in blocks if isinstance(block, ToolCallBlock)]
        results = [block.tool_call_id for block in blocks if isinstance(block, ToolResultBlock)]
        assert calls == [
            call["id"] for message in messages for call in getattr(message, "tool_calls", ())
        ]
        assert results == [message.tool_call_id for message in messages if message.type == "tool"]


def test_the_neutral_form_alone_is_enough_for_openai(raw: list[dict[str, Any]]) -> None:
    for conversation in raw:
        messages = convert_to_messages(conversation["messages"])
        neutral = [from_langchain(message).replaced(native=None) for message in messages]
        back = convert_to_openai_messages([to_langchain(message) for message in neutral])
        assert back == convert_to_openai_messages(messages)


def test_replayed_through_a_chain(
    manager: SessionManager, conversations: Conversations, config: Any
) -> None:
    """Each answer and what the tools gave is a turn, as an agent's would be."""
    messages = next(iter(conversations.values()))
    starts = [place for place, message in enumerate(messages) if message.type == "human"]
    turns = [messages[a:b] for a, b in zip([0, *starts[1:]], [*starts[1:], None], strict=True)]
    for turn in turns:
        asked = next(place for place, message in enumerate(turn) if message.type == "human") + 1
        memory = RunnableWithSession(lambda _, turn=turn, asked=asked: turn[asked:], manager)
        memory.invoke(turn[:asked], config)
    history = SessionChatMessageHistory("chat", manager, user_id="ann")
    assert history.messages == messages


@pytest.mark.parametrize("storage_kind", ["sqlite"], indirect=True)
def test_in_four_processes_at_once(
    manager: SessionManager, db_path: str, conversations: Conversations
) -> None:
    command = [sys.executable, str(WRITER), str(SOURCE), db_path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen(
            [*command, str(part), "4"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for part in range(4)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        for writer in writers:
            writer.communicate(timeout=60)
            assert writer.returncode == 0
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()

    ends: dict[str, list[BaseMessage]] = {}
    for place, (session_id, messages) in enumerate(conversations.items()):
        history = SessionChatMessageHistory(session_id, manager, user_id=f"writer {place % 4}")
        assert history.messages == messages
        ends.setdefault(f"writer {place % 4}", []).extend(messages[-2:])
    shared = SessionChatMessageHistory("shared", manager).messages
    assert len(shared) == 120
    pairs = list(zip(shared[::2], shared[1::2], strict=True))
    for expected in ends.values():
        own = list(zip(expected[::2], expected[1::2], strict=True))
        remaining = iter(pairs)
        assert all(pair in remaining for pair in own), "each writer's pairs, whole and in order"

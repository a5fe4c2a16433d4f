"""Writes conversations to a database through LangChain's history. Run by test_conversations.py.

Arguments: the file with the conversations, the database, and which part of how many to write.
Begins when a line comes in, and so at once with the other writers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from langchain_core.messages import convert_to_messages
from langchain_langswarm import SessionChatMessageHistory

from langswarm_session import create_session_manager


def main(source: str, db_path: str, part: int, parts: int) -> None:
    lines = Path(source).read_text(encoding="utf-8").splitlines()[part::parts]
    manager = create_session_manager("sqlite", {"db_path": db_path})
    shared = SessionChatMessageHistory("shared", manager)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for conversation in map(json.loads, lines):
        messages = convert_to_messages(conversation["messages"])
        history = SessionChatMessageHistory(conversation["id"], manager, user_id=f"writer {part}")
        history.add_messages(messages[:1])
        for place in range(1, len(messages), 2):
            history.add_messages(messages[place : place + 2])
        shared.add_messages(messages[-2:])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

"""The writes of a turn as the script ``write.lua`` takes them."""

from __future__ import annotations

from langswarm_redis.lane import Word
from langswarm_redis.rows import to_bytes
from langswarm_session.storage.decisions import Append, BeginTurn, EndTurn, PlainWrite


def plain_words(write: PlainWrite) -> tuple[Word, ...]:
    """Return the words that say what kind of write it is, from its kind to the provider's state."""
    if isinstance(write, EndTurn):
        end = write.end
        ending = (end.status.value, optional(end.error), optional(write.state))
        return "end", to_bytes(end.token), "", 0, "", "", "", *ending
    if isinstance(write, BeginTurn):
        lease = write.lease
        seconds = int(lease.seconds * 1_000_000)
        return "begin", to_bytes(lease.token), to_bytes(lease.owner), seconds, *_checked(write)
    if write.token is None:
        return "append", "", "", 0, *_checked(write)
    revision = "" if write.expected_revision is None else write.expected_revision
    return "add", to_bytes(write.token), "", 0, revision, "", "", "", "", ""


def _checked(write: Append | BeginTurn) -> tuple[Word, ...]:
    revision = "" if write.expected_revision is None else write.expected_revision
    key = write.key
    keys = (optional(key.key if key else None), optional(key.digest if key else None))
    return revision, *keys, "", "", ""


def optional(text: str | None) -> bytes:
    """Return a text that may be missing, as scripts take it."""
    return b"" if text is None else b"+" + to_bytes(text)

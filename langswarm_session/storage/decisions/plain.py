"""The writes that can be plain: those of a turn."""

from __future__ import annotations

from typing import Any, TypeGuard

from langswarm_session.storage.decisions.append import Append
from langswarm_session.storage.decisions.begin import BeginTurn
from langswarm_session.storage.decisions.end import EndTurn
from langswarm_session.storage.decisions.facts import Write

PlainWrite = Append | BeginTurn | EndTurn
"""A write that can be done in one step where nothing stands in its way."""


def is_plain(write: Write[Any]) -> TypeGuard[PlainWrite]:
    """Return whether a write can be plain; see `Write.may_be_plain`."""
    return write.may_be_plain

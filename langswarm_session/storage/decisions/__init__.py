"""The decisions about writes, taken alike by every storage. Pure: no I/O, no clock.

A storage reads the `Facts` that a write asks for, has the write decide on them, and writes the
`Plan` that comes of it: all of one version of the session.
"""

from langswarm_session.storage.decisions.append import Append
from langswarm_session.storage.decisions.begin import BeginTurn
from langswarm_session.storage.decisions.changes import ClearLog, EditLog, UpdateSession
from langswarm_session.storage.decisions.end import EndTurn
from langswarm_session.storage.decisions.facts import (
    Facts,
    FactsChangedError,
    MessagePlace,
    Plan,
    Repeat,
    TurnFacts,
    Write,
)
from langswarm_session.storage.decisions.plain import PlainWrite, is_plain

__all__ = [
    "Append",
    "BeginTurn",
    "ClearLog",
    "EditLog",
    "EndTurn",
    "Facts",
    "FactsChangedError",
    "MessagePlace",
    "PlainWrite",
    "Plan",
    "Repeat",
    "TurnFacts",
    "UpdateSession",
    "Write",
    "is_plain",
]

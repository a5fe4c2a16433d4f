"""The tools for building a door: what translates between a framework and the sessions.

A door keeps no state of a conversation and decides nothing about it: it converts the framework's
messages (`langswarm_session.formats`), and reads and writes through `KeyedSessions` or the manager.
The doors in this package import from here and from the public modules only, and so can a door that
lives elsewhere. A door makes its converters known by an entry point: see
`langswarm_session.formats.registry`.
"""

from langswarm_session._bulk import collector_paused, unchecked
from langswarm_session._sanitize import one_line
from langswarm_session._sync.bridge import run
from langswarm_session._validation import check_limit, storable, text_id
from langswarm_session.doors.keyed_sessions import KeyedSessions
from langswarm_session.requests.budget import estimate
from langswarm_session.requests.normalize.speakers import OPENING
from langswarm_session.requests.window import COMPACTION, Window, cut
from langswarm_session.storage.replacements import Span, readable_by, replacing
from langswarm_session.storage.rows import dump_json
from langswarm_session.turns.answerers import answered_by
from langswarm_session.turns.endings import settled
from langswarm_session.turns.inputs import text_message
from langswarm_session.turns.interrupts import Interruptible
from langswarm_session.turns.turn import OpenTurn

__all__ = [
    "COMPACTION",
    "OPENING",
    "Interruptible",
    "KeyedSessions",
    "OpenTurn",
    "Span",
    "Window",
    "answered_by",
    "check_limit",
    "collector_paused",
    "cut",
    "dump_json",
    "estimate",
    "one_line",
    "readable_by",
    "replacing",
    "run",
    "settled",
    "storable",
    "text_id",
    "text_message",
    "unchecked",
]

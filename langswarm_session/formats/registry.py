"""The message formats of frameworks, found by the entry points of the doors that know them.

A door makes its format known in its ``pyproject.toml``::

    [project.entry-points."langswarm_session.formats"]
    my_framework = "my_framework_door:message_format"

where ``message_format`` is a `MessageFormat`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langswarm_session import _plugins as plugins
from langswarm_session.errors import InvalidInputError
from langswarm_session.models import SessionMessage

GROUP = "langswarm_session.formats"
"""The group of entry points."""


@dataclass(frozen=True, slots=True)
class MessageFormat:
    """A framework's form of messages, and the functions that convert to it and back.

    Attributes:
        name: The format's name, also the key of what it keeps in `SessionMessage.native`.
        encode: Converts session messages to the framework's.
        decode: Converts them back.
    """

    name: str
    encode: Callable[[Sequence[SessionMessage]], Sequence[Any]]
    decode: Callable[[Sequence[Any]], list[SessionMessage]]

    def round_trip(self, message: SessionMessage) -> list[SessionMessage]:
        """Return a message as it comes back from the framework's form."""
        return self.decode(self.encode([message]))


def format_names() -> list[str]:
    """Return the names of the formats that installed doors make known, in alphabetical order."""
    return sorted(set(plugins.names(GROUP)))


def message_format(name: str) -> MessageFormat:
    """Return a format by its name.

    Raises:
        InvalidInputError: If there is no such format, or its door cannot be loaded.
        MissingDependencyError: If its framework is not installed.
    """
    found = plugins.load(GROUP, name, InvalidInputError)
    if isinstance(found, MessageFormat):
        return found
    raise InvalidInputError(
        f"unknown message format {name!r}; expected one of {', '.join(format_names())}"
    )

"""What other packages add by an entry point."""

from __future__ import annotations

from typing import Any

from langswarm_session.errors import MissingDependencyError, SessionError


def names(group: str) -> list[str]:
    """The names of a group's plug-ins."""
    from importlib.metadata import entry_points  # takes as long to load as the rest of us

    return [entry.name for entry in entry_points(group=group)]


def load(group: str, name: str, error: type[SessionError]) -> Any:
    """The object that a plug-in names, or None if there is no such plug-in.

    Args:
        group: The entry-point group.
        name: The plug-in's name in it.
        error: What to raise if it cannot be loaded.
    """
    from importlib.metadata import entry_points

    for entry in entry_points(group=group, name=name):
        try:
            return entry.load()
        except MissingDependencyError:
            raise
        except (ImportError, AttributeError) as reason:
            raise error(
                f"the plug-in {name!r} ({entry.value}) cannot be loaded: {reason}"
            ) from reason
    return None

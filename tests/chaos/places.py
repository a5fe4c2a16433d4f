"""Where sessions are, in a form that can be told to another process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from langswarm_session import ISessionStorage, StorageFactory


@dataclass(frozen=True)
class Place:
    """A storage's name and what it is made with.

    Attributes:
        backend: The storage's name.
        config: Its keywords; must be JSON.
    """

    backend: str
    config: dict[str, Any] = field(default_factory=dict)

    def open(self, **options: Any) -> ISessionStorage:
        """A storage there."""
        return StorageFactory.create_storage(self.backend, **{**self.config, **options})

    def with_options(self, **options: Any) -> Place:
        """The same place, for storages with other options."""
        return Place(self.backend, {**self.config, **options})

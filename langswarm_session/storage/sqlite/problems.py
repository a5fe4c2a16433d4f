"""What calls have found wrong with a SQLite file, for whoever asks how it is."""

from __future__ import annotations

from langswarm_session.errors import StorageCorruptError, StorageFullError
from langswarm_session.storage.sqlite.file import OpenFiles


class Trouble:
    """The last full disk, and the last damage, that a call met.

    Damage is remembered as long as the same file is open: that others of its pages can be read does
    not mend it.

    Attributes:
        full: The last full disk, unless it has been seen since that there is space again.
    """

    def __init__(self) -> None:
        self.full: StorageFullError | None = None
        self._damage: StorageCorruptError | None = None
        self._files: OpenFiles | None = None

    def met(self, error: BaseException, files: OpenFiles | None) -> None:
        """A call came to this.

        Args:
            error: The call's outcome.
            files: What was open.
        """
        if isinstance(error, StorageFullError):
            self.full = error
        elif isinstance(error, StorageCorruptError) and files is not None:
            self._damage, self._files = error, files

    def damage(self, files: OpenFiles | None) -> StorageCorruptError | None:
        """What is known to be damaged in what is open now."""
        return self._damage if files is self._files else None

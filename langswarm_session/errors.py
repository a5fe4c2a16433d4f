"""Every error this package raises, in one tree.

::

    SessionError                         the root: carries ``session_id`` where there is one
    ├── InvalidInputError                an argument that cannot be used (also a ValueError)
    │   └── ImportFormatError            what is to be imported is not what it should be
    ├── SessionNotFoundError             no such session, or not one of this user
    ├── SessionExistsError               the id is taken
    ├── SessionInactiveError             archived, paused or completed: takes no new turn
    ├── SessionBusyError                 another turn is running and the time to wait is over
    │   └── NestedTurnError              a turn inside a turn of its session would wait for itself
    ├── TurnLostError                    the turn was taken over, so its result was not stored
    ├── TurnCancelledError               somebody cancelled the turn, or closed the manager
    ├── RevisionConflictError            the session moved on since the revision the caller named
    ├── MessageConflictError             this message id is stored already, for another message
    ├── IdempotencyConflictError         this idempotency key was used for another message
    ├── MessageRefusedError              a middleware refused the message
    ├── MiddlewareError                  a middleware failed
    ├── ManagerClosedError               the manager was closed
    ├── BackgroundLoopError              the event loop under sync calls ended before the call did
    ├── MissingDependencyError           an optional package is not installed (also an ImportError)
    ├── ProviderSessionError             the provider failed: carries ``provider``, ``retriable``
    │   │                                and ``retry_after`` (seconds, where the server named them)
    │   ├── UnknownProviderError         no provider goes by this name
    │   ├── ProviderCapabilityError      the provider cannot do what was asked
    │   ├── ProviderAuthenticationError  the key is missing, wrong, or not allowed to do this
    │   ├── UnknownModelError            the provider has no such model, or not for this key
    │   ├── ProviderRequestError         the provider refused the request as it was
    │   │   ├── ContextLengthError       the request is too long for the model or the account
    │   │   └── InvalidReasoningError    reasoning in the request is not valid there
    │   ├── ProviderResponseError        what came back is not an answer of this API
    │   ├── ProviderRateLimitError       too many requests
    │   │   └── ProviderQuotaError       no credit is left, or a spend limit is reached
    │   ├── ProviderTimeoutError         no answer in time
    │   ├── ProviderUnavailableError     the provider is down or cannot be reached
    │   └── ProviderStreamError          the stream broke off before the reply was complete
    └── SessionStorageError              the storage failed: carries ``may_be_stored``
        ├── UnknownStorageError          no storage goes by this name
        ├── StorageClosedError           the storage was closed
        ├── StorageBusyError             another process held the database for too long
        ├── StorageFullError             the disk is full: nothing of this write was kept
        ├── StorageUnavailableError      the file or server cannot be opened or written
        ├── StorageCorruptError          the database is damaged or is not one of ours
        └── StorageVersionError          the database was written by a newer version
"""

from __future__ import annotations


class SessionError(Exception):
    """The root of all errors of this package.

    Args:
        message: What went wrong and what to do about it.
        session_id: The session it went wrong in, if any.
    """

    def __init__(self, message: str, *, session_id: str | None = None) -> None:
        super().__init__(message if session_id is None else f"session {session_id!r}: {message}")
        self.session_id = session_id


def in_session(error: SessionError, session_id: str) -> SessionError:
    """The same error, naming the session it happened in."""
    if error.session_id is None:
        error.session_id = session_id
        error.args = (f"session {session_id!r}: {error}", *error.args[1:])
    return error


class InvalidInputError(SessionError, ValueError):
    """An argument cannot be used as it is; the message says which and why."""


class ImportFormatError(InvalidInputError):
    """What is to be imported is damaged, incomplete, or in no format that is known.

    Args:
        line: The line that it shows in, from 1, where there are lines.
    """

    def __init__(
        self, message: str, *, session_id: str | None = None, line: int | None = None
    ) -> None:
        place = "" if line is None else f"line {line}: "
        super().__init__(f"{place}{message}", session_id=session_id)
        self.line = line


class SessionNotFoundError(SessionError):
    """There is no such session, or it is not one of the user who asked."""


class SessionExistsError(SessionError):
    """A session with this id exists already."""


class SessionInactiveError(SessionError):
    """The session is archived, paused or completed and takes no new turn."""


class SessionBusyError(SessionError):
    """Another turn of the session is running, and the time to wait for it is over.

    Args:
        holder: The token of the running turn's lease, where it is known.
        owner: The process that holds the lease, as `langswarm_session.storage.owner` writes it.
    """

    def __init__(
        self,
        message: str,
        *,
        session_id: str | None = None,
        holder: str | None = None,
        owner: str | None = None,
    ) -> None:
        super().__init__(message, session_id=session_id)
        self.holder = holder
        self.owner = owner


class NestedTurnError(SessionBusyError):
    """A turn was asked for inside a turn of the same session; waiting would never end."""


class TurnLostError(SessionError):
    """The turn was ended without its reader, so what came of it later was not stored.

    Another process took its lease over, or its event loop was closed or stood still.
    """


class TurnCancelledError(SessionError):
    """The turn was cancelled by `BaseSession.cancel` or with its manager, not by its reader.

    The reader's task was not cancelled. What there was of the reply is in the log.
    """


class RevisionConflictError(SessionError):
    """The session's revision is not the one the caller expected; read it again and retry."""


class MessageConflictError(SessionError):
    """A message with this id is stored already, and is another one.

    Args:
        message_id: The id, where it is known.
    """

    def __init__(
        self, message: str, *, session_id: str | None = None, message_id: str | None = None
    ) -> None:
        super().__init__(message, session_id=session_id)
        self.message_id = message_id


class IdempotencyConflictError(SessionError):
    """The idempotency key was used before, for another message."""


class MessageRefusedError(SessionError):
    """A middleware refused the message. Raise it from a middleware to refuse one."""


class MiddlewareError(SessionError):
    """A middleware raised; its own exception is the cause."""


class ManagerClosedError(SessionError):
    """The manager was closed and cannot be used any more."""


class BackgroundLoopError(SessionError):
    """The event loop that sync calls share ended before the call did; what it wrote may be stored.

    The next call starts another one.
    """


class MissingDependencyError(SessionError, ImportError):
    """An optional package is missing; the message says which extra to install."""


class ProviderSessionError(SessionError):
    """The provider failed.

    Args:
        provider: The provider's name.
        retriable: Whether the same request may succeed later.
        retry_after: The seconds that the server asked to wait, where it did.
    """

    retriable_by_default = False

    def __init__(
        self,
        message: str,
        *,
        session_id: str | None = None,
        provider: str | None = None,
        retriable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, session_id=session_id)
        self.provider = provider
        self.retriable = self.retriable_by_default if retriable is None else retriable
        self.retry_after = retry_after


class UnknownProviderError(ProviderSessionError):
    """No provider goes by this name."""


class ProviderCapabilityError(ProviderSessionError):
    """The provider does not support what was asked of it."""


class ProviderAuthenticationError(ProviderSessionError):
    """The provider's key is missing or wrong, or may not do what was asked."""


class UnknownModelError(ProviderSessionError):
    """The provider has no model of this name, or not for this key."""


class ProviderRequestError(ProviderSessionError):
    """The provider refused the request as it was; the same request would be refused again."""


class ContextLengthError(ProviderRequestError):
    """The request is longer than the model, the server or the account takes.

    A turn that meets it asks again with half of its window, while there is older history to leave
    out.
    """


class InvalidReasoningError(ProviderRequestError):
    """Reasoning in the request is bound elsewhere, or cannot be verified or decrypted there.

    A turn that meets it asks once more without that reasoning.
    """


class ProviderResponseError(ProviderSessionError):
    """What came back is not an answer of the provider's API: often a wrong base URL."""


class ProviderRateLimitError(ProviderSessionError):
    """The provider takes no more requests for now; ``retry_after`` is in seconds."""

    retriable_by_default = True


class ProviderQuotaError(ProviderRateLimitError):
    """The account has no credit left or has reached its spend limit; waiting does not help."""

    retriable_by_default = False


class ProviderTimeoutError(ProviderSessionError):
    """The provider gave no answer in time."""

    retriable_by_default = True


class ProviderUnavailableError(ProviderSessionError):
    """The provider is down or cannot be reached."""

    retriable_by_default = True


class ProviderStreamError(ProviderSessionError):
    """The provider's stream broke off before the reply was complete."""

    retriable_by_default = True


class SessionStorageError(SessionError):
    """The storage failed; what was acknowledged before is unharmed.

    Args:
        may_be_stored: Whether the write was begun and no answer came, so that its outcome is
            unknown: read the session again, or repeat the write with the same message ids, which
            stores it once. False: nothing of it was kept.
    """

    def __init__(
        self, message: str, *, session_id: str | None = None, may_be_stored: bool = False
    ) -> None:
        super().__init__(message, session_id=session_id)
        self.may_be_stored = may_be_stored


class UnknownStorageError(SessionStorageError):
    """No storage goes by this name."""


class StorageClosedError(SessionStorageError):
    """The storage was closed and cannot be used any more."""


class StorageBusyError(SessionStorageError):
    """Another process held the database for longer than the time to wait."""


class StorageFullError(SessionStorageError):
    """There is no space left; nothing of the failed write was kept."""


class StorageUnavailableError(SessionStorageError):
    """The database cannot be opened, read or written where it is."""


class StorageCorruptError(SessionStorageError):
    """The database is damaged, or the file is not a database of this package."""


class StorageVersionError(SessionStorageError):
    """The database has a newer schema than this version of the package knows."""

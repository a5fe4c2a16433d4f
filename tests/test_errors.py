from __future__ import annotations

import asyncio
import copy
import inspect
import multiprocessing.reduction
import pickle
import re
from typing import Any

import pytest

import langswarm_session
from langswarm_session import errors
from langswarm_session.errors import (
    InvalidInputError,
    MissingDependencyError,
    ProviderRateLimitError,
    ProviderSessionError,
    SessionBusyError,
    SessionError,
)

ALL: list[type[SessionError]] = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, SessionError)
]
each = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)


def drawn() -> dict[str, str | None]:
    """The parents of the classes in the drawing at the top of the module."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"(?:    )([ │├└─]*)(\w+Error)  ", line)
        if match:
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            parents[match[2]] = path[depth - 1] if depth else None
    return parents


def test_the_drawn_tree_is_the_tree() -> None:
    def parent(kind: type[SessionError]) -> str | None:
        bases = [base.__name__ for base in kind.__bases__ if issubclass(base, SessionError)]
        assert len(bases) <= 1
        return bases[0] if bases else None

    assert drawn() == {kind.__name__: parent(kind) for kind in ALL}
    assert len(ALL) > 25


@each
def test_every_error_is_public_and_says_what_it_is(kind: type[SessionError]) -> None:
    assert getattr(langswarm_session, kind.__name__) is kind
    assert kind.__name__ in langswarm_session.__all__
    assert (kind.__doc__ or "").strip()


@each
def test_every_error_names_its_session(kind: type[SessionError]) -> None:
    error = kind("it went wrong; do better", session_id="it's mine")
    assert error.session_id == "it's mine"
    assert repr("it's mine") in str(error)
    assert "it went wrong; do better" in str(error)
    assert kind("it went wrong").session_id is None
    assert str(kind("it went wrong")) == "it went wrong"


def full(kind: type[SessionError]) -> SessionError:
    """An error with a value in all that its class can carry."""
    given: dict[str, Any] = {"session_id": "s"}
    if issubclass(kind, SessionBusyError):
        given |= {"holder": "token", "owner": "machine:1:2"}
    if issubclass(kind, ProviderSessionError):
        given |= {"provider": "openai", "retriable": True}
    if issubclass(kind, ProviderRateLimitError):
        given |= {"retry_after": 1.5}
    return kind("it went wrong", **given)


@each
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickling(kind: type[SessionError], protocol: int) -> None:
    error = full(kind)
    error.add_note("seen")
    read = pickle.loads(pickle.dumps(error, protocol))
    assert type(read) is kind
    assert str(read) == str(error)
    assert read.__dict__ == error.__dict__
    assert read.session_id == "s"


@each
def test_every_error_survives_copying_and_other_processes(kind: type[SessionError]) -> None:
    error = full(kind)
    for read in (
        copy.copy(error),
        copy.deepcopy(error),
        pickle.loads(multiprocessing.reduction.ForkingPickler.dumps(error)),
    ):
        assert (type(read), str(read), read.__dict__) == (kind, str(error), error.__dict__)


@each
def test_every_error_keeps_its_cause(kind: type[SessionError]) -> None:
    cause = ValueError("the cause")
    with pytest.raises(kind) as caught:
        raise full(kind) from cause
    assert caught.value.__cause__ is cause


def test_some_are_errors_of_the_language_as_well() -> None:
    assert issubclass(InvalidInputError, ValueError)
    assert issubclass(MissingDependencyError, ImportError)
    # None is what cancels a task, nor hides from "except Exception".
    assert not any(issubclass(kind, asyncio.CancelledError) for kind in ALL)
    assert all(issubclass(kind, Exception) for kind in ALL)


RETRIABLE = {
    "ProviderRateLimitError",
    "ProviderTimeoutError",
    "ProviderUnavailableError",
    "ProviderStreamError",
}


@pytest.mark.parametrize("kind", [kind for kind in ALL if issubclass(kind, ProviderSessionError)])
def test_a_providers_error_says_whether_to_try_again(kind: type[ProviderSessionError]) -> None:
    assert kind("x").retriable is (kind.__name__ in RETRIABLE)
    for said in (True, False):
        assert kind("x", retriable=said).retriable is said
    assert kind("x").provider is None
    assert kind("x", provider="openai").provider == "openai"


def test_a_rate_limit_says_for_how_long() -> None:
    assert ProviderRateLimitError("x").retry_after is None
    assert ProviderRateLimitError("x", retry_after=0.5).retry_after == 0.5


def test_a_busy_session_says_who_has_it() -> None:
    error = SessionBusyError("x", session_id="s", holder="token", owner="owner")
    assert (error.holder, error.owner) == ("token", "owner")

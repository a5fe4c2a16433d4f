from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session import SessionContext, SessionMessage
from langswarm_session.records import MadeUnder, ProviderRequest
from langswarm_session.requests.prefix import Prefix

CONTEXT = SessionContext(session_id="s", user_id="u", provider="p", model="m")


def request_of(**values: Any) -> ProviderRequest:
    return ProviderRequest("s", CONTEXT, [], **values)


def prefix_of(
    request: ProviderRequest, system: str = "be kind", tools: Any = (), binds: bool = True
) -> Prefix:
    return Prefix(request, system=system, tools=list(tools), binds=binds)


def made_under(*parts: Any, **values: Any) -> MadeUnder:
    """What a reply to these parts is made under."""
    request = request_of()
    prefix = prefix_of(request, **values)
    for part in parts:
        prefix.add(part)
    prefix.end()
    assert request.made_under is not None
    return request.made_under


def reply_to(*parts: Any, seq: int = 2, model: str = "m", **values: Any) -> SessionMessage:
    notes = made_under(*parts, **values).to_notes()
    return SessionMessage(
        role="assistant", provider="p", model=model, seq=seq, metadata={"langswarm": notes}
    )


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_a_reply_is_valid_behind_what_it_was_made_under(old: list[str], new: list[str]) -> None:
    prefix = prefix_of(request_of())
    for part in new:
        prefix.add(part)
    assert prefix.allows(reply_to(*old)) is (old == new)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"system": "be short"}, "system"),
        ({"tools": [{"name": "look"}]}, "tools"),
        ({}, "edited"),
    ],
)
def test_what_changed_is_told(changes: dict[str, Any], reason: str) -> None:
    request = request_of()
    prefix = prefix_of(request, **changes)
    prefix.add("other" if reason == "edited" else "hi")
    assert not prefix.allows(reply_to("hi"))
    prefix.end()
    assert request.changed == reason


def test_another_models_reply_is_told() -> None:
    request = request_of()
    prefix = prefix_of(request)
    prefix.add("hi")
    assert prefix.allows(reply_to("hi", model="other"))
    prefix.end()
    assert request.changed == "model"


def test_nothing_is_told_of_what_begins_as_before() -> None:
    request = request_of()
    prefix = prefix_of(request)
    prefix.add("hi")
    assert prefix.allows(reply_to("hi"))
    prefix.add("hello")
    prefix.end()
    assert request.changed is None
    assert request.made_under == made_under("hi", "hello")


def test_all_is_allowed_where_the_model_does_not_bind_it() -> None:
    assert prefix_of(request_of(), binds=False).allows(reply_to("other"))


@pytest.mark.parametrize("binds", [True, False])
def test_what_a_provider_refused_is_left_out(binds: bool) -> None:
    request = request_of(reasoning_after=2)
    prefix = prefix_of(request, binds=binds)
    assert not prefix.allows(reply_to(seq=2))
    assert prefix.allows(reply_to(seq=3))


@pytest.mark.parametrize(
    "metadata", [{}, {"langswarm": 1}, {"langswarm": {"made_under": {"prefix": "x"}}}]
)
def test_of_a_reply_made_elsewhere_nothing_is_known(metadata: dict[str, Any]) -> None:
    message = SessionMessage(role="assistant", provider="p", model="m", metadata=metadata)
    assert MadeUnder.of(message) is None
    assert not prefix_of(request_of()).allows(message)
    assert prefix_of(request_of(), binds=False).allows(message)

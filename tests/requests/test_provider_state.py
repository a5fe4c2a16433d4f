from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session import (
    BaseSession,
    MockProviderSession,
    SessionContext,
    SessionManager,
)
from langswarm_session.requests.provider_state import (
    ProviderState,
    state_of,
    states_of,
    stored,
    with_state,
)

NAMES = ["a", "b", "c"]
states = st.builds(
    ProviderState,
    st.none() | st.just("conv"),
    st.sampled_from([{}, {"last_item": "i"}]),
    st.integers(0, 9),
    st.lists(st.sampled_from("xy"), max_size=2),
)


def context_of(provider: str, values: dict[str, Any]) -> SessionContext:
    return SessionContext(session_id="s", user_id="u", provider=provider, model="m", **values)


@given(st.dictionaries(st.sampled_from(NAMES), states), st.sampled_from(NAMES))
def test_all_states_come_back_from_a_context(
    given_states: dict[str, ProviderState], current: str
) -> None:
    context = context_of(current, stored(given_states, current, {}))
    assert states_of(context) == {
        name: state for name, state in given_states.items() if not state.is_empty
    }


@given(
    st.dictionaries(st.sampled_from(NAMES), states), st.sampled_from(NAMES), st.sampled_from(NAMES)
)
def test_a_switch_keeps_them(
    given_states: dict[str, ProviderState], current: str, following: str
) -> None:
    before = context_of(current, stored(given_states, current, {}))
    after = context_of(following, stored(states_of(before), following, {}))
    assert states_of(after) == states_of(before)


@given(st.dictionaries(st.sampled_from(NAMES), states), st.sampled_from(NAMES), states)
def test_one_changes_alone(
    given_states: dict[str, ProviderState], name: str, state: ProviderState
) -> None:
    context = context_of("a", stored(given_states, "a", {}))
    after = context_of("a", with_state(context, name, state))
    assert state_of(after, name) == (ProviderState() if state.is_empty else state)
    for other in set(NAMES) - {name}:
        assert state_of(after, other) == state_of(context, other)


def test_nothing_is_stored_of_nothing() -> None:
    assert stored({"a": ProviderState(seq=3)}, "a", {}) == {}
    assert stored({}, "a", {}) == {}


async def test_a_conversation_that_a_caller_names_is_where_the_record_is(
    session: BaseSession,
) -> None:
    await session.send_message("hi")
    context = await session.update_context(provider_session_id="mine")
    assert (context.provider_session_id, context.provider_seq) == ("mine", 2)


@pytest.mark.parametrize("model", ["m", None])
async def test_is_there_again_after_switching_back(
    manager: SessionManager, session: BaseSession, model: str | None
) -> None:
    manager.add_provider_session("other", manager.core.providers.of("mock", "s"))
    await session.update_context(provider_session_id="mine", provider_context={"x": 1})
    before = session.context
    await session.switch_provider("other", model)
    assert session.context.provider_session_id is None
    again = await manager.get_session(session.session_id)
    await again.switch_provider("mock", before.model)
    assert again.context == before


async def test_a_conversation_named_at_the_creation_does_not_come_back(make_manager) -> None:
    """Nor does a fork, which has none of the provider's state, go on with it."""
    manager = make_manager(
        providers={"mock": MockProviderSession(), "other": MockProviderSession()}
    )
    session = await manager.create_session(
        "ann", "mock", "echo", provider_session_id="conv", provider_context={"x": 1}
    )
    assert session.context.provider_session_id == "conv"
    assert (await session.fork()).context.provider_session_id is None
    await session.switch_provider("other", "echo")
    assert session.context.provider_session_id is None
    await session.switch_provider("mock", "echo")
    assert session.context.provider_session_id == "conv"
    await session.update_context(provider_session_id=None, provider_context={})
    again = await manager.get_session(session.session_id)
    assert (again.context.provider_session_id, again.context.provider_context) == (None, {})

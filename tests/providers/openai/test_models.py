from __future__ import annotations

import pytest

from langswarm_session.providers.openai.models import (
    binds_reasoning,
    has_instructions_of_turns,
    reasons,
    takes_updates,
    version,
)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-5", (5, 0)),
        ("gpt-5.4", (5, 4)),
        ("gpt-6.2-astra", (6, 2)),
        ("openai/gpt-6-luna", (6, 0)),
        ("gpt-10.1", (10, 1)),
        ("gpt-4o", (4, 0)),
        ("gpt-oss-120b", None),
        ("o4-mini", None),
        ("my-deployment", None),
    ],
)
def test_versions(model, expected):
    assert version(model) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4.1", False),
        ("gpt-4o-mini", False),
        ("ft:gpt-4o:me::1", False),
        ("gpt-3.5-turbo", False),
        ("gpt-5-chat-latest", False),
        ("openai/gpt-4.1", False),
        ("chatgpt-4o-latest", False),
        ("gpt-5.4", True),
        ("o3", True),
        ("gpt-6.2-sol", True),
        ("my-deployment", True),
    ],
)
def test_which_may_reason(model, expected):
    assert reasons(model) is expected


def test_what_came_when():
    assert not binds_reasoning("gpt-6.1-sol")
    assert binds_reasoning("gpt-6.2-sol")
    assert binds_reasoning("gpt-7")
    assert not binds_reasoning("o4-mini")
    assert has_instructions_of_turns("gpt-6.2-astra")
    assert not has_instructions_of_turns("gpt-6-astra")
    assert takes_updates("gpt-6-astra")
    assert not takes_updates("gpt-6-astra-pro")
    assert not takes_updates("gpt-5.6-sol")

"""The ledger of a conversation's tools."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from langswarm_session.requests.tool_changes import Changes, ToolChange, ToolLedger, name_of

definitions = st.builds(
    lambda name, text: {"name": name, "description": text},
    st.sampled_from("abcde"),
    st.sampled_from(["one", "two"]),
)
tools = st.lists(definitions, max_size=4, unique_by=name_of)


class TestLedger:
    @given(tools, st.lists(tools, max_size=6))
    def test_offers_what_was_asked_for_last_and_never_touches_what_was_declared(self, first, later):
        ledger = ToolLedger(1, tuple(first))
        for number, wanted in enumerate(later):
            before = ledger
            ledger = ledger.with_tools(wanted, 2 * number)
            assert ledger.declared == tuple(first)
            assert ledger.changes[: len(before.changes)] == before.changes
            assert ledger.offered == {name_of(each): each for each in wanted}
            assert ledger.with_tools(wanted[::-1], 99) == ledger

    @given(tools, tools)
    def test_comes_back_from_the_notes_as_it_was(self, first, then):
        ledger = ToolLedger(7, tuple(first)).with_tools(then, 9)
        notes = json.loads(json.dumps(ledger.to_notes()))
        assert ToolLedger.from_notes(notes, 7) == ledger
        assert ToolLedger.from_notes(notes, 8) is None
        assert ToolLedger.from_notes({}, 7) is None

    def test_knows_what_can_be_named(self):
        one, two = {"name": "a", "v": 1}, {"name": "a", "v": 2}
        ledger = ToolLedger(0, (one,)).with_tools([two], 3).with_tools([], 5).with_tools([two], 7)
        assert [ledger.is_known(two, index) for index in range(3)] == [False, True, True]
        assert ledger.is_known(two)
        assert not ledger.is_known(one)  # its name means the other one by now

    def test_tells_tools_without_a_name_by_their_server_or_type(self):
        others = [
            {"type": "mcp_toolset", "mcp_server_name": "s"},
            {"server_label": "l"},
            {"type": "t"},
        ]
        assert [name_of(each) for each in others] == ["s", "l", "t"]
        assert name_of({}) == ""


def test_changes_stand_before_the_reply_to_their_message():
    ledger = ToolLedger(1, (), tuple(ToolChange(after) for after in (1, 3, 3, 7)))
    changes = Changes(ledger, lambda index, change: (index, change.after))
    assert list(changes.before(2)) == [(0, 1)]
    assert list(changes.before(2)) == []
    assert list(changes.before(6)) == [(1, 3), (2, 3)]
    assert list(changes.before(None)) == [(3, 7)]

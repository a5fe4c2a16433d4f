from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from langswarm_session import (
    InMemorySessionStorage,
    InvalidInputError,
    ISessionLifecycleHook,
    MockFailure,
    MockProviderSession,
    OtherBlock,
    ProviderSessionError,
    SessionManager,
    SessionMessage,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.requests.window import SUMMARY, calls_needed, cut, place_of
from langswarm_session.storage.replacements import replacing


def message(role, content):
    return SessionMessage(role=role, content=content)


def call(name):
    return message("assistant", [ToolCallBlock(id=name, name="tool")])


def result(name):
    return message("tool", [ToolResultBlock(tool_call_id=name, content=f"of {name}")])


def sent(mock):
    return [each.text for each in mock.requests[-1].messages]


class TestReplaced:
    async def test_what_was_replaced_is_not_sent(self, session, mock):
        await session.add_system_message("old rule")
        for text in "abc":
            await session.send_message(text)
        old = await session.get_messages()
        await session.record(replacing([message("user", "in short")], old))
        await session.add_system_message("new rule")
        await session.send_message("d")
        assert sent(mock) == ["in short", "new rule", "d"]
        assert (await session.get_messages())[: len(old)] == old

    @pytest.mark.parametrize("size", [1, 2, 3, 4])
    async def test_older_messages_take_the_room(self, session, mock, size):
        await session.update_context(max_messages=size)
        await session.record([message("user", text) for text in "abcdef"])
        old = await session.get_messages()
        await session.record(replacing([message("user", "in short")], old[2:], old[:2]))
        await session.send_message("g")
        assert sent(mock) == ["a", "b", "in short", "g"][-size:]


class TestSent:
    async def test_the_newest_messages(self, session, mock):
        await session.update_context(max_messages=3)
        for text in "abc":
            await session.send_message(text)
        assert sent(mock) == ["b", "You said: b", "c"]

    async def test_only_the_new_one(self, session, mock):
        await session.update_context(max_messages=1)
        for text in "abc":
            await session.send_message(text)
            assert sent(mock) == [text]
            assert [each.text for each in mock.requests[-1].new_messages] == [text]

    async def test_what_is_new_is_the_whole_turn(self, session, mock):
        await session.send_message("old")
        message = SessionMessage(role="user", content="new")
        mock.fail_next(MockFailure.ERROR)
        with pytest.raises(ProviderSessionError):
            await session.send_message(message)
        await session.send_message(message)
        assert [each.text for each in mock.requests[-1].new_messages] == ["new"]
        assert sent(mock) == ["old", "You said: old", "new"]

    async def test_system_messages_of_long_ago(self, manager, mock):
        session = await manager.create_session("ann", "mock", "echo", max_messages=2)
        await session.add_system_message("one")
        await session.send_message("a")
        await session.add_system_message("two")
        await session.send_message("b")
        await session.send_message("c")
        again = await manager.get_session(session.session_id)
        await again.send_message("d")
        assert sent(mock) == ["one", "two", "d"]

    async def test_system_messages_take_no_room(self, manager, mock):
        session = await manager.create_session("ann", "mock", "echo", max_messages=3)
        await session.record([message("user", text) for text in "abcd"])
        for text in ("one", "two", "three"):
            await session.add_system_message(text)
        await session.send_message("x")
        assert sorted(sent(mock)) == ["c", "d", "one", "three", "two", "x"]

    async def test_neither_failed_turns_nor_their_system_messages(self, session, mock):
        mock.fail_next(MockFailure.ERROR)
        with pytest.raises(ProviderSessionError):
            await session.send_message("be unkind", "system")
        await session.send_message("a")
        assert sent(mock) == ["a"]

    async def test_what_others_wrote_meanwhile(self, make_manager, mock):
        session = await make_manager(providers={"mock": mock}).create_session("a", "mock", "echo")
        await session.send_message("a")
        other = await make_manager().get_session(session.session_id)
        await other.record([message("user", "b"), message("assistant", "c")])
        await session.send_message("d")
        assert sent(mock) == ["a", "You said: a", "b", "c", "d"]

    async def test_more_when_more_is_allowed(self, session, mock):
        await session.update_context(max_messages=2)
        for text in "abc":
            await session.send_message(text)
        await session.update_context(max_messages=99)
        await session.send_message("d")
        assert len(sent(mock)) == 7

    async def test_more_when_more_was_allowed_during_a_turn(self, session, mock):
        await session.update_context(max_messages=2)
        for text in "abc":
            await session.send_message(text)
        async with await session.begin_turn("d") as turn:
            await turn.history()
            await session.update_context(max_messages=99)
        await session.send_message("e")
        assert len(sent(mock)) == 8

    async def test_of_a_turn_that_was_only_recorded_no_more_is_sent(self, manager, mock):
        session = await manager.create_session("ann", "mock", "echo", max_messages=4)
        log = [
            SessionMessage(role=role, content=f"{role} {number}")
            for number in range(10)
            for role in ("assistant", "user")
        ]
        await session.record(log)
        await session.send_message(log[-1])
        assert [each.id for each in mock.requests[-1].messages] == [each.id for each in log[-3:]]


class TestRead:
    """The window without a turn, for whoever runs the turns of a framework."""

    async def test_it_is_what_the_next_turn_is_sent(self, session, mock):
        await session.add_system_message("be brief")
        await session.update_context(max_messages=3)
        for text in "abc":
            await session.send_message(text)
        window = await session.get_window()
        assert [each.text for each in window] == ["be brief", "c", "You said: c"]
        await session.send_message("d")
        assert sent(mock) == ["be brief", "c", "You said: c", "d"]
        await session.update_context(max_messages=9)
        window = [each.text for each in await session.get_window()]
        assert window[:2] == ["be brief", "a"]
        await session.send_message("e")
        assert sent(mock) == [*window, "e"]

    async def test_a_summary_stands_for_what_it_covers(self, session):
        for text in "ab":
            await session.send_message(text)
        await session.set_summary("all about a", 2)
        assert [each.text for each in await session.get_window()] == [
            SUMMARY + "all about a",
            "b",
            "You said: b",
        ]

    async def test_none_of_an_empty_session(self, session):
        assert await session.get_window() == []


class TestSteady:
    """A provider's cache knows a request by its beginning."""

    @pytest.mark.parametrize("limits", [{"max_messages": 40}, {"max_input_tokens": 400}])
    async def test_a_full_window_begins_alike_for_some_turns(self, manager, mock, limits):
        session = await manager.create_session("ann", "mock", "echo", **limits)
        for number in range(80):
            await session.send_message(f"message {number:03}")
        requests = list(mock.requests)[-40:]
        beginnings = [request.messages[0].text for request in requests]
        assert len(set(beginnings)) <= len(beginnings) / 8
        assert beginnings == sorted(beginnings)
        sizes = [len(request.messages) for request in requests]
        assert max(sizes) <= limits.get("max_messages", 50)
        assert min(sizes) >= 0.45 * max(sizes)

    async def test_it_is_the_same_for_who_comes_anew(self, manager, mock):
        session = await manager.create_session("ann", "mock", "echo", max_messages=40)
        for number in range(50):
            await session.send_message(f"message {number:03}")
            fork = await session.fork()
            await fork.send_message("last")
            await (await manager.get_session(session.session_id)).send_message("last")
            again, kept = (list(request.messages) for request in list(mock.requests)[-2:])
            assert [each.text for each in again] == [each.text for each in kept]

    async def test_a_user_says_something_first(self, make_manager, mock):
        """Providers refuse what begins with an answer, or take it for the user's own style."""
        manager = make_manager(providers={"mock": mock})
        session = await manager.create_session("ann", "mock", "echo", max_messages=4)
        for text in "abcd":
            await session.send_message(text)
            assert sent(mock)[0] in "abcd"
        again = await manager.get_session(session.session_id)
        assert [each.text for each in await again.get_window()] == [
            "c", "You said: c", "d", "You said: d"
        ]  # fmt: skip

    async def test_the_question_of_a_turn_that_does_not_fit(self, make_manager, mock):
        manager = make_manager(providers={"mock": mock})
        session = await manager.create_session("ann", "mock", "echo", max_messages=8)
        steps = [step for name in "abc" for step in (call(name), result(name))]
        await session.record([message("user", "old"), message("assistant", "so")])
        await session.record([message("user", "look"), *steps, message("assistant", "seen")])
        window = await session.get_window()
        assert [each.text for each in window][::3] == ["look", "seen"]
        assert [each.role for each in window] == ["user", "assistant", "tool", "assistant"]
        await session.send_message("b")
        assert [each.role for each in mock.requests[-1].messages] == ["user", "assistant", "user"]
        again = await manager.get_session(session.session_id)
        await again.send_message("c")
        assert sent(mock) == ["look", "seen", "b", "You said: b", "c"]

    async def test_a_greeting_that_nothing_was_cut_from_stays(self, session, mock):
        await session.record(message("assistant", "Hello!"))
        await session.send_message("a")
        await session.send_message("b")
        assert sent(mock)[0] == "Hello!"


class TestToolExchanges:
    async def test_a_result_goes_only_with_its_call(self, session, mock):
        await session.record(
            [message("user", "look"), call("c"), result("c"), message("user", "b")]
        )
        await session.update_context(max_messages=3)
        await session.send_message("x")
        assert sent(mock) == ["b", "x"]
        await session.update_context(max_messages=5)
        await session.send_message("y")
        assert sent(mock) == ["x", "You said: x", "y"]
        await session.update_context(max_messages=9)
        await session.send_message("z")
        assert [each.role for each in mock.requests[-1].messages][:4] == [
            "user", "assistant", "tool", "user"
        ]  # fmt: skip

    async def test_all_results_of_one_call_go_or_none(self, session, mock):
        calls = message("assistant", [ToolCallBlock(id=each, name="tool") for each in "ab"])
        await session.record([message("user", "look"), calls, result("a"), result("b")])
        await session.update_context(max_messages=2)
        await session.send_message("x")
        assert sent(mock) == ["x"]

    async def test_an_exchange_that_fits_is_sent_whole(self, session, mock):
        exchange = [message("user", "look"), call("c"), result("c"), message("assistant", "seen")]
        await session.record(exchange)
        await session.send_message("x")
        assert [each.content for each in mock.requests[-1].messages[:-1]] == [
            each.content for each in exchange
        ]

    async def test_a_call_that_never_got_its_result_is_not_sent_as_it_is(self, session, mock):
        """Every provider refuses a call without a result, and then for ever."""
        await session.record([message("user", "look"), call("cancelled")])
        await session.send_message("never mind")
        blocks = [block for each in mock.requests[-1].messages for block in each.blocks]
        calls = {block.id for block in blocks if isinstance(block, ToolCallBlock)}
        results = {block.tool_call_id for block in blocks if isinstance(block, ToolResultBlock)}
        assert calls == results

    @pytest.mark.parametrize("limit", [1, 2, 3])
    async def test_a_result_that_is_sent_brings_its_call(self, session, mock, limit):
        await session.update_context(max_messages=limit)
        mock.script([ToolCallBlock(id=each, name="tool") for each in "ab"])
        await session.send_message("look")
        await session.send_message(
            message("tool", [ToolResultBlock(tool_call_id=each, content="x") for each in "ab"])
        )
        request = mock.requests[-1]
        assert [each.role for each in request.messages][-2:] == ["assistant", "tool"]
        assert request.repairs == []

    async def test_a_result_brings_a_call_of_long_ago(self, make_manager, mock):
        manager = make_manager(providers={"mock": mock})
        session = await manager.create_session("ann", "mock", "echo", max_messages=3)
        await session.record([call("old"), *(message("user", str(n)) for n in range(9))])
        await (await manager.get_session(session.session_id)).send_message(result("old"))
        blocks = [block for each in mock.requests[-1].messages for block in each.blocks]
        assert [block.id for block in blocks if isinstance(block, ToolCallBlock)] == ["old"]
        said = [block.content for block in blocks if isinstance(block, ToolResultBlock)]
        assert said == ["of old"]

    async def test_results_of_several_messages_bring_all_their_calls(self, session, mock):
        await session.update_context(max_messages=1)
        await session.record([call("a"), message("user", "so?"), call("b")])
        results = [ToolResultBlock(tool_call_id=each, content="x") for each in "ab"]
        await session.send_message(message("tool", results))
        blocks = [block for each in mock.requests[-1].messages for block in each.blocks]
        assert [block.id for block in blocks if isinstance(block, ToolCallBlock)] == ["a", "b"]
        results = {b.tool_call_id: b for b in blocks if isinstance(b, ToolResultBlock)}
        assert results["b"].content == "x"
        # "b" was called while "a" had no result, which is what that request and all later ones say.
        assert results["a"].is_error
        assert mock.requests[-1].messages[-1].text == "[result of tool] x"


class TestSummary:
    @pytest.fixture
    async def session(self, session):
        await session.add_system_message("be kind")
        await session.record([message("user", text) for text in "abcd"])
        return session

    async def test_stands_for_what_it_covers(self, session, mock):
        await session.set_summary("letters", 3)
        await session.send_message("now")
        assert sent(mock) == ["be kind", f"{SUMMARY}letters", "c", "d", "now"]
        assert [each.text for each in await session.get_messages()][1:5] == list("abcd")

    async def test_of_all_there_is(self, session, mock):
        await session.set_summary("letters")
        await session.send_message("now")
        assert sent(mock) == ["be kind", f"{SUMMARY}letters", "now"]
        assert session.context.summary.last_seq == 5

    async def test_goes_with_every_turn(self, session, mock):
        await session.set_summary("letters")
        await session.send_message("one")
        await session.send_message("two")
        assert sent(mock) == ["be kind", f"{SUMMARY}letters", "one", "You said: one", "two"]

    async def test_is_left_out_again(self, session, mock):
        await session.set_summary("letters")
        await session.send_message("one")
        await session.set_summary(None)
        await session.send_message("two")
        assert sent(mock)[:3] == ["be kind", "a", "b"]

    async def test_is_seen_by_other_objects_of_the_session(self, session, mock, manager):
        other = await manager.get_session(session.session_id)
        await other.send_message("one")
        await session.set_summary("letters")
        await other.send_message("two")
        assert sent(mock) == ["be kind", f"{SUMMARY}letters", "two"]

    async def test_keeps_the_call_that_a_turn_answers(self, session, mock):
        await session.record([call("c")])
        await session.set_summary("letters and a call")
        await session.send_message(result("c"))
        assert [each.role for each in mock.requests[-1].messages] == [
            "system",
            "user",
            "assistant",
            "tool",
        ]
        assert mock.requests[-1].repairs == []

    async def test_that_ends_between_a_call_and_its_result(self, session, mock):
        await session.record([call("c"), result("c"), message("assistant", "seen")])
        await session.set_summary("letters and a call", 6)
        await session.send_message("now")
        assert sent(mock)[2:] == ["seen", "now"]
        assert mock.requests[-1].repairs == []

    async def test_does_not_count_as_a_message(self, session, mock):
        await session.update_context(max_messages=2)
        await session.set_summary("letters", 2)
        await session.send_message("now")
        assert sent(mock) == ["be kind", f"{SUMMARY}letters", "d", "now"]

    @pytest.mark.parametrize(("at", "kept"), [(2, False), (3, True), (None, True)])
    async def test_a_fork_keeps_it_where_it_has_all_of_it(self, session, at, kept):
        await session.set_summary("letters", 3)
        fork = await session.fork(at)
        assert (fork.context.summary is not None) is kept
        assert session.context.summary is not None

    async def test_goes_with_the_messages(self, session, mock):
        await session.set_summary("letters")
        await session.clear_messages()
        assert session.context.summary is None
        await session.send_message("new")
        assert sent(mock) == ["new"]

    @pytest.mark.parametrize("last_seq", [0, -1, 6, True, 1.0, "3"])
    async def test_covers_only_what_is_there(self, session, last_seq):
        with pytest.raises(InvalidInputError):
            await session.set_summary("letters", last_seq)

    @pytest.mark.parametrize("text", ["", 3])
    async def test_has_a_text(self, session, text):
        with pytest.raises(InvalidInputError):
            await session.set_summary(text)


def log_of(parts):
    """A log of these parts; a number is a call with so many results, ``noted`` one with a note."""
    log = []
    for i, part in enumerate(parts):
        if part == "noted":
            log += [call(str(i)), message("system", "note"), result(str(i))]
        elif isinstance(part, str):
            log.append(message(part, str(i)))
        else:
            calls = [f"{i}-{j}" for j in range(part)]
            blocks = [ToolCallBlock(id=each, name="tool") for each in calls]
            log += [message("assistant", blocks), *map(result, calls)]
    return log


def without_system(messages):
    return [each for each in messages if each.role != "system"]


class TestCut:
    parts = st.lists(st.sampled_from(["user", "assistant", "system", 1, 3, "noted"]), max_size=8)

    @given(parts, st.integers(0, 12))
    def test_keeps_the_newest_that_fit(self, parts, limit):
        whole = log_of(parts)
        log, others = without_system(whole), without_system(cut(whole, limit).messages)
        newest = others[1:] if others and others[0] is not log[-len(others)] else others
        assert newest == log[len(log) - len(newest) :]
        assert len(others) <= limit
        if len(log) <= limit:
            left_out = log[: len(log) - len(others)]
            assert all(each.role == "tool" for each in left_out)

    @given(parts, st.integers(0, 12))
    @example(["user", 3], 2)
    def test_what_is_left_of_a_log_begins_with_a_user(self, parts, limit):
        whole = log_of(parts)
        log, others = without_system(whole), without_system(cut(whole, limit).messages)
        if not others or len(log) <= limit:
            return
        users = [place for place, each in enumerate(log) if each.role == "user"]
        assert not users or others[0].role == "user"
        start = len(log) - len(others)
        if users and others[0] is not log[start]:
            question = next(place for place in users if log[place] is others[0])
            answers = range(question + 1, start + 1)
            assert not any(place in users for place in answers), "it is what the next one answers"

    @given(parts, st.integers(0, 12))
    def test_keeps_every_system_message_and_the_order(self, parts, limit):
        log = log_of(parts)
        kept = cut(log, limit).messages
        assert [each for each in kept if each.role == "system"] == [
            each for each in log if each.role == "system"
        ]
        assert kept == [each for each in log if any(each is other for other in kept)]

    @given(parts, st.integers(0, 12))
    @example(["noted"], 1)
    def test_keeps_no_result_without_its_call(self, parts, limit):
        called = set()
        for each in cut(log_of(parts), limit).messages:
            for block in each.blocks:
                if isinstance(block, ToolCallBlock):
                    called.add(block.id)
                elif isinstance(block, ToolResultBlock):
                    assert block.tool_call_id in called

    @given(parts, st.integers(0, 12))
    def test_cutting_again_changes_nothing(self, parts, limit):
        once = cut(log_of(parts), limit).messages
        assert cut(once, limit).messages == once

    @given(parts, st.data())
    def test_keeps_the_calls_that_are_needed(self, parts, data):
        log = log_of(parts)
        made = [("", b.id) for each in log for b in each.blocks if isinstance(b, ToolCallBlock)]
        needed = set(data.draw(st.lists(st.sampled_from(made), max_size=2))) if made else set()
        kept = {
            ("", b.id)
            for m in cut(log, 0, 0, needed).messages
            for b in m.blocks
            if isinstance(b, ToolCallBlock)
        }
        assert needed <= kept

    def test_needs_the_newest_of_calls_with_one_id(self):
        log = [call("a"), result("a"), call("a"), result("a")]
        assert place_of(log, {("", "a")}) == 2
        assert place_of(log, {("", "other")}) == len(log)
        assert place_of(log, {("", "a"), ("", "other")}) == 2

    @pytest.mark.parametrize("size", range(1, 8))
    def test_parts_no_call_of_a_hosted_tool_from_its_output(self, size):
        """OpenAI refuses an output without its call: "No tool call found for computer call"."""
        look = OtherBlock(value={"type": "computer_call", "call_id": "c1"})
        seen = OtherBlock(value={"type": "computer_call_output", "call_id": "c1"})
        exchange = [message("user", "look"), message("assistant", [look])]
        log = [message("user", "hi"), message("assistant", "hello"), *exchange]
        log += [message("user", [seen]), message("assistant", "a cat"), message("user", "thanks")]
        sent = cut(log, size).messages
        assert (exchange[1] in sent) == (log[4] in sent)
        new = log[4:5]
        assert exchange[1] in cut(log[:4], size, 1, calls_needed(new)).messages


STEPS = {
    "send": lambda session, mock: session.send_message("sent"),
    "fail": lambda session, mock: fail(session, mock),
    "record": lambda session, mock: session.record(
        [message("user", "q"), call("c"), result("c"), message("assistant", "a")]
    ),
    "result": lambda session, mock: session.record(result("d")),
    "call": lambda session, mock: ask(session, mock),
    "answer": lambda session, mock: session.send_message(result("d")),
    "summary": lambda session, mock: summarise(session),
    "system": lambda session, mock: session.add_system_message("be kind"),
    "shorter": lambda session, mock: session.update_context(max_messages=2),
    "longer": lambda session, mock: session.update_context(max_messages=5),
    "cancel": lambda session, mock: cancel(session),
    "clear": lambda session, mock: session.clear_messages(),
}


async def fail(session, mock):
    mock.fail_next(MockFailure.ERROR)
    with pytest.raises(ProviderSessionError):
        await session.send_message("lost")


async def ask(session, mock):
    mock.script(ToolCallBlock(id="d", name="tool"))
    await session.send_message("ask")


async def summarise(session):
    await session.refresh()
    if session.last_seq:
        await session.set_summary("so far", session.last_seq)


async def cancel(session):
    turn = await session.begin_turn("broken off")
    await turn.cancel([message("assistant", "par")])


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(sorted(STEPS))), max_size=12))
@settings(max_examples=60)
def test_a_window_that_was_kept_is_the_one_that_is_stored(steps):
    """Whatever two objects of a session do in turn, each sends what a newly read one would."""

    async def run():
        mock = MockProviderSession()
        async with SessionManager("memory", {"mock": mock}) as manager:
            one = await manager.create_session("ann", "mock", "echo", max_messages=3)
            other = await manager.get_session(one.session_id)
            for first, step in steps:
                await STEPS[step](one if first else other, mock)
            fork = await one.fork()
            for session in (fork, one):
                await session.send_message("last")
            forked, kept = (list(request.messages) for request in list(mock.requests)[-2:])
            assert [m.content for m in forked] == [m.content for m in kept]

    asyncio.run(run())


def request_of(mock):
    return [(each.role, each.content) for each in mock.requests[-1].messages]


class Changes(ISessionLifecycleHook):
    """Notes why requests did not begin with the whole of the one before."""

    def __init__(self):
        self.reasons = []

    async def on_prefix_changed(self, session, change):
        self.reasons.append(change.reason)


def exchange(name, steps):
    """A question that takes some calls to answer."""
    made = [each for n in range(steps) for each in (call(f"{name}-{n}"), result(f"{name}-{n}"))]
    return [message("user", f"do {name}"), *made, message("assistant", f"done {name}")]


@pytest.mark.parametrize("ending", ["fails", "is cancelled"])
async def test_a_turn_without_a_reply_leaves_the_report_to_the_next(ending):
    """Each new beginning is reported once, with its reason, in the reply that follows it."""
    mock, hook = MockProviderSession(), Changes()
    async with SessionManager("memory", {"mock": mock}) as manager:
        manager.add_global_hook(hook)
        session = await manager.create_session("ann", "mock", "echo", max_messages=4)
        for text in "ab":
            await session.send_message(text)
        if ending == "fails":
            mock.fail_next(MockFailure.ERROR)
            with pytest.raises(ProviderSessionError):
                await session.send_message("c")
        else:
            async with aclosing(session.stream_message("c d e")) as pieces:
                async for _ in pieces:
                    break
        assert hook.reasons == []
        reply = await session.send_message("f")
        assert hook.reasons == ["window"]
        assert reply.metadata["langswarm"]["prefix_change"]["reason"] == "window"
        assert "untold" not in session.context.request_state


async def test_a_door_s_turn_reports_it_too():
    hook = Changes()
    async with SessionManager("memory", {"mock": MockProviderSession()}) as manager:
        manager.add_global_hook(hook)
        session = await manager.create_session("ann", "mock", "echo", max_messages=4)
        for text in "abc":
            async with await session.begin_turn(text) as turn:
                await turn.history()
                await turn.complete([message("assistant", text)])
        assert hook.reasons == ["window"]


TURNS = st.lists(
    st.one_of(
        st.just("send"),
        st.just("send long"),
        st.just("system"),
        st.just("fail"),
        st.integers(0, 4),  # an exchange with so many calls
    ),
    min_size=4,
    max_size=40,
)
LIMITS = st.one_of(
    st.builds(dict, max_messages=st.integers(1, 30)),
    st.builds(dict, max_input_tokens=st.integers(20, 400)),
    st.builds(dict, max_messages=st.integers(4, 30), max_input_tokens=st.integers(100, 400)),
)


async def take(turn, name, session, mock):
    """Take one of `TURNS`; whether a request was answered."""
    if turn == "send":
        await session.send_message(f"say {name}")
    elif turn == "send long":
        await session.send_message(f"say {name}" * 12)
    elif turn == "system":
        await session.add_system_message(f"rule {name}")
    elif turn == "fail":
        mock.fail_next(MockFailure.ERROR)
        with pytest.raises(ProviderSessionError):
            await session.send_message(f"lost {name}")
    else:
        await session.record(exchange(name, turn))
    return turn in ("send", "send long")


@given(TURNS, LIMITS, st.integers(0, 2))
@settings(max_examples=80)
def test_a_request_begins_with_the_one_before(turns, limits, other):
    """In the same process, in another one and in a fork, unless a new beginning is reported.

    Windows that slide with each turn are never found in a cache:
    https://github.com/openclaw/openclaw/issues/115273 and
    https://github.com/oguzbilgic/kern-ai/issues/295.
    """

    async def run():
        mock, storage, hook = MockProviderSession(), InMemorySessionStorage(), Changes()
        async with (
            SessionManager(storage, {"mock": mock}) as manager,
            SessionManager(storage, {"mock": mock}) as another,
        ):
            for each in (manager, another):
                each.add_global_hook(hook)
            session = await manager.create_session("ann", "mock", "echo", **limits)
            before = []
            for name, turn in enumerate(turns):
                if other == 1:
                    session = await another.get_session(session.session_id)
                elif other == 2:
                    session = await session.fork()
                if not await take(turn, name, session, mock):
                    continue
                request = request_of(mock)
                if not hook.reasons:
                    assert request[: len(before)] == before
                assert {*hook.reasons} <= {"window", "budget"}
                assert len(hook.reasons) <= 1
                hook.reasons.clear()
                before = request

    asyncio.run(run())


@given(TURNS, st.integers(8, 30))
@settings(max_examples=40)
def test_a_new_beginning_lasts(turns, limit):
    """Once requests begin elsewhere, about half of a window comes before they do so again.

    One that is cut to its limit is cut again a few messages later:
    https://github.com/zeroclaw-labs/zeroclaw/issues/10674.
    """

    async def run():
        mock, hook = MockProviderSession(), Changes()
        async with SessionManager("memory", {"mock": mock}) as manager:
            manager.add_global_hook(hook)
            session = await manager.create_session("ann", "mock", "echo", max_messages=limit)
            last = -limit
            for name, turn in enumerate([*turns, *turns, *turns]):
                if await take(turn, name, session, mock) and hook.reasons:
                    # What the turn before added went over the limit, and this one's message.
                    added = session.last_seq - last
                    assert last < 0 or added >= limit // 4
                    last = session.last_seq
                    hook.reasons.clear()
                    assert len(without_system(mock.requests[-1].messages)) <= limit

    asyncio.run(run())

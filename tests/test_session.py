from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone

import pytest

from langswarm_session import (
    AudioBlock,
    FileBlock,
    IdempotencyConflictError,
    ImageBlock,
    InvalidInputError,
    IProviderSession,
    MessageConflictError,
    MessageRole,
    MockFailure,
    MockProviderSession,
    OtherBlock,
    ProviderCapabilityError,
    ProviderRateLimitError,
    ProviderReply,
    ProviderSessionError,
    ProviderStreamError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ReasoningBlock,
    RefusalBlock,
    RevisionConflictError,
    SessionExistsError,
    SessionMessage,
    SessionNotFoundError,
    TextBlock,
    TokenUsage,
    ToolCallBlock,
    ToolResultBlock,
    UnknownProviderError,
    VideoBlock,
)

EVERY_BLOCK = [
    TextBlock(text="text", annotations=[{"type": "citation", "url": "https://example.org"}]),
    ReasoningBlock(reasoning="because", signature="c2ln", encrypted="ZW5j"),
    ImageBlock(url="https://example.org/a.png", mime_type="image/png"),
    AudioBlock(base64="AAAA", mime_type="audio/wav"),
    VideoBlock(file_id="file_1"),
    FileBlock(filename="a.txt", text="plain", extras={"index": 3}),
    ToolCallBlock(id="call_1", name="look", args={"deep": [1, 2.5, None, {"a": True}]}),
    ToolResultBlock(tool_call_id="call_1", content=[TextBlock(text="seen")], is_error=True),
    RefusalBlock(refusal="no"),
    OtherBlock(value={"type": "new_thing", "data": [1]}),
]


def user(content, **fields):
    return SessionMessage(role="user", content=content, **fields)


async def test_a_seeded_program_loses_nothing(manager):
    """Machine-learning programs call `random.seed(0)` before each step."""
    state = random.getstate()
    sessions = []
    for _ in range(5):
        random.seed(0)
        sessions.append(await manager.create_session("u", "mock", "echo"))
    for _ in range(20):
        random.seed(0)
        await sessions[0].record(SessionMessage(role="user", content="yes"))
    random.setstate(state)
    assert len({session.session_id for session in sessions}) == 5
    assert sessions[0].metrics.message_count == 20


class TestSendMessage:
    async def test_stores_message_and_reply_and_returns_the_stored_reply(self, session):
        reply = await session.send_message("hello", metadata={"lang": "en"})
        log = await session.get_messages()
        assert [(m.seq, m.turn_id, m.role.value, m.text) for m in log] == [
            (1, 1, "user", "hello"),
            (2, 1, "assistant", "You said: hello"),
        ]
        assert log[1] == reply
        assert log[0].metadata == {"lang": "en"}
        assert reply.finish_reason == "stop"
        assert reply.provider_message_id is not None

    async def test_the_message_is_durable_before_the_provider_is_called(self, make_manager, turns):
        seen = []

        class Looking(MockProviderSession):
            async def send_message(self, request):
                other = await make_manager().get_session(request.session_id)
                seen.append([m.text for m in await other.get_messages()])
                seen.append(await turns(other))
                return await super().send_message(request)

        manager = make_manager(providers={"mock": Looking()})
        session = await manager.create_session("ann", "mock", "echo")
        await session.send_message("x")
        assert seen == [["x"], ["open"]]

    async def test_what_it_returned_is_there_for_everybody(self, make_manager):
        session = await make_manager().create_session("ann", "mock", "echo")
        reply = await session.send_message("x")
        other = await make_manager().get_session(session.session_id)
        assert (await other.get_messages())[-1] == reply
        assert (await other.get_turns())[-1].status.value == "complete"

    async def test_the_provider_gets_window_context_and_options(self, session, mock):
        await session.send_message("one")
        await session.send_message("two", temperature=0.5, tools=[{"name": "look"}])
        request = mock.requests[-1]
        assert [m.text for m in request.messages] == ["one", "You said: one", "two"]
        assert [m.text for m in request.new_messages] == ["two"]
        assert request.options == {"temperature": 0.5, "tools": [{"name": "look"}]}
        assert request.context == session.context

    async def test_a_message_of_the_callers_making_keeps_what_it_is(self, session):
        message = user("x", name="Ann", metadata={"a": 1})
        await session.send_message(message, metadata={"b": 2})
        stored = (await session.get_messages())[0]
        assert (stored.id, stored.name, stored.timestamp) == (message.id, "Ann", message.timestamp)
        assert stored.metadata == {"a": 1, "b": 2}

    @pytest.mark.parametrize("role", ["system", MessageRole.TOOL, "function"])
    async def test_other_roles_may_be_sent(self, session, role):
        await session.send_message("x", role)
        assert (await session.get_messages())[0].role is MessageRole(role)

    async def test_a_reply_is_not_sent(self, session):
        with pytest.raises(InvalidInputError, match=r"record\(\)"):
            await session.send_message("x", "assistant")

    async def test_the_same_message_again_gives_the_stored_reply(self, session, mock):
        message = user("x")
        first = await session.send_message(message)
        assert await session.send_message(message) == first
        assert len(mock.requests) == 1
        assert session.metrics.message_count == 2


@pytest.mark.parametrize(
    "content",
    [
        "plain",
        "  spaces \n\t\r\n kept  ",
        "ünïcödé 漢字 🤖 \u200d \u202e",
        "NUL \0 and 'quotes' \" ; DROP TABLE messages; --",
        "x" * 1_000_000,
        EVERY_BLOCK,
    ],
    ids=["plain", "spaces", "unicode", "hostile", "a million", "every block"],
)
async def test_content_comes_back_as_it_went_in(make_manager, content):
    session = await make_manager().create_session("ann", "mock", "echo")
    await session.record(user(content))
    again = await make_manager().get_session(session.session_id)
    assert (await again.get_messages())[0].content == content


async def test_every_field_comes_back_as_it_went_in(make_manager):
    message = SessionMessage(
        id="any id",
        role="assistant",
        content="x",
        timestamp=datetime(2026, 1, 2, 3, 4, 5, 678901, timezone(timedelta(hours=5, minutes=45))),
        name="bot",
        metadata={"nested": {"list": [1, 2.5, None, "é"]}},
        provider_message_id="msg_1",
        usage=TokenUsage(input_tokens=10, output_tokens=5, details={"audio": 1}),
        finish_reason="length",
        native={"openai": {"id": "msg_1", "type": "message"}},
    )
    session = await make_manager().create_session("ann", "mock", "echo")
    await session.record(message)
    again = await make_manager().get_session(session.session_id)
    (stored,) = await again.get_messages()
    assert stored == message.replaced(seq=1, turn_id=1)
    assert stored.timestamp.tzinfo is UTC


class TestTurnContext:
    async def test_goes_with_its_message_in_every_request(self, session, mock):
        first = await session.send_message("a", turn_context="It is Monday.")
        again = await session.regenerate()
        await session.send_message("b", turn_context="It is Tuesday.")
        sent = [[block.text for block in each.blocks] for each in mock.requests[-1].messages]
        assert sent == [["a", "It is Monday."], [again.text], ["b", "It is Tuesday."]]
        assert first.text == "You said: a"

    async def test_is_streamed_with(self, session, mock):
        async for _ in session.stream_message("a", turn_context="It is Monday."):
            pass
        assert [block.text for block in mock.requests[-1].messages[-1].blocks][1] == "It is Monday."


class TestFailures:
    @pytest.mark.parametrize(
        ("failure", "error", "retriable"),
        [
            (MockFailure.RATE_LIMIT, ProviderRateLimitError, True),
            (MockFailure.TIMEOUT, ProviderTimeoutError, True),
            (MockFailure.UNAVAILABLE, ProviderUnavailableError, True),
            (MockFailure.BROKEN_STREAM, ProviderStreamError, True),
            (MockFailure.ERROR, ProviderSessionError, False),
            (ValueError("a bug"), ProviderSessionError, False),
        ],
        ids=lambda value: getattr(value, "__name__", None) or str(value),
    )
    async def test_a_failed_turn_keeps_the_message_and_is_not_sent_again(
        self, session, mock, turns, failure, error, retriable
    ):
        mock.fail_next(failure)
        with pytest.raises(error) as caught:
            await session.send_message("lost")
        assert type(caught.value) is error
        assert caught.value.session_id == session.session_id
        assert caught.value.provider == "mock"
        assert caught.value.retriable is retriable
        assert await turns(session) == ["failed"]
        assert session.metrics.errors == 1

        await session.send_message("again")
        assert [m.text for m in mock.requests[-1].messages] == ["again"]
        assert [m.text for m in await session.get_messages()] == [
            "lost",
            "again",
            "You said: again",
        ]

    async def test_the_providers_own_exception_is_the_cause(self, session, mock):
        mock.fail_next(ZeroDivisionError("a bug"))
        with pytest.raises(ProviderSessionError) as caught:
            await session.send_message("x")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    async def test_a_turn_says_why_it_failed(self, session, mock):
        mock.fail_next(MockFailure.TIMEOUT)
        with pytest.raises(ProviderTimeoutError):
            await session.send_message("x")
        (turn,) = await session.get_turns()
        assert "ProviderTimeoutError" in turn.error
        assert turn.finished_at >= turn.started_at

    async def test_no_message_is_no_reply(self, manager, session, turns):
        class Silent(MockProviderSession):
            async def send_message(self, request):
                return ProviderReply([])

        manager.add_provider_session("mock", Silent())
        with pytest.raises(ProviderSessionError, match="no message"):
            await session.send_message("x")
        assert await turns(session) == ["failed"]

    async def test_a_provider_that_gives_its_replies_one_id(self, session, mock, texts):
        for text in ("a", "a", "b"):
            mock.script(SessionMessage(id="1", role="assistant", content=text))
            assert (await session.send_message("x")).text == text
        assert await texts(session) == ["x", "a", "x", "a", "x", "b"]

    async def test_tools_for_a_provider_that_takes_none(self, manager, session):
        class Plain(IProviderSession):
            name = "plain"

            async def send_message(self, request):
                raise AssertionError("not to be called")

        manager.add_provider_session("mock", Plain())
        with pytest.raises(ProviderCapabilityError, match="tools"):
            await session.send_message("x", tools=[{"name": "look"}])
        assert await session.get_messages() == []


class TestMetrics:
    async def test_a_new_session_has_none(self, session):
        metrics = session.metrics
        assert (metrics.message_count, metrics.turn_count, metrics.errors) == (0, 0, 0)
        assert metrics.total_tokens == 0
        assert metrics.session_duration == 0
        assert metrics.created_at.tzinfo is UTC

    async def test_count_every_message_whoever_wrote_it(self, make_manager):
        session = await make_manager().create_session("ann", "mock", "echo")
        await session.add_system_message("be kind")
        await session.send_message("one")
        await session.record([user("two"), SessionMessage(role="assistant", content="three")])
        async with await session.begin_turn("four") as turn:
            await turn.add([SessionMessage(role="tool", content="five")])
            await turn.complete([SessionMessage(role="assistant", content="six")])
        assert session.metrics.message_count == 8 == len(await session.get_messages())
        assert session.metrics.turn_count == 4
        other = await make_manager().get_session(session.session_id)
        assert other.metrics == session.metrics

    async def test_tokens_are_summed(self, session, mock):
        usage = TokenUsage(input_tokens=100, output_tokens=20, cached_tokens=60, reasoning_tokens=7)
        answer = SessionMessage(role="assistant", content="x", usage=usage)
        mock.script(answer, answer.replaced(id="another"))
        await session.send_message("one")
        await session.send_message("two")
        metrics = session.metrics
        assert (metrics.input_tokens, metrics.output_tokens) == (200, 40)
        assert (metrics.cached_tokens, metrics.reasoning_tokens) == (120, 14)
        assert metrics.total_tokens == 240

    async def test_activity_moves_with_every_message(self, session):
        before = session.metrics
        await session.send_message("x")
        assert session.metrics.last_activity > before.last_activity
        assert session.metrics.created_at == before.created_at
        assert session.metrics.session_duration > 0


class TestRecord:
    async def test_is_one_complete_turn_and_calls_nobody(self, session, mock, turns):
        stored = await session.record([user("x"), SessionMessage(role="assistant", content="y")])
        assert [(m.seq, m.turn_id) for m in stored] == [(1, 1), (2, 1)]
        assert await session.get_messages() == stored
        assert await turns(session) == ["complete"]
        assert not mock.requests

    async def test_one_message_or_none(self, session):
        assert [m.text for m in await session.record(user("x"))] == ["x"]
        assert await session.record([]) == []
        assert session.metrics.turn_count == 1

    async def test_a_repeated_message_is_stored_once(self, session):
        message = user("x")
        await session.record(message)
        stored = await session.record([message, user("y"), message])
        assert [(m.seq, m.text) for m in stored] == [(1, "x"), (2, "y")]
        assert session.metrics.message_count == 2

    async def test_an_id_with_other_content_is_refused(self, session, texts):
        message = user("x")
        await session.record(message)
        with pytest.raises(MessageConflictError, match=message.id):
            await session.record([user("y"), message.replaced(content="z")])
        assert await texts(session) == ["x"]

    async def test_ids_are_unique_within_a_session_only(self, manager, session):
        message = user("x")
        other = await manager.create_session("ann", "mock", "echo")
        await session.record(message)
        assert (await other.record(message))[0].id == message.id

    async def test_at_a_revision(self, make_manager, texts):
        session = await make_manager().create_session("ann", "mock", "echo")
        other = await make_manager().get_session(session.session_id)
        await session.record(user("x"), expected_revision=session.revision)
        with pytest.raises(RevisionConflictError):
            await other.record(user("y"), expected_revision=other.revision)
        await other.refresh()
        await other.record(user("z"), expected_revision=other.revision)
        assert await texts(session) == ["x", "z"]

    async def test_with_a_key_it_is_stored_once(self, session, texts):
        first = await session.record(user("x"), idempotency_key="k")
        assert await session.record(user("x"), idempotency_key="k") == first
        with pytest.raises(IdempotencyConflictError, match="'k'"):
            await session.record(user("y"), idempotency_key="k")
        assert await texts(session) == ["x"]

    async def test_a_key_of_other_messages_is_refused_for_stored_ones_too(self, session):
        message = user("x")
        await session.record(message)
        await session.record(user("y"), idempotency_key="k")
        with pytest.raises(IdempotencyConflictError):
            await session.record(message, idempotency_key="k")

    async def test_a_key_tells_two_messages_from_one_that_reads_like_both(self, session, texts):
        await session.record([user("a"), user("b")], idempotency_key="k")
        with pytest.raises(IdempotencyConflictError):
            await session.record(user("auserb"), idempotency_key="k")
        assert await texts(session) == ["a", "b"]


class TestReading:
    async def test_the_newest_in_order(self, session):
        await session.record([user(str(i)) for i in range(5)])
        assert [m.text for m in await session.get_messages(2)] == ["3", "4"]
        assert [m.text for m in await session.get_messages(99)] == ["0", "1", "2", "3", "4"]
        assert await session.get_messages(0) == []

    async def test_a_log_read_piece_by_piece_is_whole(self, session):
        await session.record([user(str(i)) for i in range(1001)])
        read = [message async for message in session.iter_messages()]
        assert read == await session.get_messages()
        rest = [message.seq async for message in session.iter_messages(after=998)]
        assert rest == [999, 1000, 1001]

    async def test_turns(self, session, mock):
        await session.send_message("one", idempotency_key="k")
        await session.record([user("two"), user("three")])
        first, second = await session.get_turns()
        assert (first.id, first.first_seq, first.last_seq) == (1, 1, 2)
        assert first.idempotency_key == "k"
        assert (second.id, second.first_seq, second.last_seq) == (3, 3, 4)
        assert await session.get_turns(1) == [second]
        assert await session.get_turns(0) == []

    async def test_what_was_read_cannot_change_the_record(self, session):
        await session.record(user([TextBlock(text="x")], metadata={"a": [1]}))
        read = (await session.get_messages())[0]
        read.metadata["a"].append(2)
        read.content.append(TextBlock(text="y"))
        again = (await session.get_messages())[0]
        assert again.metadata == {"a": [1]}
        assert again.text == "x"

    async def test_what_was_given_cannot_change_the_record(self, session):
        message = user("x", metadata={"a": [1]})
        stored = (await session.record(message))[0]
        message.metadata["a"].append(2)
        stored.metadata["a"].append(3)
        assert (await session.get_messages())[0].metadata == {"a": [1]}


class TestSystemMessages:
    async def test_every_request_carries_them(self, session, mock):
        await session.update_context(max_messages=1)
        stored = await session.add_system_message("be kind")
        assert (stored.role, stored.seq) == (MessageRole.SYSTEM, 1)
        for text in "abc":
            await session.send_message(text)
            assert [m.text for m in mock.requests[-1].messages] == ["be kind", text]


class TestClear:
    async def test_nothing_is_left_and_numbers_go_on(self, session, mock, texts):
        await session.add_system_message("be kind")
        await session.send_message("one", idempotency_key="k")
        await session.clear_messages()
        assert await session.get_messages() == []
        assert await session.get_turns() == []
        assert session.metrics.message_count == 0
        await session.send_message("one", idempotency_key="k")
        assert [m.text for m in mock.requests[-1].messages] == ["one"]
        assert [m.seq for m in await session.get_messages()] == [4, 5]

    async def test_at_a_revision(self, session, texts):
        revision = session.revision
        await session.record(user("x"))
        with pytest.raises(RevisionConflictError):
            await session.clear_messages(expected_revision=revision)
        assert await texts(session) == ["x"]


class TestContext:
    async def test_changes_are_kept_with_what_was_there(self, make_manager):
        session = await make_manager().create_session("ann", "mock", "echo", topic="tea")
        context = await session.update_context(max_messages=50, mood={"now": ["calm"]})
        assert context == session.context
        again = await make_manager().get_session(session.session_id)
        assert again.context.max_messages == 50
        assert (again.context.topic, again.context.mood) == ("tea", {"now": ["calm"]})

    async def test_changes_by_two_at_once_are_both_kept(self, make_manager):
        one = await make_manager().create_session("ann", "mock", "echo")
        other = await make_manager().get_session(one.session_id)
        await one.update_context(a=1)
        await other.update_context(b=2)
        assert (other.context.a, other.context.b) == (1, 2)

    async def test_the_next_turn_is_answered_by_the_new_provider(self, manager, session):
        manager.add_provider_session("other", MockProviderSession())
        await session.send_message("one")
        await session.update_context(provider="other", model="recall")
        reply = await session.send_message("two")
        assert reply.text == "You said: two (Before that: one I remember 2 messages.)"

    @pytest.mark.parametrize(
        "changes",
        [
            {"session_id": "other"},
            {"user_id": "other"},
            {"max_messages": 0},
            {"max_messages": "many"},
            {"backend": "nowhere"},
            {"auto_archive": "perhaps"},
            {"anything": object()},
            {"persist_messages": False},
            {"provider": "nobody"},
            {"provider": ""},
            {"model": ""},
            {"model": "a\nb"},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    async def test_what_cannot_be_is_refused(self, session, changes):
        before = session.context
        with pytest.raises((InvalidInputError, UnknownProviderError)):
            await session.update_context(**changes)
        await session.refresh()
        assert session.context == before

    async def test_at_a_revision(self, session):
        revision = session.revision
        await session.update_context(a=1)
        with pytest.raises(RevisionConflictError):
            await session.update_context(expected_revision=revision, a=2)
        await session.refresh()
        assert session.context.a == 1


class TestRefresh:
    async def test_shows_what_others_wrote(self, make_manager):
        session = await make_manager().create_session("ann", "mock", "echo")
        other = await make_manager().get_session(session.session_id)
        await other.send_message("x")
        await other.update_context(topic="tea")
        assert session.metrics.message_count == 0
        await session.refresh()
        assert session.metrics == other.metrics
        assert session.revision == other.revision
        assert session.context.topic == "tea"

    async def test_a_deleted_session_is_gone(self, manager, session):
        await manager.delete_session(session.session_id)
        with pytest.raises(SessionNotFoundError):
            await session.refresh()


class TestFork:
    async def test_goes_its_own_way(self, session, texts):
        await session.send_message("one")
        fork = await session.fork()
        await fork.send_message("two")
        await session.send_message("three")
        assert await texts(fork) == ["one", "You said: one", "two", "You said: two"]
        assert await texts(session) == ["one", "You said: one", "three", "You said: three"]
        assert fork.metrics.message_count == 4

    async def test_at_a_message(self, session, texts):
        await session.send_message("one")
        reply = await session.send_message("two")
        assert await texts(await session.fork(at=2)) == ["one", "You said: one"]
        assert await texts(await session.fork(at=reply)) == await texts(session)
        assert await texts(await session.fork(at=0)) == []

    async def test_keeps_the_context_and_none_of_the_providers_state(self, session, texts):
        await session.update_context(max_messages=9, topic="tea", provider_session_id="native")
        fork = await session.fork(session_id="f", user_id="bob")
        assert (fork.session_id, fork.user_id) == ("f", "bob")
        assert (fork.context.max_messages, fork.context.topic) == (9, "tea")
        assert fork.context.provider_session_id is None

    async def test_leaves_an_open_turn_out(self, session, texts):
        await session.send_message("one")
        async with await session.begin_turn("two") as turn:
            fork = await session.fork()
            await turn.cancel()
        assert await texts(fork) == ["one", "You said: one"]
        await fork.send_message("three", wait=0)

    async def test_a_failed_turn_stays_out_of_the_forks_window(self, session, mock):
        mock.fail_next(MockFailure.ERROR)
        with pytest.raises(ProviderSessionError):
            await session.send_message("lost")
        fork = await session.fork()
        await fork.send_message("x")
        assert [m.text for m in mock.requests[-1].messages] == ["x"]

    async def test_an_id_that_is_taken(self, session):
        with pytest.raises(SessionExistsError):
            await session.fork(session_id=session.session_id)

    @pytest.mark.parametrize("at", [-1, True, "1", 99, 2**70])
    async def test_a_place_that_is_not_in_the_log(self, manager, session, at):
        await session.send_message("one")
        with pytest.raises(InvalidInputError):
            await session.fork(at=at)
        assert len(await manager.list_sessions()) == 1

    async def test_a_message_that_was_never_stored(self, session):
        with pytest.raises(InvalidInputError):
            await session.fork(at=user("x"))


async def test_two_objects_of_one_session_see_the_same_window(make_manager, mock):
    manager = make_manager(providers={"mock": mock})
    one = await manager.create_session("ann", "mock", "echo")
    other = await manager.get_session(one.session_id)
    for i, session in enumerate([one, other, one, one, other]):
        await session.send_message(str(i))
    sent = [m.text for m in mock.requests[-1].messages if m.role is MessageRole.USER]
    assert sent == ["0", "1", "2", "3", "4"]


async def test_its_repr_says_which_and_not_what(session):
    await session.send_message("a secret")
    assert session.session_id in repr(session)
    assert "2 messages" in repr(session)
    assert "secret" not in repr(session)

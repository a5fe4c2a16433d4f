from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

import pytest

from langswarm_session import (
    ISessionLifecycleHook,
    ISessionMiddleware,
    MessageRefusedError,
    MiddlewareError,
    MockFailure,
    NestedTurnError,
    ProviderSessionError,
    SessionMessage,
)


class Adding(ISessionMiddleware):
    """Adds its mark to every message."""

    def __init__(self, mark):
        self.mark = mark

    async def process_outgoing_message(self, session, message):
        return message.replaced(content=f"{message.text}>{self.mark}")

    async def process_incoming_message(self, session, message):
        return message.replaced(content=f"{message.text}<{self.mark}")


class Refusing(ISessionMiddleware):
    """Refuses what says a word."""

    def __init__(self, word):
        self.word = word

    async def process_outgoing_message(self, session, message):
        if self.word in message.text:
            raise MessageRefusedError(f"we do not say {self.word}")
        return message

    process_incoming_message = process_outgoing_message


class Doing(ISessionMiddleware):
    """Does what it is given, with messages out or in."""

    def __init__(self, outgoing=None, incoming=None):
        self.outgoing = outgoing
        self.incoming = incoming

    async def process_outgoing_message(self, session, message):
        return self.outgoing(message) if self.outgoing else message

    async def process_incoming_message(self, session, message):
        return self.incoming(message) if self.incoming else message


class Noting(ISessionLifecycleHook):
    """Notes what it observes."""

    def __init__(self):
        self.seen = []

    async def on_session_created(self, session):
        self.seen.append(("created", session.session_id))

    async def on_message_sent(self, session, message):
        self.seen.append(("sent", message.text))

    async def on_message_received(self, session, message):
        self.seen.append(("received", message.text))

    async def on_session_archived(self, session):
        self.seen.append(("archived", session.session_id))

    async def on_session_deleted(self, session):
        self.seen.append(("deleted", session.session_id))

    async def on_error(self, session, error):
        self.seen.append(("error", type(error).__name__))


@pytest.fixture
def noting(session):
    hook = Noting()
    session.add_lifecycle_hook(hook)
    return hook


def raising(_):
    raise ZeroDivisionError("a bug")


class TestOrder:
    async def test_in_order_out_and_in_reverse_order_in(self, session, mock, texts):
        for mark in "abc":
            session.add_middleware(Adding(mark))
        await session.send_message("x")
        assert mock.requests[-1].messages[-1].text == "x>a>b>c"
        assert await texts(session) == ["x>a>b>c", "You said: x>a>b>c<c<b<a"]

    async def test_the_managers_comes_before_the_sessions_own(self, manager, texts):
        manager.add_global_middleware(Adding("global"))
        session = await manager.create_session("ann", "mock", "echo")
        session.add_middleware(Adding("own"))
        await session.send_message("x")
        assert await texts(session) == [
            "x>global>own",
            "You said: x>global>own<own<global",
        ]

    async def test_the_managers_is_for_sessions_got_from_then_on(self, manager, session, texts):
        manager.add_global_middleware(Adding("global"))
        await session.send_message("x")
        assert await texts(session) == ["x", "You said: x"]
        again = await manager.get_session(session.session_id)
        await again.send_message("y")
        assert (await texts(session))[-1] == "You said: y>global<global"
        (listed,) = await manager.list_sessions()
        assert (await listed.send_message("z")).text == "You said: z>global<global"

    async def test_a_sessions_own_is_for_that_object_only(self, manager, session):
        session.add_middleware(Adding("own"))
        again = await manager.get_session(session.session_id)
        assert (await again.send_message("x")).text == "You said: x"


class TestEveryWay:
    """There is one write path, and the middleware stands in it."""

    @pytest.fixture(autouse=True)
    def marked(self, session):
        session.add_middleware(Adding("m"))

    async def test_record(self, session, texts):
        await session.record(
            [
                SessionMessage(role="user", content="x"),
                SessionMessage(role="assistant", content="y"),
            ]
        )
        assert await texts(session) == ["x>m", "y<m"]

    async def test_add_system_message(self, session):
        assert (await session.add_system_message("x")).text == "x>m"

    async def test_begin_turn_add_and_complete(self, session, texts):
        async with await session.begin_turn("x") as turn:
            assert turn.messages[0].text == "x>m"
            await turn.add([SessionMessage(role="tool", content="y")])
            await session.record(SessionMessage(role="tool", content="z"))
            await turn.complete([SessionMessage(role="assistant", content="w")])
        assert await texts(session) == ["x>m", "y>m", "z>m", "w<m"]

    async def test_stream_message(self, session, texts):
        events = [event async for event in session.stream_message("x")]
        assert "".join(map(str, events)) == "You said: x>m"
        assert events[-1].message.text == "You said: x>m<m"
        assert await texts(session) == ["x>m", "You said: x>m<m"]

    async def test_what_there_was_of_a_reply(self, session, texts):
        async with aclosing(session.stream_message("x")) as stream:
            await anext(stream)
        await (await session.begin_turn("y")).cancel(
            [SessionMessage(role="assistant", content="par")]
        )
        assert await texts(session) == ["x>m", "You <m", "y>m", "par<m"]

    async def test_every_reply_of_several(self, session, texts):
        turn = await session.begin_turn("x")
        await turn.complete([SessionMessage(role="assistant", content=each) for each in "yz"])
        assert await texts(session) == ["x>m", "y<m", "z<m"]


class TestRefusal:
    async def test_nothing_of_a_refused_message_is_stored_or_sent(self, session, mock):
        session.add_middleware(Refusing("spam"))
        with pytest.raises(MessageRefusedError, match="we do not say spam") as caught:
            await session.send_message("spam")
        assert caught.value.session_id == session.session_id
        assert await session.get_messages() == []
        assert await session.get_turns() == []
        assert not mock.requests
        await session.send_message("eggs", wait=0)

    async def test_one_of_several_refused_refuses_all(self, session):
        session.add_middleware(Refusing("spam"))
        with pytest.raises(MessageRefusedError):
            await session.record(
                [SessionMessage(role="user", content=each) for each in ("eggs", "spam")]
            )
        assert await session.get_messages() == []

    async def test_a_refused_reply_is_not_stored_and_its_turn_has_failed(
        self, session, mock, texts, turns
    ):
        session.add_middleware(Refusing("spam"))
        mock.script("spam, eggs and spam")
        with pytest.raises(MessageRefusedError):
            await session.send_message("what is there?")
        assert await texts(session) == ["what is there?"]
        assert await turns(session) == ["failed"]
        await session.send_message("eggs", wait=0)
        assert [m.text for m in mock.requests[-1].messages] == ["eggs"]

    async def test_a_refused_streamed_reply_is_not_stored(self, session, mock, texts, turns):
        session.add_middleware(Refusing("spam"))
        mock.script("eggs and spam")
        with pytest.raises(MessageRefusedError):
            async for _ in session.stream_message("x"):
                pass
        assert await texts(session) == ["x"]
        assert await turns(session) == ["failed"]

    async def test_what_there_was_of_a_reply_may_be_refused(self, session, texts, turns):
        session.add_middleware(Refusing("You"))
        async with aclosing(session.stream_message("x")) as stream:
            await anext(stream)
        assert await texts(session) == ["x"]
        assert await turns(session) == ["cancelled"]
        await session.record(SessionMessage(role="user", content="y"), wait=0)


class TestFaults:
    @pytest.mark.parametrize(
        ("outgoing", "match"),
        [
            (raising, "Doing failed: ZeroDivisionError$"),
            (lambda message: None, "NoneType"),
            (lambda message: "text", "str"),
            (lambda message: {"role": "user", "content": "x"}, "dict"),
        ],
        ids=["raises", "None", "str", "dict"],
    )
    async def test_on_the_way_out(self, session, mock, outgoing, match):
        session.add_middleware(Doing(outgoing=outgoing))
        with pytest.raises(MiddlewareError, match=match) as caught:
            await session.send_message("x")
        assert caught.value.session_id == session.session_id
        assert await session.get_messages() == []
        assert not mock.requests

    @pytest.mark.parametrize("incoming", [raising, lambda message: None], ids=["raises", "None"])
    async def test_on_the_way_in(self, session, texts, turns, incoming):
        middleware = Doing(incoming=incoming)
        session.add_middleware(middleware)
        with pytest.raises(MiddlewareError):
            await session.send_message("x")
        assert await texts(session) == ["x"]
        assert await turns(session) == ["failed"]
        assert "a bug" not in ((await session.get_turns())[0].error or "")
        middleware.incoming = None
        assert (await session.send_message("y", wait=0)).text == "You said: y"

    async def test_its_own_exception_is_the_cause(self, session):
        session.add_middleware(Doing(outgoing=raising))
        with pytest.raises(MiddlewareError) as caught:
            await session.send_message("x")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    async def test_a_turn_of_its_own_session_is_refused(self, session, turns):
        class Nesting(ISessionMiddleware):
            async def process_incoming_message(self, session, message):
                return await session.send_message("inner")

        session.add_middleware(Nesting())
        with pytest.raises(NestedTurnError):
            await session.send_message("outer")
        assert await turns(session) == ["failed"]


class TestReplacing:
    async def test_a_reply_may_be_another_message(self, session):
        other = SessionMessage(role="assistant", content="other", metadata={"by": "us"})
        session.add_middleware(Doing(incoming=lambda message: other))
        reply = await session.send_message("x")
        assert (reply.id, reply.text, reply.metadata) == (other.id, "other", {"by": "us"})
        assert (await session.get_messages())[-1] == reply

    async def test_a_key_is_of_what_the_caller_said(self, session, mock):
        """A middleware that changes a message each time breaks no retry."""
        marks = iter("abc")
        session.add_middleware(
            Doing(outgoing=lambda message: message.replaced(content=next(marks)))
        )
        first = await session.send_message("x", idempotency_key="k")
        assert await session.send_message("x", idempotency_key="k") == first
        assert len(mock.requests) == 1

    async def test_it_may_look_at_the_session(self, session, texts):
        class Numbering(ISessionMiddleware):
            async def process_outgoing_message(self, session, message):
                number = len(await session.get_messages()) + 1
                return message.replaced(content=f"{number}. {message.text}")

        session.add_middleware(Numbering())
        await session.send_message("x")
        await session.send_message("y")
        assert (await texts(session))[::2] == ["1. x", "3. y"]


class TestHoldsStream:
    @pytest.fixture
    def holding(self, session):
        middleware = Doing(incoming=lambda message: message.replaced(content="held"))
        middleware.holds_stream = True
        session.add_middleware(Adding("a"))
        session.add_middleware(middleware)

    async def test_nothing_is_seen_before_the_middleware_has_seen_it_all(self, holding, session):
        events = [event async for event in session.stream_message("x")]
        assert [str(event) for event in events] == ["held<a", ""]
        assert events[-1].message.text == "held<a"
        assert events[-1].message == (await session.get_messages())[-1]

    async def test_a_refused_reply_is_never_seen(self, session, mock, texts):
        refusing = Refusing("spam")
        refusing.holds_stream = True
        session.add_middleware(refusing)
        mock.script("eggs and spam")
        seen = []
        with pytest.raises(MessageRefusedError):
            async for event in session.stream_message("x"):
                seen.append(event)
        assert seen == []
        assert await texts(session) == ["x"]

    async def test_nothing_was_seen_so_nothing_is_kept(self, holding, session, mock, texts):
        mock.fail_next(MockFailure.BROKEN_STREAM)
        with pytest.raises(ProviderSessionError):
            async for _ in session.stream_message("x"):
                pass
        assert await texts(session) == ["x>a"]


class TestHooks:
    async def test_observe_what_happened(self, manager):
        hook = Noting()
        manager.add_global_hook(hook)
        session = await manager.create_session("ann", "mock", "echo", session_id="s1")
        await session.send_message("x")
        await session.archive()
        await manager.delete_session("s1")
        assert hook.seen == [
            ("created", "s1"),
            ("sent", "x"),
            ("received", "You said: x"),
            ("archived", "s1"),
            ("deleted", "s1"),
        ]

    async def test_observe_what_was_stored(self, session, noting):
        session.add_middleware(Adding("m"))
        await session.send_message("x")
        assert noting.seen == [("sent", "x>m"), ("received", "You said: x>m<m")]

    async def test_observe_every_way_of_writing(self, session, noting):
        async with await session.begin_turn("a") as turn:
            await turn.add([SessionMessage(role="tool", content="b")])
            await turn.complete([SessionMessage(role="assistant", content="c")])
        await session.record(SessionMessage(role="assistant", content="d"))
        await session.add_system_message("e")
        async for _ in session.stream_message("f"):
            pass
        assert noting.seen == [
            ("sent", "a"),
            ("sent", "b"),
            ("received", "c"),
            ("received", "d"),
            ("sent", "e"),
            ("sent", "f"),
            ("received", "You said: f"),
        ]

    async def test_a_message_is_stored_when_they_see_it(self, make_manager):
        counts = []

        class Counting(ISessionLifecycleHook):
            async def on_message_sent(self, session, message):
                other = await make_manager().get_session(session.session_id)
                counts.append(len(await other.get_messages()))

            on_message_received = on_message_sent

        manager = make_manager()
        manager.add_global_hook(Counting())
        session = await manager.create_session("ann", "mock", "echo")
        await session.send_message("x")
        assert counts == [1, 2]

    async def test_observe_failures(self, session, mock, noting):
        mock.fail_next(MockFailure.TIMEOUT)
        with pytest.raises(ProviderSessionError):
            await session.send_message("x")
        await (await session.begin_turn("y")).cancel()
        session.add_middleware(Refusing("spam"))
        with pytest.raises(MessageRefusedError):
            await session.send_message("spam")
        assert [event for event in noting.seen if event[0] == "error"] == [
            ("error", "ProviderTimeoutError"),
            ("error", "CancelledError"),
            ("error", "MessageRefusedError"),
        ]

    async def test_observe_a_message_once(self, session, mock, noting):
        message = SessionMessage(role="user", content="x")
        await session.record(message)
        await session.record(message)
        await session.record(message, idempotency_key="k")
        await session.record(message, idempotency_key="k")
        assert noting.seen == [("sent", "x")]

    async def test_observe_a_repeated_turn_once(self, session, noting):
        await session.send_message("x", idempotency_key="k")
        await session.send_message("x", idempotency_key="k")
        assert noting.seen == [("sent", "x"), ("received", "You said: x")]

    async def test_observe_a_message_that_is_tried_again_once(self, session, mock, noting):
        mock.fail_next(MockFailure.TIMEOUT)
        with pytest.raises(ProviderSessionError):
            await session.send_message("x", idempotency_key="k")
        await session.send_message("x", idempotency_key="k")
        assert noting.seen == [
            ("sent", "x"),
            ("error", "ProviderTimeoutError"),
            ("received", "You said: x"),
        ]


class TestHooksAreHarmless:
    async def test_one_that_raises_is_logged_and_breaks_nothing(
        self, manager, mock, texts, turns, caplog
    ):
        class Broken(ISessionLifecycleHook):
            async def on_session_created(self, session):
                raise ZeroDivisionError("a bug")

            on_message_sent = on_message_received = on_session_archived = on_error = (
                on_session_deleted
            ) = lambda self, *args: self.on_session_created(args[0])

        last = Noting()
        manager.add_global_hook(Broken())
        manager.add_global_hook(last)
        session = await manager.create_session("ann", "mock", "echo", session_id="s1")
        await session.send_message("x")
        mock.fail_next(MockFailure.ERROR)
        with pytest.raises(ProviderSessionError):
            await session.send_message("y")
        assert await texts(session) == ["x", "You said: x", "y"]
        assert await turns(session) == ["complete", "failed"]
        await session.archive()
        await manager.delete_session("s1")
        assert [event for event, _ in last.seen] == [
            *("created", "sent", "received", "sent", "error"),
            *("archived", "deleted"),
        ]
        raised = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(raised) == len(last.seen)
        assert all(record.exc_info[0] is ZeroDivisionError for record in raised)

    async def test_one_that_is_no_coroutine_breaks_nothing(self, session, caplog):
        class Sync(ISessionLifecycleHook):
            def on_message_sent(self, session, message):
                return None

        session.add_lifecycle_hook(Sync())
        assert (await session.send_message("x")).text == "You said: x"
        assert "on_message_sent" in caplog.text

    async def test_one_may_read_its_session(self, session):
        seen = []

        class Reading(ISessionLifecycleHook):
            async def on_message_sent(self, session, message):
                seen.append([m.text for m in await session.get_messages()])

            on_message_received = on_message_sent

        session.add_lifecycle_hook(Reading())
        await session.send_message("x")
        assert seen == [["x"], ["x", "You said: x"]]

    async def test_a_turn_inside_the_turn_is_refused_and_blocks_nothing(
        self, session, texts, caplog
    ):
        class Nesting(ISessionLifecycleHook):
            async def on_message_sent(self, session, message):
                await session.send_message("inner")

        session.add_lifecycle_hook(Nesting())
        async with asyncio.timeout(10):
            await session.send_message("outer")
        assert await texts(session) == ["outer", "You said: outer"]
        errors = [record.exc_info[0] for record in caplog.records if record.exc_info]
        assert errors == [NestedTurnError]

    async def test_one_may_add_to_the_turn(self, session, mock, texts):
        class Annotating(ISessionLifecycleHook):
            async def on_message_sent(self, session, message):
                if message.role == "user":
                    note = SessionMessage(role="system", content="noted")
                    await session.record(note)

        session.add_lifecycle_hook(Annotating())
        mock.script("y")
        await session.send_message("x")
        assert [m.text for m in mock.requests[-1].new_messages] == ["x", "noted"]
        assert await texts(session) == ["x", "noted", "y"]
        assert session.metrics.turn_count == 1

    async def test_one_may_begin_a_turn_once_the_reply_is_there(self, session, texts):
        class Following(ISessionLifecycleHook):
            async def on_message_received(self, session, message):
                if len(await session.get_messages()) < 4:
                    await session.send_message("more")

        session.add_lifecycle_hook(Following())
        await session.send_message("x")
        assert await texts(session) == ["x", "You said: x", "more", "You said: more"]

    async def test_the_reply_returned_is_that_of_the_turn(self, session):
        class Following(ISessionLifecycleHook):
            async def on_message_received(self, session, message):
                if len(await session.get_messages()) < 4:
                    await session.send_message("more")

        session.add_lifecycle_hook(Following())
        assert (await session.send_message("x")).text == "You said: x"

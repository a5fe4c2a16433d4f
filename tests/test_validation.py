"""Bad input: refused with a typed error that can be read and gives nothing away; no harm is done."""

from __future__ import annotations

import json
import traceback
from uuid import UUID

import pytest

from langswarm_session import (
    InvalidInputError,
    ManagerClosedError,
    MessageRole,
    SessionError,
    SessionMessage,
    SessionNotFoundError,
    UnknownProviderError,
    create_session_manager,
)
from langswarm_session._validation import check_count, check_seconds, storable, text_id

SECRET = "sk-do-not-show-me"

BAD_IDS = {
    "empty": "",
    "blank": "   ",
    "huge": "x" * 100_000,
    "NUL": "a\0b",
    "newline": "a\nb",
    "carriage return": "a\rb",
    "tab": "a\tb",
    "escape": "a\x1b[31mb",
    "lone surrogate": "a\ud800b",
    "none": None,
    "number": 5,
    "bytes": b"ann",
    "list": ["ann"],
}
GOOD_IDS = [
    "plain",
    'it\'s "quoted"; DROP TABLE sessions; --',
    "with spaces and / \\ % _ * ?",
    "Zoë 漢字 🤖",
    "x" * 512,
]

BAD_KEYS = {name: value for name, value in BAD_IDS.items() if value is not None}

bad_id = pytest.mark.parametrize("bad", BAD_IDS.values(), ids=BAD_IDS)
bad_key = pytest.mark.parametrize("bad", BAD_KEYS.values(), ids=BAD_KEYS)
good_id = pytest.mark.parametrize("good", GOOD_IDS, ids=range(len(GOOD_IDS)))

OPERATIONS = {
    "send_message": lambda session, **kw: session.send_message(**{"content": "y", **kw}),
    "stream_message": lambda session, **kw: anext(session.stream_message(**{"content": "y", **kw})),
    "begin_turn": lambda session, **kw: session.begin_turn(**{"messages": "y", **kw}),
    "record": lambda session, **kw: session.record(
        **{"messages": SessionMessage(role="user", content="y"), **kw}
    ),
}
every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
sending = pytest.mark.parametrize(
    "operation",
    [OPERATIONS["send_message"], OPERATIONS["stream_message"]],
    ids=["send_message", "stream_message"],
)


def check_readable(error):
    assert isinstance(error, SessionError)
    text = str(error)
    assert 0 < len(text) < 1000
    assert text.isprintable()


@pytest.fixture
async def unharmed(session, texts):
    """The session, whose record is as it was and which takes turns when the test is over."""
    await session.send_message("x")
    before = await session.get_messages()
    yield session
    assert await session.get_messages() == before
    assert (await session.get_turns())[-1].status.value == "complete"
    await session.refresh()
    assert session.metrics.message_count == 2
    assert (await session.send_message("y", wait=0)).text == "You said: y"


class TestIds:
    @bad_id
    async def test_a_bad_user_id(self, manager, bad):
        for attempt in (
            lambda: manager.create_session(bad, "mock", "echo"),
            lambda: manager.list_user_sessions(bad),
        ):
            with pytest.raises(InvalidInputError, match="user_id") as caught:
                await attempt()
            check_readable(caught.value)
        with pytest.raises(InvalidInputError, match="user_id"):
            manager.for_user(bad)
        assert await manager.list_sessions() == []

    @bad_key
    async def test_a_bad_user_id_where_there_may_be_none(self, manager, unharmed, bad):
        for attempt in (
            lambda: unharmed.fork(user_id=bad),
            lambda: manager.get_session(unharmed.session_id, user_id=bad),
            lambda: manager.get_or_create_session("new", user_id=bad),
        ):
            with pytest.raises(InvalidInputError, match="user_id"):
                await attempt()
        assert len(await manager.list_sessions()) == 1

    @bad_id
    async def test_a_bad_session_id(self, manager, unharmed, bad):
        for attempt in (
            manager.get_session,
            manager.get_or_create_session,
            manager.archive_session,
            manager.delete_session,
        ):
            with pytest.raises(InvalidInputError, match="session_id") as caught:
                await attempt(bad)
            check_readable(caught.value)

    @bad_key
    async def test_a_bad_id_for_a_new_session(self, manager, unharmed, bad):
        for attempt in (
            lambda: manager.create_session("ann", "mock", "echo", session_id=bad),
            lambda: unharmed.fork(session_id=bad),
        ):
            with pytest.raises(InvalidInputError, match="session_id"):
                await attempt()
        assert len(await manager.list_sessions()) == 1

    @bad_id
    async def test_a_bad_name_of_a_provider_or_model(self, manager, bad):
        with pytest.raises(InvalidInputError, match="provider") as caught:
            await manager.create_session("ann", bad, "echo")
        check_readable(caught.value)
        with pytest.raises(InvalidInputError, match="model") as caught:
            await manager.create_session("ann", "mock", bad)
        check_readable(caught.value)
        assert await manager.list_sessions() == []

    @every_operation
    @bad_key
    async def test_a_bad_idempotency_key(self, unharmed, operation, bad):
        with pytest.raises(InvalidInputError, match="idempotency_key") as caught:
            await operation(unharmed, idempotency_key=bad)
        check_readable(caught.value)

    @good_id
    async def test_any_printable_text_is_an_id(self, make_manager, good):
        manager = make_manager()
        session = await manager.create_session(good, "mock", good, session_id=good)
        reply = await session.send_message("x", idempotency_key=good)
        other = make_manager()
        found = await other.get_session(good, user_id=good)
        assert (found.session_id, found.user_id, found.context.model) == (good, good, good)
        assert [s.session_id for s in await other.list_user_sessions(good)] == [good]
        assert await found.send_message("x", idempotency_key=good) == reply
        await other.delete_session(good)
        assert await manager.list_sessions() == []

    async def test_ids_that_look_alike_are_not_alike(self, manager):
        for name in ("a", "A", "a ", " a", "а", "%", "_"):
            await manager.create_session(name, "mock", "echo", session_id=name)
            assert [s.user_id for s in await manager.list_user_sessions(name)] == [name]

    async def test_a_huge_one_is_not_shown_whole(self, manager):
        with pytest.raises(InvalidInputError) as caught:
            await manager.get_session("x" * 1000 + SECRET)
        assert SECRET not in str(caught.value)


class TestSessions:
    async def test_an_unknown_one(self, manager):
        for attempt in (manager.get_session, manager.archive_session, manager.delete_session):
            with pytest.raises(SessionNotFoundError) as caught:
                await attempt("nowhere")
            assert caught.value.session_id == "nowhere"
            check_readable(caught.value)

    async def test_another_users_cannot_be_told_from_one_that_is_not_there(self, manager, unharmed):
        texts = []
        for session_id in (unharmed.session_id, "nowhere"):
            for attempt in (
                manager.get_session,
                manager.archive_session,
                manager.delete_session,
            ):
                with pytest.raises(SessionNotFoundError) as caught:
                    await attempt(session_id, user_id="eve")
                texts.append(str(caught.value).replace(session_id, "*"))
        assert len(set(texts)) == 1
        assert caught.value.__cause__ is None

    async def test_an_unknown_status(self, manager, unharmed):
        with pytest.raises(InvalidInputError):
            await manager.list_sessions(status="asleep")
        with pytest.raises(InvalidInputError) as caught:
            await unharmed.set_status("asleep")
        check_readable(caught.value)

    async def test_an_unknown_backend(self, manager):
        with pytest.raises(InvalidInputError, match="backend"):
            await manager.create_session("ann", "mock", "echo", "nowhere")
        assert await manager.list_sessions() == []

    @pytest.mark.parametrize(
        "context",
        [
            {"max_messages": 0},
            {"max_messages": "all"},
            {"max_messages": 2**70},
            {"anything": object()},
            {"anything": {1: 2}},
            {"anything": {"a": {1, 2}}},
            {"anything": "\ud800"},
            {"persist_messages": False},
        ],
        ids=["0", "all", "huge", "object", "keys", "set", "surrogate", "persist_messages"],
    )
    async def test_a_context_that_cannot_be_stored(self, manager, unharmed, context):
        with pytest.raises(InvalidInputError) as caught:
            await manager.create_session("ann", "mock", "echo", **context)
        check_readable(caught.value)
        with pytest.raises(InvalidInputError):
            await unharmed.update_context(**context)
        assert len(await manager.list_sessions()) == 1

    async def test_infinities_in_a_context_come_back(self, make_manager):
        manager = make_manager()
        session = await manager.create_session("ann", "mock", "echo", top=float("inf"))
        assert (await make_manager().get_session(session.session_id)).context.top == float("inf")


class TestMessages:
    @sending
    @pytest.mark.parametrize(
        "content",
        ["", [], None, 5, ["x"], [{"type": "nothing"}], {"role": "user"}, "half \ud83d"],
        ids=["empty", "no blocks", "None", "number", "strings", "block", "dict", "surrogate"],
    )
    async def test_content_that_is_none(self, unharmed, operation, content):
        with pytest.raises(InvalidInputError) as caught:
            await operation(unharmed, content=content)
        check_readable(caught.value)

    @sending
    async def test_an_unknown_role(self, unharmed, operation):
        with pytest.raises(InvalidInputError, match="role") as caught:
            await operation(unharmed, role="robot")
        check_readable(caught.value)

    @sending
    @pytest.mark.parametrize(
        "metadata",
        [
            {"a": object()},
            {"a": {1, 2}},
            {"a": b"bytes"},
            {1: "a"},
            "text",
            {"a": "\ud800"},
            {"\ud800": "a"},
        ],
        ids=["object", "set", "bytes", "keys", "text", "surrogate", "surrogate key"],
    )
    async def test_metadata_that_is_no_json(self, unharmed, operation, metadata):
        given = SessionMessage(role="user", content="y")
        for content in ("y", given):
            with pytest.raises(InvalidInputError) as caught:
                await operation(unharmed, content=content, metadata=metadata)
            check_readable(caught.value)
            assert caught.value.session_id == unharmed.session_id

    async def test_what_cannot_be_stored_names_the_session(self, manager, unharmed):
        half = SessionMessage(role="assistant", content="half \ud83d")
        revision = {"expected_revision": unharmed.revision}
        turn = await unharmed.fork()
        begun = await turn.begin_turn("x")
        for session, attempt in (
            (unharmed, unharmed.record(half)),
            (unharmed, unharmed.edit_messages(add=[half], **revision)),
            (unharmed, unharmed.update_context(anything=10**4300)),
            (turn, begun.add(half)),
            (turn, begun.complete([half])),
        ):
            with pytest.raises(InvalidInputError, match=f"^session '{session.session_id}': th"):
                await attempt
        await begun.complete()
        with pytest.raises(InvalidInputError, match="^session 'new': this"):
            await manager.create_session("ann", "mock", "echo", session_id="new", a=10**4300)

    @sending
    async def test_metadata_that_has_no_end(self, unharmed, operation):
        loop: list = []
        loop.append(loop)
        deep: list = []
        for _ in range(5000):
            deep = [deep]
        for endless in (loop, deep):
            with pytest.raises(InvalidInputError) as caught:
                await operation(unharmed, metadata={"a": endless})
            assert len(str(caught.value)) < 10_000

    @pytest.mark.parametrize(
        "messages",
        [None, 5, [], ["x"], [None], {"role": "user"}],
        ids=["None", "number", "none", "strings", "Nones", "dict"],
    )
    async def test_what_is_no_message_begins_no_turn(self, unharmed, messages):
        with pytest.raises(InvalidInputError) as caught:
            await unharmed.begin_turn(messages)
        check_readable(caught.value)

    @pytest.mark.parametrize(
        "messages", [None, 5, ["x"], [None], {"a": 1}], ids=["None", "number", "x", "Nones", "dict"]
    )
    async def test_what_is_no_message_is_not_recorded(self, unharmed, messages):
        with pytest.raises(InvalidInputError) as caught:
            await unharmed.record(messages)
        check_readable(caught.value)

    async def test_what_is_no_message_is_not_added_to_a_turn(self, session, texts):
        async with await session.begin_turn("x") as turn:
            for attempt in (turn.add, turn.complete):
                with pytest.raises(InvalidInputError):
                    await attempt(["y"])
            await turn.complete()
        assert await texts(session) == ["x"]

    @sending
    async def test_the_values_are_not_shown(self, unharmed, operation):
        """Nor in what is logged of the error, which has its cause as well."""
        for bad in (
            {"metadata": {"token": SECRET.encode()}},
            {"metadata": SECRET},
            {"content": SECRET.encode() + b"\xff"},
            {"content": [{"type": "text", "text": {"not": SECRET}}]},
            {"content": [SECRET]},
            {"role": SECRET},
        ):
            with pytest.raises(InvalidInputError) as caught:
                await operation(unharmed, **bad)
            shown = "".join(traceback.format_exception(caught.value))
            assert SECRET not in shown.replace(repr(bad), "")

    @every_operation
    @pytest.mark.parametrize("wait", [-1, float("nan"), float("inf"), "soon", True], ids=repr)
    async def test_a_wait_that_is_none(self, unharmed, operation, wait):
        with pytest.raises(InvalidInputError, match="wait") as caught:
            await operation(unharmed, wait=wait)
        check_readable(caught.value)


class TestLimits:
    @pytest.mark.parametrize("limit", [-1, -(10**30), True, False, 1.5, "3", [1]], ids=repr)
    async def test_what_is_no_limit(self, manager, unharmed, limit):
        for attempt in (
            unharmed.get_messages,
            unharmed.get_turns,
            manager.list_sessions,
            lambda limit: manager.list_user_sessions("ann", limit),
            lambda limit: manager.for_user("ann").list_sessions(limit),
        ):
            with pytest.raises(InvalidInputError, match="limit") as caught:
                await attempt(limit)
            check_readable(caught.value)

    @pytest.mark.parametrize("limit", [10**6, 2**31, 2**63, 10**5000], ids=range(4))
    async def test_a_huge_one_is_all(self, manager, unharmed, limit):
        assert len(await unharmed.get_messages(limit)) == 2
        assert len(await unharmed.get_turns(limit)) == 1
        assert len(await manager.list_sessions(limit)) == 1

    async def test_a_list_has_one(self, manager):
        with pytest.raises(InvalidInputError):
            await manager.list_sessions(None)

    @pytest.mark.parametrize(
        "cursor", ["", "x", "1", "1.2", 5, "9" * 30 + ":s"], ids=["", "x", "1", "old", "5", "huge"]
    )
    async def test_what_is_no_cursor(self, manager, unharmed, cursor):
        with pytest.raises(InvalidInputError, match="cursor") as caught:
            await manager.list_sessions(cursor=cursor)
        check_readable(caught.value)

    @pytest.mark.parametrize(
        "hours", [-1, float("nan"), float("inf"), 1e300, True, "24", None], ids=repr
    )
    async def test_what_is_no_time(self, manager, unharmed, hours):
        with pytest.raises(InvalidInputError, match="max_inactive_hours") as caught:
            await manager.cleanup_inactive_sessions(hours)
        check_readable(caught.value)

    async def test_a_long_time_is_fine(self, manager, unharmed):
        assert await manager.cleanup_inactive_sessions(1_000_000) == 0

    async def test_a_page_that_is_read_after_the_end_is_empty(self, unharmed):
        assert [m async for m in unharmed.iter_messages(after=99)] == []


class TestManagers:
    @pytest.mark.parametrize(
        "options",
        [
            {"lease_seconds": 0},
            {"lease_seconds": -1},
            {"lease_seconds": float("nan")},
            {"lease_seconds": "long"},
            {"turn_wait": -1},
            {"turn_wait": float("nan")},
            {"turn_wait": "long"},
            {"storage": 5},
            {"storage": None},
            {"storage_config": {"unknown": 1}},
            {"providers": {"mock": 5}},
            {"providers": {"mock": None}},
            {"providers": {"mock": ["key"]}},
            {"providers": ["mock"]},
        ],
        ids=lambda options: " ".join(map(str, next(iter(options.items())))),
    )
    def test_what_it_cannot_be_made_from(self, options):
        with pytest.raises(InvalidInputError) as caught:
            create_session_manager(**{"storage": "memory", **options})
        check_readable(caught.value)

    def test_an_unknown_provider_among_them(self):
        with pytest.raises(UnknownProviderError, match="'nobody'") as caught:
            create_session_manager("memory", providers={"nobody": SECRET})
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("what", [None, "mock", object(), dict], ids=range(4))
    async def test_what_is_no_provider(self, manager, unharmed, what):
        with pytest.raises(InvalidInputError, match="IProviderSession"):
            manager.add_provider_session("mock", what)

    async def test_options_that_do_not_fit_the_provider(self, make_manager):
        manager = make_manager(providers={"mock": {"api_key": SECRET, "unknown": SECRET}})
        session = await manager.create_session("ann", "mock", "echo")
        with pytest.raises(InvalidInputError, match="unknown") as caught:
            await session.send_message("x")
        assert SECRET not in str(caught.value)
        assert await session.get_messages() == []

    @pytest.mark.parametrize("what", [None, "logging", object()], ids=range(3))
    async def test_what_is_no_middleware_or_hook(self, manager, unharmed, what):
        for add in (
            manager.add_global_middleware,
            manager.add_global_hook,
            unharmed.add_middleware,
            unharmed.add_lifecycle_hook,
        ):
            with pytest.raises(InvalidInputError):
                add(what)


class TestRevisions:
    CHANGES = {
        "record": lambda s, at: s.record(SessionMessage(role="user", content="y"), **at),
        "record nothing": lambda s, at: s.record([], **at),
        "clear_messages": lambda s, at: s.clear_messages(**at),
        "edit_messages": lambda s, at: s.edit_messages(remove=[1], **at),
        "update_context": lambda s, at: s.update_context(max_messages=5, **at),
        "switch_provider": lambda s, at: s.switch_provider("mock", **at),
        "set_status": lambda s, at: s.set_status("paused", **at),
        "archive": lambda s, at: s.archive(**at),
        "delete_session": lambda s, at: s.manager.delete_session(s.session_id, **at),
    }

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    @pytest.mark.parametrize(
        "bad", [str, float, lambda _: float("nan"), lambda _: True, lambda at: [at]], ids=range(5)
    )
    async def test_what_is_no_revision(self, unharmed, change, bad):
        at = unharmed.revision
        with pytest.raises(InvalidInputError, match="expected_revision") as caught:
            await change(unharmed, {"expected_revision": bad(at)})
        assert caught.value.session_id == unharmed.session_id
        check_readable(caught.value)
        await unharmed.refresh()
        assert unharmed.revision == at

    async def test_one_that_no_session_reaches(self, unharmed):
        for name in self.CHANGES.keys() - {"record nothing"}:
            with pytest.raises(SessionError) as caught:
                await self.CHANGES[name](unharmed, {"expected_revision": 2**70})
            check_readable(caught.value)

    async def test_an_edit_names_one(self, unharmed):
        with pytest.raises(InvalidInputError, match="expected_revision"):
            await unharmed.edit_messages(expected_revision=None, remove=[1])


class TestSequenceNumbers:
    @pytest.mark.parametrize(
        "bad",
        [None, 5, "1", b"1", [None], ["x"], [[1]], [True], [2.0], {"a": 1}, object()],
        ids=range(11),
    )
    async def test_what_is_none(self, unharmed, bad):
        with pytest.raises(InvalidInputError, match="remove") as caught:
            await unharmed.edit_messages(expected_revision=unharmed.revision, remove=bad)
        assert caught.value.session_id == unharmed.session_id

    @pytest.mark.parametrize("good", [{1}, (1,), range(1, 2)], ids=repr)
    async def test_any_collection_of_them_will_do(self, session, texts, good):
        await session.send_message("x")
        await session.edit_messages(expected_revision=session.revision, remove=good)
        assert await texts(session) == ["You said: x"]


class TestHalfCharacters:
    """A key that was changed into another would lose a value."""

    BAD = [{"\ud800": 1}, [{"a\ud800": 1}], "\ud800"]

    @pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
    async def test_in_a_context(self, manager, unharmed, bad):
        before = unharmed.context
        with pytest.raises(InvalidInputError, match="JSON") as caught:
            await unharmed.update_context(prefs=bad)
        assert caught.value.session_id == unharmed.session_id
        check_readable(caught.value)
        await unharmed.refresh()
        assert unharmed.context == before
        with pytest.raises(InvalidInputError, match="JSON"):
            await manager.create_session("ann", "mock", "echo", prefs=bad)


class TestClosed:
    MANAGER = {
        "create_session": lambda m: m.create_session("ann", "mock", "echo"),
        "get_or_create_session": lambda m: m.get_or_create_session("s1"),
        "get_session": lambda m: m.get_session("s1"),
        "list_sessions": lambda m: m.list_sessions(),
        "list_user_sessions": lambda m: m.list_user_sessions("ann"),
        "archive_session": lambda m: m.archive_session("s1"),
        "delete_session": lambda m: m.delete_session("s1"),
        "cleanup": lambda m: m.cleanup_inactive_sessions(),
        "health": lambda m: m.health(),
        "for_user": lambda m: m.for_user("ann").list_sessions(),
    }
    SESSION = {
        **OPERATIONS,
        "get_messages": lambda s: s.get_messages(),
        "get_window": lambda s: s.get_window(),
        "iter_messages": lambda s: anext(s.iter_messages()),
        "get_turns": lambda s: s.get_turns(),
        "add_system_message": lambda s: s.add_system_message("x"),
        "clear_messages": lambda s: s.clear_messages(),
        "update_context": lambda s: s.update_context(a=1),
        "set_status": lambda s: s.set_status("paused"),
        "archive": lambda s: s.archive(),
        "fork": lambda s: s.fork(),
        "refresh": lambda s: s.refresh(),
        "record nothing": lambda s: s.record([]),
    }

    @pytest.mark.parametrize("operation", MANAGER.values(), ids=MANAGER)
    async def test_a_manager_refuses_everything(self, manager, operation):
        await manager.close()
        with pytest.raises(ManagerClosedError) as caught:
            await operation(manager)
        check_readable(caught.value)

    @pytest.mark.parametrize("operation", SESSION.values(), ids=SESSION)
    async def test_its_sessions_refuse_everything(self, make_manager, operation):
        manager = make_manager()
        session = await manager.create_session("ann", "mock", "echo")
        await session.send_message("x")
        await manager.close()
        with pytest.raises(ManagerClosedError):
            await operation(session)
        assert session.metrics.message_count == 2
        other = await make_manager().get_session(session.session_id)
        assert await other.get_turns(0) == []
        assert json.loads(other.context.model_dump_json()) == json.loads(
            session.context.model_dump_json()
        )
        assert [m.text for m in await other.get_messages()] == ["x", "You said: x"]


class TestStorable:
    """Messages of a framework that hold what cannot be stored."""

    def test_it_says_what_and_why_and_not_the_value(self):
        with pytest.raises(InvalidInputError) as caught, storable("a letter"):
            SessionMessage(role="user", content=[{"type": "text", "secret": SECRET}])
        assert str(caught.value).startswith("a letter holds what cannot be stored: ")
        check_readable(caught.value)

    def test_data_in_itself(self):
        deep: list = []
        for _ in range(100_000):
            deep = [deep]
        with pytest.raises(InvalidInputError, match="holds data that is nested"), storable("it"):
            repr(deep)

    @pytest.mark.parametrize(
        "read",
        [lambda: None.text, lambda: {}[SECRET], lambda: len(5), lambda: MessageRole(SECRET)],
    )
    def test_what_is_not_as_its_class_says(self, read):
        with pytest.raises(InvalidInputError) as caught, storable("a letter"):
            read()
        assert str(caught.value).startswith("a letter is not as its class says")
        check_readable(caught.value)
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is not None

    def test_its_own_refusals_are_left_as_they_are(self):
        refusal = InvalidInputError("why")
        with pytest.raises(InvalidInputError) as caught, storable("a letter"):
            raise refusal
        assert caught.value is refusal

    def test_other_errors_are_not_its_own(self):
        with pytest.raises(OSError, match="disk"), storable("a letter"):
            raise OSError("disk")


class TestNumbers:
    @pytest.mark.parametrize("bad", [1, 6, 2.0, "2", True, None])
    def test_a_count_out_of_its_range(self, bad):
        with pytest.raises(InvalidInputError, match=r"^n must be .* from 2 to 5, not "):
            check_count(bad, "n", least=2, most=5)
        assert check_count(5, "n", least=2, most=5) == 5
        assert check_count(10**30, "n", least=2) == 10**30

    @pytest.mark.parametrize("bad", [0, 10.5, float("nan"), float("inf"), 10**400, "1", True, None])
    def test_a_time_out_of_its_range(self, bad):
        with pytest.raises(InvalidInputError, match=r"^n must be .* above 0, at most 10, not "):
            check_seconds(bad, "n", above=0, most=10)
        assert check_seconds(10, "n", above=0, most=10) == 10.0


@pytest.mark.parametrize(
    ("given", "text"), [(7, "7"), (UUID(int=7), str(UUID(int=7))), ("a", "a"), (True, True)]
)
def test_numbers_and_uuids_are_ids_as_text(given, text):
    assert text_id(given) == text

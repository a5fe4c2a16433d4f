"""Keys given to providers stay with the providers."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from langswarm_session import (
    InvalidInputError,
    LoggingHook,
    LoggingMiddleware,
    MockProviderSession,
    ProviderSessionError,
    SessionError,
    UnknownProviderError,
    create_provider_session,
    create_session_manager,
    create_simple_session,
)

KEY = "sk-0123456789-never-show-this"


class Keyed(MockProviderSession):
    """A provider with a key, which a careless exception of its SDK shows."""

    def __init__(self, api_key=None, **options):
        super().__init__()
        self.key = api_key
        self.options = options

    async def send_message(self, request):
        if request.messages[-1].text == "fail":
            raise RuntimeError(f"401: {self.key} {self.options} {request.options}")
        return await super().send_message(request)

    async def stream_message(self, request):
        async for event in super().stream_message(request):
            yield event
            await self.send_message(request)


@pytest.fixture
def all_logs(caplog):
    caplog.set_level(logging.DEBUG)
    formatter = logging.Formatter("%(message)s")
    return lambda: "\n".join(formatter.format(record) for record in caplog.records)


@pytest.fixture(
    params=[KEY, {"api_key": KEY, "headers": {"authorization": f"Bearer {KEY}"}}],
    ids=["key", "options"],
)
def keyed(request, provider_factory):
    """The ``providers`` of a manager, one of them with a key."""
    provider_factory.register("keyed", Keyed)
    return {"keyed": request.param}


async def use(manager):
    """Everything that a session does, well and badly; gives what it showed on the way."""
    shown = []
    manager.add_global_middleware(LoggingMiddleware())
    manager.add_global_hook(LoggingHook())
    session = await manager.create_session("ann", "keyed", "echo")
    shown.append(await session.send_message("x", api_key=KEY))
    for attempt in (
        lambda: session.send_message("fail", api_key=KEY),
        lambda: read(session.stream_message("fail", api_key=KEY)),
        lambda: session.send_message("x", metadata={"a": object()}),
    ):
        with pytest.raises(SessionError) as caught:
            await attempt()
        shown.append(str(caught.value))
        shown.append(caught.value)
    turn = await session.begin_turn("y")
    shown += [turn, session, manager, manager.storage, manager.for_user("ann")]
    await turn.cancel()
    shown += [session.context, session.metrics, await manager.health()]
    shown += [await session.get_messages(), await session.get_turns()]
    shown += [await manager.list_sessions(), await session.fork()]
    return shown


async def read(stream):
    return [event async for event in stream]


async def test_they_are_shown_nowhere(keyed, db_path, all_logs):
    async with create_session_manager("sqlite", {"db_path": db_path}, keyed) as manager:
        shown = await use(manager)
        assert KEY not in "\n".join(map(repr, shown))
        check_files(db_path)
    check_files(db_path)
    assert all_logs()
    assert KEY not in all_logs()


def check_files(db_path):
    files = list(Path(db_path).parent.iterdir())
    assert files
    for file in files:
        data = file.read_bytes()
        assert KEY.encode() not in data
        assert KEY.encode("utf-16-le") not in data


async def test_they_do_reach_the_provider(keyed, provider_factory):
    made = []
    provider_factory.register("keyed", lambda **given: made.append(Keyed(**given)) or made[-1])
    async with create_session_manager("memory", providers=keyed) as manager:
        session = await manager.create_session("ann", "keyed", "echo")
        await session.send_message("x")
    assert [provider.key for provider in made] == [KEY]


def test_nor_in_the_error_of_an_unknown_provider():
    for make in (
        lambda: create_session_manager("memory", providers={"nobody": KEY}),
        lambda: create_session_manager("memory", providers={"nobody": {"api_key": KEY}}),
        lambda: create_provider_session("nobody", KEY),
    ):
        with pytest.raises(UnknownProviderError) as caught:
            make()
        assert KEY not in repr(caught.value)


async def test_nor_in_the_error_of_options_that_do_not_fit():
    with pytest.raises(InvalidInputError) as caught:
        create_provider_session("mock", KEY, unknown=KEY)
    assert KEY not in repr(caught.value)
    async with create_session_manager("memory", providers={"mock": {"unknown": KEY}}) as manager:
        session = await manager.create_session("ann", "mock", "echo")
        with pytest.raises(InvalidInputError) as caught:
            await session.send_message("x")
        assert KEY not in repr(caught.value)


async def test_nor_by_a_simple_session(provider_factory):
    provider_factory.register("keyed", Keyed)
    session = await create_simple_session("ann", "keyed", "echo", KEY)
    with pytest.raises(ProviderSessionError) as caught:
        await session.send_message("fail")
    assert KEY not in repr([caught.value, session, session.manager, session.context])
    assert (await session.send_message("x")).text == "You said: x"
    await session.manager.close()


async def test_nor_in_a_turns_error(keyed):
    async with create_session_manager("memory", providers=keyed) as manager:
        session = await manager.create_session("ann", "keyed", "echo")
        with pytest.raises(ProviderSessionError):
            await session.send_message("fail")
        (turn,) = await session.get_turns()
        assert "RuntimeError" in turn.error
        assert KEY not in turn.error

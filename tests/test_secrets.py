"""Keys given to providers stay with the providers."""

from __future__ import annotations

import logging
import traceback
import uuid
from pathlib import Path
from typing import Any

import pytest

from langswarm_session import (
    InvalidInputError,
    ISessionLifecycleHook,
    LoggingHook,
    LoggingMiddleware,
    MockProviderSession,
    ProviderAuthenticationError,
    ProviderSessionError,
    SessionError,
    SessionManager,
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


class Everything(ISessionLifecycleHook):
    """Keeps what hooks are given, as text."""

    def __init__(self):
        self.seen = []

    def __getattribute__(self, name):
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        async def observe(*given):
            self.seen += [repr((name, *given)), *map(str, given)]
            self.seen += [traced(each) for each in given if isinstance(each, BaseException)]

        return observe


def traced(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


MODES = {
    "conversations": ("openai", "POST /v1/responses"),
    "responses": ("openai", "POST /v1/responses"),
    "chat": ("openai", "POST /v1/chat/completions"),
    "threads": ("anthropic", "POST /v1/messages"),
    "messages": ("anthropic", "POST /v1/messages"),
    "managed_agents": ("anthropic", "POST /v1/sessions/*/events"),
}


class Vendor:
    """A vendor's provider at the stand-in, and all that was shown while it was used."""

    def __init__(self, mode, world, db_path, all_logs):
        self.mode, self.world, self.db_path, self.all_logs = mode, world, db_path, all_logs
        self.name, self.turns = MODES[mode]
        self.model = {"openai": "gpt-5.6", "anthropic": "claude-opus-5-5"}[self.name]
        self.url = {"openai": world.openai_url, "anthropic": world.anthropic_url}[self.name]
        self.hook = Everything()
        self.shown: list[str] = []

    def manager(self, **options: Any) -> SessionManager:
        options = {"api_key": self.world.key, "base_url": self.url, "max_retries": 0, **options}
        if self.mode == "managed_agents":
            options["agent"] = {"name": "a", "model": self.model}
            options["environment"] = {"name": "e"}
        providers = {self.name: {"mode": self.mode, **options}}
        manager = create_session_manager("sqlite", {"db_path": self.db_path}, providers)
        manager.add_global_middleware(LoggingMiddleware())
        manager.add_global_hook(LoggingHook())
        manager.add_global_hook(self.hook)
        return manager

    async def use(self, manager, said="x") -> list[SessionError]:
        """A turn, and a streamed one; gives the errors."""
        session = await manager.create_session("ann", self.name, self.model)
        errors = []
        for turn in (
            lambda: session.send_message(said),
            lambda: read(session.stream_message(said)),
        ):
            try:
                self.shown.append(repr(await turn()))
            except SessionError as error:
                errors.append(error)
                self.shown += [repr(error), str(error), repr(vars(error)), traced(error)]
        provider = manager.core.providers.of(self.name, None)
        self.shown += map(repr, [session, manager, session.context, await session.get_messages()])
        self.shown += [repr(await session.get_turns()), repr(provider), str(provider)]
        return errors

    def check(self, *secrets: str) -> None:
        """None of the secrets was shown or written anywhere."""
        assert self.shown
        assert self.hook.seen
        logs = self.all_logs()
        data = b"".join(file.read_bytes() for file in Path(self.db_path).parent.iterdir())
        assert b"SQLite format 3" in data
        for secret in secrets:
            assert not [text for text in self.shown if secret in text]
            assert not [text for text in self.hook.seen if secret in text]
            assert not [line for line in logs.splitlines() if secret in line]
            assert secret.encode() not in data


@pytest.fixture(params=list(MODES))
def vendor(request, provider_server, db_path, all_logs) -> Vendor:
    world = provider_server.world(f"zq{uuid.uuid4().hex}")
    return Vendor(request.param, world, db_path, all_logs)


ECHOES = {
    "401": {"kind": "status", "status": 401},
    "403": {"kind": "status", "status": 403},
    "400": {"kind": "status", "status": 400},
    "404": {"kind": "status", "status": 404},
    "429": {"kind": "status", "status": 429},
    "500": {"kind": "status", "status": 500},
}
"""How a vendor, or a gateway before it, may say a key in its answer."""


class TestVendors:
    async def test_turns_show_nothing(self, vendor):
        async with vendor.manager() as manager:
            assert await vendor.use(manager) == []
        vendor.check(vendor.world.key)

    @pytest.mark.parametrize("echo", list(ECHOES))
    async def test_an_answer_that_says_the_key(self, vendor, echo):
        key = vendor.world.key
        said = f"Incorrect API key provided: {key}. You sent Authorization: Bearer {key}"
        options = dict(ECHOES[echo])
        vendor.world.fail(vendor.turns, options.pop("kind"), times=-1, message=said, **options)
        async with vendor.manager() as manager:
            assert len(await vendor.use(manager)) == 2
        vendor.check(key)

    async def test_a_key_that_is_refused(self, vendor):
        key = f"bad{vendor.world.key}"
        async with vendor.manager(api_key=key) as manager:
            errors = await vendor.use(manager)
        assert [type(error) for error in errors] == [ProviderAuthenticationError] * 2
        vendor.check(key)

    async def test_a_key_from_the_environment(self, vendor, monkeypatch):
        key = vendor.world.key
        monkeypatch.setenv(f"{vendor.name.upper()}_API_KEY", key)
        vendor.world.fail(vendor.turns, "status", times=-1, status=401, message=f"not {key}")
        async with vendor.manager(api_key=None) as manager:
            assert len(await vendor.use(manager)) == 2
        vendor.check(key)

    async def test_a_header_of_a_gateway(self, vendor):
        token = f"gw{uuid.uuid4().hex}"
        vendor.world.fail(
            vendor.turns, "status", times=2, status=403, message=f"the token {token} is not known"
        )
        async with vendor.manager(default_headers={"X-Gateway-Token": token}) as manager:
            assert len(await vendor.use(manager)) == 2
            await vendor.use(manager)
        vendor.check(token, vendor.world.key)

    async def test_a_password_in_the_address(self, vendor):
        password = f"pw{uuid.uuid4().hex}"
        url = vendor.url.replace("//", f"//gateway:{password}@")
        async with vendor.manager(base_url=url) as manager:
            await vendor.use(manager)
        vendor.check(password, vendor.world.key)

    async def test_nobody_at_an_address_with_a_password(self, vendor):
        password = f"pw{uuid.uuid4().hex}"
        async with vendor.manager(base_url=f"http://gateway:{password}@127.0.0.1:9") as manager:
            assert len(await vendor.use(manager)) == 2
        vendor.check(password, vendor.world.key)

    @pytest.mark.parametrize(
        "options",
        [
            {"base_url": "https://gateway:PASSWORD@[127.0.0.1"},
            {"base_url": "https://gateway:PASSWORD@127.0.0.1:port"},
            {"default_headers": "PASSWORD"},
            {"default_query": ["PASSWORD"]},
        ],
    )
    async def test_options_of_another_form(self, vendor, options):
        async with vendor.manager(**options) as manager:
            session = await manager.create_session("ann", vendor.name, vendor.model)
            with pytest.raises(InvalidInputError, match=next(iter(options))) as caught:
                await session.send_message("x")
        assert "PASSWORD" not in traced(caught.value)

    @pytest.mark.parametrize("options", [{"nonsense": 1}, {"mode": "psychic"}])
    async def test_options_that_do_not_fit(self, vendor, options):
        async with vendor.manager(**options) as manager:
            session = await manager.create_session("ann", vendor.name, vendor.model)
            with pytest.raises(SessionError) as caught:
                await session.send_message("x")
        assert vendor.world.key not in traced(caught.value)
        assert vendor.world.key not in vendor.all_logs()

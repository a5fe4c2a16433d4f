"""What the tests share: managers on every storage, providers that wait, and views of a log."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from langswarm_session import (
    BaseSession,
    InMemorySessionStorage,
    ISessionStorage,
    MockProviderSession,
    ProviderReply,
    ProviderRequest,
    ProviderSessionFactory,
    SessionManager,
    SQLiteSessionStorage,
    StreamEvent,
)

sys.path.insert(0, str(Path(__file__).parent))
from provider_server.client import ProviderServer, ServerWorld

# Some tests interrupt a program, which a shell's background job would have its children ignore.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Random tests draw the same each time, so that a change is what makes one fail. LANGSWARM_SEEDS=fresh
# (`make fresh`, `make chaos`) draws others; a number draws as the run that named it in its header.
SEEDS = os.environ.get("LANGSWARM_SEEDS", "fixed")
if SEEDS == "fresh":
    SEEDS = os.environ["LANGSWARM_SEEDS"] = str(secrets.randbits(32))  # workers inherit it

# A busy machine is no failure, and nothing is to be left behind.
settings.register_profile("tests", deadline=None, database=None, derandomize=SEEDS == "fixed")
settings.load_profile("tests")


def pytest_report_header() -> str:
    return f"random tests: LANGSWARM_SEEDS={SEEDS}"


@pytest.fixture(autouse=True)
def seeded_random(request: pytest.FixtureRequest) -> None:
    """What a test draws by `random` depends on its name and on the run's seed alone."""
    random.seed(f"{SEEDS} {request.node.nodeid}")


MakeManager = Callable[..., SessionManager]


class GatedProvider(MockProviderSession):
    """A mock that, once asked, waits until it is let go (a stream: after its first piece)."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def send_message(self, request: ProviderRequest) -> ProviderReply:
        self.asked.set()
        await self.go.wait()
        return await super().send_message(request)

    async def stream_message(
        self, request: ProviderRequest
    ) -> AsyncIterator[StreamEvent | ProviderReply]:
        async for event in super().stream_message(request):
            yield event
            self.asked.set()
            await self.go.wait()


@pytest.fixture
def db_path(tmp_path: Path) -> str:
    return str(tmp_path / "sessions.db")


@pytest.fixture(params=["memory", "sqlite"])
def storage_kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def open_storage(
    storage_kind: str, db_path: str
) -> AsyncIterator[Callable[[], ISessionStorage]]:
    """Opens storages that hold the same sessions, as several processes would."""
    opened: list[ISessionStorage] = []

    def make() -> ISessionStorage:
        if storage_kind == "sqlite":
            opened.append(SQLiteSessionStorage(db_path))
        elif not opened:
            opened.append(InMemorySessionStorage())
        return opened[-1]

    yield make
    for storage in opened:
        await storage.close()


@pytest.fixture
async def make_manager(
    open_storage: Callable[[], ISessionStorage],
) -> AsyncIterator[MakeManager]:
    """Makes managers that share their sessions and nothing else."""
    managers: list[SessionManager] = []

    def make(**options: Any) -> SessionManager:
        manager = SessionManager(open_storage(), **options)
        managers.append(manager)
        return manager

    yield make
    for manager in managers:
        await manager.close()


@pytest.fixture
def mock() -> MockProviderSession:
    """The provider of `manager`'s sessions."""
    return MockProviderSession()


@pytest.fixture
def manager(make_manager: MakeManager, mock: MockProviderSession) -> SessionManager:
    return make_manager(providers={"mock": mock})


@pytest.fixture
async def session(manager: SessionManager) -> BaseSession:
    return await manager.create_session("user123", "mock", "echo")


@pytest.fixture
def gated(manager: SessionManager) -> GatedProvider:
    """The provider of `manager`'s sessions from now on: one that waits to be let go."""
    provider = GatedProvider()
    manager.add_provider_session("mock", provider)
    return provider


@pytest.fixture
def texts() -> Callable[[BaseSession], Awaitable[list[str]]]:
    """What a session's log says."""

    async def texts(session: BaseSession) -> list[str]:
        return [message.text for message in await session.get_messages()]

    return texts


@pytest.fixture
def turns() -> Callable[[BaseSession], Awaitable[list[str]]]:
    """How a session's turns stand."""

    async def turns(session: BaseSession) -> list[str]:
        return [turn.status.value for turn in await session.get_turns()]

    return turns


@pytest.fixture(scope="session")
def provider_server() -> Iterator[ProviderServer]:
    """The stand-in for OpenAI and Anthropic, in a process of its own."""
    with ProviderServer() as server:
        yield server


@pytest.fixture
def world(provider_server: ProviderServer) -> ServerWorld:
    """What one API key has at the stand-in: empty at first, and only this test's."""
    return provider_server.world()


@pytest.fixture
def provider_factory(monkeypatch: pytest.MonkeyPatch) -> type[ProviderSessionFactory]:
    """The factory, which forgets afterwards what a test registered."""
    makers = dict(ProviderSessionFactory._makers)
    monkeypatch.setattr(ProviderSessionFactory, "_makers", makers)
    return ProviderSessionFactory

from __future__ import annotations

import pytest

from langswarm_session import (
    InvalidInputError,
    IProviderSession,
    MockProviderSession,
    ProviderCapabilityError,
    ProviderReply,
    SessionManager,
    SessionMessage,
    UnknownProviderError,
)

PLUG_IN = """
from langswarm_session import MockProviderSession

class Plugged(MockProviderSession):
    name = "plugged"

    def __init__(self, api_key=None, **options):
        super().__init__([f"plugged in with {api_key}"], **options)
"""


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """A distribution whose entry point names a provider."""
    (tmp_path / "plugged_in.py").write_text(PLUG_IN)
    info = tmp_path / "plugged_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[langswarm_session.providers]\nplugged = plugged_in:Plugged\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_makes_one_by_name(provider_factory):
    assert isinstance(provider_factory.create_provider_session("mock"), MockProviderSession)
    assert isinstance(
        provider_factory.create_provider_session("mock", "sk-key", delay=1), MockProviderSession
    )


def test_an_unknown_name_is_named_and_the_known_ones_are_listed(provider_factory):
    with pytest.raises(UnknownProviderError, match="'nobody'.*mock") as caught:
        provider_factory.create_provider_session("nobody", "sk-key")
    assert caught.value.provider == "nobody"
    assert "sk-key" not in str(caught.value)
    assert not provider_factory.is_known("nobody")
    with pytest.raises(UnknownProviderError):
        provider_factory.check_known("nobody")


def test_a_fallback_only_where_one_is_given(provider_factory):
    made = provider_factory.create_provider_session("nobody", "sk-key", fallback="mock", x=1)
    assert isinstance(made, MockProviderSession)
    with pytest.raises(UnknownProviderError, match="'neither'"):
        provider_factory.create_provider_session("nobody", fallback="neither")


def test_options_that_do_not_fit(provider_factory):
    with pytest.raises(InvalidInputError, match="'mock'.*unknown"):
        provider_factory.create_provider_session("mock", unknown=1)


def test_others_may_be_registered(provider_factory):
    made = []

    def maker(api_key=None, **options):
        made.append((api_key, options))
        return MockProviderSession()

    provider_factory.register("mine", maker)
    provider_factory.create_provider_session("mine", "sk-key", base_url="http://localhost")
    assert made == [("sk-key", {"base_url": "http://localhost"})]
    assert provider_factory.is_known("mine")
    provider_factory.check_known("mine")


def test_a_registered_one_replaces_ours(provider_factory):
    class Mine(MockProviderSession):
        def __init__(self, api_key=None):
            super().__init__()

    provider_factory.register("mock", Mine)
    assert isinstance(provider_factory.create_provider_session("mock"), Mine)


async def test_a_manager_makes_each_provider_once_and_when_it_is_needed(provider_factory):
    made = []

    def maker(api_key=None, **options):
        made.append((api_key, options))
        return MockProviderSession()

    provider_factory.register("mine", maker)
    async with SessionManager("memory", {"mine": {"api_key": "k", "mode": "chat"}}) as manager:
        session = await manager.create_session("ann", "mine", "m")
        assert made == []
        await session.send_message("x")
        await session.send_message("y")
        assert made == [("k", {"mode": "chat"})]


async def test_a_bare_string_is_the_key(provider_factory):
    made = []
    provider_factory.register("mine", lambda api_key: made.append(api_key) or MockProviderSession())
    async with SessionManager("memory", {"mine": "sk-key"}) as manager:
        await (await manager.create_session("ann", "mine", "m")).send_message("x")
    assert made == ["sk-key"]


async def test_one_that_nobody_configured_gets_no_key(provider_factory):
    made = []
    provider_factory.register("mine", lambda api_key: made.append(api_key) or MockProviderSession())
    async with SessionManager("memory") as manager:
        await (await manager.create_session("ann", "mine", "m")).send_message("x")
    assert made == [None]


async def test_a_plug_in_is_found(provider_factory, plug_in):
    assert provider_factory.is_known("plugged")
    async with SessionManager("memory", {"plugged": "a key"}) as manager:
        session = await manager.create_session("ann", "plugged", "m")
        assert (await session.send_message("x")).text == "plugged in with a key"
    with pytest.raises(UnknownProviderError, match="mock, openai, plugged"):
        provider_factory.create_provider_session("nobody")


class TestLeastProvider:
    """What an implementation of `send_message` alone comes with."""

    class Least(IProviderSession):
        name = "least"

        async def send_message(self, request):
            said = request.messages[-1].text
            return ProviderReply([SessionMessage(role="assistant", content=said)])

    async def test_it_answers_and_streams(self, manager):
        manager.add_provider_session("least", self.Least())
        session = await manager.create_session("ann", "least", "m")
        assert (await session.send_message("x")).text == "x"
        events = [event async for event in session.stream_message("y")]
        assert [str(event) for event in events] == ["y", ""]

    @pytest.mark.parametrize(
        "operation",
        [
            "create_provider_session",
            "get_provider_session",
            "get_messages",
            "delete_provider_session",
        ],
    )
    async def test_it_says_what_it_cannot_do(self, operation):
        with pytest.raises(ProviderCapabilityError, match=operation) as caught:
            await getattr(self.Least(), operation)("any")
        assert caught.value.provider == "least"
        await self.Least().close()

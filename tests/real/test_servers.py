"""The same steps on servers that others wrote: turns, streams, tools, limits, copies, faults.

Where llmock is the model, a step also checks that it was told what it should have been.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from servers import KEY, Servers

from langswarm_session import (
    BaseSession,
    ImageBlock,
    OpenAIProviderSession,
    ProviderAuthenticationError,
    ProviderSessionError,
    SessionManager,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    create_session_manager,
)

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9h"
    "AAAAAElFTkSuQmCC"
)

pytestmark = pytest.mark.timeout(600)  # a real model on a busy machine takes its time

LIMITS = {"chat": "max_tokens", "messages": "max_tokens"}
"""The keyword that bounds a reply, by mode."""


Told = Callable[..., None]


@dataclass(frozen=True)
class Target:
    """A server in one mode.

    Attributes:
        server: Its name.
        provider: Which of the providers speaks to it.
        mode: The provider's mode.
        model: What it calls its model.
        path: What comes behind its address.
        is_real: Whether a model answers, and not llmock.
        options: Further options of the provider.
    """

    server: str
    provider: str
    mode: str
    model: str
    path: str = "/v1"
    is_real: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.server}-{self.mode}"

    @property
    def short(self) -> dict[str, Any]:
        """The options of a call whose reply is to be short: a real model here takes its time."""
        return {LIMITS.get(self.mode, "max_output_tokens"): 16} if self.is_real else {}


AGENT = {
    "agent": {"name": "a", "model": "local", "system": "Be brief."},
    "environment": {"name": "e"},
}

TARGETS = [
    *(Target("llmock", "openai", mode, "gpt-4o") for mode in ("chat", "responses")),
    Target("llmock", "anthropic", "messages", "claude-sonnet-5", "/anthropic"),
    *(Target("ogx", "openai", mode, "openai/gpt-4o") for mode in ("chat", "responses")),
    Target("ogx", "openai", "conversations", "openai/gpt-4o"),
    Target("ogx", "anthropic", "messages", "openai/gpt-4o", ""),
    *(Target("litellm", "openai", mode, "gpt-4o") for mode in ("chat", "responses")),
    Target("litellm", "anthropic", "messages", "gpt-4o", ""),
    *(Target("llama", "openai", mode, "gemma", is_real=True) for mode in ("chat", "responses")),
    Target("llama", "anthropic", "messages", "gemma", "", is_real=True),
    *(Target("agentic", "openai", mode, "gemma", is_real=True) for mode in ("chat", "responses")),
    Target("agentic", "openai", "conversations", "gemma", is_real=True),
    Target("agentic", "anthropic", "messages", "gemma", "", is_real=True),
]

KEPT = [each for each in TARGETS if each.mode == "conversations"]

AGENTS = Target("oma", "anthropic", "managed_agents", "local", "", options=AGENT)


def manager_of(servers: Servers, target: Target, folder: Path, **options: Any) -> SessionManager:
    options = {"api_key": KEY, "mode": target.mode, **target.options, **options}
    options["base_url"] = servers.url(target.server) + target.path
    return create_session_manager(
        "sqlite", {"db_path": str(folder / "sessions.db")}, {target.provider: options}
    )


@pytest.fixture(params=TARGETS, ids=str)
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.param
    return found


@pytest.fixture
async def manager(
    servers: Servers, target: Target, tmp_path: Path
) -> AsyncIterator[SessionManager]:
    async with manager_of(servers, target, tmp_path) as made:
        yield made


@pytest.fixture
async def session(manager: SessionManager, target: Target) -> BaseSession:
    made = await manager.create_session("ann", target.provider, target.model)
    await made.add_system_message("You are terse.")
    return made


async def ask(session: BaseSession, target: Target, said: Any, **options: Any) -> SessionMessage:
    return await session.send_message(said, **{**target.short, **options})


async def streamed(session: BaseSession, target: Target, said: str) -> SessionMessage:
    """A reply in pieces, which must be the whole of it."""
    pieces, reply = "", None
    async for event in session.stream_message(said, **target.short):
        pieces += event.text
        reply = event.message or reply
    assert reply is not None
    assert pieces == reply.text
    return reply


@pytest.fixture
def told(servers: Servers, target: Target) -> Callable[..., None]:
    """Checks that the model was told some words, and others not, where it keeps what it was told."""

    def check(*words: str, without: str = "") -> None:
        if target.is_real:
            return
        body = json.dumps(servers.told(target.server), ensure_ascii=False)
        assert [word for word in words if word not in body] == [], body
        assert not without or without not in body, body

    return check


async def test_turns_follow_each_other(session: BaseSession, target: Target, told: Told) -> None:
    await ask(session, target, "My code is 4711.")
    await ask(session, target, "What is it?")
    told("4711", "What is it?")
    await streamed(session, target, "In pieces, please.")
    told("4711", "In pieces")
    assert {turn.status.value for turn in await session.get_turns()} == {"complete"}
    roles = [message.role.value for message in await session.get_messages()]
    assert roles == ["system", *["user", "assistant"] * 3]


async def test_readers_that_leave(session: BaseSession, target: Target, told: Told) -> None:
    await ask(session, target, "one")
    async with aclosing(session.stream_message("Tell a long story.", **target.short)) as events:
        async for _ in events:
            break
    await ask(session, target, "Are you there?")
    told("one", "there?")
    task = asyncio.create_task(ask(session, target, "And a longer one."))
    await asyncio.sleep(0.03)  # less than any of them takes
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ask(session, target, "Still there?")
    told("one", "Still there?")


async def test_what_tools_said(session: BaseSession, target: Target, told: Told) -> None:
    await ask(session, target, "one")
    call = ToolCallBlock(id="call_1", name="weather", args={"city": "Rome"})
    result = ToolResultBlock(tool_call_id="call_1", content="12 degrees")
    turn = [("user", "How warm?"), ("assistant", [call]), ("tool", [result]), ("assistant", "12.")]
    await session.record([SessionMessage(role=role, content=said) for role, said in turn])
    await ask(session, target, "Thanks.")
    told("How warm?", "12 degrees", "Thanks.")


async def test_calls_that_nobody_answered(session: BaseSession, target: Target, told: Told) -> None:
    call = ToolCallBlock(id="call_1", name="weather", args={"city": "Rome"})
    turn = [SessionMessage(role="user", content="How warm?"),
            SessionMessage(role="assistant", content=[call])]  # fmt: skip
    await session.record(turn)
    await ask(session, target, "Forget it.")
    told("How warm?", "Forget it.")


# The real model is too small to call any.
@pytest.mark.parametrize("target", [each for each in TARGETS if not each.is_real], ids=str)
async def test_tools_that_are_called(session: BaseSession, target: Target, told: Told) -> None:
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"{city}: 12 degrees"

    reply = await ask(session, target, "The weather in Rome?", tools=[weather])
    assert reply.finish_reason == "tool_calls"
    results = await session.call_tools(reply, [weather])
    reply = await ask(session, target, results, tools=[weather])
    told("Rome?", "12 degrees")


async def test_pictures(session: BaseSession, target: Target, told: Told) -> None:
    said = [TextBlock(text="What is this?"), ImageBlock(base64=PNG, mime_type="image/png")]
    if target.is_real:
        # The model has no eyes, and its server says so. The session goes on.
        with pytest.raises(ProviderSessionError):
            await ask(session, target, said)
    else:
        await ask(session, target, said)
    told("What is this?")
    await ask(session, target, "Never mind.")
    told("Never mind.")


async def test_instructions_that_come_later(
    session: BaseSession, target: Target, told: Told
) -> None:
    await ask(session, target, "one")
    await session.add_system_message("Answer in French.")
    await ask(session, target, "two")
    told("one", "two", "terse", "French")


async def test_windows(session: BaseSession, target: Target, told: Told) -> None:
    await session.update_context(max_messages=6)
    for number in range(8):
        await ask(session, target, f"This is number {number}.")
    told("number 7", without="number 0")


async def test_budgets(session: BaseSession, target: Target, told: Told) -> None:
    await session.update_context(max_input_tokens=300, token_counter="provider")
    for number in range(4):
        await ask(session, target, f"This is number {number}. " + "word " * 100)
    told("number 3", without="number 0")


@pytest.mark.parametrize("target", KEPT, ids=str)
async def test_copies(
    servers: Servers, manager: SessionManager, session: BaseSession, target: Target
) -> None:
    for said in ("one", "two"):
        await ask(session, target, said)
    found = await session.reconcile()
    assert (found.only_remote, found.only_local) == ([], [])
    fork = await session.fork()
    await ask(fork, target, "three")
    copy = session.context.provider_session_id
    await manager.delete_session(session.session_id)
    url = servers.url(target.server) + target.path
    provider = OpenAIProviderSession(KEY, base_url=url, mode=target.mode)
    with pytest.raises(ProviderSessionError):
        await provider.get_messages(str(copy))
    await provider.close()


async def test_a_model_whose_context_is_full(
    session: BaseSession, target: Target, told: Told
) -> None:
    if target.server != "llama":
        return
    for number in range(6):
        await ask(session, target, f"This is number {number}. " + "lorem ipsum " * 300)
    assert {turn.status.value for turn in await session.get_turns()} == {"complete"}


SMALL = [
    Target("llmock+small", "openai", "chat", "gpt-4o"),
    Target("llmock+small", "openai", "responses", "gpt-4o"),
    Target("llmock+small", "anthropic", "messages", "claude-sonnet-5", "/anthropic"),
]


@pytest.mark.parametrize("target", SMALL, ids=str)
async def test_a_conversation_that_outgrows_its_model(
    servers: Servers, target: Target, told: Told, tmp_path: Path
) -> None:
    async with manager_of(servers, target, tmp_path) as manager:
        session = await manager.create_session("ann", target.provider, target.model)
        for number in range(8):
            await ask(session, target, f"This is number {number}. " + "word " * 60)
            told(f"number {number}")


FAULTY = [
    Target("llmock+faults", "openai", "chat", "gpt-4o"),
    Target("llmock+faults", "openai", "responses", "gpt-4o"),
    Target("llmock+faults", "anthropic", "messages", "claude-sonnet-5", "/anthropic"),
]


async def test_a_server_that_fails_at_random(servers: Servers, tmp_path: Path) -> None:
    failures = []
    for target in FAULTY:
        folder = tmp_path / target.mode
        folder.mkdir()
        async with manager_of(servers, target, folder, max_retries=4) as manager:
            session = await manager.create_session("ann", target.provider, target.model)
            for number in range(12):
                asked = streamed if number % 2 else ask
                try:
                    await asked(session, target, f"[{number}]")
                except ProviderSessionError as error:
                    failures.append(error)
            said = [m.text for m in await session.get_messages() if m.role.value == "user"]
            assert said == [f"[{number}]" for number in range(12)]
    assert [error for error in failures if not error.retriable] == []
    assert (
        len(failures) < 12
    )  # most of what failed was tried again, streams before their first piece
    report = servers.run("llmock", "llmock", "report", "--json", "--url",
                         servers.url("llmock+faults"))  # fmt: skip
    assert "retry_after_ignored" not in json.dumps(json.loads(report.stdout)), report.stdout


async def test_a_key_that_is_refused(servers: Servers, tmp_path: Path) -> None:
    async with manager_of(servers, AGENTS, tmp_path, api_key="sk-another-key") as manager:
        session = await manager.create_session("ann", AGENTS.provider, AGENTS.model)
        with pytest.raises(ProviderAuthenticationError):
            await session.send_message("one")


async def test_agents(servers: Servers, tmp_path: Path) -> None:
    async with manager_of(servers, AGENTS, tmp_path) as manager:
        session = await manager.create_session("ann", AGENTS.provider, AGENTS.model)
        for said in ("one", "two"):
            assert (await session.send_message(said)).text.endswith(said)
        assert (await streamed(session, AGENTS, "three")).text.endswith("three")
        assert (await session.reconcile()).is_equal
        await manager.delete_session(session.session_id)

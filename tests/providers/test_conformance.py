"""Every provider holds to the promises of `IProviderSession`, in each of its modes."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

from langswarm_session import (
    AnthropicProviderSession,
    MockFailure,
    MockProviderSession,
    OpenAIProviderSession,
    SessionMessage,
    ToolCallBlock,
)
from langswarm_session.testing import ProviderConformance


class TestMock(ProviderConformance):
    model = "recall"

    def make_provider(self) -> MockProviderSession:
        return MockProviderSession()

    def remembers(self, reply: SessionMessage, word: str, messages: int) -> bool:
        heard = (messages + 1) // 2
        return word in reply.text or f"I remember {heard} messages" in reply.text

    def prompt_call(self, provider: MockProviderSession, name: str, args: Any) -> str:
        provider.script(ToolCallBlock(id="call_1", name=name, args=args))
        return "call it"

    def limit_rate(self, provider: MockProviderSession) -> None:
        provider.fail_next(MockFailure.RATE_LIMIT)

    def go_down(self, provider: MockProviderSession) -> None:
        provider.fail_next(MockFailure.UNAVAILABLE)

    def break_stream(self, provider: MockProviderSession) -> None:
        provider.fail_next(MockFailure.BROKEN_STREAM)


class StandIn(ProviderConformance):
    """A vendor's provider at the stand-in server, whose model says how many messages it sees."""

    turns: ClassVar[str]
    """The request that makes a turn, as the server names it."""

    streams: ClassVar[str | None] = None
    """The request whose answer is streamed, if it is another."""

    @pytest.fixture(autouse=True)
    def _world(self, world) -> None:
        self.world = world
        self.bad_key = "bad-key-0123456789"
        self.secrets = (world.key, self.bad_key)

    def remembers(self, reply: SessionMessage, word: str, messages: int) -> bool:
        return f"I see {messages} messages" in reply.text or word in reply.text

    def prompt_call(self, provider: Any, name: str, args: Any) -> str:
        return f"call {name} {json.dumps(args)}"

    def limit_rate(self, provider: Any) -> None:
        self.world.fail(self.turns, "rate_limit", retry_after=0)

    def go_down(self, provider: Any) -> None:
        self.world.fail(self.turns, "overloaded")

    def break_stream(self, provider: Any) -> None:
        self.world.fail(self.streams or self.turns, "cut_stream", at=4, work=False)

    def make_provider(self) -> Any:
        return self.make(self.world.key)

    def make_with_bad_key(self) -> Any:
        return self.make(self.bad_key)


class OpenAI(StandIn):
    model = "gpt-5.6"
    unknown_model = "unknown-1"
    mode: ClassVar[str]

    def make(self, key: str) -> OpenAIProviderSession:
        return OpenAIProviderSession(
            key, mode=self.mode, base_url=self.world.openai_url, max_retries=0
        )


class TestOpenAIConversations(OpenAI):
    mode = "conversations"
    turns = "POST /v1/responses"


class TestOpenAIResponses(OpenAI):
    mode = "responses"
    turns = "POST /v1/responses"


class TestOpenAIChat(OpenAI):
    mode = "chat"
    turns = "POST /v1/chat/completions"


class Anthropic(StandIn):
    model = "claude-opus-5-5"
    unknown_model = "claude-unknown"
    mode: ClassVar[str]
    turns = "POST /v1/messages"

    def make(self, key: str) -> AnthropicProviderSession:
        return AnthropicProviderSession(
            key, mode=self.mode, base_url=self.world.anthropic_url, max_retries=0, **self.options()
        )

    def options(self) -> dict[str, Any]:
        return {}


class TestAnthropicThreads(Anthropic):
    mode = "threads"


class TestAnthropicMessages(Anthropic):
    mode = "messages"


class TestAnthropicManagedAgents(Anthropic):
    mode = "managed_agents"
    turns = "POST /v1/sessions/*/events"
    streams = "GET /v1/sessions/*/events/stream"
    unknown_model = None  # the agent's own definition names the model

    def remembers(self, reply: SessionMessage, word: str, messages: int) -> bool:
        sent = self.world.requests(self.turns)
        in_session = [each for each in sent if each["path"] == sent[-1]["path"]]
        return any(word in json.dumps(each["body"]) for each in in_session)

    def options(self) -> dict[str, Any]:
        agent = {"name": "helper", "model": self.model}
        return {"agent": agent, "environment": {"name": "place"}}

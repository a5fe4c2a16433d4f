"""What the conformance tests of a provider share: what a subclass says, and short ways to ask."""

from __future__ import annotations

import json
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NoReturn

import pytest
import pytest_asyncio

from langswarm_session.errors import ProviderSessionError
from langswarm_session.interfaces import IProviderSession
from langswarm_session.manager import SessionManager
from langswarm_session.models import MessageRole, SessionContext, SessionMessage
from langswarm_session.providers.mock import MockProviderSession
from langswarm_session.records import ProviderReply, ProviderRequest
from langswarm_session.session import BaseSession
from langswarm_session.storage.memory import InMemorySessionStorage

WORD = "quokka"
TELL = f"My favourite word is {WORD}. Answer in one short sentence."
ASK = "What is my favourite word?"

OTHER = "another"
"""The name of the other provider that the manager has: a mock."""


@pytest.mark.asyncio
class ProviderTests:
    """The base of the conformance tests; see `langswarm_session.testing.ProviderConformance`."""

    model: ClassVar[str]
    unknown_model: ClassVar[str | None] = None
    secrets: Sequence[str] = ()

    def make_provider(self) -> IProviderSession:
        """A new provider. Override this.

        It should not try again by itself what failed (``max_retries=0``), or the failures that the
        methods below provoke must outlast its attempts.
        """
        raise NotImplementedError("override make_provider(self) to return your provider")

    # What a subclass may say of its model

    def remembers(self, reply: SessionMessage, word: str, messages: int) -> bool:
        """Whether a reply shows that the model was sent what came before.

        Override it where the model does not answer what it is asked.

        Args:
            reply: The answer to a question for a word that the user had named.
            word: The word.
            messages: How many messages of user and assistant there are, with the question.
        """
        return word in reply.text.lower()

    def prompt_call(self, provider: IProviderSession, name: str, args: Mapping[str, Any]) -> str:
        """What to say so that the next reply is the call of a tool.

        Override it where the model does not do as it is told.

        Args:
            provider: The provider; a scripted one may be given the call.
            name: The tool, which the request has.
            args: The arguments.
        """
        return f"Call the tool {name} with the arguments {json.dumps(args)} and say nothing else."

    # How a subclass may make things go wrong

    def limit_rate(self, provider: IProviderSession) -> None:
        """Let the next request be refused for the number of requests, and only that."""
        self._cannot("limit_rate")

    def go_down(self, provider: IProviderSession) -> None:
        """Let the next request fail as if the provider were down, and only that."""
        self._cannot("go_down")

    def break_stream(self, provider: IProviderSession) -> None:
        """Let the next reply break off after its first piece, and only that."""
        self._cannot("break_stream")

    def make_with_bad_key(self) -> IProviderSession:
        """A provider whose key is refused; the key is one of `secrets`."""
        self._cannot("make_with_bad_key")

    def _cannot(self, method: str) -> NoReturn:
        pytest.skip(f"override {method}() to test this failure")

    # What the tests are given

    @pytest_asyncio.fixture
    async def provider(self) -> AsyncIterator[IProviderSession]:
        """A new provider, closed after the test."""
        provider = self.make_provider()
        yield provider
        await provider.close()

    @pytest_asyncio.fixture
    async def manager(self, provider: IProviderSession) -> AsyncIterator[SessionManager]:
        """A manager with the provider and another one."""
        given = {provider.name: provider, OTHER: MockProviderSession()}
        async with SessionManager(InMemorySessionStorage(), given) as manager:
            yield manager

    @pytest_asyncio.fixture
    async def session(self, manager: SessionManager, provider: IProviderSession) -> BaseSession:
        """A session that the provider answers."""
        return await manager.create_session("ann", provider.name, self.model)

    def request(
        self,
        provider: IProviderSession,
        *said: str | SessionMessage,
        native: str | None = None,
        model: str | None = None,
        **options: Any,
    ) -> ProviderRequest:
        """A request for the reply to what was said, the last of it new."""
        context = SessionContext(
            session_id="s",
            user_id="ann",
            provider=provider.name,
            model=self.model if model is None else model,
            provider_session_id=native,
        )
        messages = [each if isinstance(each, SessionMessage) else _user(each) for each in said]
        placed = [each.replaced(seq=seq) for seq, each in enumerate(messages, 1)]
        target = provider.target(context, options)
        return ProviderRequest(
            "s", context, placed, options=options, target=target, turn_id=len(placed)
        )

    async def ask(
        self, provider: IProviderSession, *said: str | SessionMessage, **how: Any
    ) -> SessionMessage:
        """The provider's reply."""
        reply = await provider.send_message(self.request(provider, *said, **how))
        assert isinstance(reply, ProviderReply)
        return reply.messages[-1]

    @contextmanager
    def fails(
        self, kind: type[ProviderSessionError], provider: IProviderSession
    ) -> Iterator[pytest.ExceptionInfo[ProviderSessionError]]:
        """The block raises an error of this kind that names the provider and shows no secret."""
        with pytest.raises(kind) as caught:
            yield caught
        self.is_sound(caught.value, provider)

    def is_sound(self, error: ProviderSessionError, provider: IProviderSession) -> None:
        """The error names the provider and shows no secret."""
        assert error.provider == provider.name
        assert str(error)
        self.shows_no_secret(repr(error), "".join(traceback.format_exception(error)))

    def shows_no_secret(self, *texts: str) -> None:
        """None of the texts has a secret in it."""
        for secret in self.secrets:
            for text in texts:
                assert secret not in text


def _user(text: str) -> SessionMessage:
    return SessionMessage(role=MessageRole.USER, content=text)


def is_reply(message: SessionMessage) -> bool:
    """Whether it is what an assistant says in words."""
    return message.role is MessageRole.ASSISTANT and bool(message.text.strip())

"""``langswarm-session chat``: a conversation at the terminal or through a pipe."""

from __future__ import annotations

import asyncio
import shlex
import sys
from contextlib import aclosing
from dataclasses import dataclass

from rich.text import Text

from langswarm_session.cli.chat_input import piped, typed
from langswarm_session.cli.chat_reply import ReplyWriter
from langswarm_session.cli.describe import STYLES, block_text, message_text
from langswarm_session.cli.outcome import ExitCode, report_error
from langswarm_session.cli.output import clipped, console, printable, to_json, write_line
from langswarm_session.errors import (
    InvalidInputError,
    MessageRefusedError,
    MiddlewareError,
    ProviderSessionError,
    SessionBusyError,
    SessionInactiveError,
    SessionNotFoundError,
    TurnLostError,
)
from langswarm_session.manager import SessionManager
from langswarm_session.models import MessageRole, SessionStatus, new_id
from langswarm_session.providers.factory import ProviderSessionFactory
from langswarm_session.session import BaseSession

_SHOWN = 300
"""How much of each message of the last exchange is shown, in characters."""

_GOES_ON_AFTER = (
    InvalidInputError,
    MessageRefusedError,
    MiddlewareError,
    ProviderSessionError,
    SessionBusyError,
    TurnLostError,
)
"""The errors that cost a message its reply, and not the chat its end."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The conversation asked for.

    Attributes:
        session_id: Its id; made up when None.
        user: Whose it is; for a session that exists None is any user, for a new one ``default``.
        provider: Who answers; None: the mock, or as before.
        model: The model; None: ``recall`` for the mock, or as before.
    """

    session_id: str | None = None
    user: str | None = None
    provider: str | None = None
    model: str | None = None


def chat(manager: SessionManager, wanted: Wanted, *, demo: bool, as_json: bool) -> ExitCode:
    """Hold a conversation: with a person at a terminal, or line by line with a pipe.

    Args:
        manager: Where the conversation is kept.
        wanted: Which one.
        demo: Say something of its own when standard input is empty.
        as_json: Write each reply as a JSON object, in place of text as it comes.

    Returns:
        The exit code: with a pipe, whether every message got its reply.

    Raises:
        SessionError: What ends the chat.
        KeyboardInterrupt: If it was interrupted, and not by a person at a prompt.
    """
    person = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    lines = typed() if person else piped(demo=demo and not as_json)
    talk = Chat(manager, wanted, person=person, as_json=as_json)
    failed = False
    with asyncio.Runner() as runner:
        try:
            runner.run(talk.open())
            for line in lines:
                runner.run(talk.begin())
                try:
                    runner.run(talk.say(line))
                except KeyboardInterrupt:
                    if not person:
                        raise
                    console().print("(the reply was cancelled)", style="dim")
                except _GOES_ON_AFTER as error:
                    report_error(error, as_json=as_json)
                    failed = True
        finally:
            runner.run(manager.close())
    return ExitCode.FAILED if failed and not person else ExitCode.OK


class Chat:
    """A conversation that is created when the first message is sent.

    Args:
        manager: Where it is kept.
        wanted: Which one.
        person: Whether it is held with a person at a terminal.
        as_json: Write each reply as a JSON object.
    """

    def __init__(
        self, manager: SessionManager, wanted: Wanted, *, person: bool, as_json: bool
    ) -> None:
        self.session_id = new_id() if wanted.session_id is None else wanted.session_id
        self._manager = manager
        self._wanted = wanted
        self._person = person
        self._as_json = as_json
        self._session: BaseSession | None = None

    async def open(self) -> None:
        """Find the session, if it exists, make sure that somebody answers in it, and introduce it.

        Raises:
            UnknownProviderError: If there is no such provider.
            ProviderSessionError: If the session is a framework's, in which nobody answers.
            InvalidInputError: If there is no telling which model is to answer.
            SessionNotFoundError: If it is another user's.
            SessionInactiveError: If it takes no new turn.
        """
        if self._wanted.provider is not None:
            ProviderSessionFactory.check_known(self._wanted.provider)
        try:
            session = await self._manager.get_session(self.session_id)
        except SessionNotFoundError:
            self._model(self._provider)
        else:
            self._check(session)
            await self._switch(session)
            self._session = session
        if not self._as_json:
            await self._introduce()

    async def begin(self) -> None:
        """Create the session, unless it exists.

        Raises:
            SessionError: If it cannot be created.
        """
        if self._session is None:
            self._session = await self._manager.create_session(
                "default" if self._wanted.user is None else self._wanted.user,
                self._provider,
                self._model(self._provider),
                session_id=self.session_id,
            )

    async def say(self, content: str) -> None:
        """Send a message and write the reply.

        Raises:
            SessionError: If there is none.
        """
        assert self._session is not None
        if self._as_json:
            reply = await self._session.send_message(content)
            write_line(
                to_json({"session_id": self.session_id, "message": reply.model_dump(mode="json")})
            )
        else:
            await self._stream(self._session, content)

    @property
    def _provider(self) -> str:
        return self._wanted.provider or "mock"

    def _model(self, provider: str) -> str:
        if self._wanted.model is not None:
            return self._wanted.model
        if provider != "mock":
            raise InvalidInputError(f"say with --model which model of {provider!r} is to answer")
        return "recall"

    def _check(self, session: BaseSession) -> None:
        if self._wanted.user not in (None, session.user_id):
            raise SessionNotFoundError(
                f"the user {self._wanted.user!r} has no such session", session_id=self.session_id
            )
        if session.status is not SessionStatus.ACTIVE:
            raise SessionInactiveError(
                f"it is {session.status.value} and takes no new message; `show` prints it",
                session_id=self.session_id,
            )

    async def _switch(self, session: BaseSession) -> None:
        """Let the provider and model that were asked for answer from now on."""
        context = session.context
        provider, model = self._wanted.provider or context.provider, self._wanted.model
        if not ProviderSessionFactory.is_known(provider):
            raise ProviderSessionError(
                f"nobody answers in this session: it was written through {provider!r}, which is "
                "no provider; name one with --provider",
                session_id=self.session_id,
                provider=provider,
            )
        if provider != context.provider:
            model = self._model(provider)
        model = model or context.model
        if (provider, model) != (context.provider, context.model):
            await session.update_context(provider=provider, model=model)

    async def _introduce(self) -> None:
        """Say which conversation this is, and how far it has come."""
        notes = console(stderr=True)
        name = printable(self.session_id)
        if self._session is None:
            resume = f"; --session {shlex.quote(self.session_id)} goes on with it"
            again = resume * (self._wanted.session_id is None)
            notes.print(f"session {name} is new{again}", style="dim", soft_wrap=True)
        else:
            count = self._session.metrics.message_count
            notes.print(f"session {name} goes on: {count} messages so far", style="dim")
            for text in await self._last_exchange(self._session):
                notes.print(text, soft_wrap=True)
        if self._person:
            notes.print("Ctrl-C stops a reply, Ctrl-D ends the chat\n", style="dim")

    async def _last_exchange(self, session: BaseSession) -> list[Text]:
        newest = await session.get_messages(limit=6)
        return [
            Text.assemble(
                (f"  {message.role.value}: ", STYLES[message.role]),
                clipped(message_text(message), _SHOWN),
            )
            for message in newest
            if message.turn_id == newest[-1].turn_id
        ]

    async def _stream(self, session: BaseSession, content: str) -> None:
        reply = ReplyWriter(console())
        if self._person:
            reply.label("assistant> ", STYLES[MessageRole.ASSISTANT])
        try:
            async with aclosing(session.stream_message(content)) as events:
                async for event in events:
                    if event.text:
                        reply.write(event.text)
                    elif event.block is not None:
                        reply.write_apart(block_text(event.block))
                    elif event.message is not None and not reply.began:
                        reply.write(message_text(event.message))
        finally:
            reply.end()

"""Conformance of a provider in real sessions: turns, tools, any record, switching, breaking off."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Any

import pytest

from langswarm_session._sync import bridge
from langswarm_session.blocks import Block, TextBlock, ToolCallBlock
from langswarm_session.errors import ProviderCapabilityError, ProviderSessionError
from langswarm_session.interfaces import IProviderSession, ProviderCapability
from langswarm_session.manager import SessionManager
from langswarm_session.models import MessageRole, SessionMessage, TurnStatus
from langswarm_session.session import BaseSession
from langswarm_session.testing.provider_base import ASK, OTHER, TELL, WORD, ProviderTests, is_reply
from langswarm_session.testing.provider_logs import LOGS, USER_BLOCKS, WHOLE_LOG

_STEPS = (0, 1, 2, 5, 20, 100)
"""After how many turns of the event loop a call is cancelled."""

ARGS = {"city": "Oslo", "days": 3}


def forecast(city: str, days: int = 1) -> str:
    """Tell the weather of a city for some days."""
    return f"{days} days of sun in {city}"


class TurnTests(ProviderTests):
    """Turns of a session."""

    async def test_a_conversation_goes_on(self, session: BaseSession) -> None:
        """The second turn knows the first, the third both; all is stored."""
        replies = [await session.send_message(text) for text in (TELL, ASK, ASK)]
        assert all(map(is_reply, replies))
        assert self.remembers(replies[1], WORD, 3)
        assert self.remembers(replies[2], WORD, 5)
        log = await session.get_messages()
        assert [each.text for each in log[::2]] == [TELL, ASK, ASK]
        assert log[1::2] == replies
        provider = session.context.provider
        assert {(each.provider, each.model) for each in replies} == {(provider, self.model)}

    async def test_a_stream_is_stored_as_it_was_shown(self, session: BaseSession) -> None:
        """The pieces are the stored text; the last event has the whole message."""
        for text, messages in ((TELL, 1), (ASK, 3)):
            events = [event async for event in session.stream_message(text)]
            (stored,) = await session.get_messages(1)
            assert events[-1].message == stored
            assert "".join(event.text for event in events) == stored.text
            assert messages == 1 or self.remembers(stored, WORD, messages)

    async def test_another_object_goes_on(
        self, session: BaseSession, manager: SessionManager
    ) -> None:
        """What a provider needs is in the record, not in an object."""
        await session.send_message(TELL)
        again = await manager.get_session(session.session_id)
        assert self.remembers(await again.send_message(ASK), WORD, 3)

    async def test_another_provider_goes_on(self, session: BaseSession) -> None:
        """Nor in the provider: another process has one of its own."""
        await session.send_message(TELL)
        provider = self.make_provider()
        session.manager.add_provider_session(provider.name, provider)
        assert self.remembers(await session.send_message(ASK), WORD, 3)
        await provider.close()

    async def test_a_sync_caller(self, session: BaseSession) -> None:
        """Turns may run on another event loop than the ones before."""
        await session.send_message(TELL)

        async def ask() -> SessionMessage:
            reply = await session.send_message(ASK)
            provider = session.core.provider()
            await provider.close()
            return reply

        reply = await asyncio.to_thread(lambda: bridge.run(ask()))
        assert self.remembers(reply, WORD, 3)
        assert self.remembers(await session.send_message(ASK), WORD, 5)

    async def test_it_is_switched_to_and_from(self, session: BaseSession) -> None:
        """Each provider knows what was said to the other."""
        own = session.context.provider
        await session.switch_provider(OTHER, "recall")
        await session.send_message(TELL)
        await session.switch_provider(own, self.model)
        assert self.remembers(await session.send_message(ASK), WORD, 3)
        await session.switch_provider(OTHER, "recall")
        assert "3 messages" in (await session.send_message("And now?")).text
        await session.switch_provider(own, self.model)
        assert self.remembers(await session.send_message(ASK), WORD, 7)

    async def test_another_takes_over(
        self, provider: IProviderSession, manager: SessionManager
    ) -> None:
        """During an outage, and it is said whose the reply is; nothing is doubled."""
        session = await manager.create_session(
            "ann", provider.name, self.model, fallback=[(OTHER, "recall")]
        )
        await session.send_message(TELL)
        self.go_down(provider)
        reply = await session.send_message(ASK)
        assert (reply.provider, WORD in reply.text) == (OTHER, True)
        assert [each.text for each in (await session.get_messages())[::2]] == [TELL, ASK]

    async def test_a_turn_that_failed_is_sent_again(
        self, session: BaseSession, provider: IProviderSession
    ) -> None:
        """With its key: the message is there once, and the reply."""
        await session.send_message(TELL)
        self.go_down(provider)
        with self.fails(ProviderSessionError, provider):
            await session.send_message(ASK, idempotency_key="k")
        reply = await session.send_message(ASK, idempotency_key="k")
        assert self.remembers(reply, WORD, 3)
        assert [each.text for each in await session.get_messages()][::2] == [TELL, ASK]

    async def test_a_stream_that_breaks_is_not_taken_for_a_reply(
        self, session: BaseSession, provider: IProviderSession
    ) -> None:
        """The turn has failed, or was completed; the next one goes on either way."""
        await session.send_message(TELL)
        self.break_stream(provider)
        with suppress(ProviderSessionError):
            async for _ in session.stream_message("Tell me a long story."):
                pass
        (turn,) = await session.get_turns(1)
        assert turn.status in (TurnStatus.FAILED, TurnStatus.COMPLETE)
        assert is_reply(await session.send_message(ASK))


class ToolTests(ProviderTests):
    """Tools of a session."""

    async def test_a_call_and_its_result(
        self, session: BaseSession, provider: IProviderSession
    ) -> None:
        """Calls come as blocks, results go back, and the conversation goes on from there."""
        self._needs_tools(provider)
        prompt = self.prompt_call(provider, "forecast", ARGS)
        reply = await session.send_message(prompt, tools=[forecast])
        self._calls(reply)
        results = await session.call_tools(reply, [forecast])
        answer = await session.send_message(results, tools=[forecast])
        assert is_reply(answer)
        assert is_reply(await session.send_message("Thank you."))
        roles = [message.role.value for message in await session.get_messages()]
        assert roles == ["user", "assistant", "tool", "assistant", "user", "assistant"]

    async def test_a_call_in_a_stream(
        self, session: BaseSession, provider: IProviderSession
    ) -> None:
        """The call is shown as a block when it is complete."""
        self._needs_tools(provider)
        prompt = self.prompt_call(provider, "forecast", ARGS)
        events = [event async for event in session.stream_message(prompt, tools=[forecast])]
        shown = [event.block for event in events if isinstance(event.block, ToolCallBlock)]
        reply = events[-1].message
        assert reply is not None
        self._calls(reply)
        assert [(block.name, block.args) for block in shown] == [("forecast", ARGS)]
        results = await session.call_tools(reply, [forecast])
        events = [event async for event in session.stream_message(results, tools=[forecast])]
        assert events[-1].message is not None
        assert is_reply(events[-1].message)

    async def test_a_call_that_is_never_answered(
        self, session: BaseSession, provider: IProviderSession
    ) -> None:
        """The next message is answered all the same, with the tools and without."""
        self._needs_tools(provider)
        prompt = self.prompt_call(provider, "forecast", ARGS)
        self._calls(await session.send_message(prompt, tools=[forecast]))
        assert is_reply(await session.send_message("Never mind.", tools=[forecast]))
        assert is_reply(await session.send_message("Good bye."))

    async def test_a_call_of_another_provider_is_answered_here(
        self, session: BaseSession, provider: IProviderSession
    ) -> None:
        """And one that was made here is answered there."""
        self._needs_tools(provider)
        own = session.context.provider
        other = session.core.provider(OTHER)
        assert hasattr(other, "script")
        await session.switch_provider(OTHER, "echo")
        other.script(ToolCallBlock(id="call-1", name="forecast", args=ARGS))
        call = await session.send_message(TELL, tools=[forecast])
        await session.switch_provider(own, self.model)
        results = await session.call_tools(call, [forecast])
        assert is_reply(await session.send_message(results, tools=[forecast]))
        prompt = self.prompt_call(provider, "forecast", ARGS)
        call = await session.send_message(prompt, tools=[forecast])
        await session.switch_provider(OTHER, "echo")
        results = await session.call_tools(call, [forecast])
        assert is_reply(await session.send_message(results, tools=[forecast]))

    async def test_tools_that_it_does_not_take(
        self, session: BaseSession, provider: IProviderSession
    ) -> None:
        """They are refused, not left out."""
        if ProviderCapability.TOOLS in provider.capabilities:
            pytest.skip("the provider takes tools")
        with self.fails(ProviderCapabilityError, provider):
            await session.send_message(TELL, tools=[forecast])

    def _calls(self, reply: SessionMessage) -> None:
        (call,) = [block for block in reply.blocks if isinstance(block, ToolCallBlock)]
        assert (call.name, call.args) == ("forecast", ARGS)
        assert call.id

    def _needs_tools(self, provider: IProviderSession) -> None:
        if ProviderCapability.TOOLS not in provider.capabilities:
            pytest.skip("the provider takes no tools")


class RecordTests(ProviderTests):
    """Whatever a record holds, the next turn is answered."""

    @pytest.mark.parametrize("log", list(LOGS.values()), ids=list(LOGS))
    async def test_after(self, session: BaseSession, log: list[SessionMessage]) -> None:
        """It was made elsewhere, or by another provider."""
        await session.record(log)
        assert is_reply(await session.send_message("And now?"))
        assert is_reply(await session.send_message("And then?"))

    @pytest.mark.parametrize("log", list(LOGS.values()), ids=list(LOGS))
    async def test_in_mid_conversation(
        self, session: BaseSession, log: list[SessionMessage]
    ) -> None:
        """It was made between two turns of this provider."""
        await session.send_message(TELL)
        await session.record(log)
        assert is_reply(await session.send_message("And now?"))
        assert is_reply(await session.send_message("And then?"))

    @pytest.mark.parametrize("at", range(1, len(WHOLE_LOG) + 1, 3))
    async def test_cut_anywhere(self, session: BaseSession, at: int) -> None:
        """The window begins and ends in the middle of something."""
        await session.record(WHOLE_LOG[:at])
        await session.update_context(max_messages=max(2, at // 2))
        assert is_reply(await session.send_message("And now?"))

    @pytest.mark.parametrize("block", list(USER_BLOCKS.values()), ids=list(USER_BLOCKS))
    async def test_a_message_with(self, session: BaseSession, block: Block) -> None:
        """The new message itself has it; so has the window of the next turn."""
        assert is_reply(await session.send_message([TextBlock(text="Look at this:"), block]))
        assert is_reply(await session.send_message("And now?"))

    @pytest.mark.parametrize("block", list(USER_BLOCKS.values()), ids=list(USER_BLOCKS))
    async def test_a_message_of_nothing_but(self, session: BaseSession, block: Block) -> None:
        """There is no text beside it."""
        assert is_reply(await session.send_message([block]))

    async def test_the_record_is_as_it_was(self, session: BaseSession) -> None:
        """What is normalized is the request."""
        recorded = await session.record(WHOLE_LOG)
        await session.send_message("And now?")
        assert (await session.get_messages())[: len(WHOLE_LOG)] == recorded


class BreakingOffTests(ProviderTests):
    """A turn that is broken off leaves the session usable."""

    @pytest.mark.parametrize("steps", _STEPS)
    @pytest.mark.parametrize("streaming", [False, True], ids=["send", "stream"])
    async def test_a_turn_is_cancelled(
        self, session: BaseSession, steps: int, streaming: bool
    ) -> None:
        """At any point; what the user said is never said twice."""
        await session.send_message(TELL)
        running = asyncio.create_task(_run(session, "Tell me a long story.", streaming=streaming))
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert is_reply(await session.send_message(ASK))
        said = [m.text for m in await session.get_messages() if m.role is MessageRole.USER]
        assert said[0] == TELL
        assert said[-1] == ASK
        assert said.count("Tell me a long story.") <= 1

    async def test_a_reader_stops(self, session: BaseSession) -> None:
        """After the first piece: what was shown is kept, and the next turn goes on."""
        await session.send_message(TELL)
        async with aclosing(session.stream_message("Tell me a long story.")) as events:
            await anext(events)
        assert is_reply(await session.send_message(ASK))
        assert [turn.status for turn in await session.get_turns()][::2] == ["complete"] * 2


class MirrorTests(ProviderTests):
    """A provider's own copy of a session's conversation, where it keeps one."""

    @pytest.mark.parametrize("given", [False, True], ids=["its own", "given"])
    async def test_the_copy_is_what_was_said(
        self, session: BaseSession, provider: IProviderSession, given: bool
    ) -> None:
        """Turn by turn, and nothing else; also where a caller made the conversation."""
        await (self._given if given else self._kept)(session, provider)
        for text in (TELL, ASK):
            await session.send_message(text)
            await self._is_equal(session, provider)
        assert (await session.reconcile()).is_equal

    async def test_the_copy_after_a_turn_that_failed(
        self, session: BaseSession, provider: IProviderSession
    ) -> None:
        """It has the reply to the turn that followed, and the model knew all that was said."""
        await self._kept(session, provider)
        await session.send_message(TELL)
        self.go_down(provider)
        with self.fails(ProviderSessionError, provider):
            await session.send_message("Are you there?", idempotency_key="k")
        await session.send_message("Are you there?", idempotency_key="k")
        await self._is_equal(session, provider)

    async def test_the_copy_after_a_reader_stopped(
        self, session: BaseSession, provider: IProviderSession
    ) -> None:
        """Nothing is in it twice."""
        await self._kept(session, provider)
        await session.send_message(TELL)
        async with aclosing(session.stream_message("Tell me a long story.")) as events:
            await anext(events)
        await session.send_message(ASK)
        copy = await self._copy(session, provider)
        said = [each.text for each in copy if each.role is MessageRole.USER]
        assert [text == ASK for text in said] == [False] * (len(said) - 1) + [True]
        assert max(said.count(TELL), said.count("Tell me a long story.")) <= 1

    async def test_a_copy_that_is_lost_is_made_anew(
        self, session: BaseSession, provider: IProviderSession
    ) -> None:
        """From the record, and the user sees nothing of it."""
        await self._kept(session, provider)
        await session.send_message(TELL)
        native = session.context.provider_session_id
        assert native
        await provider.delete_provider_session(native)
        assert self.remembers(await session.send_message(ASK), WORD, 3)
        assert session.context.provider_session_id != native

    @pytest.mark.parametrize("how", ["delete", "clear"])
    async def test_the_copy_is_removed_with_the_session(
        self, session: BaseSession, provider: IProviderSession, how: str
    ) -> None:
        """For good."""
        await self._kept(session, provider)
        await session.send_message(TELL)
        native = session.context.provider_session_id
        assert native
        if how == "delete":
            await session.manager.delete_session(session.session_id)
        else:
            await session.clear_messages()
        with self.fails(ProviderSessionError, provider):
            await provider.get_messages(native)

    async def _kept(self, session: BaseSession, provider: IProviderSession) -> None:
        """See to it that the provider keeps the session's conversation, if it does not anyway."""
        self._needs_native(provider)
        probe = await session.manager.create_session("bob", provider.name, self.model)
        await probe.send_message(TELL)
        if probe.context.provider_session_id is None:
            await self._given(session, provider)
        await session.manager.delete_session(probe.session_id)

    async def _given(self, session: BaseSession, provider: IProviderSession) -> None:
        """Let the session name a conversation, as a caller may who made it."""
        self._needs_native(provider)
        native = await provider.create_provider_session("ann")
        await session.update_context(provider_session_id=native)

    def _needs_native(self, provider: IProviderSession) -> None:
        if ProviderCapability.NATIVE not in provider.capabilities:
            pytest.skip("the provider keeps no conversations")

    async def _copy(self, session: BaseSession, provider: IProviderSession) -> list[SessionMessage]:
        native = session.context.provider_session_id
        assert native
        return await provider.get_messages(native)

    async def _is_equal(self, session: BaseSession, provider: IProviderSession) -> None:
        log, copy = await session.get_messages(), await self._copy(session, provider)
        assert [(m.role, m.text) for m in copy] == [(m.role, m.text) for m in log]


async def _run(session: BaseSession, text: str, *, streaming: bool) -> Any:
    if not streaming:
        return await session.send_message(text)
    async with aclosing(session.stream_message(text)) as events:
        return [event async for event in events]

"""What must become of calls when connections to a server break: a class to subclass."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar

import pytest
from postgres_proxy import Hook, Proxy

from langswarm_session import ISessionStorage, TurnStatus
from langswarm_session.records import IdempotencyKey
from langswarm_session.testing.making import cancelled, completed, lease, ref, reply, texts, user


def once(*words: bytes) -> Hook:
    """Breaks the first connection that sends all of the words."""
    lock, done = threading.Lock(), []

    def hook(data: bytes) -> bool:
        with lock:
            if done or not all(word in data for word in words):
                return False
            done.append(True)
            return True

    return hook


def breaks(between: Proxy, answer: bool, *words: bytes) -> None:
    """Lose the next message with these words, or the answer to it."""
    if answer:
        between.after = once(*words)
    else:
        between.before = once(*words)


LOST = pytest.mark.parametrize("answer", [False, True], ids=["question", "answer"])
"""Whether what was sent got lost, or only the answer: then it was done."""


class BrokenConnectionTests:
    """The tests of one storage.

    Its fixtures are ``storage``, which has the session "s", and ``between``, the proxy that is
    between it and its server.

    Attributes:
        places: How many messages the client sends for a call, about.
    """

    places: ClassVar[int] = 10

    @LOST
    async def test_a_turn_whose_connection_broke_is_there_once(
        self, storage: ISessionStorage, between: Proxy, answer: bool
    ) -> None:
        for n in range(3):
            breaks(between, answer, f"asked {n}".encode())
            revision = (await storage.find_session("s")).revision
            done = await storage.append(
                ref("s"), [user(f"asked {n}"), reply("r")], expected_revision=revision
            )
            assert [message.seq for message in done.new_messages] == [2 * n + 1, 2 * n + 2]
            assert (done.added, done.record.message_count) == (2, 2 * n + 2)
        assert between.broken == 3
        said = [text for n in range(3) for text in (f"asked {n}", "r")]
        assert texts(await storage.get_messages(ref("s"))) == said
        assert len(await storage.get_turns(ref("s"))) == 3

    @LOST
    @pytest.mark.parametrize("keyed", [False, True])
    async def test_each_step_of_a_turn_is_made_once(
        self, storage: ISessionStorage, between: Proxy, answer: bool, keyed: bool
    ) -> None:
        begun, key = lease(), IdempotencyKey("key", "digest") if keyed else None
        breaks(between, answer, b"the question")
        start = await storage.begin_turn(ref("s"), [user("the question")], begun, key=key)
        assert (start.replayed, start.added) == (False, 1)
        assert texts(start.messages) == ["the question"]
        assert start.record.turn_token == begun.token
        breaks(between, answer, b"the step")
        step = await storage.append(ref("s"), [reply("the step")], token=begun.token)
        assert (step.added, step.record.turn_token) == (1, begun.token)
        breaks(between, answer, b"the answer")
        end = await storage.end_turn(ref("s"), completed(begun), [reply("the answer")])
        assert (end.added, end.record.turn_token) == (1, None)
        assert texts(end.new_messages) == ["the answer"]
        read = await storage.get_messages(ref("s"))
        assert texts(read) == ["the question", "the step", "the answer"]
        assert [turn.status for turn in await storage.get_turns(ref("s"))] == [TurnStatus.COMPLETE]
        assert (await storage.find_session("s")).turn_count == 1
        assert between.broken == 3

    @LOST
    @pytest.mark.parametrize("end", [completed, cancelled])
    async def test_an_end_without_a_message_is_made_once(
        self,
        storage: ISessionStorage,
        between: Proxy,
        answer: bool,
        end: Callable[..., object],
    ) -> None:
        begun = lease()
        await storage.begin_turn(ref("s"), [user("a")], begun)
        breaks(between, answer, begun.token.encode())
        done = await storage.end_turn(ref("s"), end(begun), [])
        assert done.record.turn_token is None
        assert len(await storage.get_turns(ref("s"))) == 1
        assert between.broken == 1

    async def test_any_place_may_break(self, storage: ISessionStorage, between: Proxy) -> None:
        """Whatever message of a call gets lost, the call is made once."""
        for n in range(40):
            count = iter(range(1000))
            hook = lambda data, n=n, count=count: next(count) == n // 2 % self.places  # noqa: E731
            if n % 2:
                between.before = hook
            else:
                between.after = hook
            await storage.append(ref("s"), [user(f"{n}")])
            session = await storage.find_session("s")
            await storage.edit_messages(
                ref("s"), expected_revision=session.revision, add=[user(f"{n} added")]
            )
            between.before = between.after = None
        said = [text for n in range(40) for text in (f"{n}", f"{n} added")]
        assert between.broken > 20
        assert texts(await storage.get_messages(ref("s"))) == said

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable

import pytest

from langswarm_session._sync import yielding
from langswarm_session._sync.yielding import Desk, Turns


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept, by a clock that only this fixture moves."""
    slept: list[float] = []
    monkeypatch.setattr(yielding, "pause", slept.append)
    return slept


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = 100.0

    def later(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(yielding.time, "perf_counter", lambda: now)
    return later


def test_it_pauses_where_sleeping_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: float) -> None:
        raise RuntimeError("blocking call")

    monkeypatch.setattr(time, "sleep", refused)
    yielding.pause(0.0001)


class TestTurns:
    def test_a_short_turn_goes_on(self, slept: list[float], later: Callable[[float], None]) -> None:
        turns = Turns()
        later(0.9)
        turns.give_way(1)
        assert slept == []

    def test_a_long_one_ends_and_another_begins(
        self, slept: list[float], later: Callable[[float], None]
    ) -> None:
        turns = Turns()
        later(1.1)
        turns.give_way(1)
        assert len(slept) == 1
        assert 0 < slept[0] < 0.001
        later(0.9)
        turns.give_way(1)
        assert len(slept) == 1
        later(0.2)
        turns.give_way(1)
        assert len(slept) == 2

    def test_others_have_had_their_turn_while_one_waited(
        self, slept: list[float], later: Callable[[float], None]
    ) -> None:
        turns = Turns()
        later(0.9)
        turns.waited_since(yielding.time.perf_counter() - 0.1)
        later(0.9)
        turns.give_way(1)
        assert slept == []

    def test_a_wait_that_was_none_is_no_turn_of_others(
        self, slept: list[float], later: Callable[[float], None]
    ) -> None:
        turns = Turns()
        later(0.9)
        turns.waited_since(yielding.time.perf_counter() - 0.00001)
        later(0.9)
        turns.give_way(1)
        assert len(slept) == 1


class TestDesk:
    def test_one_piece_at_a_time(self) -> None:
        desk, at_work, most = Desk(), 0, 0

        def work() -> None:
            nonlocal at_work, most
            for _ in range(20):
                with desk.piece():
                    at_work += 1
                    most = max(most, at_work)
                    time.sleep(0.0001)
                    at_work -= 1

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == 1

    @pytest.mark.parametrize(("elsewhere", "breaks"), [(0.0, 4), (0.001, 19)])
    def test_turns_are_short_while_others_work(
        self,
        slept: list[float],
        later: Callable[[float], None],
        monkeypatch: pytest.MonkeyPatch,
        elsewhere: float,
        breaks: int,
    ) -> None:
        spent = 0.0
        monkeypatch.setattr(yielding.time, "thread_time", lambda: 0.0)
        monkeypatch.setattr(yielding.time, "process_time", lambda: spent)
        desk = Desk()
        for number in range(20):
            with desk.piece():
                later(0.0007)
            if number % 5 == 0:  # not in each piece, as those who wait for their turn do nothing
                spent += elsewhere
        assert len(slept) == breaks

    def test_a_piece_that_fails_lets_the_next_one_begin(self) -> None:
        desk = Desk()
        with pytest.raises(ZeroDivisionError), desk.piece():
            raise ZeroDivisionError
        with desk.piece():
            pass

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
    def test_a_forked_child_finds_it_free(self) -> None:
        # In a program of its own, as newer Pythons warn of a fork beside threads.
        program = """
            import os, threading
            from langswarm_session._sync.yielding import Desk
            desk, begun, end = Desk(), threading.Event(), threading.Event()
            def work():
                with desk.piece():
                    begun.set()
                    end.wait()
            thread = threading.Thread(target=work)
            thread.start()
            begun.wait()
            child = os.fork()
            if not child:
                threading.Timer(5, os._exit, [1]).start()  # it would wait for ever
                with desk.piece():
                    os._exit(0)
            end.set()
            thread.join()
            print(os.waitpid(child, 0)[1])
        """
        command = [sys.executable, "-c", textwrap.dedent(program)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "0\n"

"""Writers as their parent sees them."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from chaos.ledger import Ledger
from chaos.places import Place

ALL_KINDS = ("append", "steps", "send", "stream", "keyed")

PATIENCE = 60.0
"""How long a writer may take for anything, in seconds."""


def any_moment() -> None:
    """Wait until the middle of whatever is being written."""
    time.sleep(random.uniform(0, 0.005))


class Writer:
    """A process that writes; see `chaos.writer.Options` for the options.

    Attributes:
        ledger: What it said so far.
        process: The process.
    """

    def __init__(
        self, place: Place, name: str, kinds: Sequence[str] = ALL_KINDS, **options: Any
    ) -> None:
        told = {"place": dataclasses.asdict(place), "name": name, "kinds": list(kinds), **options}
        self.name = name
        self.ledger = Ledger()
        self._words: set[str] = set()
        self._complaints: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "chaos.writer", json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._threads = [threading.Thread(target=run) for run in (self._listen, self._complain)]
        for thread in self._threads:
            thread.start()

    def go(self) -> None:
        """Let it begin."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def wait_for(
        self, *words: str, kept: int = 0, errors: int = 0, patience: float = PATIENCE
    ) -> None:
        """Block until it has said these words, and of so many turns and errors."""
        with self._changed:
            fine = self._changed.wait_for(
                lambda: (
                    (
                        self._words.issuperset(words)
                        and self.ledger.acknowledged >= kept
                        and self.ledger.errors.total() >= errors
                    )
                    or self.process.poll() is not None
                ),
                patience,
            )
        assert fine, f"{self.name} hangs: {self.ledger.errors}, {self.ledger.messages}"
        ended = self.process.poll()
        assert ended is None or "done" in self._words, f"{ended}: {''.join(self._complaints)}"

    def wait_until_inside(self) -> None:
        """Block until it is inside a turn."""
        with self._changed:
            ledger = self.ledger
            assert self._changed.wait_for(
                lambda: any(ledger.asked[each] - ledger.kept[each] for each in [*ledger.asked]),
                PATIENCE,
            )

    def wait_for_more(self, kept: int = 1, errors: int = 0) -> None:
        """Block until so many more turns were acknowledged and errors raised than by now."""
        with self._changed:
            kept += self.ledger.acknowledged if kept else 0
            errors += self.ledger.errors.total() if errors else 0
        self.wait_for(kept=kept, errors=errors)

    def kill(self, *, at_once: bool = False) -> Ledger:
        """Kill it, at some moment of a write unless it is to be done at once; what it had said."""
        if not at_once:
            any_moment()
        self.process.kill()
        self._reap()
        complaints = "".join(self._complaints)
        assert (self.process.returncode < 0, complaints) == (True, ""), complaints
        return self.ledger

    def end(self) -> Ledger:
        """Wait until it ends by itself; what it had said."""
        self._reap()
        assert (self.process.returncode, self._complaints) == (0, [])
        assert "done" in self._words
        return self.ledger

    def clean_up(self) -> None:
        """See that nothing is left of it."""
        if self.process.poll() is None:
            self.process.kill()
        self._reap()

    def _reap(self) -> None:
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self._complaints.append("killed: it did not end")
        for thread in self._threads:
            thread.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if not line.endswith("\n"):
                continue  # cut short by a kill: it acknowledges nothing
            words = json.loads(line)
            with self._changed:
                self.ledger.note(words)
                self._words.add(words[0])
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _complain(self) -> None:
        assert self.process.stderr
        self._complaints.extend(self.process.stderr)


def all_said(writers: Iterable[Writer]) -> Ledger:
    """What several writers said, together."""
    return Ledger().add(writer.ledger for writer in writers)

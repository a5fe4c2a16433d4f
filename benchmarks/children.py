"""Contenders in processes of their own, as `benchmarks.child` has them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Self


class Child:
    """A process that does a job of `benchmarks.child`. A context manager: it ends with it.

    Args:
        job: What it is to do.
        name: The contender.
        place: The database.
    """

    def __init__(self, job: str, name: str, place: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child", job, name, place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def say(self, what: object) -> None:
        """Send a line of JSON."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """Wait for a line.

        Raises:
            RuntimeError: If it has ended.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process ended with code {self._process.wait()}")
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process.poll() is None and process.stdout and process.stdout.closed:
            process.kill()
        process.communicate()

"""``python -m benchmarks.load_run``: each backend in a process of its own, and its tables."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from benchmarks.load_run import crowd, long_session, weigh
from benchmarks.load_run.backends import BACKENDS, Backend, make_backend
from benchmarks.load_run.tables import crowd_sections, long_section, weigh_section
from benchmarks.measure import describe, machine
from benchmarks.report import Section, facts_to_markdown, summary, to_json, to_markdown

PARTS = ("crowd", "long", "weigh")
BATCH = 10
"""Calls in one turn of the long part."""


def main() -> int:
    """Run what was asked for. 0 if every backend was measured; a goal may be missed."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the files go even then
    folder = Path(tempfile.mkdtemp(prefix="load-tmp-", dir=Path.cwd()))
    try:
        backends = arguments.backend or BACKENDS
        if len(backends) == 1:
            return _run(folder, backends[0], arguments)
        print(facts_to_markdown(machine(folder)), flush=True)
        return max(_run_child(name) for name in backends)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load_run", description=__doc__)
    parser.add_argument("--backend", action="append", choices=BACKENDS)
    parser.add_argument("--part", action="append", choices=PARTS, help="all of them by default")
    parser.add_argument("--sessions", type=int, default=10_000, help="there before (%(default)s)")
    parser.add_argument("--workers", type=int, default=200, help="at work at once (%(default)s)")
    parser.add_argument("--seconds", type=float, default=120.0, help="at full load (%(default)s)")
    parser.add_argument(
        "--delay", type=float, default=0.005, help="seconds of the mock for a reply (%(default)s)"
    )
    parser.add_argument("--long", type=int, default=200_000, help="messages (%(default)s)")
    parser.add_argument("--rounds", type=int, default=60, help="of the long part (%(default)s)")
    parser.add_argument("--dsn", help="PostgreSQL, in place of LANGSWARM_TEST_POSTGRES")
    parser.add_argument("--json", action="store_true", help="JSON in place of tables")
    return parser.parse_args()


def _run_child(name: str) -> int:
    """The backend in a process that no other backend has left memory in."""
    command = [sys.executable, "-m", "benchmarks.load_run", *sys.argv[1:], "--backend", name]
    return subprocess.run(command, check=False).returncode


def _run(folder: Path, name: str, arguments: argparse.Namespace) -> int:
    started, failed = time.monotonic(), False
    sections: list[Section] = []
    for part in arguments.part or PARTS:
        try:
            sections += _PARTS[part](make_backend(name, arguments.delay, folder, arguments.dsn),
                                     arguments)  # fmt: skip
        except Exception as error:
            traceback.print_exc()
            sections.append(Section(f"{name}, {part}: failed", [], notes=[describe(error)]))
            failed = True
    named = {section.title: section for section in sections}
    if arguments.json:
        print(json.dumps(to_json(named, machine(folder))))
    else:
        print("\n".join(map(to_markdown, sections)), summary(named), sep="\n", flush=True)
    print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return int(failed)


def _crowd(backend: Backend, arguments: argparse.Namespace) -> list[Section]:
    size = crowd.Size(arguments.sessions, arguments.workers, arguments.seconds)
    return crowd_sections(backend.name, size, asyncio.run(crowd.run(backend, size)))


def _long(backend: Backend, arguments: argparse.Namespace) -> list[Section]:
    run = long_session.run(backend, arguments.long, arguments.rounds, BATCH)
    return [long_section(backend.name, arguments.long, asyncio.run(run))]


def _weigh(backend: Backend, _: argparse.Namespace) -> list[Section]:
    weights = asyncio.run(weigh.run(backend))
    return [weigh_section(backend.name, weights)] if weights.session else []


_PARTS = {"crowd": _crowd, "long": _long, "weigh": _weigh}


if __name__ == "__main__":
    sys.exit(main())

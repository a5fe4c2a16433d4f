"""``python -m benchmarks``: every table, the goals, and whether they are met."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import closing
from pathlib import Path

from benchmarks.backends import BACKENDS
from benchmarks.bench import QUICK, Bench, Scale
from benchmarks.measure import describe, machine
from benchmarks.places import DEFAULT_DSN, DSN_VARIABLE
from benchmarks.report import Section, facts_to_markdown, summary, to_json, to_markdown
from benchmarks.sections import SECTIONS


def main() -> int:
    """Run what was asked for. 0 unless one of our own figures could not be measured."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the files go even then
    folder = Path(tempfile.mkdtemp(prefix="bench-tmp-", dir=Path.cwd()))
    try:
        return _run(folder, arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object in place of tables")
    parser.add_argument("--quick", action="store_true", help="under two minutes, rougher figures")
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="sqlite",
        help=f"the database; postgres is the server of {DSN_VARIABLE}, or {DEFAULT_DSN}",
    )
    parser.add_argument(
        "--only", action="append", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS)
    )
    arguments = parser.parse_args()
    possible = BACKENDS[arguments.backend].sections or tuple(SECTIONS)
    if impossible := set(arguments.only or ()) - set(possible):
        parser.error(f"not with {arguments.backend}: {', '.join(sorted(impossible))}")
    arguments.only = arguments.only or possible
    return arguments


def _run(folder: Path, arguments: argparse.Namespace) -> int:
    backend = BACKENDS[arguments.backend]
    with closing(backend.places(folder)) as places:
        bench = Bench.of(backend, places, QUICK if arguments.quick else Scale())
        return _measure(bench, {**machine(folder), **places.facts()}, arguments)


def _measure(bench: Bench, facts: dict[str, str], arguments: argparse.Namespace) -> int:
    if not arguments.json:
        print(facts_to_markdown(facts))
    sections: dict[str, Section] = {}
    broken = False
    for name in arguments.only:
        started = time.monotonic()
        try:
            sections[name] = SECTIONS[name](bench)
        except Exception as error:
            traceback.print_exc()
            sections[name] = Section(f"{name}: failed", [], notes=[describe(error)])
            broken = True
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
        if not arguments.json:
            print(to_markdown(sections[name]), flush=True)
    print(json.dumps(to_json(sections, facts)) if arguments.json else summary(sections))
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())

"""What a fresh process pays: the import, and the first turn that is durable."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.bench import Bench, ours
from benchmarks.measure import MS, describe, ratio, run_python
from benchmarks.report import Cell, Section

if TYPE_CHECKING:
    from benchmarks.contenders import Contender

_TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
_LOADED = (
    "import sys; {}; loaded = {{name.partition('.')[0] for name in sys.modules}};"
    " print(*sorted(loaded - set(sys.stdlib_module_names)))"
)

OURS = "import langswarm_session"
USED = "from langswarm_session import SessionMessage, SQLiteSessionStorage, create_session_manager"
"""What a program goes on to use: names of ours are loaded when they are first asked for."""
BASE = "from pydantic import BaseModel"
MODEL = f"{BASE}; type('Model', (BaseModel,), {{}})"
"""The least that anybody who uses pydantic pays: its first model loads what its import did not."""
IMPORTS = (
    OURS,
    USED,
    BASE,
    MODEL,
    "from agents import SQLiteSession",
    "from langchain_community.chat_message_histories import SQLChatMessageHistory",
    "from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore",
    "from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver",
)

SAMPLES = 7
"""Fresh interpreters behind the two figures that a goal is about; the peers have fewer."""

HEAVY = frozenset(
    {
        *("agents", "langchain", "langchain_community", "langchain_core", "langgraph"),
        *("langsmith", "llama_index", "anthropic", "openai", "google", "tiktoken", "transformers"),
        *("aiosqlite", "asyncpg", "psycopg", "sqlalchemy", "numpy", "pandas", "rich", "typer"),
        *("aiohttp", "httpx", "httpx2", "requests"),
    }
)
"""SDKs, frameworks and drivers that nobody has asked for at import."""


def run_import(bench: Bench) -> Section:
    """Import times in fresh interpreters, in turns."""
    section = Section("Import, in a fresh interpreter", ["ms", "against pydantic"])
    times: dict[str, list[float]] = {statement: [] for statement in IMPORTS}
    failures: dict[str, str] = {}
    for number in range(SAMPLES):
        for statement in IMPORTS:
            enough = (
                statement not in (OURS, USED, BASE, MODEL) and number >= bench.scale.starts // 2
            )
            if statement in failures or enough:
                continue
            try:
                seconds = float(run_python("-c", _TIMED.format(statement)))
            except RuntimeError as error:
                failures[statement] = describe(error)
            else:
                times[statement].append(seconds)
    medians = {statement: median(found) if found else None for statement, found in times.items()}
    for statement in IMPORTS:
        value = medians[statement]
        cell: Cell = failures.get(statement) if value is None else value * MS
        section.row(f"`{statement}`", cell, ratio(value, medians[BASE]))
    for what, statement in (("import", OURS), ("import of what is used", USED)):
        value = ratio(medians[statement], medians[BASE])
        section.at_most(f"{what}, against pydantic's", value, 1.6)
    if USED not in failures:
        _judge_loaded(section)
    return section


def _judge_loaded(section: Section) -> None:
    bare = set(run_python("-c", _LOADED.format("pass")).split())
    loaded = set(run_python("-c", _LOADED.format(USED)).split()) - bare
    heavy = sorted(loaded & HEAVY)
    section.holds(
        "SDKs and frameworks that these load", "none", not heavy, ", ".join(heavy) or "none"
    )
    section.notes.append(f"Loaded beside the standard library: {', '.join(sorted(loaded))}.")


def run_first(bench: Bench) -> Section:
    """From the start of a process to its first durable turn, import and new file included."""
    section = Section(
        "First durable turn of a fresh process, interpreter and import included",
        ["ms", "against ours"],
    )
    times: dict[str, list[float]] = {contender.name: [] for contender in bench.starters()}
    failures: dict[str, str] = {}
    for _ in range(bench.scale.starts):
        for contender in bench.starters():
            if contender.name not in failures:
                try:
                    seconds = _first(bench, contender)
                except RuntimeError as error:
                    failures[contender.name] = str(error)
                else:
                    times[contender.name].append(seconds)
    medians = {name: median(found) if found else None for name, found in times.items()}
    for contender in bench.starters():
        value = medians[contender.name]
        cell = failures.get(contender.name) if value is None else value * MS
        section.row(contender.label, cell, ratio(value, ours(medians)))
    for label, reason in bench.missing.items():
        section.row(label, reason)
    peer = ratio(ours(medians), bench.fastest_peer(medians))
    section.at_most("first durable turn, against the fastest peer", peer, 1.0)
    return section


def _first(bench: Bench, contender: Contender) -> float:
    arguments = ["-m", "benchmarks.child", "first", contender.name, bench.places.new()]
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        assert child.stderr
        stored = child.stdout.readline()
        seconds = time.perf_counter() - start
        complaint = child.stderr.read().strip().splitlines()
    if not stored:
        raise RuntimeError((complaint or ["no reason given"])[-1])
    return seconds

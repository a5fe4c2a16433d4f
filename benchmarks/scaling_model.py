"""A day of many users on paper: ``python -m benchmarks.scaling_model --users-a-day 2000000``.

The constants were measured by ``make load``; `docs/scaling.md` says how, and has this output.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from math import ceil

from benchmarks.report import Cell, Section, to_markdown

DAY = 86_400
"""Seconds."""
GIB, TIB = 2.0**30, 2.0**40


@dataclass(frozen=True)
class Assumptions:
    """What a day is like.

    Attributes:
        users_a_day: users a day
        sessions_a_user: new sessions a user and day
        turns_a_session: turns a session has in the end
        characters_a_turn: characters of a turn's two messages together
        answer_seconds: seconds that a provider takes for an answer
        pages_a_session: pages of newest messages read a session
        listings_a_session: listings of a user's sessions read a session
        peak: the busiest hour, as a multiple of the average
        days_kept: days that a session is kept
    """

    users_a_day: float = 1_000_000
    sessions_a_user: float = 1.5
    turns_a_session: float = 8
    characters_a_turn: float = 1_600
    answer_seconds: float = 8
    pages_a_session: float = 3
    listings_a_session: float = 2
    peak: float = 3
    days_kept: float = 365


@dataclass(frozen=True)
class Costs:
    """What one thing costs on a backend, as `make load` measured it; sizes in bytes.

    Attributes:
        session: A session's row with its indexes.
        turn: A turn's rows besides the characters, indexes apart.
        character: A character of a message.
        indexes: A turn's part of all indexes.
        log: Write-ahead log of a turn besides the characters.
        log_character: The same of a character.
        process_seconds: Processor time of our process for a turn, with all that goes with it.
        server_seconds: Processor time of the server for that.
        process_turns: Turns a second that one process made at full load.
    """

    session: float
    turn: float
    character: float
    indexes: float
    log: float
    log_character: float
    process_seconds: float
    server_seconds: float
    process_turns: float


SQLITE = Costs(
    session=215, turn=292, character=1.23, indexes=0, log=0, log_character=0,
    process_seconds=0.00115, server_seconds=0, process_turns=850,
)  # fmt: skip
"""The file has tables and indexes in one; its log is written over and over."""
POSTGRES = Costs(
    session=553, turn=363, character=1.04, indexes=190, log=1_369, log_character=1.00,
    process_seconds=0.00102, server_seconds=0.00113, process_turns=720,
)  # fmt: skip

CONNECTIONS = 10
"""Connections that a process opens at the most, by default (`max_connections`)."""
LOADED = 0.5
"""How much of what it can do a machine is asked for at the peak."""
PARTITION = 64 * GIB
"""The size of a table that is still vacuumed and copied in minutes."""
COPY = 500e6
"""Bytes a second at which a file is copied for a backup."""


def rates(given: Assumptions) -> Section:
    """How much of everything there is, on average and at the peak."""
    sessions = given.users_a_day * given.sessions_a_user
    turns = sessions * given.turns_a_session
    section = Section("What there is to do", ["a day", "a second", "a second at the peak"])
    reads = sessions * (given.pages_a_session + given.listings_a_session) + 2 * turns
    for name, number in (
        ("new sessions", sessions), ("turns", turns), ("messages stored", 2 * turns),
        ("writes (a turn begins, a turn ends)", 2 * turns),
        ("reads (session and window a turn; pages, listings)", reads),
    ):  # fmt: skip
        section.row(name, number, number / DAY, number / DAY * given.peak)
    in_flight = turns / DAY * given.answer_seconds
    section.row("turns open at a time", None, in_flight, in_flight * given.peak)
    return section


def weights(given: Assumptions) -> Section:
    """What is kept, and what is written to keep it."""
    section = Section("What it weighs", ["SQLite", "PostgreSQL"])
    both = (SQLITE, POSTGRES)
    sessions = given.users_a_day * given.sessions_a_user
    turns = sessions * given.turns_a_session
    characters = given.characters_a_turn
    rows = [turns * (each.turn + each.character * characters) for each in both]
    indexes = [turns * each.indexes for each in both]
    records = [sessions * each.session for each in both]
    total = [sum(parts) for parts in zip(rows, indexes, records, strict=True)]
    log = [turns * (each.log + each.log_character * characters) for each in both]
    a_turn = [each / turns for each in total]
    section.row("a turn, its part of the session included (bytes)", *a_turn)
    section.row("messages and turns a day (GiB)", *(each / GIB for each in rows))
    section.row("their indexes a day (GiB)", "in the file", indexes[1] / GIB)
    section.row("sessions a day (GiB)", *(each / GIB for each in records))
    section.row("all of it a day (GiB)", *(each / GIB for each in total))
    section.row(
        f"all of it when full, after {given.days_kept:g} days (TiB)",
        *(each * given.days_kept / TIB for each in total),
    )
    section.row("write-ahead log a day (GiB)", "reused", log[1] / GIB)
    peak = log[1] / DAY * given.peak / 1e6
    section.row("write-ahead log a second at the peak (MB)", "reused", peak)
    section.row("hours to copy it when full", *(
        each * given.days_kept / COPY / 3_600 for each in total))  # fmt: skip
    tables = (rows[1] + indexes[1]) * given.days_kept
    section.row(f"partitions of {PARTITION / GIB:g} GiB", "-", ceil(tables / PARTITION))
    return section


def machines(given: Assumptions) -> Section:
    """What it takes to do it at the peak."""
    section = Section("What it takes at the peak", ["SQLite", "PostgreSQL"])
    turns = given.users_a_day * given.sessions_a_user * given.turns_a_session / DAY * given.peak
    both = (SQLITE, POSTGRES)
    load: list[Cell] = [turns / each.process_turns for each in both]
    processes = [ceil(turns / each.process_turns / LOADED) for each in both]
    section.row("processes that would be fully busy", *load)
    section.row(f"processes at {LOADED:.0%} of that", *processes)
    section.row("cores busy in them", *(turns * each.process_seconds for each in both))
    section.row("cores busy in the server", "-", turns * POSTGRES.server_seconds)
    section.row("commits a second at the most", *(2 * turns for _ in both))
    section.row("connections at the most", "-", processes[1] * CONNECTIONS)
    dead: list[Cell] = ["-", 2 * turns]
    section.row("row versions of sessions that die a second", *dead)
    users = [given.users_a_day * each.process_turns * LOADED / turns for each in both]
    section.row("users a day that one process carries", *users)
    return section


def assumptions(given: Assumptions) -> Section:
    """What was assumed."""
    section = Section("A day", ["assumed"])
    meanings = dict(
        line.strip().split(": ", 1)
        for line in (Assumptions.__doc__ or "").splitlines()
        if ": " in line
    )
    for field in fields(Assumptions):
        section.row(meanings[field.name], getattr(given, field.name))
    return section


def main() -> None:
    """Print the tables for what the command line assumes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling_model", description=__doc__)
    for field in fields(Assumptions):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=float, default=field.default)
    print(report(Assumptions(**vars(parser.parse_args()))))


def report(given: Assumptions) -> str:
    """All tables."""
    parts = (assumptions, rates, weights, machines)
    return "\n".join(to_markdown(part(given)) for part in parts)


if __name__ == "__main__":
    main()

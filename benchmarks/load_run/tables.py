"""What a load run found, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.load_run.crowd import PACE, PACED_PART, Crowd, Size
from benchmarks.load_run.long_session import CANCELLED, LONG, NEW, OPERATIONS, SCARRED
from benchmarks.load_run.tally import Tally, Window, slope
from benchmarks.load_run.weigh import LENGTHS, Weights
from benchmarks.measure import MB, MS, US, Timings, percentile, ratio
from benchmarks.report import Cell, Section

if TYPE_CHECKING:
    from benchmarks.load_run.histogram import Histogram

GROWTH = 200.0
"""Bytes by which memory may grow with a turn in the second half of the time at full load.

A turn that was kept by mistake would take ten times that. Some growth is of right: the sessions
become longer, and so do the windows of those at work, up to the 100 messages of a window.
"""
LAG = 10.0
"""Milliseconds that the loop may lag at half load, p99."""
LENGTH = 1.2
"""How much more anything may cost in a long or scarred session than in a new one, p50."""


def crowd_sections(backend: str, size: Size, found: Crowd) -> list[Section]:
    """The tables of a run with many workers."""
    return [
        _over_time(backend, size, found),
        _by_operation(backend, found),
        _processor(backend, found),
        _memory(backend, found),
        _kept(backend, found),
    ]


def _ms(times: Histogram, part: float) -> float | None:
    seconds = times.percentile(part)
    return None if seconds is None else seconds * MS


def _over_time(backend: str, size: Size, found: Crowd) -> Section:
    section = Section(
        f"{backend}: {size.sessions:,} sessions of {found.stored:,} messages, "
        f"{size.workers} at work at once",
        [
            "turns/s", "send p50 (ms)", "p99 (ms)", "loop lag p50 (ms)", "p99 (ms)", "max (ms)",
            "memory (MiB)", "log (MiB)",
        ],
    )  # fmt: skip
    start = 0.0
    for window in found.full.windows:
        end = start + window.seconds
        section.row(f"{start:.0f}-{end:.0f} s", *_window(window))
        start = end
    for window in found.paced.windows:
        section.row(f"{window.seconds:.0f} s at half of that", *_window(window))
    lag = _ms(found.paced.lag, 0.99)
    section.at_most("loop lag at half load, p99", lag, LAG, " ms")
    errors = found.full.errors + found.paced.errors
    told = "; ".join(f"{number} x {what}" for what, number in errors.most_common(10)) or "none"
    section.holds("errors", "none", not errors, told)
    if found.findings is not None:
        findings = found.findings
        checked = f"{findings.turns.acknowledged:,} turns read back: {findings.summary()}"
        section.holds(
            "nothing lost, torn, doubled, disordered, altered or left leased",
            "-", findings.clean, checked,
        )  # fmt: skip
    section.notes.append(
        f"Nobody waits between two operations at first; then, for {PACED_PART:g} of that time, "
        f"everybody does, so that {PACE:g} of the operations are asked for."
    )
    return section


def _window(window: Window) -> list[Cell]:
    log = None if window.log is None else window.log / MB
    return [
        window.turns / window.seconds, _ms(window.sends, 0.5), _ms(window.sends, 0.99),
        *(_ms(window.lag, part) for part in (0.5, 0.99)), window.lag.longest * MS,
        window.rss / MB, log,
    ]  # fmt: skip


def _by_operation(backend: str, found: Crowd) -> Section:
    section = Section(
        f"{backend}: milliseconds an operation, at full load and at half of it",
        ["times", "p50", "p99", "p99.9", "max", "half: times", "p50", "p99", "p99.9", "max"],
    )
    for name in sorted(found.full.operations | found.paced.operations):
        section.row(name, *_spread(found.full, name), *_spread(found.paced, name))
    return section


def _spread(tally: Tally, name: str) -> list[Cell]:
    times = tally.operations.get(name)
    if times is None:
        return [0, None, None, None, None]
    return [times.count, *(_ms(times, part) for part in (0.5, 0.99, 0.999)), times.longest * MS]


def _processor(backend: str, found: Crowd) -> Section:
    section = Section(
        f"{backend}: microseconds of a processor for a turn, with all that is done beside it",
        ["full load", "half of it"],
    )
    phases = (found.full, found.paced)
    turns = [max(1, tally.turns) for tally in phases]
    spent = zip((tally.process_seconds for tally in phases), turns, strict=True)
    section.row("in this process, the workers included", *(each / n * US for each, n in spent))
    served = zip((tally.server_seconds for tally in phases), turns, strict=True)
    cells = [None if each is None else each / n * US for each, n in served]
    if None not in cells:
        section.row("in the server", *cells)
    return section


def _memory(backend: str, found: Crowd) -> Section:
    section = Section(f"{backend}: memory of the process", ["MiB"])
    section.row("before anything is stored", found.empty / MB)
    section.row("at the start of the work", found.start / MB)
    section.row("at its end", found.paced.windows[-1].rss / MB)
    section.row("the most", None if found.peak is None else found.peak / MB)
    half = found.full.memory[len(found.full.memory) // 2 :]
    a_second = slope(half)
    section.row("growth a minute in the second half of the full load", a_second * 60 / MB)
    a_turn = a_second * found.full.seconds / max(1, found.full.turns)
    section.row("bytes of that growth a turn", f"{a_turn:,.0f}")
    if backend == "memory":
        kept = 2 * (found.start - found.empty) / max(1, found.stored)
        section.row("bytes a turn took that was stored before", f"{kept:,.0f}")
        section.at_most("growth with a turn, against what one takes", ratio(a_turn, kept), 1.2)
    else:
        section.at_most("growth with a turn in the second half", a_turn, GROWTH, " bytes")
    return section


def _kept(backend: str, found: Crowd) -> Section:
    moments = list(found.weights)
    section = Section(f"{backend}: what is kept", moments)
    for name in dict.fromkeys(name for each in found.weights.values() for name in each):
        section.row(name, *(found.weights[moment].get(name) for moment in moments))
    if found.findings is not None:
        section.row("messages", found.stored, found.findings.messages, found.findings.messages)
    return section


def long_section(backend: str, messages: int, timings: Timings) -> Section:
    """The table of the new session, the long one and the one with cancelled turns."""
    section = Section(
        f"{backend}: a session of {messages:,} messages, and one with {CANCELLED:,} cancelled "
        "turns, beside a new one (microseconds)",
        [
            "new p50", "long p50", "long / new", "cancelled p50", "cancelled / new",
            "new p99", "long p99", "long / new", "cancelled p99", "cancelled / new",
        ],
    )  # fmt: skip
    sessions = {name: timings.under(f"{name} ") for name in (NEW, LONG, SCARRED)}
    for name in OPERATIONS:
        reasons = [each.failures[name] for each in sessions.values() if name in each.failures]
        if reasons:
            section.row(name, reasons[0])
            section.holds(f"{name}: against new", "measured", met=False, measured=reasons[0])
            continue
        times = {session: found.seconds[name] for session, found in sessions.items()}
        middle, high = (_beside(times, part) for part in (0.5, 0.99))
        section.row(name, *middle, *high)
        section.at_most(f"{name}: long against new, p50", middle[2], LENGTH)
        section.at_most(f"{name}: cancelled against new, p50", middle[4], LENGTH)
    calls = max(map(len, timings.seconds.values()))
    section.notes.append(
        f"{calls} calls of each, in turns. `find` gets the session by its id first, so that no "
        "window is kept from the turn before; all three have more messages than a window."
    )
    return section


def _beside(times: dict[str, list[float]], part: float) -> list[float | None]:
    """Microseconds in the new session, and in each of the others with the ratio to it."""
    new, *others = (percentile(times[name], part) * US for name in (NEW, LONG, SCARRED))
    cells: list[float | None] = [new]
    for each in others:
        cells += [each, ratio(each, new)]
    return cells


def weigh_section(backend: str, weights: Weights) -> Section:
    """The table of what a session and a turn weigh."""
    short, long = LENGTHS
    section = Section(
        f"{backend}: bytes of a session, and of a turn by `send_message`",
        ["a session", f"turn of 2 x {short}", f"turn of 2 x {long:,}", "a character", "the rest"],
    )
    for name in dict.fromkeys([*weights.session, *weights.turn[long]]):
        one, other = (weights.turn[length].get(name, 0.0) for length in LENGTHS)
        a_character = (other - one) / (2 * (long - short))
        rest = one - a_character * 2 * short
        section.row(name, weights.session.get(name), one, other, a_character, rest)
    section.notes.append("`the rest` is what a turn takes besides the characters of its messages.")
    return section

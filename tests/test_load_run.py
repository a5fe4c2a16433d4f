"""The load run: it is only worth something if it would notice."""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from langswarm_session import MessageRole, SessionManager, SessionMessage
from langswarm_session.records import Lease

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.load import make_turn, make_turns
from benchmarks.load_run import crowd, long_session, weigh
from benchmarks.load_run.backends import make_backend
from benchmarks.load_run.checks import check_all
from benchmarks.load_run.histogram import Histogram
from benchmarks.load_run.population import Ledger, draw_population, store_population
from benchmarks.load_run.tables import crowd_sections, long_section, weigh_section
from benchmarks.load_run.tally import slope
from benchmarks.report import to_markdown

SIZE = crowd.Size(sessions=30, workers=4, seconds=1.2)


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[SessionManager]:
    manager = make_backend("memory", 0.0, tmp_path, None).open()
    yield manager
    await manager.close()


def said(text: str) -> SessionMessage:
    return SessionMessage(role=MessageRole.USER, content=text)


class TestHistogram:
    def test_percentiles_are_exact_to_a_hundredth(self) -> None:
        draw = random.Random(0)
        samples = [draw.expovariate(100) + 1e-6 for _ in range(5_000)]
        times = Histogram()
        for sample in samples:
            times.add(sample)
        samples.sort()
        for part in (0.5, 0.99, 0.999):
            exact = samples[int(len(samples) * part) - 1]
            assert exact <= (times.percentile(part) or 0) * (1 + 1e-9) <= exact * 1.011
        assert times.longest == samples[-1] == times.percentile(1)

    def test_of_nothing(self) -> None:
        assert Histogram().percentile(0.5) is None


def test_a_slope() -> None:
    assert slope([(float(x), 5 * x + 3) for x in range(10)]) == pytest.approx(5)
    assert slope([(1.0, 7)]) == 0


def test_a_population_is_mixed() -> None:
    lengths = sorted(ledger.turns for ledger in draw_population(2_000))
    assert (lengths[0], lengths[-1]) == (1, 1_000)
    assert lengths[1_000] < 5
    assert lengths == sorted(ledger.turns for ledger in draw_population(2_000))


class TestChecks:
    @pytest.fixture
    async def ledgers(self, manager: SessionManager) -> list[Ledger]:
        ledgers = [Ledger(f"s{number}", "u", 3) for number in range(2)]
        await store_population(manager, ledgers)
        return ledgers

    async def summary(self, manager: SessionManager, ledgers: list[Ledger]) -> str:
        found = await check_all(manager, ledgers)
        assert found.clean == (found.summary() == "-")
        return found.summary()

    async def test_all_is_well(self, manager: SessionManager, ledgers: list[Ledger]) -> None:
        assert await self.summary(manager, ledgers) == "-"

    async def test_a_turn_is_lost(self, manager: SessionManager, ledgers: list[Ledger]) -> None:
        ledgers[0].acknowledge(ledgers[0].begin())
        assert await self.summary(manager, ledgers) == "1 lost"

    async def test_a_turn_that_was_broken_off_may_be_half_there(
        self, manager: SessionManager, ledgers: list[Ledger]
    ) -> None:
        session = await manager.get_session("s1")
        index = ledgers[1].begin()
        await session.record(said(make_turn("s1", index).user))
        assert await self.summary(manager, ledgers) == "-"
        ledgers[1].acknowledge(index)
        assert await self.summary(manager, ledgers) == "1 torn"

    async def test_a_turn_is_doubled_and_late(
        self, manager: SessionManager, ledgers: list[Ledger]
    ) -> None:
        text = make_turns("s0", 1)[0].user
        await (await manager.get_session("s0")).record(said(text))
        assert await self.summary(manager, ledgers) == "1 doubled, 1 disordered"

    async def test_a_text_is_another(self, manager: SessionManager, ledgers: list[Ledger]) -> None:
        session = await manager.get_session("s0")
        (last,) = await session.get_messages(1)
        changed = last.model_copy(update={"content": last.text[:-1]})
        await manager.storage.edit_messages(
            session.ref, expected_revision=session.revision, change=[changed]
        )
        assert await self.summary(manager, ledgers) == "1 altered"

    async def test_a_turn_is_still_open(
        self, manager: SessionManager, ledgers: list[Ledger]
    ) -> None:
        index = ledgers[0].begin()
        begin = [said(make_turn("s0", index).user)]
        session = await manager.get_session("s0")
        await manager.storage.begin_turn(session.ref, begin, Lease("token", "owner", 30))
        assert await self.summary(manager, ledgers) == "1 leased"

    async def test_a_session_is_gone_or_nobodys(
        self, manager: SessionManager, ledgers: list[Ledger]
    ) -> None:
        await manager.delete_session("s0")
        await manager.create_session("u", "mock", "load", session_id="nobody's")
        assert await self.summary(manager, ledgers) == "2 unexpected"


@pytest.mark.parametrize("name", ["memory", "sqlite"])
async def test_a_run_of_a_moment(name: str, tmp_path: Path) -> None:
    backend = make_backend(name, 0.0, tmp_path, None)
    found = await crowd.run(backend, SIZE)
    assert not found.full.errors + found.paced.errors
    assert found.findings is not None
    assert found.findings.clean
    assert found.findings.turns.acknowledged >= found.full.turns > 0
    text = "\n".join(map(to_markdown, crowd_sections(name, SIZE, found)))
    assert "turns read back: -" in text
    assert list(tmp_path.iterdir()) == []


async def test_the_long_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_session, "CANCELLED", 5)
    backend = make_backend("sqlite", 0.0, tmp_path, None)
    timings = await long_session.run(backend, messages=1_200, rounds=1, batch=1)
    assert not timings.failures
    assert "| newest 20 |" in to_markdown(long_section("sqlite", 1_200, timings))


async def test_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weigh, "SESSIONS", 100)
    monkeypatch.setattr(weigh, "TURNS", 3)
    weights = await weigh.run(make_backend("sqlite", 0.0, tmp_path, None))
    short, long = weigh.LENGTHS
    assert weights.turn[long]["file"] > 2 * long > weights.turn[short]["file"] > 2 * short
    assert "| file |" in to_markdown(weigh_section("sqlite", weights))

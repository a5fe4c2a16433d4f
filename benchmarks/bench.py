"""One run: where its files go, how long it may take, and who takes part."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.contenders import OURS, Contender, Kind, Store
from benchmarks.measure import describe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from benchmarks.backends import Backend
    from benchmarks.places import Places


@dataclass(frozen=True)
class Scale:
    """How much of everything; the defaults are the full run.

    Attributes:
        rounds: Interleaved rounds of single appends, `batch` appends in each.
        reads: How often a whole log is read.
        repeats: How often a piece of work of some seconds is done; once by the slower peers.
        window: Seconds of appends beside reads.
        samples: Fewest samples behind a p99.
        grown: Turns appended while memory is watched, by ours; by the others a part of them.
        starts: Fresh processes for each start-up figure.
        kills: Processes killed while they write.
        slow_peers: Whether the slower peers take part where everybody costs seconds.
    """

    rounds: int = 30
    batch: int = 10
    reads: int = 7
    repeats: int = 3
    window: float = 2.0
    samples: int = 100
    grown: int = 100_000
    starts: int = 5
    kills: int = 100
    slow_peers: bool = True


QUICK = Scale(
    rounds=12, batch=5, reads=2, repeats=1, window=0.7, samples=20, grown=5_000, starts=2, kills=10,
    slow_peers=False,
)  # fmt: skip


@dataclass
class Bench:
    """A run.

    Attributes:
        backend: The database that it is about.
        places: Where all is stored.
        scale: How much of everything.
        contenders: Those whose packages are installed.
        missing: The others, and what each lacks.
    """

    backend: Backend
    places: Places
    scale: Scale
    contenders: tuple[Contender, ...]
    missing: dict[str, str]

    @classmethod
    def of(cls, backend: Backend, places: Places, scale: Scale) -> Bench:
        """A run with those of the contenders that are installed."""
        missing: dict[str, str] = {}
        present: list[Contender] = []
        for contender in backend.contenders:
            try:
                contender.load()
            except ImportError as error:
                missing[contender.label] = f"not installed ({describe(error)})"
            except Exception as error:
                missing[contender.label] = f"does not import ({describe(error)})"
            else:
                present.append(contender)
        return cls(backend, places, scale, tuple(present), missing)

    @property
    def title(self) -> str:
        """What tables call the database."""
        return self.backend.title

    def only(self, kind: Kind) -> list[Contender]:
        """Those that play this part."""
        return [contender for contender in self.contenders if contender.kind is kind]

    def starters(self) -> list[Contender]:
        """Those that take part where everybody costs seconds."""
        return [c for c in self.contenders if self.scale.slow_peers or not c.slow]

    @asynccontextmanager
    async def stores(
        self, contenders: Iterable[Contender] | None = None
    ) -> AsyncIterator[dict[str, Store]]:
        """A fresh open database for each contender, by name."""
        async with AsyncExitStack() as stack:
            opened: dict[str, Store] = {}
            for contender in self.contenders if contenders is None else contenders:
                place = self.places.new()
                store = await contender.load().open(place)
                store.place = place
                stack.push_async_callback(store.close)
                opened[contender.name] = store
            yield opened

    def raw(self, figures: Mapping[str, float | None]) -> float | None:
        """The limit's figure."""
        return figures.get(self.backend.raw.name)

    def fastest_peer(
        self, figures: Mapping[str, float | None], *, reads: str | None = None, best: str = "low"
    ) -> float | None:
        """The best figure among the peers.

        Args:
            figures: One figure by contender.
            reads: Only peers that read this (`typed` or `dicts`).
            best: `low` for a time, `high` for a rate.
        """
        found = [
            value
            for contender in self.only(Kind.PEER)
            if reads is None or contender.reads == reads
            if (value := figures.get(contender.name))
        ]
        return (min if best == "low" else max)(found, default=None)


def ours(figures: Mapping[str, float | None]) -> float | None:
    """Our own figure."""
    return figures.get(OURS.name)

"""Damaged pages, headers and truncated files: an error that says so, or the right answer."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.audit import Audit
from chaos.matrix import Notes
from chaos.places import Place
from chaos.scale import scaled
from chaos.server import Server
from langswarm_session import SessionError, StorageCorruptError
from langswarm_session.testing.making import everything, new_session, ref, reply, user

pytestmark = pytest.mark.timeout(600)

TRIALS = scaled(25, 400)
SESSIONS, TURNS = 6, 25
PAGE = 4096
Damage = Callable[[bytearray, random.Random], object]
Seen = dict[str, tuple[object, ...]]

TOLD = {
    "StorageCorruptError": "restore a copy|not a SQLite database|database of another program",
    "StorageVersionError": "upgrade the package",
}
"""What a damaged database may be refused with, and what that says."""


async def fill(place: Place) -> Seen:
    """Sessions with turns; all that is said of each."""
    storage = place.open()
    names = [f"s{number}" for number in range(SESSIONS)]
    for name in names:
        await storage.create_session(new_session(name))
        for number in range(TURNS):
            text = f"{name} {number} " + "x" * (number % 5 * 200)
            await storage.append(ref(name), [user(text), reply(text)])
    seen = {name: await everything(storage, name) for name in names}
    await storage.close()
    return seen


async def looked_at(place: Place, seen: Seen) -> Counter[str]:
    """What reading each session came to: the right answer, a wrong one, or which error."""
    outcomes: Counter[str] = Counter()
    storage = place.open()
    for name, expected in seen.items():
        try:
            found = await everything(storage, name)
            outcomes["right" if found == expected else "wrong"] += 1
        except SessionError as error:
            outcomes[_told(error)] += 1
    for name in seen:
        try:
            await storage.append(ref(name), [user("more")])
        except SessionError as error:
            outcomes[_told(error)] += 1
    health = await storage.health()
    assert health.ok or health.detail
    await storage.close()
    return outcomes


def _told(error: SessionError) -> str:
    name = type(error).__name__
    assert name in TOLD, f"{name}: {error}"
    assert re.search(TOLD[name], str(error)), str(error)
    assert "xxx" not in str(error), "an error quotes what was said"
    return name


def some_page(data: bytearray, chance: random.Random) -> slice:
    page = chance.randrange(1, len(data) // PAGE)
    return slice(page * PAGE, (page + 1) * PAGE)


def page_of_zeros(data: bytearray, chance: random.Random) -> None:
    data[some_page(data, chance)] = bytes(PAGE)


def page_of_noise(data: bytearray, chance: random.Random) -> None:
    data[some_page(data, chance)] = chance.randbytes(PAGE)


def sessions_by_id(data: bytearray, chance: random.Random) -> None:
    """The page that each session is looked up in."""
    page = data.index(b"s1\x02\x05\x03\x11\ts0") // PAGE
    data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)


def header(data: bytearray, chance: random.Random) -> None:
    first = chance.randrange(97)
    data[first : first + 4] = chance.randbytes(4)


def truncated_file(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(100, len(data)) :]


def truncated_last_page(data: bytearray, chance: random.Random) -> None:
    del data[-chance.randrange(1, PAGE) :]


def one_bit(data: bytearray, chance: random.Random) -> None:
    """SQLite has no checksums, so that a wrong answer cannot always be told."""
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


@pytest.mark.parametrize(
    "damage",
    [
        page_of_zeros,
        page_of_noise,
        truncated_file,
        truncated_last_page,
        header,
        one_bit,
    ],
)
async def test_a_damaged_file(damage: Damage, tmp_path: Path, note: Notes) -> None:
    path = tmp_path / "sessions.db"
    seen = await fill(Place("sqlite", {"db_path": str(path)}))
    whole = path.read_bytes()
    outcomes: Counter[str] = Counter()
    for trial in range(TRIALS):
        data = bytearray(whole)
        damage(data, random.Random(trial))
        damaged = tmp_path / f"damaged{trial}.db"
        damaged.write_bytes(data)
        outcomes += await looked_at(Place("sqlite", {"db_path": str(damaged)}), seen)
        damaged.unlink()
    wrong = outcomes.pop("wrong", 0)
    right = outcomes.pop("right", 0)
    assert outcomes.total() > 0
    assert not wrong or damage is one_bit
    fault = f"damaged: {damage.__name__.replace('_', ' ')} (sessions read)"
    note(fault, "sqlite", TRIALS, Audit(acknowledged=right), outcomes)


@pytest.mark.parametrize(
    "damage",
    [
        truncated_file,
        sessions_by_id,
    ],
)
async def test_health_says_that_a_file_is_of_no_use(damage: Damage, tmp_path: Path) -> None:
    """A file of which no session can be read or written is not healthy."""
    place = Place("sqlite", {"db_path": str(tmp_path / "sessions.db")})
    seen = await fill(place)
    path = tmp_path / "sessions.db"
    data = bytearray(path.read_bytes())
    damage(data, random.Random(1))
    path.write_bytes(data)
    outcomes = await looked_at(place, seen)
    assert outcomes == {"StorageCorruptError": 2 * SESSIONS}
    storage = place.open()
    with pytest.raises(StorageCorruptError):
        await storage.find_session("s0")
    health = await storage.health()
    await storage.close()
    assert not health.ok
    assert re.search(TOLD["StorageCorruptError"], health.detail or "")


async def test_a_damaged_page_of_the_server(
    server: Server, postgres_place: Place, note: Notes
) -> None:
    seen = await fill(postgres_place)
    table = f"{postgres_place.config['schema']}.langswarm_messages"
    [(relative,)] = server.query("SELECT pg_relation_filepath($1::text::regclass)", table)
    server.stop("fast")
    path = server.data / relative
    data = bytearray(path.read_bytes())
    data[-PAGE:] = random.Random(1).randbytes(PAGE)  # in the middle of the last, of 8 KiB
    path.write_bytes(data)
    server.start()
    outcomes = await looked_at(postgres_place, seen)
    right = outcomes.pop("right", 0)
    assert right > 0
    assert outcomes["wrong"] == 0
    assert outcomes["StorageCorruptError"] > 0
    note(
        "damaged: page of noise (sessions read)", "postgres", 1, Audit(acknowledged=right), outcomes
    )

"""The audit itself: whatever may be wrong with a log, it finds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chaos.audit import audit
from chaos.ledger import Ledger, parse, said
from chaos.places import Place
from langswarm_session import ISessionStorage, TokenUsage
from langswarm_session.testing.making import completed, failed, lease, new_session, ref, reply, user

SESSION = "w.append"
Write = Callable[[ISessionStorage], object]


async def append(storage: ISessionStorage, *numbers: int, parts: int = 4) -> None:
    """Whole turns of a writer, unless fewer parts are asked for."""
    for number in numbers:
        made = [user, reply, user, reply][:parts]
        texts = [said("w.append", number, part) for part in range(4)]
        await storage.append(
            ref(SESSION), [make(text) for make, text in zip(made, texts, strict=False)]
        )


def told(*kept: int, asked: tuple[int, ...] = ()) -> Ledger:
    ledger = Ledger()
    ledger.note(["created", SESSION])
    ledger.note(["session", SESSION, "w.append", "append"])
    for number in asked:
        ledger.note(["asked", SESSION, "w.append", number])
    for number in kept:
        ledger.note(["kept", SESSION, "w.append", number])
    return ledger


@pytest.fixture
async def storage(sqlite_place: Place) -> ISessionStorage:
    storage = sqlite_place.open()
    await storage.create_session(new_session(SESSION))
    return storage


async def findings(place: Place, storage: ISessionStorage, ledger: Ledger) -> dict[str, int]:
    """What the audit finds, but for the heir's own turn."""
    await storage.close()
    found = await audit(place, ledger)
    assert found.acknowledged == ledger.acknowledged
    names = ("lost", "doubled", "torn", "disordered", "miscounted", "stuck", "leases")
    counts = {name: getattr(found, name) for name in names}
    assert len(found.findings) == sum(counts.values()) - found.leases
    return {name: count for name, count in counts.items() if count}


async def test_a_log_as_it_should_be(sqlite_place: Place, storage: ISessionStorage) -> None:
    await append(storage, 0, 1, 2)
    # The last was not acknowledged: it may be there or not.
    assert await findings(sqlite_place, storage, told(0, 1)) == {}


async def test_a_turn_that_is_lost(sqlite_place: Place, storage: ISessionStorage) -> None:
    await append(storage, 0, 2)
    assert await findings(sqlite_place, storage, told(0, 1, 2, asked=(3,))) == {"lost": 2}


async def test_a_session_that_is_lost(sqlite_place: Place, storage: ISessionStorage) -> None:
    await storage.delete_session(ref(SESSION))
    assert await findings(sqlite_place, storage, told(0, 1)) == {"lost": 2, "torn": 1}


async def test_a_turn_that_is_doubled(sqlite_place: Place, storage: ISessionStorage) -> None:
    await append(storage, 0, 1, 1)
    assert await findings(sqlite_place, storage, told(0)) == {"doubled": 1}


async def test_turns_out_of_order(sqlite_place: Place, storage: ISessionStorage) -> None:
    await append(storage, 0, 2, 1)
    assert await findings(sqlite_place, storage, told(0, 1, 2)) == {"disordered": 1}


async def test_a_turn_that_is_torn(sqlite_place: Place, storage: ISessionStorage) -> None:
    await append(storage, 0)
    await append(storage, 1, parts=3)
    assert await findings(sqlite_place, storage, told(0)) == {"torn": 1}


async def test_a_text_that_is_torn(sqlite_place: Place, storage: ISessionStorage) -> None:
    texts = [said("w.append", 3, part) for part in range(4)]
    texts[2] = texts[2][:-1]
    batch = [make(text) for make, text in zip([user, reply, user, reply], texts, strict=True)]
    await storage.append(ref(SESSION), batch)
    assert await findings(sqlite_place, storage, told(3)) == {"torn": 1}


async def test_an_acknowledged_turn_that_failed(
    sqlite_place: Place, storage: ISessionStorage
) -> None:
    begun = lease()
    await storage.begin_turn(ref(SESSION), [user(said("w.append", 0, 0))], begun)
    await storage.end_turn(ref(SESSION), failed(begun), [])
    ledger = told(0)
    ledger.note(["session", SESSION, "w.append", "send"])
    assert await findings(sqlite_place, storage, ledger) == {"torn": 1}


async def test_a_turn_whose_writer_died(sqlite_place: Place, storage: ISessionStorage) -> None:
    await storage.begin_turn(ref(SESSION), [user(said("w.append", 0, 0))], lease(0.0))
    ledger = told(asked=(0,))
    ledger.note(["session", SESSION, "w.append", "send"])
    assert await findings(sqlite_place, storage, ledger) == {"leases": 1}


async def test_figures_that_are_wrong(sqlite_place: Place, storage: ISessionStorage) -> None:
    # Tokens of a removed message stay counted, which the audit cannot know of.
    used = reply(said("w.append", 0, 1), usage=TokenUsage(input_tokens=3, output_tokens=1))
    done = await storage.append(ref(SESSION), [user(said("w.append", 0, 0)), used])
    await append(storage, 1)
    revision = (await storage.find_session(SESSION)).revision
    await storage.edit_messages(
        ref(SESSION), expected_revision=revision, remove=[each.seq or 0 for each in done.messages]
    )
    assert await findings(sqlite_place, storage, told(1)) == {"miscounted": 2}


async def test_a_step_of_a_turn_is_whole_once_it_is_complete(
    sqlite_place: Place, storage: ISessionStorage
) -> None:
    begun = lease()
    await storage.begin_turn(ref(SESSION), [user(said("w.append", 0, 0))], begun)
    await storage.end_turn(ref(SESSION), completed(begun), [])
    ledger = told(0)
    ledger.note(["session", SESSION, "w.append", "steps"])
    assert await findings(sqlite_place, storage, ledger) == {"torn": 1}


def test_texts_say_what_they_are() -> None:
    for number in range(10):
        assert parse(said("a.b", number, 2)) == ("a.b", number, 2)
    assert "\0" in said("w", 4, 0)

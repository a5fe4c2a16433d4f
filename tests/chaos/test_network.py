"""The network between us and PostgreSQL, cut in every way a proxy on loopback can cut it."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from postgres_proxy import Hook, Proxy, proxy

from chaos.audit import audit
from chaos.matrix import Notes
from chaos.places import Place
from chaos.probe import check_errors, refused
from chaos.processes import Writer, all_said, any_moment
from chaos.scale import scaled
from chaos.server import Server
from langswarm_session import StorageBusyError, StorageUnavailableError

pytestmark = pytest.mark.timeout(600)

CUTS = scaled(3, 60)
WRITERS = 2
ALLOWED = {
    "StorageUnavailableError": "reached|connection broke|may be stored",
    "StorageBusyError": "try again|no answer in",
}


@pytest.fixture
def between(server: Server) -> Iterator[Proxy]:
    """The proxy between the writers and the server."""
    with proxy(server.port) as made:
        yield made


@pytest.fixture
def behind(between: Proxy, server: Server, postgres_place: Place) -> Place:
    """The place as it is seen through the proxy."""
    return postgres_place.with_options(
        dsn=server.through(between.port), connect_timeout=2.0, timeout=4.0
    )


def one_of_the_next(messages: int) -> Hook:
    """Breaks the connection that sends one of the next messages."""
    lock, left = threading.Lock(), [random.randrange(messages)]

    def hook(_: bytes) -> bool:
        with lock:
            left[0] -= 1
            return left[0] == -1

    return hook


def cut_at_once(between: Proxy) -> None:
    any_moment()
    between.cut()


def lose_a_question(between: Proxy) -> None:
    between.before = one_of_the_next(20)


def lose_an_answer(between: Proxy) -> None:
    """What was sent is done, a commit too, and nobody hears of it."""
    between.after = one_of_the_next(20)


def break_a_question_in_two(between: Proxy) -> None:
    between.halves = True
    between.before = one_of_the_next(20)


def break_an_answer_in_two(between: Proxy) -> None:
    between.halves = True
    between.after = one_of_the_next(20)


@pytest.mark.parametrize(
    "cut",
    [cut_at_once, lose_a_question, lose_an_answer, break_a_question_in_two, break_an_answer_in_two],
)
async def test_connections_that_break(
    cut: Callable[[Proxy], None],
    between: Proxy,
    behind: Place,
    postgres_place: Place,
    start: Callable[..., Writer],
    note: Notes,
) -> None:
    writers = [start(behind, f"w{number}") for number in range(WRITERS)]
    for _ in range(CUTS):
        for writer in writers:
            writer.wait_for_more(random.randrange(1, 20))
        cut(between)
    for writer in writers:
        writer.wait_for_more(30)
    # The writers may have sent less than it took to break one before the next was to be broken.
    assert between.broken >= CUTS - 1 - CUTS // 10 or cut is cut_at_once
    between.before = between.after = None
    for writer in writers:
        writer.wait_for_more(1)
        writer.kill()
    ledger = all_said(writers)
    errors = check_errors(ledger.errors, ledger.messages, ALLOWED)
    found = await audit(postgres_place, ledger)
    note(f"network: {cut.__name__.replace('_', ' ')}", "postgres", CUTS, found, errors)


async def test_a_network_without_a_word(
    between: Proxy,
    behind: Place,
    postgres_place: Place,
    start: Callable[..., Writer],
    note: Notes,
) -> None:
    """A black hole: nothing arrives, and nobody hangs up."""
    impatient = behind.with_options(connect_timeout=0.3, timeout=0.6)
    holes, errors = scaled(1, 20), Counter[str]()
    writers = [start(impatient, f"w{number}") for number in range(WRITERS)]
    for _ in range(holes):
        for writer in writers:
            writer.wait_for_more(random.randrange(1, 20))
        between.stalls = True
        for writer in writers:
            writer.wait_for_more(kept=0, errors=5)
        errors += await refused(
            impatient, StorageUnavailableError, "no answer in", StorageBusyError
        )
        between.stalls = False
        between.cut()  # as a router does when it has forgotten a connection
    for writer in writers:
        writer.wait_for_more(20)
        writer.kill()
    ledger = all_said(writers)
    errors += check_errors(ledger.errors, ledger.messages, ALLOWED)
    found = await audit(postgres_place, ledger)
    note("network: black hole", "postgres", holes, found, errors)

"""The Redis example when connections break, servers are killed and processes fork or die."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis_server
from postgres_proxy import Proxy, proxy
from storage.broken_connection_tests import LOST, BrokenConnectionTests, breaks, once
from storage.process_tests import ProcessTests, spawn

EXAMPLE = Path(__file__).parents[2] / "examples" / "redis_storage"
sys.path.insert(0, str(EXAMPLE))

from langswarm_redis import RedisSessionStorage  # noqa: E402

from langswarm_session import (  # noqa: E402
    RevisionConflictError,
    SessionBusyError,
    SessionExistsError,
    SessionNotFoundError,
    StorageUnavailableError,
    TurnStatus,
)
from langswarm_session.records import SessionChanges  # noqa: E402
from langswarm_session.testing.making import (  # noqa: E402
    completed,
    lease,
    new_session,
    ref,
    reply,
    texts,
    user,
)
from langswarm_session.testing.storage_life import LifeTests  # noqa: E402

CHILD = Path(__file__).with_name("redis_child.py")
KILLS = min(100, int(os.environ.get("LANGSWARM_KILLS", "5")))
PROCESSES, TURNS = 8, 10


@pytest.fixture
def prefix() -> Iterator[str]:
    with redis_server.prefix() as name:
        yield name


@pytest.fixture
def between(prefix: str) -> Iterator[Proxy]:
    """The proxy between the storage and the server."""
    with proxy(urlsplit(redis_server.url()).port or 6379) as made:
        yield made


@pytest.fixture
async def storage(between: Proxy, prefix: str) -> AsyncIterator[RedisSessionStorage]:
    parts = urlsplit(redis_server.url())
    netloc = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{between.port}".removeprefix("@")
    storage = RedisSessionStorage(
        parts._replace(netloc=netloc).geturl(), prefix=prefix, durability="accept", timeout=20
    )
    await storage.create_session(new_session("s"))
    await storage.get_messages(ref("s"))
    yield storage
    between.before = between.after = None
    between.refuses = between.stalls = False
    await storage.close()


class TestBrokenConnections(BrokenConnectionTests):
    places = 8

    @LOST
    async def test_a_taken_over_turn_is_taken_over_once(
        self, storage: RedisSessionStorage, between: Proxy, answer: bool
    ) -> None:
        """The way that takes several steps, of which the last one writes."""
        await storage.begin_turn(ref("s"), [user("old")], lease(0))
        breaks(between, answer, b"ZADD", b"the new one")
        begun = lease()
        start = await storage.begin_turn(ref("s"), [user("the new one")], begun)
        assert (start.added, start.record.turn_token) == (1, begun.token)
        assert (start.record.errors, start.record.turn_count) == (1, 2)
        with pytest.raises(SessionBusyError):
            await storage.append(ref("s"), [user("no")])
        assert between.broken == 1

    @LOST
    async def test_sessions_are_changed_once(
        self, storage: RedisSessionStorage, between: Proxy, answer: bool
    ) -> None:
        breaks(between, answer, b"recent", b"made-once")
        created = await storage.create_session(new_session("made-once"))
        assert created == await storage.find_session("made-once")
        breaks(between, answer, b'{"a":1}')
        changed = await storage.update_session(
            ref("s"), SessionChanges(context={"a": 1}), expected_revision=0
        )
        assert (changed.revision, changed) == (1, await storage.find_session("s"))
        await storage.append(ref("s"), [user("a"), user("b")])
        breaks(between, answer, b"recent", b"forked-once")
        forked = await storage.fork_session(ref("s"), new_session("forked-once"))
        assert forked == await storage.find_session("forked-once")
        assert forked.message_count == 2
        breaks(between, answer, b"ZREMRANGEBYSCORE")
        edited = await storage.edit_messages(
            ref("s"), expected_revision=2, remove=[1], add=[user("c")]
        )
        assert (texts(edited.messages), edited.record.revision) == (["c"], 3)
        breaks(between, answer, b"UNLINK")
        assert (await storage.clear_messages(ref("s"), expected_revision=3)).revision == 4
        breaks(between, answer, b"UNLINK")
        await storage.delete_session(ref("made-once"))
        with pytest.raises(SessionNotFoundError):
            await storage.find_session("made-once")
        with pytest.raises(SessionNotFoundError):
            await storage.delete_session(ref("made-once"))
        with pytest.raises(SessionExistsError):
            await storage.create_session(new_session("forked-once"))
        assert between.broken == 6
        health = await storage.health()
        assert (health.sessions, health.messages) == (2, 2)

    async def test_calls_at_once_are_made_once(
        self, storage: RedisSessionStorage, between: Proxy
    ) -> None:
        names = [f"s{n}" for n in range(20)]
        await asyncio.gather(*(storage.create_session(new_session(name)) for name in names))

        async def write(name: str) -> None:
            for n in range(10):
                await storage.append(ref(name), [user(f"{n}"), reply(f"{n}")])

        working = asyncio.gather(*(write(name) for name in names))
        while not working.done():
            await asyncio.sleep(0.02)
            between.cut()
        await working
        for name in names:
            read = await storage.get_messages(ref(name))
            assert texts(read) == [f"{n}" for n in range(10) for _ in "12"]
            assert (await storage.find_session(name)).revision == 10

    async def test_a_server_that_is_away_for_too_long(self, between: Proxy, prefix: str) -> None:
        """The error says what is known of the write, and the same write again is stored once."""
        url = urlsplit(redis_server.url())._replace(netloc=f"127.0.0.1:{between.port}").geturl()
        storage = RedisSessionStorage(url, prefix=prefix, durability="accept", timeout=0.5)
        await storage.create_session(new_session("s"))
        between.refuses = True
        between.cut()
        with pytest.raises(StorageUnavailableError, match="cannot be reached") as caught:
            await storage.find_session("s")
        assert "may be stored" not in str(caught.value)
        between.refuses = False
        begun = user("sent, and no answer")
        between.after = once(b"sent, and no answer")

        def hang_up(data: bytes) -> bool:
            between.refuses = True
            return False

        between.before = hang_up
        with pytest.raises(StorageUnavailableError, match="may be stored"):
            await storage.append(ref("s"), [begun])
        between.before = between.after = None
        between.refuses = False
        assert len((await storage.append(ref("s"), [begun])).messages) == 1
        assert texts(await storage.get_messages(ref("s"))) == ["sent, and no answer"]
        await storage.close()

    async def test_a_server_that_falls_silent(self, between: Proxy, prefix: str) -> None:
        url = urlsplit(redis_server.url())._replace(netloc=f"127.0.0.1:{between.port}").geturl()
        storage = RedisSessionStorage(url, prefix=prefix, durability="accept", timeout=0.5)
        await storage.create_session(new_session("s"))
        between.stalls = True
        with pytest.raises(StorageUnavailableError):
            await storage.find_session("s")
        with pytest.raises(StorageUnavailableError):
            await storage.append(ref("s"), [user("a")])
        between.stalls = False
        between.cut()
        await storage.append(ref("s"), [user("b")])
        await storage.close()


class TestKilledServer(LifeTests):
    """The conformance tests of a storage's life: whenever it is opened again, the server is killed."""

    durable = True

    @pytest.fixture(autouse=True)
    def own_server(self, tmp_path: Path) -> Iterator[None]:
        (folder := tmp_path / "redis").mkdir()
        with redis_server.OwnServer(folder) as self.server:
            yield

    def make_storage(self, tmp_path: Path) -> RedisSessionStorage:
        return RedisSessionStorage(self.server.url, durability="require")

    def reopen(self, tmp_path: Path) -> RedisSessionStorage:
        self.server.kill()
        self.server.start()
        return self.make_storage(tmp_path)


async def check(
    storage: RedisSessionStorage, acknowledged: dict[str, set[int]], asked: dict[str, set[int]]
) -> None:
    """Whole turns of four messages, in order, each once, with all that was acknowledged.

    What was not acknowledged may be there as well, and only the last turn of those that were begun
    by themselves may lack its answer.
    """
    for session, turns in acknowledged.items():
        log = await storage.get_messages(ref(session))
        found = [int(message.text.split()[0]) for message in log]
        whole = len(found) // 4 * 4
        assert found[:whole] == [n for n in range(whole // 4) for _ in range(4)]
        assert found[whole:] == ([] if session not in asked else [whole // 4] * (len(found) % 4))
        assert len(found) - whole <= 1
        assert turns <= set(found[:whole])
        assert asked[session] <= set(found)
        record = await storage.find_session(session)
        assert (record.message_count, record.last_seq) == (len(log), len(log))
        last = (await storage.get_turns(ref(session), limit=1))[0] if log else None
        assert last is None or (last.status is TurnStatus.OPEN) == (len(found) > whole)


class Heard:
    """What a process says of its work."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, set[int]] = {}
        self.asked: dict[str, set[int]] = defaultdict(set)

    def listen(self, process: subprocess.Popen[str], lines: int, then: Callable[[], None]) -> None:
        """Take in what it says until it ends; do something when it has said this much."""
        assert process.stdout
        for number, line in enumerate(process.stdout):
            if number == lines:
                then()
            # A line that the kill cut short acknowledges nothing.
            if not line.endswith("\n"):
                continue
            what, session, *turn = line.split()
            if what == "session":
                self.acknowledged[session] = set()
                if session.endswith("steps"):
                    self.asked[session] = set()
            else:
                (self.asked if what == "asked" else self.acknowledged)[session].add(int(turn[0]))


class TestProcesses(ProcessTests):
    making = """
from langswarm_redis import RedisSessionStorage
storage = RedisSessionStorage(sys.argv[1], prefix=sys.argv[2], durability="accept")
"""

    @pytest.fixture(autouse=True)
    def own_prefix(self, prefix: str) -> None:
        self.prefix = prefix

    def arguments(self) -> Sequence[str]:
        return [redis_server.url(), self.prefix]

    def make_storage(self) -> RedisSessionStorage:
        return RedisSessionStorage(redis_server.url(), prefix=self.prefix, durability="accept")

    async def test_processes_that_start_at_once_share_all(self, prefix: str) -> None:
        names = [f"p{n}" for n in range(PROCESSES)]
        url = redis_server.url()
        processes = [spawn(CHILD, url, prefix, "share", name, str(TURNS)) for name in names]
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        ends = [(*process.communicate(timeout=100), process.returncode) for process in processes]
        assert ends == [("done\n", "", 0)] * PROCESSES
        storage = RedisSessionStorage(url, prefix=prefix, durability="accept")
        for name in names:
            mine = [f"{name} {n}" for n in range(TURNS) for _ in "12"]
            assert texts(await storage.get_messages(ref(name))) == mine
        shared = await storage.get_messages(ref("shared"))
        assert [message.seq for message in shared] == list(range(1, 2 * PROCESSES * TURNS + 1))
        assert texts(shared[0::2]) == texts(shared[1::2])
        for name in names:
            mine = [text for text in texts(shared) if text.startswith(f"{name} ")]
            assert mine == [f"{name} {n}" for n in range(TURNS) for _ in "12"]
        await storage.close()

    async def test_a_killed_process_loses_nothing_it_acknowledged(self, prefix: str) -> None:
        heard, url = Heard(), redis_server.url()
        for number in range(KILLS):
            with spawn(CHILD, url, prefix, "endless", f"k{number}") as process:
                heard.listen(process, random.randint(8, 150), process.kill)
                assert process.stderr
                assert process.stderr.read() == ""
        assert sum(map(len, heard.acknowledged.values())) >= KILLS
        storage = RedisSessionStorage(url, prefix=prefix, durability="accept")
        await check(storage, heard.acknowledged, heard.asked)
        await storage.close()

    async def test_a_killed_server_loses_nothing_it_acknowledged(self, tmp_path: Path) -> None:
        """The writer goes on when the server is back, and doubles nothing."""
        heard = Heard()
        with redis_server.OwnServer(tmp_path) as server:
            with spawn(CHILD, server.url, "p:", "endless", "k") as process:

                def kill_often() -> None:
                    # In a thread, as what the process says must be read meanwhile.
                    for _ in range(KILLS):
                        server.kill()
                        server.start()
                        before = len(heard.acknowledged["k-whole"])
                        while len(heard.acknowledged["k-whole"]) < before + random.randint(2, 40):
                            assert process.poll() is None
                    process.kill()

                heard.listen(process, 20, threading.Thread(target=kill_often).start)
                assert process.stderr
                assert process.stderr.read() == ""
            server.kill()
            server.start()
            storage = RedisSessionStorage(server.url, prefix="p:", durability="require")
            await check(storage, heard.acknowledged, heard.asked)
            await storage.close()


async def test_storages_at_once_change_one_session_in_turn(prefix: str) -> None:
    """Whoever decided on what is not so any more decides again; one at a revision wins."""
    url = redis_server.url()
    storages = [RedisSessionStorage(url, prefix=prefix, durability="accept") for _ in range(4)]
    await storages[0].create_session(new_session("s"))
    changes = [SessionChanges(context={f"k{n}": n}) for n in range(40)]
    await asyncio.gather(
        *(storages[n % 4].update_session(ref("s"), change) for n, change in enumerate(changes))
    )
    record = await storages[0].find_session("s")
    assert record.revision == 40
    assert record.to_context().model_extra == {f"k{n}": n for n in range(40)}
    outcomes = await asyncio.gather(
        *(
            storage.edit_messages(ref("s"), expected_revision=40, add=[user(str(n))])
            for n, storage in enumerate(storages)
        ),
        return_exceptions=True,
    )
    refused = [type(each) for each in outcomes if isinstance(each, BaseException)]
    assert refused == [RevisionConflictError] * 3
    for storage in storages:
        await storage.close()


async def test_a_lease_that_is_renewed_in_the_last_moment_is_not_taken_over(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the decision that it has run out and the write that would take it."""
    storage = RedisSessionStorage(redis_server.url(), prefix=prefix, durability="accept")
    await storage.create_session(new_session("s"))
    late = lease(0)
    await storage.begin_turn(ref("s"), [user("a")], late)
    write = storage._writes.write

    async def renew_before(name: str, *words: object) -> object:
        if name == "guarded":
            assert await storage.renew_turns({late.token: ref("s")}, 3600) == {late.token}
        return await write(name, *words)

    monkeypatch.setattr(storage._writes, "write", renew_before)
    with pytest.raises(SessionBusyError):
        await storage.append(ref("s"), [user("b")])
    ended = await storage.end_turn(ref("s"), completed(late), [reply("c")])
    assert texts(ended.new_messages) == ["c"]
    await storage.close()

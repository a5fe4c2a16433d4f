"""The example of a storage from outside, on the Redis that is there and on servers of its own."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import tomllib
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis_server
from edited_by_hand import fill, use
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

EXAMPLE = Path(__file__).parents[2] / "examples" / "redis_storage"
sys.path.insert(0, str(EXAMPLE))

from langswarm_redis import RedisSessionStorage  # noqa: E402

from langswarm_session import (  # noqa: E402
    InvalidInputError,
    SessionError,
    SessionManager,
    SessionStatus,
    SessionStorageError,
    StorageCorruptError,
    StorageFactory,
    StorageFullError,
    StorageUnavailableError,
    StorageVersionError,
    TokenUsage,
    create_session_manager,
)
from langswarm_session.records import (  # noqa: E402
    IdempotencyKey,
    SessionChanges,
    SessionRecord,
)
from langswarm_session.testing import StorageConformance, StorageMachine  # noqa: E402
from langswarm_session.testing.making import (  # noqa: E402
    completed,
    everything,
    failed,
    lease,
    new_session,
    ref,
    reply,
    texts,
    user,
)

SECRET = "never-show-this"


@pytest.fixture
def prefix() -> Iterator[str]:
    with redis_server.prefix() as name:
        yield name


@pytest.fixture
async def storage(prefix: str) -> AsyncIterator[RedisSessionStorage]:
    storage = RedisSessionStorage(redis_server.url(), prefix=prefix, durability="accept")
    await storage.create_session(new_session("s"))
    yield storage
    await storage.close()


class TestRedisSessionStorage(StorageConformance):
    durable = True

    @pytest.fixture(autouse=True)
    def own_prefix(self, prefix: str) -> None:
        self.prefix = prefix

    def make_storage(self, tmp_path: Path) -> RedisSessionStorage:
        return RedisSessionStorage(redis_server.url(), prefix=self.prefix, durability="accept")


class RedisMachine(StorageMachine):
    durable = True
    prefix = ""

    def make_storage(self, folder: Path) -> RedisSessionStorage:
        prefix = f"{self.prefix}{folder.name}:"
        return RedisSessionStorage(redis_server.url(), prefix=prefix, durability="accept")


@pytest.mark.timeout(900)
def test_it_is_as_the_model_says(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RedisMachine, "prefix", prefix)
    run_state_machine_as_test(
        RedisMachine,
        settings=settings(
            max_examples=10,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


class TestMaking:
    @pytest.fixture
    def installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The example's entry points, as if it were installed."""
        project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
        info = tmp_path / "langswarm_redis-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        (info / "entry_points.txt").write_text(
            "".join(
                f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
                for group, entries in project["entry-points"].items()
            )
        )
        monkeypatch.syspath_prepend(tmp_path)

    async def test_a_url_is_all_it_takes(self, installed: None, prefix: str) -> None:
        options = {"prefix": prefix, "durability": "accept"}
        async with create_session_manager(redis_server.url(), options) as manager:
            session = await manager.create_session("ann", "mock", "echo", session_id="trip")
            assert (await session.send_message("Hello")).text == "You said: Hello"
        async with create_session_manager(
            "redis", {"url": redis_server.url(), **options}
        ) as manager:
            again = await manager.get_session("trip", user_id="ann")
            assert texts(await again.get_messages()) == ["Hello", "You said: Hello"]

    def test_each_scheme_leads_here(self, installed: None) -> None:
        for url in ("redis://h/5", "rediss://h:6380/5?ssl_cert_reqs=none", "redis://", "redis"):
            assert isinstance(StorageFactory.create_storage(url), RedisSessionStorage)
        for url in ("unix:///tmp/redis.sock?db=5", "redis://[::1]:6379/0"):
            assert isinstance(StorageFactory.create_storage("redis", url=url), RedisSessionStorage)

    async def test_making_one_does_no_io(self) -> None:
        storage = RedisSessionStorage("redis://127.0.0.1:1/0")
        threads = {thread.name for thread in threading.enumerate()}
        assert not any("127.0.0.1:1/" in name for name in threads)
        await storage.close()

    @pytest.mark.parametrize(
        "options",
        [
            {"url": 5},
            {"url": f"http://ann:{SECRET}@h/0"},
            {"url": f"ann:{SECRET}@h"},
            {"url": f"redis://ann:{SECRET}/x@h/0"},
            {"url": f"redis://ann:{SECRET}#x@h/0"},
            {"url": f"redis://ann:{SECRET}?x@h/0"},
            {"url": f"redis://ann:{SECRET}"},
            {"url": f"redis://ann:{SECRET}@h/zero"},
            {"url": f"redis://ann:{SECRET}@h/0?unknown=1"},
            {"url": f"redis://ann:{SECRET}@h/0?socket_timeout=long"},
            {"url": "unix://h/x"},
            {"prefix": ""},
            {"prefix": None},
            {"durability": "maybe"},
            {"timeout": 0},
            {"connect_timeout": -1},
        ],
    )
    def test_what_cannot_be_used_is_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(InvalidInputError) as caught:
            RedisSessionStorage(**options)
        assert SECRET not in "".join(traceback.format_exception(caught.value))


class TestSecrets:
    async def test_they_are_shown_nowhere(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        with redis_server.OwnServer(tmp_path, requirepass=SECRET, appendonly="no") as server:
            address = f"redis://:{SECRET}@127.0.0.1:{server.port}/0"
            for name, storage in {
                "by address": RedisSessionStorage(address),
                "by itself": RedisSessionStorage(server.url, password=SECRET),
            }.items():
                await storage.create_session(new_session(name))
                assert (await storage.health()).ok
                assert SECRET not in repr(storage) + repr(await storage.health())
                await storage.close()
            wrong = RedisSessionStorage(address.replace("never", "wrong-never"), timeout=5)
            with pytest.raises(StorageUnavailableError, match="refused the login") as caught:
                await wrong.find_session("s")
            await wrong.close()
        nowhere = RedisSessionStorage(address, timeout=0.2)
        with pytest.raises(StorageUnavailableError, match="cannot be reached") as gone:
            await nowhere.find_session("s")
        health = await nowhere.health()
        assert not health.ok
        assert health.detail
        await nowhere.close()
        shown = [*traceback.format_exception(caught.value), *traceback.format_exception(gone.value)]
        shown += [repr(nowhere), repr(health), repr(SessionManager(nowhere))]
        shown += [record.getMessage() for record in caplog.records]
        assert any("appendonly no" in each for each in shown)
        assert SECRET not in "\n".join(shown)


class TestDurability:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({}, None),
            ({"appendonly": "no"}, "appendonly no"),
            ({"appendfsync": "everysec"}, "appendfsync everysec"),
            ({"maxmemory": "500mb", "maxmemory-policy": "allkeys-lru"}, "allkeys-lru"),
            ({"maxmemory": "500mb", "maxmemory-policy": "volatile-lru"}, None),
            ({"rename-command": "CONFIG no-config"}, "CONFIG GET is refused"),
        ],
    )
    async def test_what_a_crash_would_lose_is_said(
        self,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        options: dict[str, str],
        said: str | None,
    ) -> None:
        with redis_server.OwnServer(tmp_path, **options) as server:
            storage = RedisSessionStorage(server.url)
            health = await storage.health()
            await storage.close()
            warnings = [each.getMessage() for each in caplog.records]
            strict = RedisSessionStorage(server.url, durability="require")
            if said is None:
                await strict.create_session(new_session("s"))
                assert (health.ok, health.detail, warnings) == (True, None, [])
            else:
                assert health.ok
                assert said in (health.detail or "")
                # Both connections look, and say it once.
                assert len(warnings) == 1
                assert said in warnings[0]
                with pytest.raises(StorageUnavailableError, match=said):
                    await strict.create_session(new_session("s"))
                refused = await strict.health()
                assert (refused.ok, said in (refused.detail or "")) == (False, True)
            await strict.close()

    async def test_who_accepts_it_is_not_warned(
        self, storage: RedisSessionStorage, caplog: pytest.LogCaptureFixture
    ) -> None:
        await storage.health()
        assert caplog.records == []


EDITS: dict[str, list[Any]] = {
    "a field of the session": [
        ("HSET", "s", field, value)
        for field in (*SessionRecord._fields[:-1], "number", "version", "edits")
        for value in (b"\xff", b"x", b"-1")
    ],
    "a field that is gone": [
        ("HDEL", "s", field) for field in (*SessionRecord._fields[:-1], "number", "version", "edits")
    ],
    "a message": [
        ("ZADD", "m", 2, row)
        for row in (b"", b"x", b"2 1 99 0 t1 1 xy", b"2 1 0 0 t1 1 x\xff", b"2 1 0 x t1 1 xy",
            b"2 1 0 9999999999999999999 t1 1 xy", b"2 1 0 0 t1 1 xy{", b"2 1 0 0 t1 -1 x[]",
            b"2 1 0 0 b3 1 xyza", b'2 1 0 0 t1 1 xy{"role":"evil"}')
    ],
    "a note on a turn": [
        ("HSET", "t", f"3:{field}", value)
        for field in ("status", "key", "digest", "error", "finished")
        for value in (b"\xff", b"x", b"")
    ],
    "the turn of a key": [("HSET", "k", "key", value) for value in (b"\xff", b"x", b"-1", b"99")],
    "the number of an id": [("HSET", "i", b"tan id of a caller", value) for value in (b"x", b"-1")],
    "another kind of key": [("SET", kind, "x") for kind in "smitkuy"],
}  # fmt: skip


class TestEditedByHand:
    @pytest.mark.parametrize("kind", EDITS)
    async def test_only_our_own_errors_come_of_it(self, prefix: str, kind: str) -> None:
        wrong = []
        for command, key, *words in EDITS[kind]:
            with redis_server.client() as admin:
                for each in admin.scan_iter(f"{prefix}*"):
                    admin.delete(each)
                storage = RedisSessionStorage(
                    redis_server.url(), prefix=prefix, durability="accept"
                )
                await fill(storage)
                name = f"{prefix}{key}:s"
                if command == "SET":
                    admin.delete(name)
                if command == "ZADD":
                    admin.zremrangebyscore(name, 2, 2)
                admin.execute_command(command, name, *words)
            if found := await use(storage):
                wrong += [f"{command} {key} {words}: {each}" for each in found]
        assert wrong == []


class TestRefusals:
    async def test_a_full_memory_changes_nothing(self, tmp_path: Path) -> None:
        with redis_server.OwnServer(tmp_path) as server:
            storage = RedisSessionStorage(server.url)
            await storage.create_session(new_session("s"))
            begun = lease()
            await storage.begin_turn(ref("s"), [user("asked")], begun)
            before = await everything(storage, "s")
            with redis_server.client(server.url) as admin:
                admin.config_set("maxmemory", 1)
                for call in (
                    storage.append(ref("s"), [reply("x")], token=begun.token),
                    storage.end_turn(ref("s"), completed(begun), [reply("x")]),
                    storage.end_turn(ref("s"), failed(begun), [user("x"), user("y")]),
                    storage.update_session(ref("s"), SessionChanges(context={"a": 1})),
                    storage.create_session(new_session("t")),
                    storage.fork_session(ref("s"), new_session("t")),
                    storage.renew_turns({begun.token: ref("s")}, 60),
                ):
                    with pytest.raises(StorageFullError):
                        await call
                assert await everything(storage, "s") == before
                admin.config_set("maxmemory", 0)
            health = await storage.health()
            assert (health.sessions, health.messages) == (1, 1)
            await storage.end_turn(ref("s"), completed(begun), [reply("answered")])
            await storage.delete_session(ref("s"))
            await storage.close()

    async def test_a_full_memory_still_lets_go(self, tmp_path: Path) -> None:
        with redis_server.OwnServer(tmp_path) as server:
            storage = RedisSessionStorage(server.url)
            await storage.create_session(new_session("s"))
            await storage.append(ref("s"), [user("x")])
            with redis_server.client(server.url) as admin:
                admin.config_set("maxmemory", 1)
                await storage.delete_session(ref("s"))
                assert admin.keys("langswarm:[simtkuy]:*") == []
            await storage.close()

    async def test_a_cluster_is_refused(self, tmp_path: Path) -> None:
        options = {"cluster-enabled": "yes"}
        with redis_server.OwnServer(tmp_path, **options) as server:
            storage = RedisSessionStorage(server.url)
            with pytest.raises(StorageUnavailableError, match="cluster cannot be used"):
                await storage.find_session("s")
            await storage.close()

    async def test_a_replica_is_refused(self, tmp_path: Path) -> None:
        with redis_server.OwnServer(tmp_path) as server:
            storage = RedisSessionStorage(server.url)
            await storage.create_session(new_session("s"))
            with redis_server.client(server.url) as admin:
                admin.replicaof("127.0.0.1", 1)
                with pytest.raises(StorageUnavailableError, match="replica"):
                    await storage.append(ref("s"), [user()])
                assert (await storage.find_session("s")).message_count == 0
                admin.replicaof("NO", "ONE")
            await storage.append(ref("s"), [user()])
            await storage.close()

    async def test_a_user_without_permission_is_told(self, tmp_path: Path) -> None:
        options = {"user": f"ann on >{SECRET} ~langswarm:* +@all -eval -evalsha"}
        with redis_server.OwnServer(tmp_path, **options) as server:
            address = f"redis://ann:{SECRET}@127.0.0.1:{server.port}/0"
            storage = RedisSessionStorage(address)
            with pytest.raises(StorageUnavailableError, match="may not use"):
                await storage.find_session("s")
            await storage.close()
            other = RedisSessionStorage(address, prefix="other:")
            with pytest.raises(StorageUnavailableError, match="may not use"):
                await other.find_session("s")
            await other.close()

    async def test_a_user_of_these_keys_alone_is_enough(self, tmp_path: Path) -> None:
        options = {"user": f"ann on >{SECRET} ~langswarm:* +@all"}
        with redis_server.OwnServer(tmp_path, **options) as server:
            storage = RedisSessionStorage(f"redis://ann:{SECRET}@127.0.0.1:{server.port}/0")
            await storage.create_session(new_session("s"))
            await storage.append(ref("s"), [user("x")])
            await storage.fork_session(ref("s"), new_session("t"))
            assert len((await storage.list_sessions(user_id="user")).records) == 2
            await storage.delete_session(ref("s"))
            await storage.close()

    async def test_newer_data_is_refused(self, storage: RedisSessionStorage, prefix: str) -> None:
        with redis_server.client() as admin:
            admin.set(f"{prefix}schema", 3)
        other = RedisSessionStorage(redis_server.url(), prefix=prefix, durability="accept")
        with pytest.raises(StorageVersionError, match="schema 3"):
            await other.find_session("s")
        await other.close()

    async def test_keys_of_others_are_told(self, storage: RedisSessionStorage, prefix: str) -> None:
        with redis_server.client() as admin:
            admin.set(f"{prefix}s:taken", "of somebody else")
        with pytest.raises(StorageCorruptError, match="another prefix"):
            await storage.find_session("taken")

    async def test_more_tokens_than_can_be_counted(self, storage: RedisSessionStorage) -> None:
        before = await everything(storage, "s")
        most = TokenUsage(input_tokens=2**40)
        with pytest.raises(InvalidInputError, match="tokens"):
            await storage.append(ref("s"), [reply(usage=most) for _ in range(2**13)])
        assert await everything(storage, "s") == before

    async def test_no_call_waits_for_ever(
        self, prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from langswarm_redis import lane

        monkeypatch.setattr(lane, "MAX_WAITING", 5)
        storage = RedisSessionStorage("redis://127.0.0.1:1/0", timeout=0.3)
        calls = await asyncio.gather(
            *(storage.find_session("s") for _ in range(20)), return_exceptions=True
        )
        assert {type(each).__name__ for each in calls} == {
            "StorageUnavailableError",
            "StorageBusyError",
        }
        await storage.close()


class TestSize:
    async def test_what_a_call_costs_is_independent_of_the_log(self, tmp_path: Path) -> None:
        """The server runs as many commands, and says as much, for a long log as for a short one."""
        with (
            redis_server.OwnServer(tmp_path, appendfsync="no") as server,
            redis_server.client(server.url) as admin,
        ):
            storage = RedisSessionStorage(server.url, durability="accept")
            for session, turns in (("short", 5), ("long", 2000)):
                await storage.create_session(new_session(session))
                for n in range(0, turns, 50):
                    size = min(50, turns - n)
                    await asyncio.gather(
                        *(
                            storage.append(ref(session), [user("u"), reply("r")])
                            for _ in range(size)
                        )
                    )

            async def cost(session: str) -> list[tuple[int, int]]:
                costs = []
                for call in (
                    lambda: storage.append(ref(session), [user("u"), reply("r")]),
                    lambda: storage.get_messages(ref(session), limit=4),
                    lambda: storage.get_messages(ref(session), limit=4, answered_only=True),
                    lambda: storage.get_messages(ref(session), system_only=True),
                    lambda: storage.get_turns(ref(session), limit=3),
                    lambda: storage.find_session(session),
                ):
                    admin.config_resetstat()
                    await call()
                    commands: Any = admin.info("commandstats")
                    # Of the server's own and ours.
                    calls = sum(
                        each["calls"]
                        for name, each in commands.items()
                        if not name.startswith(("cmdstat_config", "cmdstat_info"))
                    )
                    sent: Any = admin.info("stats")
                    costs.append((calls, sent["total_net_output_bytes"]))
                return costs

            await storage.get_messages(ref("short"), limit=4)  # connects
            short, long = await cost("short"), await cost("long")
            assert [calls for calls, _ in long] == [calls for calls, _ in short]
            # Larger numbers take some digits more, in the statistics as well.
            assert all(
                abs(one - other) < 300 for (_, one), (_, other) in zip(long, short, strict=True)
            )
            await storage.close()

    async def test_a_long_log_is_read_in_pieces(self, storage: RedisSessionStorage) -> None:
        log = [user(str(n)) for n in range(3500)]
        await storage.append(ref("s"), log)
        begun = lease()
        await storage.begin_turn(ref("s"), [user("unanswered")], begun)
        await storage.end_turn(ref("s"), failed(begun), [])
        said = [str(n) for n in range(3500)]
        assert texts(await storage.get_messages(ref("s"))) == [*said, "unanswered"]
        assert texts(await storage.get_messages(ref("s"), after=10)) == [*said[10:], "unanswered"]
        assert texts(await storage.get_messages(ref("s"), limit=2500)) == [
            *said[1001:],
            "unanswered",
        ]
        assert texts(await storage.get_messages(ref("s"), answered_only=True)) == said
        assert (
            texts(await storage.get_messages(ref("s"), answered_only=True, limit=3000))
            == said[500:]
        )
        assert await storage.get_messages(ref("s"), system_only=True) == []

    async def test_a_log_that_is_edited_meanwhile_is_read_whole(
        self, storage: RedisSessionStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is read is what there was at one moment, though it is read in pieces."""
        await storage.append(ref("s"), [user(str(n)) for n in range(2500)])
        read, reads = storage._reads.read, 0

        async def edit_between(name: str, key: bytes, *words: Any) -> Any:
            nonlocal reads
            reply = await read(name, key, *words)
            reads += name == "messages"
            if name == "messages" and reads == 1:
                revision = (await storage.find_session("s")).revision
                await storage.edit_messages(
                    ref("s"), expected_revision=revision, remove=[1, 2500], add=[user("new")]
                )
            return reply

        monkeypatch.setattr(storage._reads, "read", edit_between)
        expected = [*(str(n) for n in range(1, 2499)), "new"]
        assert texts(await storage.get_messages(ref("s"))) == expected
        assert reads > 3

    async def test_a_listing_passes_over_many_that_do_not_fit(
        self, storage: RedisSessionStorage
    ) -> None:
        names = [f"s{n:04}" for n in range(1500)]
        for start in range(0, 1500, 100):
            await asyncio.gather(
                *(storage.create_session(new_session(name)) for name in names[start : start + 100])
            )
        pause = SessionChanges(status=SessionStatus.PAUSED)
        await storage.update_session(ref("s0000"), pause)
        await storage.update_session(ref("s1499"), pause)
        found = []
        cursor = None
        while True:
            page = await storage.list_sessions(status=SessionStatus.PAUSED, limit=1, cursor=cursor)
            found += [record.session_id for record in page.records]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == ["s1499", "s0000"]


async def test_nothing_is_left_of_what_was_deleted(
    storage: RedisSessionStorage, prefix: str
) -> None:
    """But for the counters and the version."""
    await storage.append(ref("s"), [user(), reply()])
    await storage.fork_session(ref("s"), new_session("t"))
    for session in ("s", "t"):
        begun = lease()
        await storage.begin_turn(ref(session), [user()], begun)
        await storage.end_turn(ref(session), failed(begun), [])
        await storage.delete_session(ref(session))
    with redis_server.client() as admin:
        left = {key.decode().removeprefix(prefix) for key in admin.scan_iter(f"{prefix}*")}
        assert left == {"schema", "sessions", "messages"}
        assert admin.get(f"{prefix}messages") == b"0"


async def test_scripts_that_were_flushed_are_loaded_again(storage: RedisSessionStorage) -> None:
    with redis_server.client() as admin:
        for n in range(3):
            admin.script_flush()
            calls = (storage.append(ref("s"), [user(f"{n} {m}")]) for m in range(10))
            assert len(await asyncio.gather(*calls)) == 10
    said = [f"{n} {m}" for n in range(3) for m in range(10)]
    assert sorted(texts(await storage.get_messages(ref("s")))) == sorted(said)


async def test_an_answer_that_is_no_storages(storage: RedisSessionStorage) -> None:
    """Whatever else the server refuses is a typed error that names the server."""
    with pytest.raises(SessionStorageError, match="127.0.0.1") as caught:
        await storage._reads.read("guarded", b"x", 0, "", "*", 1, "NO-SUCH-COMMAND")
    assert isinstance(caught.value, SessionError)


async def test_an_append_with_a_known_key_is_answered_at_any_time(
    storage: RedisSessionStorage,
) -> None:
    """With the same messages as with others, while a turn is open and once it is archived."""
    key, log = IdempotencyKey("key", "digest"), [user("a"), reply("b")]
    await storage.append(ref("s"), log, key=key)
    await storage.begin_turn(ref("s"), [user("open")], lease())
    await storage.update_session(ref("s"), SessionChanges(status=SessionStatus.ARCHIVED))
    before = await everything(storage, "s")
    for again in (log, [user("a"), reply("b")]):
        assert texts((await storage.append(ref("s"), again, key=key)).messages) == ["a", "b"]
    assert await everything(storage, "s") == before

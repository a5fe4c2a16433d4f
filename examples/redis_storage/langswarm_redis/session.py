"""A session while it is decided what to write to it: what is read of it, and the changes to come.

What is read is of one version of the session, and the changes are made only if it is still at that
version; else `MovedError` says that somebody else has written, and all is decided again. Nobody has
to wait for a lock, and nothing is left behind by who dies on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from langswarm_redis.commands import (
    KINDS,
    TOGETHER,
    Commands,
    MadeError,
    MovedError,
    Place,
    ask,
    first_fields,
    new_number,
    run,
)
from langswarm_redis.lane import Word
from langswarm_redis.rows import (
    decode,
    decode_all,
    encode,
    id_field,
    own_fields,
    to_bytes,
    to_fields,
    to_name,
    to_number,
    to_record,
    with_place,
)
from langswarm_redis.scripts import FIELDS, NONCE
from langswarm_session.models import MessageRole, SessionMessage, TurnStatus
from langswarm_session.records import IdempotencyKey, SessionRecord
from langswarm_session.storage import rules
from langswarm_session.storage.measuring import has_several_results
from langswarm_session.storage.session_rows import damaged, decode_status


class Session:
    """A session at one version.

    Attributes:
        record: The session, with the changes that `commit` will write.
        now: The server's time when it was loaded, in microseconds since 1970.
    """

    def __init__(self, place: Place, reply: list[Any]) -> None:
        seconds, micros = reply[0]
        *fields, version, recent, edits = reply[1]
        self.number = fields[-1]
        if self.number is None:
            raise damaged("the number of a session")
        self.now = int(seconds) * 1_000_000 + int(micros)
        self.record = self._loaded = to_record(fields)
        self._place = place
        self._version = to_number(version)
        self._recent = recent or b""
        self._edits = to_number(edits)
        self._commands = Commands()
        self._put: dict[int, SessionMessage] = {}
        self._dropped: set[int] = set()

    # Reading

    async def stored(self, messages: Sequence[SessionMessage]) -> dict[str, SessionMessage]:
        """Those of the messages whose ids are stored, as they are stored."""
        if not messages:
            return {}
        commands = Commands()
        commands.add_many("HMGET", self._place.key("i"), [id_field(each.id) for each in messages])
        seqs = {
            to_number(seq)
            for reply in await self._ask(commands)
            for seq in reply
            if seq is not None
        }
        return {each.id: each for each in (await self.places(seqs)).values()}

    async def places(self, seqs: Iterable[int]) -> dict[int, SessionMessage]:
        """Those of the messages that are there, by number."""
        commands = Commands()
        for seq in seqs:
            if 0 < seq <= self.record.last_seq:
                commands.add("ZRANGEBYSCORE", self._place.key("m"), seq, seq)
        rows = [row for reply in await self._ask(commands) for row in reply]
        return {each.seq or 0: each for each in decode_all(rows)}

    async def turn(self, turn: int) -> list[SessionMessage]:
        """A turn's messages with the changes to come, oldest first."""
        key, found = self._place.key("m"), dict[int, SessionMessage]()
        start, more = turn, True
        while more:
            commands = Commands()
            commands.add("ZRANGEBYSCORE", key, start, "+inf", "LIMIT", 0, TOGETHER)
            [rows] = await self._ask(commands)
            messages = decode_all(rows)
            # A turn's messages stand together.
            found |= {each.seq or 0: each for each in messages if each.turn_id == turn}
            more = len(messages) == TOGETHER and messages[-1].turn_id == turn
            start = (messages[-1].seq or 0) + 1 if messages else start
        found |= {seq: each for seq, each in self._put.items() if each.turn_id == turn}
        return [found[seq] for seq in sorted(found.keys() - self._dropped)]

    async def known_turn(
        self, key: IdempotencyKey | None, last: SessionMessage | None = None
    ) -> rules.KnownTurn | None:
        """The turn the key was used in before, or else the one a stored message is in."""
        turn = None if key is None else await self.turn_of(key.key)
        if turn is None and last is not None:
            turn = last.turn_id
        if turn is None:
            return None
        commands = Commands()
        commands.add("ZREVRANGE", self._place.key("m"), 0, 0)
        fields = (f"{turn}:status", f"{turn}:digest")
        commands.add("HMGET", self._place.key("t"), *fields)
        newest, (status, digest) = await self._ask(commands)
        is_open = self.record.turn_token is not None and self.record.turn_id == turn
        noted = TurnStatus.COMPLETE if status is None else decode_status(to_name(status))
        return rules.KnownTurn(
            turn,
            bool(newest) and decode(newest[0]).turn_id == turn,
            TurnStatus.OPEN if is_open else noted,
            None if digest is None else to_name(digest),
        )

    async def turn_of(self, key: str) -> int | None:
        """The turn that an idempotency key was used in."""
        commands = Commands()
        commands.add("HGET", self._place.key("k"), to_bytes(key))
        [turn] = await self._ask(commands)
        return None if turn is None else to_number(turn)

    async def note_of(self, turn: int) -> tuple[TurnStatus, bytes | None] | None:
        """Status and idempotency key that are noted of a turn, if any are."""
        commands = Commands()
        commands.add("HMGET", self._place.key("t"), f"{turn}:status", f"{turn}:key")
        [(status, key)] = await self._ask(commands)
        return None if status is None else (decode_status(to_name(status)), key)

    # Changing; the methods only note what is to be done

    def change(self, **fields: Any) -> None:
        """Change fields of the session, which moves its revision."""
        self.record = self.record._replace(revision=self.record.revision + 1, **fields)

    def count(self, size: int, new: Sequence[SessionMessage] = (), **fields: Any) -> None:
        """Count messages that are added, and the tokens of those that are new."""
        record, sums = self.record, rules.usage_sums(new)
        self.change(
            last_activity=max(record.last_activity, self.now),
            last_seq=record.last_seq + size,
            message_count=record.message_count + size,
            input_tokens=record.input_tokens + sums[0],
            output_tokens=record.output_tokens + sums[1],
            cached_tokens=record.cached_tokens + sums[2],
            reasoning_tokens=record.reasoning_tokens + sums[3],
            **fields,
        )

    def put(self, messages: Sequence[SessionMessage]) -> None:
        """Store messages in their places, instead of what may be there."""
        for message in messages:
            self._put[message.seq or 0] = message

    def drop(self, messages: Iterable[SessionMessage]) -> None:
        """Remove messages."""
        for message in messages:
            self._dropped.add(message.seq or 0)
            self._commands.add("HDEL", self._place.key("i"), id_field(message.id))
            self.record = self.record._replace(message_count=self.record.message_count - 1)

    def clear(self) -> None:
        """Remove all messages and turns."""
        self._commands.add("UNLINK", *(self._place.key(kind) for kind in KINDS[1:]))
        self._edits += 1
        self.change(message_count=0)

    async def note(self, turn: int, status: TurnStatus, error: str | None = None) -> None:
        """Note how a turn stands, and whether it belongs in the window."""
        key = self._place.key("t")
        self._commands.add("HSET", key, f"{turn}:status", status.value)
        self._commands.add("HDEL", key, f"{turn}:error", f"{turn}:finished")
        if error is not None:
            self._commands.add("HSET", key, f"{turn}:error", to_bytes(error))
        if status is not TurnStatus.OPEN:
            self._commands.add("HSET", key, f"{turn}:finished", self.now)
        await self.settle(turn, status)

    async def settle(self, turn: int, status: TurnStatus) -> None:
        """Note whether a turn belongs in the window."""
        answered = rules.answered(status, [message.role for message in await self.turn(turn)])
        words = ("ZREM",) if answered else ("ZADD", turn)
        self._commands.add(words[0], self._place.key("u"), *words[1:], turn)

    def save_key(self, turn: int, status: TurnStatus, key: IdempotencyKey) -> None:
        """Note a turn's key, which no other turn has from now on."""
        own, notes = to_bytes(key.key), self._place.key("t")
        self._commands.add("HSET", self._place.key("k"), own, turn)
        self._commands.add("HSET", notes, f"{turn}:status", status.value, f"{turn}:key", own)
        self._commands.add("HSET", notes, f"{turn}:digest", to_bytes(key.digest))

    def give_up_key(self, turn: int, key: bytes | None) -> None:
        """A turn has no key any more; where it is given, the key has no turn either."""
        self._commands.add("HDEL", self._place.key("t"), f"{turn}:key", f"{turn}:digest")
        if key is not None:
            self._commands.add("HDEL", self._place.key("k"), key)

    def forget(self, turn: int) -> None:
        """Remove what is noted of a turn."""
        names = ("status", "key", "digest", "error", "finished")
        self._commands.add("HDEL", self._place.key("t"), *(f"{turn}:{name}" for name in names))
        self._commands.add("ZREM", self._place.key("u"), turn)

    # Writing

    async def commit(self) -> SessionRecord:
        """Write the changes.

        Raises:
            MovedError: If somebody else has written meanwhile; nothing was changed.
            MadeError: If these were written before.
        """
        commands = Commands()
        self._add_fields(commands)
        messages, ids = self._place.key("m"), list[Word]()
        system, several = list[Word](), list[Word]()
        for seq in self._dropped | self._replaced:
            commands.add("ZREMRANGEBYSCORE", messages, seq, seq)
            commands.add("ZREM", self._place.key("y"), seq)
            commands.add("ZREM", self._place.key("w"), seq)
        commands.words += self._commands.words
        for seq, message in self._put.items():
            field, row = encode(message)
            commands.add("ZADD", messages, seq, with_place(row, seq, message.turn_id or 0))
            ids += [field, seq]
            if message.role is MessageRole.SYSTEM:
                system += [seq, seq]
            if has_several_results(message):
                several += [seq, seq]
        commands.add_many("HSET", self._place.key("i"), ids)
        commands.add_many("ZADD", self._place.key("y"), system)
        commands.add_many("ZADD", self._place.key("w"), several)
        await run(self._place, commands, self._at)
        return self.record

    async def remove(self) -> None:
        """Remove the session and all it holds.

        Raises:
            MovedError: If somebody else has written meanwhile; nothing was changed.
        """
        place = self._place
        user = place.prefix + b"user:" + to_bytes(self.record.user_id)
        commands = Commands()
        commands.add("UNLINK", *(place.key(kind) for kind in KINDS))
        commands.add("ZREM", place.prefix + b"index", place.session_id)
        commands.add("ZREM", user, place.session_id)
        commands.add("DECRBY", place.prefix + b"messages", self.record.message_count)
        await run(place, commands, self._at)

    @property
    def was_made(self) -> bool:
        """Whether the write that is being decided has been made already."""
        return self._place.made

    @property
    def _replaced(self) -> set[int]:
        return {seq for seq in self._put if seq <= self._loaded.last_seq}

    @property
    def _at(self) -> bytes:
        return b"%b.%d" % (self.number, self._version)

    async def _ask(self, commands: Commands) -> list[Any]:
        if not commands.words:
            return []
        return await ask(self._place, commands, self._at)

    def _add_fields(self, commands: Commands) -> None:
        """The session's own fields: first, being what a server without memory refuses."""
        place, old = self._place, own_fields(self._loaded)
        changed = {
            name: value for name, value in own_fields(self.record).items() if value != old[name]
        }
        edits = self._edits + bool(self._dropped or self._replaced)
        recent = (self._recent + place.nonce.encode())[-16 * NONCE :]
        fixed = ["version", self._version + 1, "recent", recent, "edits", edits]
        commands.add("HSET", place.key("s"), *fixed, *to_fields(changed))
        gone = [name for name, value in changed.items() if value is None]
        if gone:
            commands.add("HDEL", place.key("s"), *gone)
        user = place.prefix + b"user:" + to_bytes(self.record.user_id)
        for index in (place.prefix + b"index", user):
            commands.add("ZADD", index, self.record.last_activity, place.session_id)
        more = self.record.message_count - self._loaded.message_count
        commands.add("INCRBY", place.prefix + b"messages", more)


async def load(place: Place) -> Session:
    """The session as it is now.

    Raises:
        SessionNotFoundError: If there is none.
    """
    commands = Commands()
    commands.words += [1, "TIME"]
    commands.add("HMGET", place.key("s"), *FIELDS, "version", "recent", "edits")
    reply = await ask(place, commands, b"*")
    if reply[1][0] is None:
        raise rules.not_found(place.session_id.decode())
    return Session(place, reply)


async def create(place: Place, record: SessionRecord) -> SessionRecord:
    """Create the session.

    Raises:
        SessionExistsError: If the id is taken.
    """
    number, now = await new_number(place)
    record = record._replace(created_at=now, last_activity=now, creation=int(number))
    commands = Commands()
    own = to_fields(first_fields(place, number) | own_fields(record))
    commands.add("HSET", place.key("s"), *own)
    for index in (b"index", b"user:" + to_bytes(record.user_id)):
        commands.add("ZADD", place.prefix + index, now, place.session_id)
    try:
        await run(place, commands, b"-")
    except MovedError:
        raise rules.exists(place.session_id.decode()) from None
    except MadeError:
        return (await load(place)).record
    return record

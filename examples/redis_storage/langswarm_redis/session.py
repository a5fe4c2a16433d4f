"""A session at one version: the facts that a write is decided on, and the plan that comes of it.

The plan is written only if the session is still at that version; otherwise `FactsChangedError` says
that somebody else has written, and the write is decided again. Nobody waits for a lock, and a
process that dies on the way leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from langswarm_redis.commands import (
    KINDS,
    TOGETHER,
    Commands,
    Keyspace,
    MadeError,
    ask,
    first_fields,
    new_number,
    run,
)
from langswarm_redis.lane import Word
from langswarm_redis.rows import (
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
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.records import IdempotencyKey, SessionRecord
from langswarm_session.storage import rules
from langswarm_session.storage.decisions import (
    Facts,
    FactsChangedError,
    MessagePlace,
    Plan,
    Repeat,
    TurnFacts,
    Write,
)
from langswarm_session.storage.measuring import has_several_results
from langswarm_session.storage.session_rows import NoteRow, damaged, decode_status

NOTE = ("status", "key", "digest", "error", "finished")
"""What is noted of a turn, each under the turn's number."""


class Session:
    """A session at one version.

    Attributes:
        record: The session.
        now: The server's time when it was loaded, in microseconds since 1970.
    """

    def __init__(self, place: Keyspace, reply: list[Any]) -> None:
        seconds, micros = reply[0]
        *fields, version, recent, edits = reply[1]
        self.number = fields[-1]
        if self.number is None:
            raise damaged("the number of a session")
        self.now = int(seconds) * 1_000_000 + int(micros)
        self.record = to_record(fields)
        self._place = place
        self._version = to_number(version)
        self._recent = recent or b""
        self._edits = to_number(edits)

    async def facts(self, write: Write[Any]) -> Facts:
        """Read what a write is decided on."""
        was_made = self._place.nonce.encode() in self._recent
        facts = Facts(
            record=self.record,
            now=self.now,
            stored=await self._stored(write.messages),
            key_turn=await self._turn_of(write.key),
            places=await self._places(write.numbers()),
            repeat=Repeat.CERTAIN if was_made else Repeat.NO,
            version=self,
        )
        for turn in write.turns(facts):
            facts.turns[turn] = await self._turn(turn)
        return facts

    async def _stored(self, messages: Sequence[SessionMessage]) -> dict[str, SessionMessage]:
        if not messages:
            return {}
        commands = Commands()
        commands.add_many("HMGET", self._place.key("i"), [id_field(each.id) for each in messages])
        numbers = {
            to_number(seq)
            for reply in await self._ask(commands)
            for seq in reply
            if seq is not None
        }
        return {message.id: message for message in await self._messages(numbers)}

    async def _places(self, numbers: Iterable[int]) -> dict[int, MessagePlace]:
        messages = await self._messages(numbers)
        return {each.seq or 0: MessagePlace(each.id, each.turn_id or 0) for each in messages}

    async def _messages(self, numbers: Iterable[int]) -> list[SessionMessage]:
        """Return those of the messages that are there."""
        commands = Commands()
        for seq in numbers:
            if 0 < seq <= self.record.last_seq:
                commands.add("ZRANGEBYSCORE", self._place.key("m"), seq, seq)
        return decode_all(row for reply in await self._ask(commands) for row in reply)

    async def _turn_of(self, key: IdempotencyKey | None) -> int | None:
        if key is None:
            return None
        commands = Commands()
        commands.add("HGET", self._place.key("k"), to_bytes(key.key))
        [turn] = await self._ask(commands)
        return None if turn is None else to_number(turn)

    async def _turn(self, turn: int) -> TurnFacts:
        messages, is_last = await self._messages_of(turn)
        return TurnFacts(
            note=await self._note(turn),
            roles={message.seq or 0: message.role for message in messages},
            is_last=is_last,
            messages=messages,
        )

    async def _messages_of(self, turn: int) -> tuple[list[SessionMessage], bool]:
        """Return a turn's messages, which stand together, and whether they are the newest."""
        messages: list[SessionMessage] = []
        start = turn
        while True:
            commands = Commands()
            span = (start, "+inf", "LIMIT", 0, TOGETHER)
            commands.add("ZRANGEBYSCORE", self._place.key("m"), *span)
            [rows] = await self._ask(commands)
            page = decode_all(rows)
            own = [message for message in page if message.turn_id == turn]
            messages += own
            if len(own) < len(page) or len(page) < TOGETHER:
                return messages, bool(messages) and len(own) == len(page)
            start = (page[-1].seq or 0) + 1

    async def _note(self, turn: int) -> NoteRow | None:
        commands = Commands()
        commands.add("HMGET", self._place.key("t"), *(f"{turn}:{name}" for name in NOTE))
        commands.add("ZSCORE", self._place.key("u"), turn)
        (status, key, digest, error, finished), unanswered = await self._ask(commands)
        if status is None:
            return None
        return NoteRow(
            turn=turn,
            status=decode_status(to_name(status)),
            answered=unanswered is None,
            key=_optional_name(key),
            digest=_optional_name(digest),
            error=_optional_name(error),
            finished_at=None if finished is None else to_number(finished),
        )

    async def commit(self, facts: Facts, plan: Plan[Any]) -> None:
        """Write a plan.

        Raises:
            FactsChangedError: If somebody else has written meanwhile; nothing was changed.
            MadeError: If it was written before.
        """
        commands = Commands()
        self._set_fields(commands, plan)
        if plan.clears:
            commands.add("UNLINK", *(self._place.key(kind) for kind in KINDS[1:]))
        self._remove(commands, plan)
        for note in plan.notes:
            self._set_note(commands, facts, note)
        for turn in plan.forgotten:
            self._forget(commands, facts, turn)
        self._add_messages(commands, [*plan.changed, *plan.added])
        await run(self._place, commands, self._at)

    def _remove(self, commands: Commands, plan: Plan[Any]) -> None:
        for seq in (*plan.removed, *(message.seq or 0 for message in plan.changed)):
            commands.add("ZREMRANGEBYSCORE", self._place.key("m"), seq, seq)
            commands.add("ZREM", self._place.key("y"), seq)
            commands.add("ZREM", self._place.key("w"), seq)
        fields: list[Word] = [id_field(message_id) for message_id in plan.removed.values()]
        commands.add_many("HDEL", self._place.key("i"), fields)

    def _add_messages(self, commands: Commands, messages: Sequence[SessionMessage]) -> None:
        ids, system, several = list[Word](), list[Word](), list[Word]()
        for message in messages:
            field, row = encode(message)
            seq = message.seq or 0
            whole = with_place(row, seq, message.turn_id or 0)
            commands.add("ZADD", self._place.key("m"), seq, whole)
            ids += [field, seq]
            if message.role is MessageRole.SYSTEM:
                system += [seq, seq]
            if has_several_results(message):
                several += [seq, seq]
        commands.add_many("HSET", self._place.key("i"), ids)
        commands.add_many("ZADD", self._place.key("y"), system)
        commands.add_many("ZADD", self._place.key("w"), several)

    def _set_note(self, commands: Commands, facts: Facts, note: NoteRow) -> None:
        self._forget(commands, facts, note.turn)
        values = (note.status.value, note.key, note.digest, note.error, note.finished_at)
        pairs = {f"{note.turn}:{name}": value for name, value in zip(NOTE, values, strict=True)}
        commands.add("HSET", self._place.key("t"), *to_fields(pairs))
        if note.key is not None:
            commands.add("HSET", self._place.key("k"), to_bytes(note.key), note.turn)
        if not note.answered:
            commands.add("ZADD", self._place.key("u"), note.turn, note.turn)

    def _forget(self, commands: Commands, facts: Facts, turn: int) -> None:
        """Remove what is noted of a turn."""
        commands.add("HDEL", self._place.key("t"), *(f"{turn}:{name}" for name in NOTE))
        commands.add("ZREM", self._place.key("u"), turn)
        former = facts.turns[turn].note if turn in facts.turns else None
        if former is not None and former.key is not None:
            commands.add("HDEL", self._place.key("k"), to_bytes(former.key))

    async def remove(self) -> None:
        """Remove the session and all it holds.

        Raises:
            FactsChangedError: If somebody else has written meanwhile; nothing was changed.
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
    def _at(self) -> bytes:
        return b"%b.%d" % (self.number, self._version)

    async def _ask(self, commands: Commands) -> list[Any]:
        if not commands.words:
            return []
        return await ask(self._place, commands, self._at)

    def _set_fields(self, commands: Commands, plan: Plan[Any]) -> None:
        """Set the session's own fields: first, being what a server without memory refuses."""
        place, old = self._place, own_fields(self.record)
        record = plan.record or self.record
        changed = {name: value for name, value in own_fields(record).items() if value != old[name]}
        edits = self._edits + bool(plan.removed or plan.changed or plan.clears)
        recent = (self._recent + place.nonce.encode())[-16 * NONCE :]
        fixed = ["version", self._version + 1, "recent", recent, "edits", edits]
        commands.add("HSET", place.key("s"), *fixed, *to_fields(changed))
        empty = [name for name, value in changed.items() if value is None]
        if empty:
            commands.add("HDEL", place.key("s"), *empty)
        user = place.prefix + b"user:" + to_bytes(record.user_id)
        for index in (place.prefix + b"index", user):
            commands.add("ZADD", index, record.last_activity, place.session_id)
        more = record.message_count - self.record.message_count
        commands.add("INCRBY", place.prefix + b"messages", more)


async def load(place: Keyspace) -> Session:
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


async def create(place: Keyspace, record: SessionRecord) -> SessionRecord:
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
    except MadeError:
        return (await load(place)).record
    except FactsChangedError:
        raise rules.exists(place.session_id.decode()) from None
    return record


def _optional_name(value: bytes | None) -> str | None:
    return None if value is None else to_name(value)

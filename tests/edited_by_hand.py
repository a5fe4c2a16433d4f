"""What the tests of edited databases share: a session with all that a row can hold, and every call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from langswarm_session import (
    IdempotencyConflictError,
    MessageConflictError,
    RevisionConflictError,
    SessionBusyError,
    SessionError,
    SessionExistsError,
    SessionInactiveError,
    SessionManager,
    SessionNotFoundError,
    StorageCorruptError,
    TurnLostError,
    UnknownProviderError,
    export_session,
)
from langswarm_session.blocks import TextBlock
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import MessageRole, SessionMessage, TokenUsage
from langswarm_session.records import IdempotencyKey, SessionRef
from langswarm_session.testing.making import (
    OPERATIONS,
    completed,
    failed,
    lease,
    new_session,
    reply,
    system,
    user,
)

TOLD = {
    StorageCorruptError,
    # These come of cells that hold another right value than before.
    *(IdempotencyConflictError, MessageConflictError, RevisionConflictError, SessionBusyError),
    *(SessionExistsError, SessionInactiveError, SessionNotFoundError, TurnLostError),
    UnknownProviderError,
}


REF = SessionRef("s", "user", None)


async def fill(storage: ISessionStorage) -> None:
    """A session with all that a row can hold, and one that nobody writes to."""
    await storage.create_session(new_session("s", context={"max_messages": 9}))
    await storage.create_session(new_session("other"))
    turn = lease()
    message = user("question", metadata={"a": [1]})
    await storage.begin_turn(REF, [message], turn, key=IdempotencyKey("key", "digest"))
    answer = reply("hello", usage=TokenUsage(input_tokens=3), finish_reason="stop")
    await storage.end_turn(REF, completed(turn, provider_state={"provider_context": {}}), [answer])
    turn = lease()
    await storage.begin_turn(REF, [user("again")], turn)
    await storage.end_turn(REF, failed(turn), [])
    await storage.append(
        REF, [system(), SessionMessage(role=MessageRole.USER, content=[TextBlock(text="b")])]
    )
    await storage.begin_turn(REF, [user("open", id="an id of a caller")], lease(0))


READS: dict[str, Callable[[SessionManager], Awaitable[object]]] = {}


def reads(call: Callable[[SessionManager], Awaitable[object]]) -> None:
    READS[call.__name__] = call


@reads
async def listing(manager: SessionManager) -> None:
    cursor = None
    for _ in range(9):
        page = await manager.list_user_sessions("user", limit=1, cursor=cursor)
        for session in page:
            session.context, session.metrics, session.status, repr(session)
        cursor = page.next_cursor
        if cursor is None:
            return
    raise AssertionError("a listing without an end")


@reads
async def one(manager: SessionManager) -> None:
    session = await manager.get_session("s")
    session.context, session.metrics, session.status, repr(session), session._repr_html_()


@reads
async def messages(manager: SessionManager) -> None:
    found = await (await manager.get_session("s")).get_messages()
    found._repr_html_()
    for message in found:
        message.model_dump_json(), message.text, message.role.value
        SessionMessage.model_validate(message.model_dump())


@reads
async def turns(manager: SessionManager) -> None:
    for turn in await (await manager.get_session("s")).get_turns():
        turn.model_dump_json()


@reads
async def window(manager: SessionManager) -> None:
    await (await manager.get_session("s")).get_window()


@reads
async def export(manager: SessionManager) -> None:
    async for _ in export_session(await manager.get_session("s")):
        pass


@reads
async def fork(manager: SessionManager) -> None:
    await (await manager.get_session("s")).fork()


@reads
async def send(manager: SessionManager) -> None:
    await (await manager.get_session("s")).send_message("more")


@reads
async def repeat(manager: SessionManager) -> None:
    await (await manager.get_session("s")).send_message("question", idempotency_key="key")


@reads
async def health(manager: SessionManager) -> None:
    await manager.health()


@reads
async def examine(manager: SessionManager) -> None:
    await manager.storage.examine()


@reads
async def examine_all(manager: SessionManager) -> None:
    await manager.storage.examine(full=True)


async def use(storage: ISessionStorage) -> list[str]:
    """Call all there is; what came out beside results and the errors that are right."""
    wrong: list[str] = []
    manager = SessionManager(storage, turn_wait=0.05)
    calls: list[tuple[str, Awaitable[object]]] = [
        *((name, call(manager)) for name, call in READS.items()),
        *((name, call(storage, REF)) for name, call in OPERATIONS.items() if "delete" not in name),
        ("delete_session", storage.delete_session(REF)),
    ]
    for name, call in calls:
        try:
            async with asyncio.timeout(20):
                await call
        except SessionError as error:
            if type(error) not in TOLD:
                wrong.append(f"{name}: {error!r}")
        except Exception as error:
            wrong.append(f"{name}: {error!r}")
    await manager.close()
    return wrong

"""Everybody who takes part.  One adapter each; their packages are imported when first used."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contenders.base import Contender, Kind, Store, UnsupportedError

__all__ = [
    "CONTENDERS",
    "DOORS",
    "LLAMA_INDEX",
    "OURS",
    "POSTGRES",
    "POSTGRES_RAW",
    "RAW",
    "SESSION",
    "Contender",
    "Door",
    "Kind",
    "Store",
    "UnsupportedError",
    "find",
]


_FASTEST = "openai-agents SQLiteSession"
_FASTEST_POSTGRES = "llama-index SQLAlchemyChatStore, asyncpg"
"""The peers that a quick run does not leave out."""


def _ours(name: str, place: str, *, answers: bool = False) -> Contender:
    return Contender(name, Kind.OURS, f"benchmarks.contenders.{place}", "typed", answers=answers)


def _peer(name: str, place: str, reads: str, *, grows: bool = False, wal: bool = True) -> Contender:
    module = f"benchmarks.contenders.{place}"
    slow = name not in (_FASTEST, _FASTEST_POSTGRES)
    return Contender(name, Kind.PEER, module, reads, grows=grows, slow=slow, wal=wal)


OURS = _ours("langswarm-session", "ours:StorageStore")
SESSION = _ours("langswarm-session send_message", "ours:SessionStore", answers=True)

AGENTS = _peer(_FASTEST, "openai_agents:SQLiteStore", "dicts")
AGENTS_SQLALCHEMY = _peer(
    "openai-agents SQLAlchemySession", "openai_agents:SQLAlchemyStore", "dicts"
)
LANGCHAIN = _peer(
    "langchain-community SQLChatMessageHistory", "langchain:AsyncHistory", "typed", wal=False
)
LLAMA_INDEX = _peer("llama-index SQLAlchemyChatStore", "llama_index:ChatStore", "typed", wal=False)
LANGGRAPH = _peer("langgraph AsyncSqliteSaver", "langgraph:GraphStore", "typed", grows=True)
RAW = Contender("raw sqlite3", Kind.LIMIT, "benchmarks.contenders.raw:RawStore", "json")

CONTENDERS = (
    OURS,
    AGENTS,
    AGENTS_SQLALCHEMY,
    LANGCHAIN,
    LLAMA_INDEX,
    LANGGRAPH,
    RAW,
    Contender(
        "aiosqlite, same settings",
        Kind.TRIED,
        "benchmarks.contenders.raw:AiosqliteStore",
        "json",
    ),
)
"""The rows of most tables for SQLite."""

POSTGRES_RAW = Contender(
    "raw asyncpg, one statement", Kind.LIMIT, "benchmarks.contenders.postgres:AsyncpgStore", "json"
)


POSTGRES = (
    OURS,
    _peer(_FASTEST_POSTGRES, "llama_index:ChatStore", "typed"),
    _peer("openai-agents SQLAlchemySession, asyncpg", "openai_agents:SQLAlchemyStore", "dicts"),
    _peer(
        "llama-index PostgresChatStore",
        "llama_index_postgres:ArrayChatStore",
        "typed",
        grows=True,
    ),
    _peer("langgraph AsyncPostgresSaver", "langgraph:GraphStore", "typed", grows=True),
    POSTGRES_RAW,
    Contender(
        "raw psycopg 3, one statement",
        Kind.TRIED,
        "benchmarks.contenders.postgres:PsycopgStore",
        "json",
    ),
    Contender(
        "raw psycopg 3, pipeline",
        Kind.TRIED,
        "benchmarks.contenders.postgres:PipelineStore",
        "json",
    ),
)
"""The rows of most tables for PostgreSQL."""


@dataclass(frozen=True)
class Door:
    """One of our doors and what the framework's users have now.

    Attributes:
        framework: Whose door it is.
        door: Ours.
        peers: Theirs.
        sync: Whether all are called where no event loop runs.
        goals: How many times faster than each ours shall append and read; None for no goal.
    """

    framework: str
    door: Contender
    peers: tuple[Contender, ...]
    sync: bool = False
    goals: tuple[float, float] | None = (6, 3)


DOORS = (
    Door("LangChain", _ours("SessionChatMessageHistory", "doors:LangChainDoor"), (LANGCHAIN,)),
    Door(
        "LangChain",
        _ours("SessionChatMessageHistory, sync", "doors:LangChainSyncDoor"),
        (
            _peer(
                "langchain-community SQLChatMessageHistory, sync", "langchain:SyncHistory", "typed"
            ),
        ),
        sync=True,
    ),
    Door("LlamaIndex", _ours("AsyncSessionChatStore", "doors:LlamaIndexDoor"), (LLAMA_INDEX,)),
    Door(
        "LlamaIndex",
        _ours("SessionChatStore, one message at a time", "doors:LlamaIndexSingleDoor"),
        (
            _peer(
                "llama-index SQLAlchemyChatStore, one message at a time",
                "llama_index:SingleChatStore",
                "typed",
                wal=False,
            ),
        ),
    ),
    Door(
        "LlamaIndex",
        _ours("SessionChatStore, sync, one message at a time", "doors:LlamaIndexSyncDoor"),
        (
            _peer(
                "llama-index SQLAlchemyChatStore, on a loop of the caller's, one message at a time",
                "llama_index:SyncChatStore",
                "typed",
                wal=False,
            ),
        ),
        sync=True,
    ),
    Door(
        "OpenAI Agents SDK",
        _ours("AgentSession, items in the short form", "doors:AgentsDoor"),
        (AGENTS, AGENTS_SQLALCHEMY),
        goals=None,
    ),
    Door(
        "OpenAI Agents SDK",
        _ours("AgentSession, items as a Runner stores them", "doors:AgentsRunnerDoor"),
        (
            _peer(f"{_FASTEST}, Runner's items", "openai_agents:RunnerSQLiteStore", "dicts"),
            _peer(
                "openai-agents SQLAlchemySession, Runner's items",
                "openai_agents:RunnerSQLAlchemyStore",
                "dicts",
            ),
        ),
        goals=None,
    ),
)


def find(name: str) -> Contender:
    """The contender of that name.

    Raises:
        KeyError: If there is none.
    """
    doors = (one for door in DOORS for one in (door.door, *door.peers))
    everybody = (*CONTENDERS, *POSTGRES, SESSION, *doors)
    return {contender.name: contender for contender in everybody}[name]

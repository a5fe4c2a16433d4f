"""SQLAlchemy engines for the peers that are built on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.places import is_postgres, split

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


def make_engine(place: str) -> AsyncEngine:
    """An engine with SQLAlchemy's defaults: over asyncpg, or over aiosqlite."""
    if is_postgres(place):
        dsn, schema = split(place)
        return create_async_engine(
            f"postgresql+asyncpg{dsn.removeprefix('postgresql')}",
            connect_args={"server_settings": {"search_path": schema}},
        )
    return create_async_engine(f"sqlite+aiosqlite:///{place}")

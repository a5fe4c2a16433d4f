"""Makes the tables of open-managed-agents in the current folder."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil

import app.db.models
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase


def tables() -> list[MetaData]:
    for module in pkgutil.iter_modules(app.db.models.__path__):
        importlib.import_module(f"app.db.models.{module.name}")
    return [base.metadata for base in DeclarativeBase.__subclasses__()]


async def main() -> None:
    engine = create_async_engine("sqlite+aiosqlite:///open_managed_agents.db")
    async with engine.begin() as connection:
        for metadata in tables():
            await connection.run_sync(metadata.create_all)
    await engine.dispose()


asyncio.run(main())

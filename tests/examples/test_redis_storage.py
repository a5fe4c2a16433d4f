"""The example of a storage from outside, on the Redis that is there and on servers of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import redis_server

EXAMPLE = Path(__file__).parents[2] / "examples" / "redis_storage"
sys.path.insert(0, str(EXAMPLE))

from langswarm_redis import RedisSessionStorage  # noqa: E402

from langswarm_session.testing import StorageConformance  # noqa: E402


@pytest.fixture
def prefix():
    with redis_server.prefix() as name:
        yield name


class TestRedisSessionStorage(StorageConformance):
    durable = True

    @pytest.fixture(autouse=True)
    def own_prefix(self, prefix: str) -> None:
        self.prefix = prefix

    def make_storage(self, tmp_path: Path) -> RedisSessionStorage:
        return RedisSessionStorage(redis_server.url(), prefix=self.prefix, durability="accept")

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def postgres_schema() -> Iterator[str]:
    """A schema of the test's own in PostgreSQL; the test is skipped where there is no server."""
    import postgres_server

    with postgres_server.schema() as name:
        yield name

"""Servers that others wrote, started on loopback for the tests here: `make real`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

HOME = os.environ.get("LANGSWARM_REAL")
"""The folder of the servers' environments; the tests here run only where it is named."""

collect_ignore = [] if HOME else ["test_servers.py"]

if HOME:
    import sys

    sys.path.insert(0, str(Path(__file__).parent))
    from servers import Servers

    @pytest.fixture(scope="session")
    def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
        """The servers, each started when it is first asked for. One that does not start fails."""
        running = Servers(Path(HOME), tmp_path_factory.mktemp("real"))
        yield running
        running.stop()

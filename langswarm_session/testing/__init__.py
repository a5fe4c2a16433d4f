"""Tests that hold an implementation of a seam to its promises: subclass one and run pytest.

::

    from langswarm_session.testing import StorageConformance

    class TestMyStorage(StorageConformance):
        durable = True

        def make_storage(self, tmp_path):
            return MyStorage(tmp_path / "sessions.db")

They need pytest, pytest-asyncio and hypothesis (``pip install 'langswarm-session[dev]'``).
"""

import pytest

_TESTS = ("storage_life", "storage_log", "storage_sessions", "storage_turns")
# Without this a failed assertion of a module outside the tests' own folder shows no values.
pytest.register_assert_rewrite("langswarm_session.testing.making")
pytest.register_assert_rewrite(*(f"langswarm_session.testing.{name}" for name in _TESTS))

from langswarm_session.testing.storage import StorageConformance  # noqa: E402

__all__ = ["StorageConformance"]

"""Tests that hold an implementation of a seam to its promises: subclass one and run pytest.

::

    from langswarm_session.testing import ProviderConformance, StorageConformance

    class TestMyStorage(StorageConformance):
        durable = True

        def make_storage(self, tmp_path):
            return MyStorage(tmp_path / "sessions.db")

    class TestMyProvider(ProviderConformance):
        model = "my-model-1"

        def make_provider(self):
            return MyProvider("my-key", max_retries=0)

They need pytest, pytest-asyncio and hypothesis (``pip install 'langswarm-session[dev]'``).
"""

import pytest

_TESTS = (
    "provider_base",
    "provider_replies",
    "provider_sessions",
    "storage_life",
    "storage_log",
    "storage_replace",
    "storage_restore",
    "storage_search",
    "storage_sessions",
    "storage_turns",
)
# Without this a failed assertion of a module outside the tests' own folder shows no values.
pytest.register_assert_rewrite("langswarm_session.testing.making")
pytest.register_assert_rewrite(*(f"langswarm_session.testing.{name}" for name in _TESTS))

from langswarm_session.testing.provider import ProviderConformance  # noqa: E402
from langswarm_session.testing.storage import StorageConformance  # noqa: E402

__all__ = ["ProviderConformance", "StorageConformance"]

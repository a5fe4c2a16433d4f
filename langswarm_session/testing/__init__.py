"""Tests that hold an implementation of a seam to its promises: subclass one and run pytest.

::

    from langswarm_session.testing import (
        ProviderConformance,
        StorageConformance,
        StorageMachine,
    )

    class TestMyStorage(StorageConformance):
        durable = True

        def make_storage(self, tmp_path):
            return MyStorage(tmp_path / "sessions.db")

    class TestMyProvider(ProviderConformance):
        model = "my-model-1"

        def make_provider(self):
            return MyProvider("my-key", max_retries=0)

    class MyMachine(StorageMachine):
        durable = True

        def make_storage(self, folder):
            return MyStorage(folder / "sessions.db")

    TestMyMachine = MyMachine.TestCase

They need pytest and pytest-asyncio, those of a storage hypothesis as well
(``pip install 'langswarm-session[dev]'``). Each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

_TESTS = (
    "provider_base",
    "provider_replies",
    "provider_sessions",
    "storage_cancelled",
    "storage_life",
    "storage_log",
    "storage_machine",
    "storage_machine_base",
    "storage_replace",
    "storage_restore",
    "storage_search",
    "storage_sessions",
    "storage_turns",
)
# Without this a failed assertion of a module outside the tests' own folder shows no values.
pytest.register_assert_rewrite("langswarm_session.testing.making")
pytest.register_assert_rewrite(*(f"langswarm_session.testing.{name}" for name in _TESTS))

if TYPE_CHECKING:
    from langswarm_session.testing.provider import ProviderConformance as ProviderConformance
    from langswarm_session.testing.storage import StorageConformance as StorageConformance
    from langswarm_session.testing.storage_machine import StorageMachine as StorageMachine

_HOME_OF = {
    "ProviderConformance": "provider",
    "StorageConformance": "storage",
    "StorageMachine": "storage_machine",
}
__all__ = ["ProviderConformance", "StorageConformance", "StorageMachine"]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)

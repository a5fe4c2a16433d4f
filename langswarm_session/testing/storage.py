"""What every `ISessionStorage` must hold to, as a class of tests to subclass."""

from __future__ import annotations

from langswarm_session.testing.storage_again import AskedAgainTests
from langswarm_session.testing.storage_cancelled import CancelledTests
from langswarm_session.testing.storage_life import LifeTests
from langswarm_session.testing.storage_log import LogTests
from langswarm_session.testing.storage_measure import MeasureTests
from langswarm_session.testing.storage_owners import OwnerTests
from langswarm_session.testing.storage_replace import EditTests
from langswarm_session.testing.storage_restore import RestoreTests
from langswarm_session.testing.storage_search import SearchTests
from langswarm_session.testing.storage_sessions import SessionTests
from langswarm_session.testing.storage_turns import TurnTests


class StorageConformance(
    SessionTests,
    LogTests,
    EditTests,
    TurnTests,
    AskedAgainTests,
    OwnerTests,
    RestoreTests,
    SearchTests,
    MeasureTests,
    LifeTests,
    CancelledTests,
):
    """The conformance tests of a storage.

    Subclass it in a test module under a name that begins with ``Test`` and override `make_storage`;
    everything else is inherited::

        class TestMyStorage(StorageConformance):
            durable = True

            def make_storage(self, tmp_path):
                return MyStorage(tmp_path / "sessions.db")

    Each test gets the fixture ``storage``: one made by `make_storage` in a ``tmp_path`` of the
    test's own, closed afterwards. Tests of your own may be added to the class and use it as well.

    Attributes:
        durable: Whether what was written is there when the storage is made again. Set it to True
            for anything but memory; the tests of a second storage on the same data are skipped
            otherwise.
        restores_exactly: Whether it restores a session as it was, with its numbers, times and
            figures. Set it to True for a storage with a `restore_session` of its own.
    """

"""What a caller is told while something is broken."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from chaos.places import Place
from langswarm_session import SessionStorageError
from langswarm_session.testing.making import new_session, ref, user

ALSO = {"SessionBusyError": "another turn is running; wait for it"}
"""What may be seen as well, until the lease of a turn that failed half-way has run out."""


async def refused(
    place: Place, error: type[SessionStorageError], says: str, *others: type[SessionStorageError]
) -> Counter[str]:
    """A write and a read of a new storage raise this error, and `health` says the same.

    Args:
        place: Where something is broken.
        error: The error.
        says: What its message must match: what is wrong, and what to do.
        others: Other errors that may be raised instead.
    """
    storage = place.open()
    seen: Counter[str] = Counter()
    try:
        for call in (
            lambda: storage.create_session(new_session("probe")),
            lambda: storage.append(ref("probe"), [user()]),
            lambda: storage.get_messages(ref("probe")),
        ):
            with pytest.raises((error, *others), match=says) as raised:
                await call()
            seen[raised.type.__name__] += 1
        health = await storage.health()
        assert not health.ok
        assert re.search(says, health.detail or "")
    finally:
        await storage.close()
    return seen


def check_errors(
    errors: Counter[str], messages: dict[str, str], allowed: dict[str, str]
) -> Counter[str]:
    """Only these errors were seen, and each says what it must; returns the errors.

    Args:
        errors: How often each was raised.
        messages: A message of each.
        allowed: By an error's name, what its message must match.
    """
    allowed = {**ALSO, **allowed}
    assert errors.keys() <= allowed.keys(), messages
    for name, message in messages.items():
        assert re.search(allowed[name], message), f"{name}: {message}"
    return errors

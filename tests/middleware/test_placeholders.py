from __future__ import annotations

import re

import pytest

from langswarm_session import InvalidInputError, RedactingMiddleware
from langswarm_session.middleware import placeholders
from langswarm_session.middleware.placeholders import Vault


def test_placeholders_cannot_be_guessed():
    made = Vault({}, b"k").placeholder("email", "a@b.example", "ann")
    letters = re.fullmatch(r"\[email:([a-p]+)\]", made)
    assert letters is not None
    assert len(letters[1]) * 4 >= 96


def test_another_users_placeholder_reveals_nothing():
    redacting = RedactingMiddleware(vault={}, key=b"k")
    anns = redacting.redacted_text("a@b.example", user_id="ann")
    bobs = redacting.redacted_text("a@b.example", user_id="bob")
    nobodys = redacting.redacted_text("a@b.example")
    assert len({anns, bobs, nobodys}) == 3
    for user_id in ("ann", "bob", None):
        revealed = redacting.reveal(f"{anns} {bobs} {nobodys}", user_id=user_id)
        assert revealed.count("a@b.example") == 1
    assert redacting.reveal(anns, user_id="ann") == "a@b.example"


def test_a_persons_originals_can_be_told_from_others():
    originals: dict[str, str] = {}
    vault = Vault(originals)
    vault.placeholder("email", "a@b.example", "ann")
    vault.placeholder("email", "c@d.example", "bob")
    assert [value for key, value in originals.items() if key.startswith("ann ")] == ["a@b.example"]


def test_nothing_is_overwritten(monkeypatch):
    monkeypatch.setattr(placeholders, "_LENGTH", 1)  # so that values collide
    originals: dict[str, str] = {}
    vault = Vault(originals, b"k")
    made = {f"{n}@b.example": vault.placeholder("email", f"{n}@b.example", "ann") for n in range(9)}
    assert len(set(made.values())) == 9
    assert {originals[f"ann {place}"]: place for place in made.values()} == made


@pytest.mark.parametrize("key", [b"", "text"])
def test_a_key_that_is_none_is_refused(key):
    with pytest.raises(InvalidInputError, match="key must be bytes"):
        RedactingMiddleware(vault={}, key=key)

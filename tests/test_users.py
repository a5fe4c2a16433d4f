"""Whose sessions a door is for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from langswarm_session import InvalidInputError, SessionManager, SessionNotFoundError
from langswarm_session.users import DEFAULT_USER, LEFT_OUT, check_user, one_user, user_in

NO_USERS: list[Any] = [None, "", "  ", "a\0b", "a\nb", True, 1.5, [], {}, "x" * 513]


@pytest.mark.parametrize(
    ("user", "text"), [("ann", "ann"), (7, "7"), (UUID(int=1), str(UUID(int=1)))]
)
def test_a_user(user: Any, text: str) -> None:
    assert check_user(user) == one_user(config=user) == text


@pytest.mark.parametrize("user", NO_USERS)
def test_what_is_no_user_is_refused_wherever_it_is_named(user: Any) -> None:
    with pytest.raises(InvalidInputError, match="user_id"):
        check_user(user)
    for sources in (
        {"config": user},
        {"config": user, "door": "ann"},
        {"x": "ann", "config": user},
    ):
        with pytest.raises(InvalidInputError, match="config: user_id .*leave it out"):
            one_user(**sources)


def test_left_out_it_is_the_default_user() -> None:
    assert one_user() == one_user(config=LEFT_OUT, door=LEFT_OUT) == DEFAULT_USER == "default"


def test_all_who_name_one_name_the_same() -> None:
    assert one_user(config="7", context=7, door=LEFT_OUT) == "7"
    with pytest.raises(InvalidInputError, match="config has 'ann', door has 'bob'"):
        one_user(config="ann", context=LEFT_OUT, door="bob")


@pytest.mark.parametrize(
    ("source", "user"),
    [
        ({"user_id": "ann"}, "ann"),
        ({"user_id": None}, None),
        ({}, LEFT_OUT),
        (None, LEFT_OUT),
        (SimpleNamespace(user_id=""), ""),
        (SimpleNamespace(), LEFT_OUT),
    ],
)
def test_what_a_context_names(source: object, user: object) -> None:
    assert user_in(source) == user


class TestManager:
    async def test_left_out_it_is_the_default_users_session(self, manager: SessionManager) -> None:
        session = await manager.get_or_create_session("s")
        assert session.user_id == DEFAULT_USER
        assert (await manager.get_or_create_session("s")).ref == session.ref
        await manager.create_session("ann", "mock", "echo", session_id="anns")
        with pytest.raises(SessionNotFoundError):
            await manager.get_or_create_session("anns")

    @pytest.mark.parametrize("user", NO_USERS)
    async def test_what_is_no_user_finds_and_creates_nothing(
        self, manager: SessionManager, user: Any
    ) -> None:
        await manager.create_session("ann", "mock", "echo", session_id="s")
        for session_id in ("s", "new"):
            with pytest.raises(InvalidInputError, match="user_id"):
                await manager.get_or_create_session(session_id, user)
        assert [each.session_id for each in await manager.list_sessions()] == ["s"]

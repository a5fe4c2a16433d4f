from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from langswarm_session import MissingDependencyError
from langswarm_session.lazy import lazy_names

HOMES = {"answer": "good", "other": "bad", "broken": "broken"}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = "lazy_package_of_the_tests"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("here = 1\n")
    (folder / "good.py").write_text("answer = 42\n")
    (folder / "bad.py").write_text("import no_such_framework\n")
    (folder / "broken.py").write_text("import no_such_thing_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for loaded in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[loaded]


def test_a_name_is_loaded_when_it_is_used(package: str) -> None:
    get, _ = lazy_names(package, HOMES, {})
    assert package not in sys.modules
    assert get("answer") == 42
    assert f"{package}.good" in sys.modules


def test_what_is_missing_names_its_extra(package: str) -> None:
    get, _ = lazy_names(package, HOMES, {"no_such_framework": ("no-such-framework", "extra")})
    with pytest.raises(MissingDependencyError, match="no-such-framework is missing") as caught:
        get("other")
    assert 'pip install "langswarm-session[extra]"' in str(caught.value)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_fault_of_another_kind_is_told_as_it_is(package: str) -> None:
    get, _ = lazy_names(package, HOMES, {"no_such_framework": ("no-such-framework", "extra")})
    with pytest.raises(ModuleNotFoundError, match="no_such_thing_at_all"):
        get("broken")


def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    get, _ = lazy_names(package, HOMES, {})
    with pytest.raises(AttributeError, match="no attribute 'nobody'"):
        get("nobody")


def test_all_names_are_listed(package: str) -> None:
    _, names = lazy_names(package, HOMES, {})
    assert {*HOMES, "here", "__name__"} <= {*names()}
    assert names() == sorted(names())

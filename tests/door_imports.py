"""What importing a door must be like, with and without its framework: a class to subclass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

FRAMEWORKS = {"langchain", "langchain_core", "langgraph", "llama_index", "agents"}

BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in {blocked!r} or name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def python(code: str, *blocked: str) -> str:
    """What a program prints in an interpreter of its own that cannot import some packages."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=blocked) + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class DoorImportTests:
    """The tests of one door.

    Attributes:
        door: The door's package.
        names: Its public names, sorted.
        needs: Those of them that need the framework.
        framework: The package that is missing where the framework is.
        extra: A pattern for the extra to install.
        inner: A module of the framework, and a name of the door that needs it.
        more: Those of its names that need another package as well.
    """

    door: ClassVar[ModuleType]
    names: ClassVar[list[str]]
    needs: ClassVar[list[str]]
    framework: ClassVar[str]
    extra: ClassVar[str]
    inner: ClassVar[tuple[str, str]]
    more: ClassVar[set[str]] = set()

    def test_it_says_that_it_is_typed(self) -> None:
        (place,) = self.door.__path__
        assert (Path(place) / "py.typed").exists()

    def test_without_the_framework_it_says_which_extra_to_install(self) -> None:
        code = f"""
import {self.door.__name__} as door
for name in {self.needs!r}:
    try:
        getattr(door, name)
    except ImportError as error:
        print(type(error).__name__, error)
"""
        lines = python(code, self.framework).splitlines()
        assert len(lines) == len(self.needs)
        for line in lines:
            assert line.startswith("MissingDependencyError")
            assert re.search(rf'pip install "langswarm-session\[{self.extra}\]"', line)

    def test_a_from_import_says_so_too(self) -> None:
        code = f"""
try:
    from {self.door.__name__} import {self.needs[0]}
except ImportError as error:
    print(error)
"""
        assert "pip install" in python(code, self.framework)

    def test_a_fault_of_another_kind_is_not_taken_for_a_missing_extra(self) -> None:
        module, name = self.inner
        code = f"""
import {self.door.__name__} as door
try:
    door.{name}
except ModuleNotFoundError as error:
    print(error.name)
"""
        assert python(code, module).strip() == module

    def test_it_needs_no_other_framework(self) -> None:
        others = FRAMEWORKS - {self.framework}
        names = [name for name in self.names if name not in self.more]
        code = f"import {self.door.__name__} as door\nfor name in {names!r}: getattr(door, name)"
        assert python(code, *others) == ""

    def test_the_import_alone_loads_no_framework(self) -> None:
        code = f"import {self.door.__name__}, sys; print({self.framework!r} in sys.modules)"
        assert python(code).strip() == "False"

    def test_its_names_are_listed(self) -> None:
        assert sorted(self.door.__all__) == self.names
        assert set(self.names) <= set(dir(self.door))

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
            _ = self.door.Nothing

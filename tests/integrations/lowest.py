"""Prints, as constraints for pip, the lowest versions that pyproject.toml declares for an extra.

Run as ``python tests/integrations/lowest.py langchain-agents``: what the extra names itself, not
what that needs in turn, so that a bound that is too low shows itself.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def lowest(extra: str, project: dict[str, Any]) -> dict[str, str]:
    """The lowest version of each package that an extra names, or an extra that it includes."""
    versions: dict[str, str] = {}
    included: dict[str, str] = {}
    for requirement in project["optional-dependencies"][extra]:
        extras = re.fullmatch(rf"{re.escape(project['name'])}\[(.+)\]", requirement)
        bound = re.match(r"([A-Za-z0-9._-]+)>=([0-9.]+)", requirement)
        if extras:
            for each in extras[1].split(","):
                included |= lowest(each, project)
        elif bound:
            versions[bound[1]] = bound[2]
        else:
            raise SystemExit(f"{requirement!r} of the extra {extra!r} has no lowest version")
    return included | versions


if __name__ == "__main__":
    found = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    for package, version in lowest(sys.argv[1], found).items():
        print(f"{package}=={version}")

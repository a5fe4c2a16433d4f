"""A package's names, each loaded when first used: for doors, whose framework may be missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str], extras: Mapping[str, tuple[str, str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``.

    Args:
        package: The package's name.
        homes: Its public names, and which of its modules each is in.
        extras: The modules that may be missing, each with the distribution to install and the extra
            that does.

    Returns:
        The two functions. The first raises `MissingDependencyError` where one of those is missing.
    """

    def get(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = import_module(f"{package}.{home}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name not in extras:
                raise
            from langswarm_session.errors import MissingDependencyError

            distribution, extra = extras[error.name]
            raise MissingDependencyError(
                f'{distribution} is missing: pip install "langswarm-session[{extra}]"'
            ) from error
        return getattr(module, name)

    def names() -> list[str]:
        return sorted({*vars(import_module(package)), *homes})

    return get, names

"""The environment as ``doctor`` reports it: what is installed, and which keys are set."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import metadata

from langswarm_session.findings import Finding, ok, warning

KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
"""The environment variables with providers' keys. Their values are nobody's business here."""

PACKAGES = {
    "langchain": "langchain-core",
    "langchain-agents": "langchain",
    "llama-index": "llama-index-core",
    "openai-agents": "openai-agents",
    "openai": "openai",
    "anthropic": "anthropic",
    "tiktoken": "tiktoken",
    "postgres": "asyncpg",
    "cli": "typer",
}
"""The package that each extra is for."""


def environment() -> list[Finding]:
    """What is installed, and which keys are there (never their values)."""
    python = ".".join(map(str, sys.version_info[:3]))
    return [ok("python", python), *_extras(), *_keys()]


def _extras() -> Iterator[Finding]:
    wanted = _wanted()
    for extra, package in PACKAGES.items():
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            yield ok(f"extra {extra}", "not installed")
            continue
        found = f"{package} {version}"
        if _fits(version, wanted.get(package)):
            yield ok(f"extra {extra}", found)
        else:
            yield warning(
                f"extra {extra}",
                f"{found} is not one of the versions that were tried ({wanted[package]})",
                f"pip install --upgrade 'langswarm-session[{extra}]'",
            )


def _wanted() -> dict[str, str]:
    """The versions that each package may have, as far as they are known."""
    try:
        from packaging.requirements import Requirement

        asked = metadata.requires("langswarm-session") or []
    except (ImportError, metadata.PackageNotFoundError):
        return {}
    requirements = map(Requirement, asked)
    return {each.name: str(each.specifier) for each in requirements if str(each.specifier)}


def _fits(version: str, wanted: str | None) -> bool:
    if wanted is None:
        return True
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(version, prereleases=True)


def _keys() -> Iterator[Finding]:
    for provider, variable in KEYS.items():
        there = "yes" if os.environ.get(variable) else "no"
        yield ok(f"key of {provider}", f"{variable} set: {there}")

"""The house: which part may import which, and who reads another module's private parts.

Every import counts, also those in functions and those for type checkers only.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOORS = ("langchain_langswarm", "llama_index_langswarm", "openai_agents_langswarm")

LAYERS = [
    ["errors"],
    ["_bulk", "lazy", "_plugins", "_sanitize", "_sync", "blocks"],
    ["_media"],
    ["_display"],
    ["models"],
    ["_validation"],
    ["users"],
    ["requests.normalize"],
    ["formats"],
    ["records"],
    ["archive", "findings", "search"],
    ["interfaces"],
    ["tools", "doctor"],
    ["storage"],
    ["storage.sqlite", "storage.postgres"],
    ["requests"],
    ["providers"],
    ["providers.openai", "providers.anthropic"],
    ["fidelity"],
    ["turns"],
    ["sessions"],
    ["session"],
    ["manager"],
    ["transfer"],
    ["hooks", "middleware"],
    ["presets"],
    ["doors"],
    ["integrations"],
    ["testing"],
    ["cli"],
    ["__init__"],
]
"""From the ground up: a part imports those below it, and none beside or above it."""

LOADERS = {
    "providers.factory": {"providers.openai.provider", "providers.anthropic.provider"},
    "storage.factory": {"storage.sqlite.storage", "storage.postgres.storage"},
}
"""What finds implementations by name loads them when they are asked for."""

PUBLIC = (
    "blocks",
    "doors",
    "errors",
    "formats",
    "interfaces",
    "lazy",
    "manager",
    "models",
    "presets",
    "records",
    "requests.normalize",
    "session",
    "users",
)
"""What a door may import, wherever it lives: the contract, the formats and the doors' tools."""

EXCEPTIONS = (Path(__file__).parent / "layer_exceptions.txt").read_text().splitlines()
"""Arrows of today that point up: remove the lines that you mend, and add none."""

MOST_CIRCLES = 1
MOST_PRIVATE_ACCESSES = 14
"""How many there are today: lower them as you mend."""

NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
"""Public, and named so that they meet no field's name."""


@cache
def modules() -> dict[str, Path]:
    found = {}
    for base, package in [
        (ROOT, "langswarm_session"),
        *((ROOT / "integrations", d) for d in DOORS),
    ]:
        for path in sorted((base / package).rglob("*.py")):
            name = ".".join(path.relative_to(base).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text()) for name, path in modules().items()}


def imports_of(name: str) -> set[str]:
    targets = set()
    for node in ast.walk(trees()[name]):
        if isinstance(node, ast.Import):
            targets.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                targets.add(inner if inner in modules() else node.module)
    return {target for target in targets if target in modules() and target != name}


def short(name: str) -> str:
    return name.removeprefix("langswarm_session.")


def part_of(name: str) -> str:
    """The part of the house that a module is in."""
    first, *rest = name.split(".")
    if first in DOORS:
        return "integrations"
    if not rest:
        return "__init__"
    return next(part for part in (".".join(rest[:2]), rest[0]) if part in ranks())


@cache
def ranks() -> dict[str, int]:
    return {part: rank for rank, parts in enumerate(LAYERS) for part in parts}


def test_every_module_is_in_a_part() -> None:
    parts = {part_of(name) for name in modules()}
    assert parts == set(ranks())


def test_arrows_point_down() -> None:
    up = set()
    for name in modules():
        for target in imports_of(name):
            mine, other = part_of(name), part_of(target)
            if mine == other or ranks()[other] < ranks()[mine]:
                continue
            if short(target) not in LOADERS.get(short(name), ()):
                up.add(f"{short(name)} -> {short(target)}")
    assert sorted(up) == EXCEPTIONS


def test_doors_import_only_what_is_public() -> None:
    private = set()
    for name in modules():
        if part_of(name) == "integrations":
            used = {
                short(target) for target in imports_of(name) if part_of(target) != "integrations"
            }
            private |= {f"{name} -> {t}" for t in used if not t.startswith(PUBLIC)}
    assert sorted(private) == []


def circles() -> list[list[str]]:
    """The sets of modules that import each other in a loop (Tarjan)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for target in imports_of(name):
            if target not in order:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], order[target])
        if low[name] == order[name]:
            circle = [stack.pop()]
            while circle[-1] != name:
                circle.append(stack.pop())
            if len(circle) > 1:
                found.append(sorted(map(short, circle)))

    for name in modules():
        if name not in order:
            visit(name)
    return found


def test_no_modules_import_each_other_in_a_loop() -> None:
    assert len(circles()) == MOST_CIRCLES, circles()


def private_accesses() -> list[str]:
    """Where a module reads a private attribute that is not its own."""
    found = []
    for name, tree in trees().items():
        own = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
                own.update(
                    t.attr if isinstance(t, ast.Attribute) else getattr(t, "id", "")
                    for t in targets
                )
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and node.attr.startswith("_")
                and not node.attr.startswith("__")
                and node.attr not in own
                and node.attr not in NAMED_TUPLES
                and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
            ):
                found.append(f"{short(name)}:{node.lineno} {ast.unparse(node)}")
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("langs"):
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    hidden = alias.name.startswith("_") and inner not in modules()
                    if hidden and not alias.name.startswith("__"):
                        found.append(f"{short(name)}:{node.lineno} import {inner}")
    return found


def test_no_module_reads_another_ones_private_parts() -> None:
    assert len(private_accesses()) == MOST_PRIVATE_ACCESSES, "\n".join(private_accesses())

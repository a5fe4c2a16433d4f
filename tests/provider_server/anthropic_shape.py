"""Checks a JSON value against the SDK's own param types: no coercion, no unknown keys."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import typing_extensions as te

Path = tuple[object, ...]
Errors = Iterator[tuple[Path, str]]
HEADER_KEYS = {"betas", "user_profile_id", "workspace_id"}
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}


def shape_error(value: Any, kind: Any, path: Path = ()) -> str | None:
    """What is wrong with the shape first, as `messages.0.role: Field required`; None if nothing."""
    for where, what in _errors(value, kind, path):
        return ".".join(map(str, where)) + ": " + what
    return None


@functools.cache
def hints_of(kind: Any) -> dict[str, Any]:
    """The keys of a TypedDict and their types, without those that the SDK sends as headers."""
    hints = te.get_type_hints(kind, include_extras=True)
    return {key: hint for key, hint in hints.items() if key not in HEADER_KEYS}


def _bare(kind: Any) -> Any:
    """The type without Required, Annotated and the like."""
    while get_origin(kind) in {te.Required, te.NotRequired, te.Annotated, typing.Annotated}:
        kind = get_args(kind)[0]
    return kind


def _errors(value: Any, kind: Any, path: Path) -> Errors:
    kind = _bare(kind)
    origin, args = get_origin(kind), get_args(kind)
    if kind in {Any, object}:
        return
    if origin in {Union, types.UnionType}:
        yield from _union(value, args, path)
    elif origin in {Literal, te.Literal}:
        if value not in args or isinstance(value, bool) != any(isinstance(a, bool) for a in args):
            yield path, f"Input should be {' or '.join(map(repr, args))}"
    elif te.is_typeddict(kind):
        yield from _typed_dict(value, kind, path)
    elif origin in {list, Iterable, Sequence} or _is_sequence(kind):
        yield from _list(value, args, path)
    elif origin in {dict, Mapping}:
        yield from _dict(value, args, path)
    elif kind is type(None):
        if value is not None:
            yield path, "Input should be null"
    else:
        yield from _plain(value, kind, path)


def _is_sequence(kind: Any) -> bool:
    return getattr(get_origin(kind), "__name__", "") == "SequenceNotStr"


def _plain(value: Any, kind: Any, path: Path) -> Errors:
    name = PLAIN.get(kind, "string")
    right: tuple[type, ...] = (int, float) if kind is float else (kind if kind in PLAIN else str,)
    if not isinstance(value, right) or (isinstance(value, bool) and kind is not bool):
        yield path, f"Input should be a valid {name}"


def _list(value: Any, args: tuple[Any, ...], path: Path) -> Errors:
    if not isinstance(value, list):
        yield path, "Input should be a valid list"
        return
    for index, item in enumerate(value):
        yield from _errors(item, args[0] if args else Any, (*path, index))


def _dict(value: Any, args: tuple[Any, ...], path: Path) -> Errors:
    if not isinstance(value, dict):
        yield path, "Input should be a valid dictionary"
        return
    for key, item in value.items():
        yield from _errors(item, args[1] if args else Any, (*path, key))


def _typed_dict(value: Any, kind: Any, path: Path) -> Errors:
    if not isinstance(value, dict):
        yield path, "Input should be an object"
        return
    hints = hints_of(kind)
    for key, hint in hints.items():
        if key in value:
            yield from _errors(value[key], hint, (*path, key))
        elif get_origin(hint) is te.Required:
            yield (*path, key), "Field required"
    config = getattr(kind, "__pydantic_config__", {})
    for key in value:
        if key not in hints and config.get("extra") != "allow":
            yield (*path, key), "Extra inputs are not permitted"


def _union(value: Any, args: tuple[Any, ...], path: Path) -> Errors:
    """The errors of the one alternative that is meant, found by its literal keys."""
    if value is None and type(None) in args:
        return
    kinds = [_bare(arg) for arg in args]
    plain = [kind for kind in kinds if not te.is_typeddict(kind) and not _is_model(kind)]
    dicts = [kind for kind in kinds if te.is_typeddict(kind)]
    if isinstance(value, dict) and dicts:
        yield from _which(value, dicts, plain, path)
        return
    found = [list(_errors(value, kind, path)) for kind in plain if kind is not type(None)]
    if any(not errors for errors in found):
        return
    # The alternative that got deepest says it best, e.g. a list of which one item is wrong.
    deepest = max(found, key=lambda errors: len(errors[0][0]), default=[])
    yield from deepest or [(path, "Input should be a valid value")]


def _is_model(kind: Any) -> bool:
    """Whether the type is one of the SDK's response models, which a body never has to match."""
    return hasattr(kind, "model_fields")


@functools.cache
def _literals(kind: Any) -> dict[str, tuple[Any, ...]]:
    """The keys by which an alternative of a union is known."""
    bare = {key: _bare(hint) for key, hint in hints_of(kind).items()}
    return {
        key: get_args(hint)
        for key, hint in bare.items()
        if key in {"type", "role"} and get_origin(hint) in {Literal, te.Literal}
    }


def _which(value: dict[str, Any], dicts: list[Any], plain: list[Any], path: Path) -> Errors:
    fitting = []
    for kind in dicts:
        literals = _literals(kind)
        if all(value.get(key) in allowed for key, allowed in literals.items()):
            fitting.append((kind, literals))
    named = [kind for kind, literals in fitting if literals] or [kind for kind, _ in fitting]
    if "type" not in value and "role" not in value and not named:
        optional = [kind for kind in dicts if "type" not in kind.__annotations__]
        named = optional or _type_optional(dicts)
    if not named:
        if any(get_origin(kind) in {dict, Mapping} for kind in plain):
            return
        yield from _unknown(value, dicts, path)
        return
    found = [list(_errors(value, kind, path)) for kind in named]
    if all(found) and not any(get_origin(kind) in {dict, Mapping} for kind in plain):
        yield from min(found, key=len)


def _type_optional(dicts: list[Any]) -> list[Any]:
    """The alternatives whose `type` may be left out (a custom tool's)."""
    return [kind for kind in dicts if get_origin(hints_of(kind).get("type")) is not te.Required]


def _unknown(value: dict[str, Any], dicts: list[Any], path: Path) -> Errors:
    key = "role" if any("role" in _literals(kind) for kind in dicts) else "type"
    known = sorted({str(name) for kind in dicts for name in _literals(kind).get(key, ())})
    if key not in value:
        yield (*path, key), "Field required"
        return
    expected = ", ".join(repr(name) for name in known)
    what = f"Input tag '{value[key]}' found using '{key}' does not match any of the expected tags: "
    yield path, what + expected

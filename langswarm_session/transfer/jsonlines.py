"""JSON objects out of lines, or out of a document that spans several of them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

from pydantic_core import from_json

from langswarm_session.errors import ImportFormatError, InvalidInputError

Lines = Iterable[str | bytes | Mapping[str, Any]] | AsyncIterable[str | bytes | Mapping[str, Any]]
"""Lines as text, or as the objects that they stand for."""


async def objects(lines: Lines) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """The objects of lines, with the numbers of their lines; those of a list come one by one.

    Where the first line is not whole by itself, all of them together are one document.

    Raises:
        ImportFormatError: If there is anything else.
        InvalidInputError: If these are no lines.
    """
    document = _Document()
    number = 0
    async for line in _each(lines):
        number += 1
        for found in document.add(number, line):
            yield number, found
    for found in document.end():
        yield 1, found


class _Document:
    """Lines that are objects by themselves, or all together."""

    def __init__(self) -> None:
        self._first = True
        self._rest: list[bytes] | None = None

    def add(self, number: int, line: str | bytes | Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Take a line in; gives the objects in it, if it is whole by itself."""
        if isinstance(line, Mapping):
            self._first = False
            yield dict(line)
            return
        if not isinstance(line, str | bytes):
            raise ImportFormatError(
                f"a line is text, bytes or an object, not {type(line).__name__}", line=number
            )
        text = line.encode(errors="surrogatepass") if isinstance(line, str) else line
        if number == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")
        if self._rest is not None:
            self._rest.append(text)
        elif text.strip():
            first, self._first = self._first, False
            try:
                value = from_json(text)
            except ValueError as error:
                if not first or not text.lstrip().startswith((b"{", b"[")):
                    raise ImportFormatError(f"it is no JSON: {error}", line=number) from None
                self._rest = [text]
            else:
                yield from _objects(number, value)

    def end(self) -> Iterator[dict[str, Any]]:
        """Give the objects of a document that spans the lines."""
        if self._rest is None:
            return
        try:
            value = from_json(b"".join(self._rest))
        except ValueError as error:
            raise ImportFormatError(f"it is no JSON: {error}", line=1) from None
        yield from _objects(1, value)


def _objects(number: int, value: Any) -> Iterator[dict[str, Any]]:
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, dict):
            raise ImportFormatError("there is something else than JSON objects", line=number)
        yield each


async def _each(lines: Lines) -> AsyncIterator[str | bytes | Mapping[str, Any]]:
    if isinstance(lines, AsyncIterable):
        async for line in lines:
            yield line
    elif not isinstance(lines, Iterable):
        raise InvalidInputError(f"expected lines, not {type(lines).__name__}")
    else:
        for line in lines:
            yield line

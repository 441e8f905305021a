"""Reads large JSON files one table entry at a time.

COCO's instance file holds some 60 million numbers: as Python values they take several gigabytes. Entry by entry they take
next to nothing, and the text of an entry that is kept as it is need not be written anew.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from capxai.errors import CorpusError

_SPACE = re.compile(r"[ \t\n\r]*")
_BROKEN = re.compile("[\ud800-\udfff]")
_REMEDY = "Copy the file again from where it came."


@dataclass(frozen=True)
class SourceText:
    """The text of a JSON file.

    Attributes:
        path: Where it is.
        text: All of it. A byte that is no UTF-8 stands as a lone surrogate (see `is_broken`).
        sha256: Hash of the file.
        size: Its length in bytes.
        encoding: "utf-8", or what the file begins like ("utf-8-sig" has a byte order mark).
    """

    path: Path
    text: str
    sha256: str
    size: int
    encoding: str


class Entry(NamedTuple):
    """One entry of a table, or the whole value of another key of the top level.

    Attributes:
        key: The key of the top level.
        place: Place in the table from 0; -1 for a whole value.
        value: What stands there.
        start: Where its text begins.
        end: Where its text ends.
        finite: Whether all its numbers are finite (NaN and infinity are no JSON, but Python's reader takes them).
    """

    key: str
    place: int
    value: Any
    start: int
    end: int
    finite: bool


def read_source(path: Path) -> SourceText:
    """Read a file and decode it.

    Raises:
        CorpusError: The file cannot be read, or is in an encoding that cannot be decoded at all.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(
            f"'{path}' cannot be read ({error.strerror}). Expected a JSON file. Check the path and its rights."
        ) from error
    encoding = json.detect_encoding(data)
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    try:
        text = data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"'{path}' is not complete JSON ({error}). Expected a whole file in UTF-8. {_REMEDY}"
        ) from error
    return SourceText(path, text, hashlib.sha256(data).hexdigest(), len(data), encoding)


def is_broken(text: str) -> bool:
    """Tell whether a text holds bytes that were no UTF-8, or halves of characters."""
    return not text.isascii() and _BROKEN.search(text) is not None


def walk(source: SourceText, tables: Collection[str]) -> Iterator[Entry]:
    """Yield the entries of the named tables and the values of all other keys, in the order of the file.

    Before its entries a table comes as an empty list in place of a whole value, so that an empty table is seen too. A key in
    ``tables`` whose value is no list comes as that value.

    Raises:
        CorpusError: The file breaks off, is no JSON, or its top level is no object.
    """
    try:
        yield from _Walker(source.text).run(tables)
    except (json.JSONDecodeError, RecursionError) as error:
        raise CorpusError(
            f"'{source.path}' is not complete JSON ({error}). Expected a whole file. {_REMEDY}"
        ) from error
    except TypeError as error:
        raise CorpusError(
            f"'{source.path}' holds {error}. Expected a JSON object. Check that it is the right file."
        ) from error


class _Walker:
    """Goes through a text from value to value."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._finite = True
        self._decoder = json.JSONDecoder(parse_constant=self._constant)

    def _constant(self, name: str) -> float:
        self._finite = False
        return float(name)

    def run(self, tables: Collection[str]) -> Iterator[Entry]:
        place = self._skip(0)
        if self._text[place : place + 1] != "{":
            value, _ = self._value(place)
            raise TypeError(f"a JSON {type(value).__name__}")
        place = self._skip(place + 1)
        while self._text[place : place + 1] != "}":
            key, place = self._value(place)
            if not isinstance(key, str):
                raise self._error("a key that is no text", place)
            place = self._skip(self._expect(self._skip(place), ":"))
            if key in tables and self._text[place : place + 1] == "[":
                place = yield from self._table(key, place)
            else:
                value, end = self._value(place)
                yield Entry(key, -1, value, place, end, self._finite)
                place = end
            place = self._next(place, "}")
        if self._skip(place + 1) != len(self._text):
            raise self._error("more after the end", place + 1)

    def _table(self, key: str, place: int) -> Generator[Entry, None, int]:
        """Yield that there is a list, then its entries; return where it ends."""
        yield Entry(key, -1, [], place, place, True)
        place, number = self._skip(place + 1), 0
        while self._text[place : place + 1] != "]":
            value, end = self._value(place)
            yield Entry(key, number, value, place, end, self._finite)
            place, number = self._next(end, "]"), number + 1
        return place + 1

    def _value(self, place: int) -> tuple[Any, int]:
        self._finite = True
        return self._decoder.raw_decode(self._text, place)

    def _next(self, place: int, closing: str) -> int:
        """Step over the comma after a value; stay at the closing bracket."""
        place = self._skip(place)
        if self._text[place : place + 1] == closing:
            return place
        place = self._skip(self._expect(place, ","))
        if self._text[place : place + 1] == closing:
            raise self._error("a comma before the end", place)
        return place

    def _expect(self, place: int, sign: str) -> int:
        if self._text[place : place + 1] != sign:
            raise self._error(f"no '{sign}'", place)
        return place + 1

    def _skip(self, place: int) -> int:
        match = _SPACE.match(self._text, place)
        return match.end() if match else place

    def _error(self, what: str, place: int) -> json.JSONDecodeError:
        return json.JSONDecodeError(what, self._text, place)

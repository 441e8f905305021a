"""Walks through large JSON texts entry by entry: places are known by line, and what is wrong is refused before the rest is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class Entry(NamedTuple):
    """One entry of a list, member of an object or line.

    Attributes:
        number: Its place, from 1.
        line: The line on which it starts, from 1.
        key: Its name in an object; empty in a list.
        value: What it holds.
    """

    number: int
    line: int
    key: str
    value: Any


class NotJsonError(ValueError):
    """The text is no JSON; the message says what was found and on which line."""


class Walker:
    """A place in a JSON text that moves forward.

    Args:
        text: The whole text.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._counted = 0
        self._line = 1

    def peek(self) -> str:
        """Return the next character that is no space, or nothing at the end."""
        match = _SPACE.match(self._text, self._place)
        self._place = match.end() if match else self._place
        return self._text[self._place : self._place + 1]

    @property
    def line(self) -> int:
        """The line of this place, from 1."""
        self._line += self._text.count("\n", self._counted, self._place)
        self._counted = self._place
        return self._line

    def value(self) -> Any:
        """Read one whole value.

        Raises:
            NotJsonError: There is none, it is cut off, or it is nested too deeply.
        """
        self.peek()
        try:
            value, self._place = _DECODER.raw_decode(self._text, self._place)
        except json.JSONDecodeError as error:
            raise NotJsonError(f"{error.msg.lower()} on line {error.lineno}, column {error.colno}") from error
        except (RecursionError, ValueError) as error:
            raise NotJsonError(f"a value that cannot be read on line {self.line} ({error})") from error
        return value

    def entries(self) -> Iterator[Entry]:
        """Yield the values of a list.

        Raises:
            NotJsonError: This is no list, or it is cut off.
        """
        self._expect("[")
        number = 0
        while self.peek() != "]":
            number += 1
            self.peek()
            line = self.line
            yield Entry(number, line, "", self.value())
            self._separator("]")
        self._expect("]")

    def names(self) -> Iterator[tuple[int, int, str]]:
        """Yield number, line and name of the members of an object; the caller reads each value before the next name.

        Raises:
            NotJsonError: This is no object, or it is cut off.
        """
        self._expect("{")
        number = 0
        while self.peek() != "}":
            number += 1
            self.peek()
            line, key = self.line, self.value()
            if not isinstance(key, str):
                raise NotJsonError(f"a name that is no text on line {line}")
            self._expect(":")
            yield number, line, key
            self._separator("}")
        self._expect("}")

    def members(self) -> Iterator[Entry]:
        """Yield the members of an object with their values.

        Raises:
            NotJsonError: This is no object, or it is cut off.
        """
        for number, line, key in self.names():
            yield Entry(number, line, key, self.value())

    def end(self) -> None:
        """See that nothing follows.

        Raises:
            NotJsonError: Something does.
        """
        if self.peek():
            raise NotJsonError(f"more text after the end on line {self.line}")

    def _separator(self, closing: str) -> None:
        """Step over a comma, which may be missing before the closing bracket only."""
        if self.peek() == closing:
            return
        self._expect(",")
        if self.peek() == closing:
            raise NotJsonError(f"a comma before '{closing}' on line {self.line}")

    def _expect(self, character: str) -> None:
        found = self.peek()
        if found != character:
            seen = f"'{found}'" if found else "the end of the file"
            raise NotJsonError(f"{seen} instead of '{character}' on line {self.line}")
        self._place += 1


def lines(text: str) -> Iterator[Entry]:
    """Yield the values of JSON lines; empty lines are stepped over.

    Raises:
        NotJsonError: A line is not one whole value.
    """
    number, place, line = 0, 0, 0
    while place < len(text):
        end = text.find("\n", place)
        end = len(text) if end < 0 else end
        line += 1
        content, place = text[place:end].strip(), end + 1
        if not content:
            continue
        number += 1
        try:
            yield Entry(number, line, "", json.loads(content))
        except json.JSONDecodeError as error:
            raise NotJsonError(f"{error.msg.lower()} on line {line}, column {error.colno}") from error
        except (RecursionError, ValueError) as error:
            raise NotJsonError(f"a value that cannot be read on line {line} ({error})") from error

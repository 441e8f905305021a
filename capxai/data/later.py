"""A mapping that is read when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value", covariant=True)


class ReadLater(Mapping[Key, Value]):
    """A mapping that calls ``read`` at its first use and keeps what it returns.

    A copy that goes to another process reads for itself, if ``read`` can be pickled.

    Args:
        read: Returns the mapping.
    """

    def __init__(self, read: Callable[[], Mapping[Key, Value]]) -> None:
        self._read = read
        self._found: Mapping[Key, Value] | None = None

    def _mapping(self) -> Mapping[Key, Value]:
        if self._found is None:
            self._found = self._read()
        return self._found

    def __getitem__(self, key: Key) -> Value:
        """Look up one value."""
        return self._mapping()[key]

    def __iter__(self) -> Iterator[Key]:
        """Go through the keys."""
        return iter(self._mapping())

    def __len__(self) -> int:
        """Count the keys."""
        return len(self._mapping())

    def __repr__(self) -> str:
        """Show what it holds, once it has been read."""
        return "ReadLater(not read yet)" if self._found is None else repr(self._found)

    def __getstate__(self) -> Callable[[], Mapping[Key, Value]]:
        """Leave what was read behind."""
        return self._read

    def __setstate__(self, state: Callable[[], Mapping[Key, Value]]) -> None:
        """Start anew."""
        self.__init__(state)  # type: ignore[misc]

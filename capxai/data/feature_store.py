"""Reading stored features: any rows, in any order, from any number of threads and processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capxai.data.feature_format import FeatureDescription, Header, Layout, read_file
from capxai.data.feature_names import find_parts, in_order, weights_path
from capxai.data.feature_numbers import repeated
from capxai.errors import CorpusError

_NAMED_AT_MOST = 5
_BOX_BYTES = 16


@dataclass(frozen=True)
class _File:
    """One file of a store: its place and the number of its first row."""

    path: Path
    layout: Layout
    first: int


class FeatureStore:
    """The features of a corpus in one file, or in the parts of one.

    Rows are read with one system call each into fresh memory; nothing is cached here, because the operating system does that. So a store
    needs no lock, survives a fork, can be pickled (the other process opens the files anew), and a file that was cut off in the meantime
    gives an error instead of a crash, which a memory map would not.

    Attributes:
        description: What the numbers are.
        image_ids: (N,) int64, the picture of each row.
        sizes: (N, 2) int32, height and width of each picture in pixels.
        block: Rows of a block, in which the file was written.
        paths: The files.
    """

    def __init__(self, headers: Sequence[Header], files: Sequence[_File]) -> None:
        self.description: FeatureDescription = headers[0].description
        self.image_ids: NDArray[np.int64] = np.concatenate([header.image_ids for header in headers])
        self.sizes: NDArray[np.int32] = np.concatenate([header.sizes for header in headers])
        self.block = headers[0].block
        self.paths = tuple(file.path for file in files)
        self._files = tuple(files)
        self._starts = np.array([file.first for file in files])
        ascending = bool((self.image_ids[1:] > self.image_ids[:-1]).all())  # as extraction writes them
        self._order = None if ascending else np.argsort(self.image_ids, kind="stable")
        self._descriptors: list[int] = []
        self._open()

    @classmethod
    def open(cls, path: str | Path | Sequence[str | Path]) -> FeatureStore:
        """Open a feature file.

        Args:
            path: A file; or one of its parts, a pattern, or the name without the part, whereupon all parts are opened; or all parts.

        Raises:
            CorpusError: The file is missing, not finished, torn or of another format; or parts are missing or do not belong together.
        """
        paths = find_parts(Path(path)) if isinstance(path, str | Path) else in_order([Path(item) for item in path])
        headers, files, first = [], [], 0
        for item in paths:
            header, layout = read_file(item)
            headers.append(header)
            files.append(_File(item, layout, first))
            first += len(header.image_ids)
        _check_together(paths, headers)
        return cls(headers, files)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.image_ids)

    @property
    def path(self) -> Path:
        """The first file."""
        return self.paths[0]

    @property
    def weights_path(self) -> Path:
        """Where the encoder's weights lie, if they were stored (safetensors; names as in `capxai.models.encoders`)."""
        return weights_path(self.path)

    def read(self, rows: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        """Read features.

        Args:
            rows: (B,) whole numbers from 0 to N - 1, in any order, repeated or not.

        Returns:
            (B, K, C) of the stored type, new memory.

        Raises:
            IndexError: There is no such row.
            CorpusError: The file cannot be read to there.
        """
        description = self.description
        result = np.empty((len(rows), *description.row_shape), description.numpy_dtype)
        for place, (number, row) in enumerate(self._located(rows)):
            start = self._files[number].layout.features + row * description.row_bytes
            self._fill(number, result[place], start)
        return result

    def boxes(self, rows: Sequence[int] | NDArray[Any]) -> NDArray[np.float32] | None:
        """Read the boxes of regions.

        Returns:
            (B, K, 4) float32: left, top, right, bottom in pixels of the picture; None for features of a grid.

        Raises:
            IndexError: There is no such row.
            CorpusError: The file cannot be read to there.
        """
        if not self.description.has_boxes:
            return None
        regions = self.description.regions
        result = np.empty((len(rows), regions, 4), np.dtype("<f4"))
        for place, (number, row) in enumerate(self._located(rows)):
            start = self._files[number].layout.boxes
            assert start is not None
            self._fill(number, result[place], start + row * regions * _BOX_BYTES)
        return result

    def rows_of(self, image_ids: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
        """Find the rows of pictures.

        Returns:
            (B,) int64, one row for each id.

        Raises:
            CorpusError: Some pictures have no features; the first of them are named.
        """
        wanted = np.asarray(image_ids, dtype=np.int64).reshape(-1)
        places = np.searchsorted(self.image_ids, wanted, sorter=self._order).clip(max=len(self) - 1)
        rows: NDArray[np.int64] = (places if self._order is None else self._order[places]).astype(np.int64)
        absent = wanted[self.image_ids[rows] != wanted]
        if len(absent):
            shown = ", ".join(map(str, absent[:_NAMED_AT_MOST])) + (" ..." if len(absent) > _NAMED_AT_MOST else "")
            raise CorpusError(
                f"'{self.path}' has no features of {len(absent)} of {len(wanted)} pictures (image ids {shown}). Expected a row for "
                f"each. Extract the features of this corpus and split; these are of '{self.description.corpus}'."
            )
        return rows

    def close(self) -> None:
        """Close the files; a closed store cannot be read from."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        """Close what nobody closed."""
        if hasattr(self, "_descriptors"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptors": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        for file in self._files:
            try:
                self._descriptors.append(os.open(file.path, os.O_RDONLY | getattr(os, "O_BINARY", 0)))
            except OSError as error:
                self.close()
                raise CorpusError(
                    f"'{file.path}' cannot be opened ({error.strerror}). Expected the feature file that was there a moment ago. "
                    "Check the path and its rights."
                ) from error

    def _located(self, rows: Sequence[int] | NDArray[Any]) -> list[tuple[int, int]]:
        """Return for each row the number of its file and its row there."""
        wanted = np.asarray(rows, dtype=np.int64)
        if wanted.ndim != 1 or (len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self)):
            raise IndexError(
                f"Rows {rows!r} were asked for. Expected one-dimensional numbers from 0 to {len(self) - 1}."
            )
        if len(self._files) == 1:
            return [(0, row) for row in wanted.tolist()]
        numbers = np.searchsorted(self._starts, wanted, side="right") - 1
        return list(zip(numbers.tolist(), (wanted - self._starts[numbers]).tolist(), strict=True))

    def _fill(self, number: int, target: NDArray[Any], start: int) -> None:
        """Read the bytes of an array from a place in a file."""
        if not self._descriptors:
            raise ValueError(f"The feature store '{self.path}' is closed. Open it again.")
        view = target.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            count = os.preadv(self._descriptors[number], [view[done:]], start + done)
            if not count:
                raise CorpusError(
                    f"'{self.paths[number]}' ends at byte {start + done:,}, in the middle of a row. Expected the whole file that was "
                    "opened. It was changed since; copy it again."
                )
            done += count


def _check_together(paths: Sequence[Path], headers: Sequence[Header]) -> None:
    total = len(paths)
    for number, (path, header) in enumerate(zip(paths, headers, strict=True), start=1):
        expected = None if total == 1 and header.shard is None else (number, total)
        if header.shard != expected:
            raise CorpusError(
                f"'{path}' says of itself that it is part {header.shard}, and its name says {expected}. Expected the same. Give "
                "it back its name."
            )
        if difference := header.description.difference(headers[0].description):
            raise CorpusError(
                f"'{path}' and '{paths[0]}' are not parts of one feature file: {difference}. Expected the same settings. Extract "
                "one of them again."
            )
    if len(repeated(np.concatenate([header.image_ids for header in headers]))):
        raise CorpusError(
            f"'{paths[0]}' has the same picture in two rows. Expected each image id once. Extract the features again."
        )

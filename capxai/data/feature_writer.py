"""Writing a feature file block by block, so that no finished block is ever lost and the result never depends on interruptions."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capxai.data.block_journal import BlockJournal, read_journals
from capxai.data.disk import explained, flush_folder, write_at
from capxai.data.feature_format import FeatureDescription, Header, Layout, block_bytes
from capxai.data.feature_names import journal_path, journal_paths, part_path
from capxai.data.feature_numbers import finite_and_zero_rows
from capxai.data.feature_part import check_header, find_or_start, join, refuse_existing
from capxai.errors import CorpusError

FLUSH_SECONDS = 1.0
"""How much work a kill can cost at most, beside the block in hand."""


class FeatureWriter:
    """Writes blocks of rows, in any order, into ``<name>.part``, which becomes the file itself when all are there.

    Several processes can write to one file, each with a number of its own; number 0 has to come first, and alone finishes. Leaving the
    context keeps what was written; the next writer of the same file with the same settings goes on from there.

    Use `create_or_resume` to get one.
    """

    def __init__(self, path: Path, header: Header, layout: Layout, journal: BlockJournal) -> None:
        self.path = path
        self.header = header
        self._layout = layout
        self._journal = journal
        self._descriptor = os.open(part_path(path), os.O_RDWR)
        self._pending: dict[int, int] = {}
        self._flushed = time.monotonic()

    @classmethod
    def create_or_resume(
        cls,
        path: str | Path,
        description: FeatureDescription,
        image_ids: Sequence[int] | NDArray[Any],
        sizes: Sequence[tuple[int, int]] | NDArray[Any],
        *,
        block: int = 32,
        shard: tuple[int, int] | None = None,
        writer: int = 0,
        force: bool = False,
    ) -> FeatureWriter:
        """Start a feature file, or go on with an unfinished one of the same settings.

        The disk space of the whole file is reserved at once, so a disk that is too small is found before any work is done.

        Args:
            path: The file to make.
            description: What the numbers will be.
            image_ids: (N,) the picture of each row, each once.
            sizes: (N, 2) height and width of each picture in pixels.
            block: Rows of a block.
            shard: (i, n) where the file is part i of n.
            writer: Number of this process; another than 0 joins a file that writer 0 has started.
            force: Replace a finished file (when the new one is finished), and throw away an unfinished one of other settings.

        Raises:
            CorpusError: The file exists, an unfinished one has other settings, another process writes it, or a picture is there twice.
            CapxaiError: The disk is full, or the place cannot be written to.
        """
        path = Path(path)
        header = Header(
            description, np.array(image_ids, np.int64), np.array(sizes, np.int32).reshape(-1, 2), block, shard
        )
        check_header(path, header)
        refuse_existing(path, force)
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            journal = BlockJournal(journal_path(path, writer))
            try:
                layout = find_or_start(path, header, journal, force) if writer == 0 else join(path, header)
                return cls(path, header, layout, journal)
            except BaseException:
                journal.close()
                raise

    def missing_blocks(self) -> list[int]:
        """Return the numbers of the blocks that are not on the disk yet."""
        done = read_journals(journal_paths(self.path)).keys() | self._pending.keys()
        return [block for block in range(self.header.blocks) if block not in done]

    def write(self, block: int, features: NDArray[Any], boxes: NDArray[Any] | None = None) -> None:
        """Write one block.

        Args:
            block: Its number.
            features: (n, K, C) for all rows of the block; converted to the stored type.
            boxes: (n, K, 4) left, top, right, bottom in pixels, for regions.

        Raises:
            CorpusError: The shapes are wrong, or numbers are not finite or too large for the stored type.
            CapxaiError: The disk is full or fails.
        """
        description, rows = self.header.description, self.header.rows(block)
        stored = self._converted(features, (len(rows), *description.row_shape), rows)
        places = [(stored, self._layout.features + rows.start * description.row_bytes)]
        if self._layout.boxes is not None:
            if boxes is None:
                raise CorpusError("Features of regions came without boxes. Expected (n, K, 4) boxes. Give both.")
            found = self._converted(boxes, (len(rows), description.regions, 4), rows, np.dtype("<f4"))
            places.append((found, self._layout.boxes + rows.start * description.regions * 16))
        checksum = 0
        with explained(self.path):
            for array, start in places:
                data = array.reshape(-1).view(np.uint8).data
                checksum = zlib.crc32(data, checksum)
                write_at(self._descriptor, data, start)
        self._pending[block] = checksum
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Make what was written so far durable: first the numbers, then the notes that they are there."""
        with explained(self.path):
            if self._pending:
                os.fsync(self._descriptor)
                self._journal.add(self._pending)
                self._pending.clear()
        self._flushed = time.monotonic()

    def finish(self) -> Path:
        """Check every block against its checksum and give the file its name.

        Returns:
            The path of the finished file.

        Raises:
            CorpusError: Blocks are missing, or are not on the disk as they were written; these are forgotten, so that the next run
                makes them anew.
            CapxaiError: The disk is full or fails.
        """
        self.flush()
        checksums = read_journals(journal_paths(self.path))
        if missing := self.header.blocks - len(checksums):
            raise CorpusError(
                f"'{part_path(self.path)}' lacks {missing} of {self.header.blocks} blocks. Expected all of them. Run the same command "
                "again; it computes what is missing."
            )
        with explained(self.path):
            self._refuse_changed(checksums)
            table = np.array([checksums[block] for block in range(self.header.blocks)], "<u4")
            write_at(self._descriptor, table.tobytes(), self._layout.checksums)
            os.fsync(self._descriptor)
            os.replace(part_path(self.path), self.path)
            flush_folder(self.path.parent)
            for journal in journal_paths(self.path):
                journal.unlink(missing_ok=True)
        self.close()
        return self.path

    def close(self) -> None:
        """Release the file; what was written stays."""
        self._journal.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._descriptor >= 0:
                self.flush()
        finally:
            self.close()

    def _converted(
        self, values: NDArray[Any], shape: tuple[int, ...], rows: range, dtype: np.dtype[Any] | None = None
    ) -> NDArray[Any]:
        if values.shape != shape:
            raise CorpusError(
                f"Found numbers of shape {values.shape} for a block; expected {shape}. Use the settings of the file."
            )
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(values, dtype=dtype or self.header.description.numpy_dtype)
        finite, _ = finite_and_zero_rows(stored)
        bad = [row for row, good in zip(rows, finite, strict=True) if not good]
        if bad:
            largest = np.abs(values[np.isfinite(values)]).max(initial=0)
            raise CorpusError(
                f"The features of {len(bad)} pictures (image ids {self.header.image_ids[bad[:5]].tolist()}) are not finite as "
                f"{stored.dtype} (largest finite number {largest:g}). Expected finite ones. Use --dtype float32, and check the weights."
            )
        return stored

    def _checksum(self, block: int) -> int:
        """Compute the checksum of a block as it is on the disk."""
        features, boxes = block_bytes(self._descriptor, self.header, self._layout, block)
        return zlib.crc32(boxes, zlib.crc32(features))

    def _refuse_changed(self, checksums: dict[int, int]) -> None:
        """Forget the blocks whose bytes are not those that were written."""
        sound = {block: checksum for block, checksum in checksums.items() if self._checksum(block) == checksum}
        if len(sound) == len(checksums):
            return
        for journal in journal_paths(self.path):
            if journal != journal_path(self.path, 0):
                journal.unlink()
        self._journal.clear()
        self._journal.add(sound)
        raise CorpusError(
            f"{len(checksums) - len(sound)} blocks of '{part_path(self.path)}' are not as they were written: the disk or another program "
            "changed them. Expected them unchanged. Run the same command again to make these blocks anew, and check the disk."
        )

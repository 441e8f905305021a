"""The loop of an extraction: pictures from worker processes, through the network, into the feature file, all three at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from capxai.data.feature_writer import FeatureWriter
from capxai.data.picture_blocks import PictureBlock, picture_blocks
from capxai.recipes.feature_sources import FeatureSource
from capxai.types import Advance

_UNWRITTEN = 2
"""Blocks that may wait for the disk before the network does."""


@dataclass
class Extracted:
    """What one process did.

    Attributes:
        pictures: Pictures whose features it wrote.
        unreadable: Path and message of the pictures that could not be read; their blocks are not written.
        other_sizes: Pictures whose size is not the annotated one.
        waited: Seconds in which the network had nothing to do because no picture was ready.
    """

    pictures: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    other_sizes: int = 0
    waited: float = 0.0


@dataclass(frozen=True)
class _Computed:
    """A block on its way from the device."""

    number: int
    features: Tensor
    boxes: NDArray[Any] | None
    done: torch.cuda.Event | None


class BlockExtractor:
    """Computes blocks of a feature file.

    Args:
        source: What computes features.
        writer: Where they go.
        paths: The picture of each row.
        workers: Processes that decode.
        device: Where the source computes.
    """

    def __init__(
        self, source: FeatureSource, writer: FeatureWriter, paths: Sequence[Path], workers: int, device: torch.device
    ) -> None:
        self.found = Extracted()
        self._source = source
        self._writer = writer
        self._paths = paths
        self._workers = workers
        self._cuda = device.type == "cuda"
        self._dtype = getattr(torch, writer.header.description.dtype)
        self._unwritten: deque[Future[None]] = deque()

    def run(self, numbers: Sequence[int], advance: Advance) -> None:
        """Compute and write blocks; whatever ends this early, blocks that were handed over are written before it returns.

        Args:
            numbers: The blocks.
            advance: Told the number of pictures of each block that is done.

        Raises:
            CorpusError: Features cannot be stored in the type of the file.
            CapxaiError: A worker was ended, or the disk is full.
        """
        header = self._writer.header
        blocks = [(number, [self._paths[row] for row in header.rows(number)]) for number in numbers]
        loaded = picture_blocks(blocks, self._source.prepare, self._workers, self._cuda)
        with ThreadPoolExecutor(1) as pen:
            before: _Computed | None = None
            started = time.perf_counter()
            for block in loaded:
                self.found.waited += time.perf_counter() - started
                computed = self._compute(block)
                if self._cuda:  # this block is computed while the one before it is fetched and written
                    computed, before = before, computed
                self._write(computed, pen)
                advance(len(header.rows(block.number)))
                started = time.perf_counter()
            self._write(before, pen)
            while self._unwritten:
                self._unwritten.popleft().result()

    def _compute(self, block: PictureBlock) -> _Computed | None:
        """Start computing a block; None if a picture of it is unreadable."""
        self._check_sizes(block)
        if block.unreadable:
            self.found.unreadable += block.unreadable
            return None
        features, boxes = self._source.extract(block.images, self._dtype)
        if not features.is_cuda:
            return _Computed(block.number, features, boxes, None)
        host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
        host.copy_(features, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        return _Computed(block.number, host, boxes, done)

    def _write(self, computed: _Computed | None, pen: ThreadPoolExecutor) -> None:
        """Hand a block to the thread that writes, and wait where too many are there already."""
        if computed is None:
            return
        if computed.done is not None:
            computed.done.synchronize()
        values = computed.features.numpy()
        self._unwritten.append(pen.submit(self._writer.write, computed.number, values, computed.boxes))
        self.found.pictures += len(values)
        while len(self._unwritten) > _UNWRITTEN or (self._unwritten and self._unwritten[0].done()):
            self._unwritten.popleft().result()

    def _check_sizes(self, block: PictureBlock) -> None:
        if block.unreadable:
            return
        header = self._writer.header
        for row, size in zip(header.rows(block.number), block.sizes, strict=True):
            annotated = header.sizes[row]
            self.found.other_sizes += int(annotated.min() > 0 and (annotated[0], annotated[1]) != size)

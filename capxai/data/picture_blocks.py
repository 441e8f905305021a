"""Pictures decoded in worker processes, block by block, while the network computes on the blocks before."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from capxai.data.images import read_image
from capxai.errors import CapxaiError, ImageError
from capxai.types import ImageArray

Prepare = Callable[[ImageArray], ImageArray]
"""What a worker does to a decoded picture; has to be picklable."""

_AHEAD = 2


@dataclass(frozen=True)
class PictureBlock:
    """The pictures of one block.

    Attributes:
        number: Number of the block.
        images: (B, H, W, 3) uint8 where all have one size after preparing, else a list of (H, W, 3) uint8; of those that could be read.
        sizes: Height and width of each readable picture as it was decoded.
        unreadable: Path and message of every picture that could not be read.
    """

    number: int
    images: torch.Tensor | list[ImageArray]
    sizes: tuple[tuple[int, int], ...]
    unreadable: tuple[tuple[str, str], ...]


class _Blocks(Dataset[PictureBlock]):
    """Decodes one block where it is asked for it."""

    def __init__(self, blocks: Sequence[tuple[int, Sequence[Path]]], prepare: Prepare) -> None:
        self._blocks = blocks
        self._prepare = prepare

    def __len__(self) -> int:
        """Count the blocks."""
        return len(self._blocks)

    def __getitem__(self, place: int) -> PictureBlock:
        number, paths = self._blocks[place]
        images, sizes, unreadable = [], [], []
        for path in paths:
            try:
                image = read_image(path)
            except ImageError as error:
                unreadable.append((str(path), str(error)))
                continue
            sizes.append((image.shape[0], image.shape[1]))
            images.append(self._prepare(image))
        alike = len({image.shape for image in images}) == 1
        # A tensor reaches the other process through shared memory, without being copied.
        stacked = torch.from_numpy(np.stack(images)) if alike else images
        return PictureBlock(number, stacked, tuple(sizes), tuple(unreadable))


def _as_it_is(block: Any) -> Any:
    return block


def picture_blocks(
    blocks: Sequence[tuple[int, Sequence[Path]]], prepare: Prepare, workers: int, pin_memory: bool = False
) -> Iterator[PictureBlock]:
    """Decode blocks of pictures in order.

    Args:
        blocks: Number and paths of each block.
        prepare: Applied to each picture, in the worker.
        workers: Processes that decode; 0 decodes here, when a block is asked for.
        pin_memory: Put the pictures where a CUDA device fetches them fastest.

    Yields:
        The blocks, in the order given.

    Raises:
        CapxaiError: A worker was ended from outside.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create")  # how many workers is the user's choice
            arriving = iter(
                DataLoader(
                    _Blocks(blocks, prepare),
                    batch_size=None,
                    num_workers=workers,
                    collate_fn=_as_it_is,
                    pin_memory=pin_memory,
                    prefetch_factor=_AHEAD if workers else None,
                    generator=torch.Generator(),  # or the loader would draw a seed from the global random state
                )
            )
        yield from arriving
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise CapxaiError(
            f"A process that decodes pictures ended early ({str(error).splitlines()[0]}). Expected it to live; mostly memory, or shared "
            "memory (/dev/shm), was too small. Run the same command again with fewer --workers, or with --workers 0."
        ) from error


def find_unreadable(
    paths: Sequence[Path], workers: int, block: int
) -> Iterator[tuple[int, tuple[tuple[str, str], ...]]]:
    """Decode pictures only to see whether they can be.

    Yields:
        For each block of pictures their number, and path and message of those that cannot be read.
    """
    blocks = [(start, paths[start : start + block]) for start in range(0, len(paths), block)]
    for found in picture_blocks(blocks, _first_pixel, workers):
        yield len(found.sizes) + len(found.unreadable), found.unreadable


def _first_pixel(image: ImageArray) -> ImageArray:
    return image[:1, :1].copy()

"""Reads pictures and objects of a split into arrays."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from capxai.data.corpus import Split
from capxai.data.images import read_image
from capxai.data.preprocessing import Preprocessing
from capxai.train.examples import cell_coverage
from capxai.types import Reporter


def read_picture_rows(paths: Sequence[Path], preprocessing: Preprocessing) -> Tensor:
    """Read pictures at the size of the encoder: (B, S, S, 3) uint8.

    Raises:
        ImageError: A picture cannot be read.
    """
    size = preprocessing.image_size
    images = np.empty((len(paths), size, size, 3), dtype=np.uint8)
    for place, path in enumerate(paths):
        images[place] = preprocessing.resize(read_image(path))
    return torch.from_numpy(images)


def read_pictures(split: Split, preprocessing: Preprocessing, workers: int, reporter: Reporter) -> Tensor:
    """Read all pictures of a split at the size of the encoder: (N, S, S, 3) uint8.

    Args:
        split: The split.
        preprocessing: What the encoder expects.
        workers: Threads beside this one; decoding runs outside of Python's lock.
        reporter: Where progress is shown.

    Raises:
        ImageError: A picture cannot be read.
    """
    size = preprocessing.image_size
    images = np.empty((len(split.pictures), size, size, 3), dtype=np.uint8)

    def read(row: int) -> None:
        images[row] = preprocessing.resize(read_image(split.pictures[row].path))

    with (
        reporter.track(f"Reading {split.name} pictures", len(images)) as advance,
        ThreadPoolExecutor(1 + workers) as pool,
    ):
        try:
            for _ in pool.map(read, range(len(images))):
                advance(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return torch.from_numpy(images)


def read_coverage(split: Split, categories: Sequence[str], cells: int, reporter: Reporter) -> Tensor:
    """Draw what covers which cell: (N, Q, G, G) uint8; from the masks, or the boxes where there is no mask.

    Raises:
        CorpusError: A mask is damaged.
    """
    place = {name: number for number, name in enumerate(categories)}
    coverage = np.zeros((len(split.pictures), len(categories), cells, cells), dtype=np.uint8)
    with reporter.track(f"Drawing the objects of {split.name} pictures", len(coverage)) as advance:
        for row, picture in enumerate(split.pictures):
            for item in split.objects[picture.id]:
                if item.segmentation:
                    mask = split.mask(item)
                else:
                    x, y, width, height = (round(value) for value in item.bbox)
                    mask = np.zeros((picture.height, picture.width), dtype=np.bool_)
                    mask[y : y + height, x : x + width] = True
                cell = coverage[row, place[item.category]]
                np.maximum(cell, cell_coverage(mask, cells), out=cell)
            advance(1)
    return torch.from_numpy(coverage)

"""What training reads, as a few arrays in memory.

Axes: N pictures, S image size, G cells a side, Q categories, R references a picture, L words of the longest caption with its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from capxai.data.vocabulary import Vocabulary

FULL_COVERAGE = 255


def cell_coverage(mask: NDArray[np.bool_], cells: int) -> NDArray[np.uint8]:
    """Measure how much of every cell of a grid a mask covers.

    Args:
        mask: (H, W) bool.
        cells: G, the number of cells a side; the grid is laid over the whole picture.

    Returns:
        (G, G) uint8, from 0 (nothing) to 255 (the whole cell).
    """
    picture = Image.fromarray(mask.astype(np.uint8) * FULL_COVERAGE)
    return np.asarray(picture.resize((cells, cells), Image.Resampling.BOX), dtype=np.uint8)


def encode_references(references: Sequence[Sequence[str]], vocabulary: Vocabulary) -> Tensor:
    """Turn the references of every picture into ids.

    Unknown words become `<unk>`. A picture with fewer references than others has its own repeated in turn, so that each of its
    references is as likely to be drawn as its number allows.

    Args:
        references: Of each picture, at least one caption.
        vocabulary: The words.

    Returns:
        (N, R, L) int64: the words, ``<end>``, then ``<pad>``.
    """
    encoded = [[[*vocabulary.encode_or_unknown(text), vocabulary.end] for text in texts] for texts in references]
    most = max(len(texts) for texts in encoded)
    longest = max(len(ids) for texts in encoded for ids in texts)
    tokens = torch.full((len(encoded), most, longest), vocabulary.pad, dtype=torch.int64)
    for picture, texts in enumerate(encoded):
        for number in range(most):
            ids = texts[number % len(texts)]
            tokens[picture, number, : len(ids)] = torch.tensor(ids)
    return tokens


@dataclass(frozen=True)
class CaptionBatch:
    """Pictures with one reference each.

    Attributes:
        rows: (B,) int64, which pictures.
        inputs: (B, T) int64, ``<start>`` and the words.
        targets: (B, T) int64, the words and ``<end>``; ``<pad>`` where the caption is over.
    """

    rows: Tensor
    inputs: Tensor
    targets: Tensor


def caption_batch(rows: Tensor, targets: Tensor, vocabulary: Vocabulary) -> CaptionBatch:
    """Make a batch of references (B, L), cut to the longest of them."""
    length = int((targets != vocabulary.pad).sum(1).max())
    targets = targets[:, :length]
    start = torch.full((len(rows), 1), vocabulary.start, dtype=torch.int64)
    return CaptionBatch(rows, torch.cat([start, targets[:, :-1]], dim=1), targets)


def epoch_of_captions(
    tokens: Tensor, vocabulary: Vocabulary, batch_size: int, generator: torch.Generator
) -> Iterator[CaptionBatch]:
    """Yield every picture once, in random order, with one of its references drawn at random.

    Batches are made of captions of nearly the same length, taken from a pool of sixteen batches: less time is spent on padding.

    Args:
        tokens: (N, R, L) from `encode_references`.
        vocabulary: The words.
        batch_size: B; the last batch may be smaller.
        generator: Source of randomness.
    """
    count, references, _ = tokens.shape
    chosen = tokens[torch.arange(count), torch.randint(references, (count,), generator=generator)]  # (N, L)
    lengths = (chosen != vocabulary.pad).sum(1)
    order = torch.randperm(count, generator=generator)
    batches: list[Tensor] = []
    for pool in order.split(16 * batch_size):
        batches += pool[torch.argsort(lengths[pool], stable=True)].split(batch_size)
    for place in torch.randperm(len(batches), generator=generator).tolist():
        rows = batches[place]
        yield caption_batch(rows, chosen[rows], vocabulary)


def epoch_of_pictures(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield (B,) int64 rows: every picture once, in random order."""
    yield from torch.randperm(count, generator=generator).split(batch_size)

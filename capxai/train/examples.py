"""What training reads: references as ids, batches of captions, and what covers the cells of a picture.

Axes: N pictures, M references, B batch, T words of a batch, G cells a side, Q categories.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from capxai.data.vocabulary import Vocabulary

FULL_COVERAGE = 255
POOL = 16
"""Batches that are drawn together and sorted by length, so that little time is spent on padding."""
_LARGEST = 2**62


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


@dataclass(frozen=True)
class References:
    """The references of N pictures as ids, one after the other: M captions, any number for each picture.

    Attributes:
        first: (N + 1,) int64; the captions of picture n are first[n] to first[n + 1].
        offsets: (M + 1,) int64; the words of caption m are offsets[m] to offsets[m + 1], without ``<start>`` and ``<end>``.
        words: (W,) int32.
        end: Id of ``<end>``.
        pad: Id of ``<pad>``.
    """

    first: Tensor
    offsets: Tensor
    words: Tensor
    end: int
    pad: int

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.first) - 1

    @cached_property
    def counts(self) -> Tensor:
        """(N,) int64: how many references each picture has."""
        return self.first.diff()

    def lengths(self, captions: Tensor) -> Tensor:
        """Return the number of words of the given captions, ``<end>`` counted."""
        return self.offsets[captions + 1] - self.offsets[captions] + 1

    def targets(self, captions: Tensor, longest: int | None = None) -> Tensor:
        """Return the given captions (B,) as (B, T) int64: the words, ``<end>``, then ``<pad>``.

        Args:
            captions: Which captions.
            longest: T; None takes the longest of these captions.
        """
        begin, lengths = self.offsets[captions], self.lengths(captions)
        place = torch.arange(int(lengths.max()) if longest is None else longest)
        found = self.words[(begin[:, None] + place).clamp_(max=max(0, len(self.words) - 1))].to(torch.int64)
        found = found.masked_fill(place >= lengths[:, None] - 1, self.pad)
        return found.masked_fill(place == lengths[:, None] - 1, self.end)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Draw one reference of each picture, all of a picture equally likely: (N,) int64."""
        number = torch.randint(self._multiple, (len(self),), generator=generator) % self.counts
        return self.first[:-1] + number

    @cached_property
    def _multiple(self) -> int:
        """A number that every count divides (else one so large that the remainder does not matter)."""
        multiple = math.lcm(*self.counts.unique().tolist())
        return min(multiple, _LARGEST)


def encode_references(references: Sequence[Sequence[str]], vocabulary: Vocabulary) -> References:
    """Turn the references of every picture, one or more each, into ids; unknown words become `<unk>`."""
    encoded = [vocabulary.encode_or_unknown(text) for texts in references for text in texts]
    counts = torch.tensor([0, *(len(texts) for texts in references)])
    lengths = torch.tensor([0, *(len(ids) for ids in encoded)])
    words = torch.tensor([word for ids in encoded for word in ids], dtype=torch.int32)
    return References(counts.cumsum(0), lengths.cumsum(0), words, vocabulary.end, vocabulary.pad)


@dataclass(frozen=True)
class CaptionBatch:
    """Pictures with one reference each.

    Attributes:
        rows: (B,) int64, which pictures.
        inputs: (B, T) int64, ``<start>`` and the words.
        targets: (B, T) int64, the words and ``<end>``; ``<pad>`` where the caption is over.
        first: Place of the first row in the batch of all processes.
        total: Rows of the batch in all processes; None for those of this batch.
    """

    rows: Tensor
    inputs: Tensor
    targets: Tensor
    first: int = 0
    total: int | None = None

    def share(self, first: int, count: int) -> CaptionBatch:
        """Take ``count`` rows from ``first`` on. The length stays that of the whole batch."""
        part = slice(first, first + count)
        total = len(self.rows) if self.total is None else self.total
        return replace(
            self,
            rows=self.rows[part],
            inputs=self.inputs[part],
            targets=self.targets[part],
            first=self.first + first,
            total=total,
        )

    def to(self, device: torch.device) -> CaptionBatch:
        """Move the words to a device; the rows stay where they are."""
        return replace(self, inputs=self.inputs.to(device), targets=self.targets.to(device))


def caption_batch(rows: Tensor, targets: Tensor, vocabulary: Vocabulary) -> CaptionBatch:
    """Make a batch of pictures (B,) and targets (B, T)."""
    start = torch.full((len(rows), 1), vocabulary.start, dtype=torch.int64)
    return CaptionBatch(rows, torch.cat([start, targets[:, :-1]], dim=1), targets)


@dataclass(frozen=True)
class Chosen:
    """The captions of one batch before their words are looked up.

    Attributes:
        rows: (B,) int64, which pictures.
        captions: (B,) int64, which reference of each.
    """

    rows: Tensor
    captions: Tensor

    def batch(self, references: References, vocabulary: Vocabulary) -> CaptionBatch:
        """Look the words up."""
        return caption_batch(self.rows, references.targets(self.captions), vocabulary)


def batches_of(pictures: int, batch_size: int) -> int:
    """Return how many batches `plan_of_captions` makes of so many pictures."""
    return -(-pictures // batch_size)


def plan_of_captions(references: References, batch_size: int, generator: torch.Generator) -> list[Chosen]:
    """Plan an epoch: every picture once, in random order, with one of its references drawn at random.

    Batches are made of captions of nearly the same length, taken from a pool of sixteen batches.

    Args:
        references: The references.
        batch_size: B; one batch may be smaller.
        generator: Source of randomness.
    """
    captions = references.draw(generator)
    lengths = references.lengths(captions)
    order = torch.randperm(len(references), generator=generator)
    batches: list[Tensor] = []
    for pool in order.split(POOL * batch_size):
        batches += pool[torch.argsort(lengths[pool], stable=True)].split(batch_size)
    shuffled = torch.randperm(len(batches), generator=generator).tolist()
    return [Chosen(batches[place], captions[batches[place]]) for place in shuffled]

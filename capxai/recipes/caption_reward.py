"""The reward of self-critical training: CIDEr-D of word ids, ``<end>`` counted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from capxai.evaluate.cider import CiderD
from capxai.train.examples import References


class CaptionReward:
    """CIDEr-D against the references of the training pictures, whose document frequencies are those of the whole corpus.

    ``<end>`` is a word of candidates and references alike. Without it a caption that breaks off ("a man on a") keeps all of its
    n-grams and loses nothing, and training finds that out (Rennie et al. 2017 train with it for that reason).

    Args:
        references: Of every training picture, in the order of its rows: the ids of each reference, without ``<start>`` and ``<end>``.
        end: Id of ``<end>``.

    Raises:
        CorpusError: There is no picture, or one has no reference.
    """

    def __init__(self, references: Sequence[Sequence[Sequence[int]]], end: int) -> None:
        self._cider = CiderD([[(*ids, end) for ids in of_picture] for of_picture in references])

    @classmethod
    def of(cls, references: References) -> CaptionReward:
        """Build the reward from the references that training reads."""
        words, offsets, first = (tensor.tolist() for tensor in (references.words, references.offsets, references.first))
        captions = [words[begin:end] for begin, end in pairwise(offsets)]
        return cls([captions[begin:end] for begin, end in pairwise(first)], references.end)

    def __call__(self, rows: Tensor, captions: list[list[int]]) -> Tensor:
        """Score captions.

        Args:
            rows: (B,) int64, which pictures; any may be there several times.
            captions: Ids of each caption, with ``<end>`` where the caption was ended and not cut.

        Returns:
            (B,) float64, in [0, 10].
        """
        return torch.from_numpy(self._cider.score(rows.cpu().numpy(), captions))

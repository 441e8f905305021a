"""Takes blocks of pixels out of a picture, or puts them into an empty one, in the order of their relevance for a word.

Axes: W object words of a batch of pictures, M methods, P steps of a curve, X blocks, R changed pictures, S side of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from capxai.evaluate.faithfulness import block_pixels, block_relevance, kept_at_steps, relevance_order, step_counts
from capxai.explain.attribution import Words
from capxai.explain.methods import Options
from capxai.recipes.analysis.prefixes import Prefix, probabilities
from capxai.recipes.analysis.stream import Look

_PIXELS_AT_ONCE = 32 * 112 * 112
"""Pixels of changed pictures that are encoded together: without a way back an encoder keeps little."""
EMPTY = -1
"""Row of the picture that has nothing but the mean color: it is the same for all pictures."""

Values = NDArray[np.float64]
Picture = tuple[int, bytes]
"""A changed picture: the row of the picture in its batch, and a byte for each block, 1 where it is kept."""


@dataclass(frozen=True)
class PixelCurves:
    """How pixels are taken and given.

    Attributes:
        block: Side of a block, in pixels of the model's input.
        steps: Steps of a curve.
        seed: Orders blocks of equal relevance, together with the image id.
    """

    block: int
    steps: int
    seed: int

    def counts(self, side: int) -> NDArray[np.int64]:
        """Return how many blocks of a picture of a side are taken at each step, (P,)."""
        return step_counts((-(-side // self.block)) ** 2, self.steps)

    def of(self, look: Look, words: Words, methods: Sequence[str], options: Options) -> dict[str, Values]:
        """Return the curves of words for every method, all of which have relevance of pixels: (W, 2, P), deletion and insertion.

        A removed block gets the mean color, which is 0 after normalization; the curve is the probability of the word after the same
        prefix. All steps of all words and methods of the batch are encoded together, in parts of bounded memory, and each picture once.
        """
        kept = self._kept(look, words, methods, options)
        rows = words.rows.tolist()
        wanted: dict[Picture, dict[int, float]] = {}
        places = {
            name: [[self._note(wanted, rows[number], one, number) for one in flat] for number, flat in enumerate(found)]
            for name, found in kept
        }
        self._fill(look, words, wanted)
        return {
            name: np.array(
                [[wanted[at][number] for at in own] for number, own in enumerate(found)], dtype=np.float64
            ).reshape(len(rows), 2, -1)
            for name, found in places.items()
        }

    def _kept(
        self, look: Look, words: Words, methods: Sequence[str], options: Options
    ) -> list[tuple[str, list[NDArray[np.bool_]]]]:
        """Return for every method and word which blocks the pictures of both curves keep, (2 P, X)."""
        assert look.readings.images is not None
        counts = self.counts(look.readings.images.shape[-1])
        ties = [np.random.default_rng((self.seed, one.id)).permutation(int(counts[-1])) for one in look.pictures]
        found = []
        for name, maps in look.maps(words, methods, options):
            assert maps.pixels is not None
            relevance = maps.pixels.detach().cpu().numpy()
            orders = [
                relevance_order(block_relevance(one, self.block), ties[row])
                for one, row in zip(relevance, words.rows.tolist(), strict=True)
            ]
            found.append((name, [np.concatenate([*kept_at_steps(order, counts)]) for order in orders]))
        return found

    def _note(self, wanted: dict[Picture, dict[int, float]], row: int, kept: NDArray[np.bool_], word: int) -> Picture:
        """Ask for the probability of a word in a changed picture."""
        picture = (row if kept.any() else EMPTY, kept.tobytes())
        wanted.setdefault(picture, {})[word] = float("nan")
        return picture

    @torch.no_grad()
    def _fill(self, look: Look, words: Words, wanted: dict[Picture, dict[int, float]]) -> None:
        """Look at all changed pictures and put in the probabilities that were asked for."""
        model = look.readings.model
        prefixes = _prefixes(look, words)
        pictures = list(wanted)
        assert look.readings.images is not None
        size = max(1, _PIXELS_AT_ONCE // look.readings.images.shape[-1] ** 2)
        for start in range(0, len(pictures), size):
            part = pictures[start : start + size]
            memory = model.remember(self._features(look, part))
            asked = [(place, word) for place, picture in enumerate(part) for word in wanted[picture]]
            own = [Prefix(place, prefixes[word].inputs, prefixes[word].word) for place, word in asked]
            for (place, word), found in zip(asked, probabilities(model, memory, own), strict=True):
                wanted[part[place]][word] = found

    def _features(self, look: Look, pictures: Sequence[Picture]) -> Tensor:
        """Encode changed pictures, (R, K, C); of whole pictures the features are there already."""
        images, features = look.readings.images, look.readings.features
        assert images is not None
        kept = np.stack([np.frombuffer(blocks, dtype=np.bool_) for _, blocks in pictures])
        rows = torch.tensor([max(row, 0) for row, _ in pictures], device=images.device)
        shown = torch.from_numpy(block_pixels(kept, self.block, (images.shape[2], images.shape[3]))).to(images.device)
        whole = torch.from_numpy(kept.all(1)).to(images.device)
        found = features[rows]
        if not bool(whole.all()):
            changed = images[rows[~whole]].masked_fill(~shown[~whole][:, None], 0.0)
            found[~whole] = look.readings.model.features(changed)
        return found


def _prefixes(look: Look, words: Words) -> list[Prefix]:
    inputs = look.readings.inputs.tolist()
    each = zip(words.rows.tolist(), words.places.tolist(), words.tokens.tolist(), strict=True)
    return [Prefix(row, tuple(inputs[row][: place + 1]), token) for row, place, token in each]

"""Covers the patches of a picture that a method calls important, and looks whether the model still names the object.

Axes: W object words of a batch of pictures, R covered pictures, S side of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from capxai.errors import RelevanceError
from capxai.evaluate.ablation import generator_of, most_relevant_patches, patch_grid
from capxai.evaluate.lexicon import Lexicon
from capxai.explain.methods import Options
from capxai.models.decoding import DecodingOptions, decode
from capxai.recipes.analysis.mentions import Mentioned
from capxai.recipes.analysis.prefixes import Prefix, probabilities
from capxai.recipes.analysis.stream import Look
from capxai.types import JsonObject

_PIXELS_AT_ONCE = 32 * 112 * 112
"""Pixels of covered pictures that are captioned together: without a way back an encoder keeps little."""
_PICTURES_AT_ONCE = 64

Patches = tuple[int, ...]


@dataclass(frozen=True)
class PictureAblation:
    """How pictures are ablated.

    Attributes:
        patch: Side of a patch, in pixels of the model's input.
        patches: Patches that are covered.
        beam: Captions kept while searching, as for the first caption.
        seed: Orders patches of equal relevance, together with the image id.
        methods: Methods that give relevance of pixels.
    """

    patch: int
    patches: int
    beam: int
    seed: int
    methods: tuple[str, ...]

    def settings(self, side: int) -> JsonObject:
        """Return how it was done on pictures of that side, for the report."""
        across = -(-side // self.patch)
        return {"patch": self.patch, "patches": self.patches, "grid": [across, across], "image_size": side}

    def of(
        self, look: Look, mentions: Sequence[Mentioned], options: Options, lexicon: Lexicon
    ) -> list[list[JsonObject]]:
        """Ablate the picture of every object word of a batch: for each picture, one record for each word.

        The first word of a name is explained. The patches with the largest sum of its relevance get the mean color, which is 0 after
        normalization. Then the model captions the picture again, and the word has vanished if no word of the new caption names its
        category; apart from that, it reads the picture with the prefix of the old caption.

        A record has ``position``, ``word``, ``category``, ``present`` (whether the object is there), ``probability`` as the picture was,
        and for each method ``vanished``, the ``drop`` in probability, the new ``caption`` and the numbers of the ``patches``.

        Raises:
            RelevanceError: A method gives no relevance of pixels.
        """
        records: list[list[JsonObject]] = [[] for _ in look.pictures]
        if not mentions:
            return records
        prefixes = _prefixes(look, mentions)
        model = look.readings.model
        with torch.no_grad():
            memory = model.remember(look.readings.features)
        whole = probabilities(model, memory, prefixes)
        found = [_record(one, probability) for one, probability in zip(mentions, whole, strict=True)]
        chosen = self._choose(look, mentions, options)
        again = self._look_again(look, prefixes, [(number, patches) for number, _, patches in chosen])
        for (number, name, patches), (caption, probability) in zip(chosen, again, strict=True):
            named = {mention.category for mention in lexicon.mentions(caption)}
            found[number]["methods"][name] = {
                "vanished": mentions[number].category not in named,
                "drop": whole[number] - probability,
                "caption": caption,
                "patches": list(patches),
            }
        for one, record in zip(mentions, found, strict=True):
            records[one.row].append(record)
        return records

    def _choose(self, look: Look, mentions: Sequence[Mentioned], options: Options) -> list[tuple[int, str, Patches]]:
        """Choose for every method the patches of every word: number of the word, method, patches."""
        grid = _grid(look, self.patch)
        count = int(grid.max()) + 1
        ties = [generator_of(self.seed, picture.id).permutation(count) for picture in look.pictures]
        words = look.words([one.row for one in mentions], [one.place for one in mentions])
        chosen = []
        for name, maps in look.maps(words, self.methods, options):
            if maps.pixels is None:
                raise RelevanceError(
                    f"The method '{name}' gives no relevance of pixels. Expected one that does, such as lrp. Leave it out, or choose "
                    "--part words."
                )
            for number, (one, relevance) in enumerate(zip(mentions, maps.pixels.detach().cpu().numpy(), strict=True)):
                chosen.append((number, name, most_relevant_patches(relevance, grid, self.patches, ties[one.row])))
        return chosen

    @torch.no_grad()
    def _look_again(
        self, look: Look, prefixes: Sequence[Prefix], covered: Sequence[tuple[int, Patches]]
    ) -> list[tuple[str, float]]:
        """Return the new caption and the probability after the old prefix, for covered pictures: number of the word, patches."""
        assert look.readings.images is not None
        model, side = look.readings.model, look.readings.images.shape[-1]
        size = max(1, min(_PICTURES_AT_ONCE, _PIXELS_AT_ONCE // side**2))
        search = DecodingOptions(strategy="beam", beam=self.beam)
        found: list[tuple[str, float]] = []
        for start in range(0, len(covered), size):
            part = covered[start : start + size]
            memory = model.encode(self._cover(look, [prefixes[number].row for number, _ in part], part))
            captions = [model.vocabulary.decode(one.token_ids) for one in decode(model, memory, search)]
            own = [
                Prefix(place, prefixes[number].inputs, prefixes[number].word) for place, (number, _) in enumerate(part)
            ]
            found += zip(captions, probabilities(model, memory, own), strict=True)
        return found

    def _cover(self, look: Look, rows: Sequence[int], covered: Sequence[tuple[int, Patches]]) -> Tensor:
        """Return pictures (R, 3, S, S) whose patches have the mean color."""
        images = look.readings.images
        assert images is not None
        grid = _grid(look, self.patch)
        hidden: NDArray[np.bool_] = np.stack([np.isin(grid, patches) for _, patches in covered])
        chosen = images[torch.tensor(rows, device=images.device)]
        return chosen.masked_fill(torch.from_numpy(hidden).to(images.device)[:, None], 0.0)


def _grid(look: Look, patch: int) -> NDArray[np.intp]:
    assert look.readings.images is not None
    return patch_grid(look.readings.images.shape[2], look.readings.images.shape[3], patch)


def _prefixes(look: Look, mentions: Sequence[Mentioned]) -> list[Prefix]:
    inputs, tokens = look.readings.inputs.tolist(), look.readings.tokens.tolist()
    return [Prefix(one.row, tuple(inputs[one.row][: one.place + 1]), tokens[one.row][one.place]) for one in mentions]


def _record(one: Mentioned, probability: float) -> JsonObject:
    return {
        "position": one.place,
        "word": one.text,
        "category": one.category,
        "present": one.present,
        "probability": probability,
        "methods": {},
    }

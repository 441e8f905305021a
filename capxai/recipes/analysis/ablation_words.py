"""Deletes the preceding words that a method calls important, and asks how likely the model still finds the word after them.

Axes: W words of a batch of pictures, T words of the longest caption. Places in a caption count from 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch

from capxai.errors import RelevanceError
from capxai.evaluate.ablation import generator_of, most_relevant_words, random_words
from capxai.explain.methods import Options
from capxai.recipes.analysis.mentions import Mentioned
from capxai.recipes.analysis.prefixes import Prefix, probabilities
from capxai.recipes.analysis.stream import RANDOM, Look
from capxai.types import JsonObject

PICTURE_ONLY = ("grad-cam", "guided-grad-cam", "attention")
"""Methods that say nothing about preceding words."""

Deletion = tuple[int, ...]
"""Places in the input of a step, from 1: place 0 is ``<start>``."""

Asked = tuple[int, int, Deletion]
"""A picture of the batch, the place of a word in its caption, and what is deleted before it."""


@dataclass(frozen=True)
class WordAblation:
    """How words are ablated.

    Attributes:
        first_word: The first word of a caption that is explained, counted from 1; it has one less preceding words beside ``<start>``.
        deleted: Preceding words that are deleted.
        draws: Random deletions of each word at most.
        seed: Seed of these, together with image id and place.
        methods: Methods that give relevance of preceding words.
    """

    first_word: int
    deleted: int
    draws: int
    seed: int
    methods: tuple[str, ...]

    def settings(self, asked: Sequence[str]) -> JsonObject:
        """Return how it was done, for the report, with the methods that were asked for and left out."""
        return {
            "first_word": self.first_word,
            "deleted": self.deleted,
            "control_draws": self.draws,
            "left_out": [name for name in asked if name not in self.methods],
        }

    def of(self, look: Look, mentions: Sequence[Mentioned], options: Options) -> list[list[JsonObject]]:
        """Ablate every word of a batch from the first one on: for each picture, one record for each word.

        A record has ``position``, ``word``, ``category`` (of the object that it names, or None), ``probability`` after the whole prefix,
        ``control`` (mean drop of the random deletions, their number, and whether they are all that there are), and for each method the
        ``drop`` in probability and the places of the deleted words.

        All shortened prefixes of a batch, of all methods and draws, are read together, and the same one once.

        Raises:
            RelevanceError: A method gives no relevance of preceding words.
        """
        records: list[list[JsonObject]] = [[] for _ in look.pictures]
        lengths = look.readings.lengths.tolist()
        chosen = [(row, place) for row, length in enumerate(lengths) for place in range(self.first_word - 1, length)]
        if not chosen:
            return records
        by_method = dict(self._deletions(look, chosen, options))
        controls = [self._control(look, row, place) for row, place in chosen]
        asked: dict[Asked, None] = {(row, place, ()): None for row, place in chosen}
        for number, (row, place) in enumerate(chosen):
            every = (*(found[number] for found in by_method.values()), *controls[number][0])
            asked |= {(row, place, deletion): None for deletion in every}
        likely = _probabilities(look, list(asked))
        naming = {(one.row, place): one.category for one in mentions for place in range(one.place, one.last + 1)}
        for number, at in enumerate(chosen):
            own = {name: by_method[name][number] for name in self.methods}
            says = {**_word(look, at), "category": naming.get(at)}
            records[at[0]].append({**says, **_losses(likely, at, own, controls[number])})
        return records

    def _deletions(
        self, look: Look, chosen: Sequence[tuple[int, int]], options: Options
    ) -> Iterator[tuple[str, list[Deletion]]]:
        """Choose for every method what to delete before each word; the pictures themselves are not needed."""
        plain = replace(look, readings=replace(look.readings, images=None, tape=None))
        words = plain.words([row for row, _ in chosen], [place for _, place in chosen])
        others = [name for name in self.methods if name != RANDOM]
        # With the pictures, the noise is that of the other experiments: it is drawn for pixels first.
        noise = [name for name in self.methods if name == RANDOM]
        for name, maps in chain(plain.maps(words, others, options), look.maps(words, noise, options)):
            if maps.words is None:
                raise RelevanceError(
                    f"The method '{name}' gives no relevance of preceding words. Expected one that does, such as lrp. Leave it out, or "
                    "choose --part pictures."
                )
            relevance = maps.words.detach().double().cpu().numpy()  # (W, T)
            yield (
                name,
                [
                    most_relevant_words(found[: place + 1], self.deleted)
                    for found, (_, place) in zip(relevance, chosen, strict=True)
                ],
            )

    def _control(self, look: Look, row: int, place: int) -> tuple[list[Deletion], bool]:
        return random_words(place, self.deleted, self.draws, generator_of(self.seed, look.pictures[row].id, place))


def _word(look: Look, at: tuple[int, int]) -> JsonObject:
    spoken = look.readings.model.vocabulary.words[int(look.readings.tokens[at])]
    return {"position": at[1], "word": spoken}


def _losses(
    likely: Mapping[Asked, float],
    at: tuple[int, int],
    own: Mapping[str, Deletion],
    control: tuple[Sequence[Deletion], bool],
) -> JsonObject:
    """Compare a word after its whole prefix with the same word after each shortened one."""
    whole = likely[*at, ()]
    drops = [whole - likely[*at, deletion] for deletion in control[0]]
    return {
        "probability": whole,
        "control": {"drop": float(np.mean(drops)), "draws": len(drops), "complete": control[1]},
        "methods": {
            name: {"drop": whole - likely[*at, deletion], "deleted": [one - 1 for one in deletion]}
            for name, deletion in own.items()
        },
    }


def _probabilities(look: Look, asked: Sequence[Asked]) -> dict[Asked, float]:
    model = look.readings.model
    inputs, tokens = look.readings.inputs.tolist(), look.readings.tokens.tolist()
    prefixes = [
        Prefix(row, tuple(inputs[row][at] for at in range(place + 1) if at not in deletion), tokens[row][place])
        for row, place, deletion in asked
    ]
    with torch.no_grad():
        memory = model.remember(look.readings.features)
    return dict(zip(asked, probabilities(model, memory, prefixes), strict=True))

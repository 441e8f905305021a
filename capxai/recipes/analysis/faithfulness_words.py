"""Takes preceding words out of a prefix, or puts them into an empty one, in the order of their relevance for a word.

What is left of a prefix is a set of preceding words in the order of the caption, written as a number whose bit i stands for word i. Sets
that begin alike share their first steps: every set is one step after the set without its last word. All sets of a batch form a tree, and
one step of the decoder serves all sets of a size and every later word that was asked for after them.

Axes: W words of a batch of pictures, T words of the longest caption, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from capxai.evaluate.faithfulness import kept_at_steps, relevance_order
from capxai.explain.attribution import Readings, Words
from capxai.explain.methods import Options
from capxai.models.state import Memory, State
from capxai.recipes.analysis.stream import RANDOM, Look

_NUMBERS_AT_ONCE = 12_000_000
"""Numbers of pictures that are copied for sets read together: 48 MB in single precision."""

_TIES, _ORDERS = 0, 1
"""Streams of random numbers."""

Values = NDArray[np.float64]
Asked = tuple[int, int, int]
"""A picture of the batch, the set of words that it is told, and the place of the word whose probability is asked for."""
Set = tuple[int, int]
"""A picture of the batch and the set of words that it is told."""


@dataclass(frozen=True)
class WordCurves:
    """How preceding words are taken and given.

    Attributes:
        least: Preceding words, beside ``<start>``, that a word must have to be measured.
        exact: Up to so many preceding words, "random" is the mean over all their subsets.
        draws: Random orders of more words, whose mean is taken instead.
        seed: Seed of these, and of the order of words of equal relevance, together with image id and place.
    """

    least: int
    exact: int
    draws: int
    seed: int

    def words(self, look: Look) -> Words:
        """Choose the words of a batch that have enough words before them."""
        each = [
            (row, place)
            for row, length in enumerate(look.readings.lengths.tolist())
            for place in range(self.least, length)
        ]
        return look.words([row for row, _ in each], [place for _, place in each])

    def of(self, look: Look, words: Words, methods: Sequence[str], options: Options) -> list[dict[str, Values]]:
        """Return for each word, by method, its curves (2, X + 1) over 0 to all X preceding words, deletion and insertion.

        ``<start>`` always stays. The method "random" stands for the mean over all orders, or over many.
        """
        each = list(zip(words.rows.tolist(), words.places.tolist(), strict=True))
        sets: list[dict[str, list[list[int]]]] = [{} for _ in each]
        for name, found in self._orders(look, words, methods, options):
            for own, order in zip(sets, found, strict=True):
                own[name] = _sets(order)
        drawn = [self._drawn(look.pictures[row].id, place) for row, place in each] if RANDOM in methods else []
        asked: set[Asked] = set()
        for (row, place), own in zip(each, sets, strict=True):
            asked.update((row, one, place) for curves in own.values() for curve in curves for one in curve)
        for (row, place), own_sets in zip(each, drawn, strict=bool(drawn)):
            asked.update((row, one, place) for of_size in own_sets for one in of_size)
        likely = set_probabilities(look.readings, asked)
        results: list[dict[str, Values]] = []
        for number, (row, place) in enumerate(each):
            curves = {
                name: np.array([[likely[row, one, place] for one in curve] for curve in own])
                for name, own in sets[number].items()
            }
            if drawn:
                given = np.array([np.mean([likely[row, one, place] for one in some]) for some in drawn[number]])
                curves[RANDOM] = np.stack([given[::-1], given])
            results.append({name: curves[name] for name in methods})
        return results

    def _orders(
        self, look: Look, words: Words, methods: Sequence[str], options: Options
    ) -> Iterator[tuple[str, list[NDArray[np.int64]]]]:
        """Order the preceding words of every word by every method; the pictures themselves are not needed."""
        plain = replace(look, readings=replace(look.readings, images=None, tape=None))
        each = list(zip(words.rows.tolist(), words.places.tolist(), strict=True))
        ties = [self._generator(look.pictures[row].id, place, _TIES).permutation(place) for row, place in each]
        for name, maps in plain.maps(words, [name for name in methods if name != RANDOM], options):
            assert maps.words is not None
            relevance = maps.words.detach().double().cpu().numpy()  # (W, T): input i + 1 is word i
            yield (
                name,
                [
                    relevance_order(one[1 : place + 1], tie)
                    for one, tie, (_, place) in zip(relevance, ties, each, strict=True)
                ],
            )

    def _generator(self, image_id: int, place: int, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, image_id, place, stream))

    def _drawn(self, image_id: int, count: int) -> list[list[int]]:
        """Return sets of 0, 1 ... ``count`` preceding words: all that there are, or those of random orders."""
        if count <= self.exact:
            found: list[list[int]] = [[] for _ in range(count + 1)]
            for one in range(2**count):
                found[one.bit_count()].append(one)
            return found
        generator = self._generator(image_id, count, _ORDERS)
        orders = [_sets(generator.permutation(count))[1] for _ in range(self.draws)]
        return [list(of_size) for of_size in zip(*orders, strict=True)]


def _sets(order: NDArray[np.int64]) -> list[list[int]]:
    """Return the sets of words at every step of deletion and of insertion."""
    bits = 2 ** np.arange(len(order), dtype=np.int64)
    sets: list[list[int]] = (kept_at_steps(order, np.arange(len(order) + 1)) @ bits).tolist()
    return sets


@torch.no_grad()
def set_probabilities(readings: Readings, asked: Iterable[Asked]) -> dict[Asked, float]:
    """Return the probability, over the whole vocabulary, of words after sets of the words before them.

    Args:
        readings: The model, pictures and captions.
        asked: What to ask; the words of a set stand before the place.
    """
    places: dict[Set, list[int]] = {}
    for row, told, place in sorted(asked):
        places.setdefault((row, told), []).append(place)
    model, found = readings.model, dict[Asked, float]()
    memory = model.remember(readings.features)
    before: list[Set] = []
    state: State | None = None
    for level in _levels(places):
        parents = {one: number for number, one in enumerate(before)}
        size = max(1, _NUMBERS_AT_ONCE // _numbers(memory))
        states = []
        for start in range(0, len(level), size):
            part = level[start : start + size]
            rows = torch.tensor([row for row, _ in part], device=model.device)
            here = memory.select(rows)
            from_where = [parents[row, _without_last(told)] for row, told in part] if state is not None else []
            old = model.start(here) if state is None else state.select(torch.tensor(from_where, device=model.device))
            step = model.step(here, model.embed(_last_words(readings, part)), old)
            states.append(step.state)
            found |= _read_off(readings, part, step.logits, places)
        before, state = level, _joined(states)
    return found


def _levels(places: Iterable[Set]) -> list[list[Set]]:
    """Return all sets that must be read, by their size: those that were asked for, and what they begin with."""
    needed: set[Set] = set()
    for row, told in places:
        while (row, told) not in needed:
            needed.add((row, told))
            told = _without_last(told) if told else told  # noqa: PLW2901
    levels: dict[int, list[Set]] = {}
    for one in sorted(needed):
        levels.setdefault(one[1].bit_count(), []).append(one)
    return [levels[size] for size in sorted(levels)]


def _without_last(told: int) -> int:
    return told ^ (1 << (told.bit_length() - 1))


def _last_words(readings: Readings, sets: Sequence[Set]) -> torch.Tensor:
    """Return the id of the last word of each set, ``<start>`` of the empty one."""
    tokens, start = readings.tokens.tolist(), readings.model.vocabulary.start
    last = [tokens[row][told.bit_length() - 1] if told else start for row, told in sets]
    return torch.tensor(last, device=readings.model.device)


def _read_off(
    readings: Readings, sets: Sequence[Set], logits: torch.Tensor, places: dict[Set, list[int]]
) -> dict[Asked, float]:
    """Look up the words that were asked for after sets, in logits (R, V)."""
    asked = [(number, place) for number, one in enumerate(sets) for place in places.get(one, ())]
    if not asked:
        return {}
    numbers = torch.tensor([number for number, _ in asked], device=logits.device)
    words = readings.tokens[
        torch.tensor([sets[number][0] for number, _ in asked], device=logits.device),
        torch.tensor([place for _, place in asked], device=logits.device),
    ]
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    likely = torch.softmax(wide, 1)[numbers, words].tolist()
    return {(*sets[number], place): one for (number, place), one in zip(asked, likely, strict=True)}


def _numbers(memory: Memory) -> int:
    """Count the numbers that belong to one picture."""
    return sum(getattr(memory, field.name)[0].numel() for field in fields(memory))


def _joined(states: Sequence[State]) -> State:
    """Put the states of several parts one after the other."""
    return State(
        tuple(torch.cat(parts) for parts in zip(*(one.hidden for one in states), strict=True)),
        tuple(torch.cat(parts) for parts in zip(*(one.cell for one in states), strict=True)),
    )

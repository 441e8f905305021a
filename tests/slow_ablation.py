"""Ablation once more, from its definition in method.md: one picture, one word, one method at a time, with loops and plain numbers.

Of the package it uses the model's single step, its encoder, and explanations through the public function. Random deletions and the order of
equal patches are drawn as documented, from the seed, the image id and the place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from ablation_cases import NAMES, SIDE, normalized, reference_of

from capxai.explain.explainer import explain
from capxai.explain.explanation import Explanation
from capxai.explain.methods import Options
from capxai.models.captioner import Captioner
from capxai.models.state import Memory, State

FORBIDDEN = ("<pad>", "<start>", "<unk>")


@dataclass
class Slow:
    """Settings, and what was found: for each part a list of (image id, kind, figure, method, value) and of probabilities."""

    model: Captioner
    corpus: Path
    methods: tuple[str, ...]
    seed: int
    draws: int
    patch: int
    patches: int
    first_word: int = 6
    deleted: int = 3
    word_rows: list[tuple[int, str, str, str, float]] = field(default_factory=list)
    picture_rows: list[tuple[int, str, str, str, float]] = field(default_factory=list)
    captions: dict[int, str] = field(default_factory=dict)
    new_captions: list[str] = field(default_factory=list)

    def picture(self, number: int) -> None:
        """Ablate one picture."""
        image = normalized(self.model, self.corpus, number).to(self.model.dtype)
        memory = encode(self.model, image)
        words = search(self.model, memory)
        self.captions[number] = " ".join(words)
        if not words:
            return
        explanations = {name: self._explain(name, number, words) for name in self.methods}
        named = mentions(words)
        inside = {at for first, last, _ in named for at in range(first, last + 1)}
        for place in range(self.first_word - 1, len(words)):
            self._word(number, memory, words, place, "object" if place in inside else "other", explanations)
        there = {category for _, _, category in mentions(reference_of(number).split())}
        for first, _, category in named:
            kind = "true" if category in there else "hallucinated"
            self._object(number, image, words, (first, category, kind), explanations)

    def _explain(self, name: str, number: int, words: list[str]) -> Explanation:
        path = self.corpus / "images" / f"{number}.png"
        return explain(self.model, path, name, " ".join(words), options=Options(seed=self.seed + number))

    def _word(
        self,
        number: int,
        memory: Memory,
        words: list[str],
        place: int,
        kind: str,
        explanations: dict[str, Explanation],
    ) -> None:
        before = ["<start>", *words[:place]]
        whole = probability(self.model, memory, before, words[place])
        choices = {}
        for name, found in explanations.items():
            if found.word_relevance is not None:
                row = [float(value) for value in found.word_relevance[place]]
                ranked = sorted(range(1, place + 1), key=lambda at: (-row[at], at))
                choices[name] = [ranked[: self.deleted]]
        choices["chance"] = self._random(number, place)
        for name, deletions in choices.items():
            drops = []
            for deletion in deletions:
                kept = [word for at, word in enumerate(before) if at not in deletion]
                drops.append(whole - probability(self.model, memory, kept, words[place]))
            self.word_rows.append((number, kind, "drop", name, sum(drops) / len(drops)))
        self.word_rows.append((number, kind, "probability", "", whole))

    def _random(self, number: int, place: int) -> list[list[int]]:
        every = [list(one) for one in combinations(range(1, place + 1), self.deleted)]
        if len(every) <= self.draws:
            return every
        generator = np.random.default_rng((self.seed, number, place))
        drawn: list[list[int]] = []
        while len(drawn) < self.draws:
            one = sorted(int(at) + 1 for at in generator.choice(place, self.deleted, replace=False))
            if one not in drawn:
                drawn.append(one)
        return drawn

    def _object(
        self,
        number: int,
        image: torch.Tensor,
        words: list[str],
        mention: tuple[int, str, str],
        explanations: dict[str, Explanation],
    ) -> None:
        place, category, kind = mention
        before = ["<start>", *words[:place]]
        whole = probability(self.model, encode(self.model, image), before, words[place])
        for name, found in explanations.items():
            assert found.pixel_relevance is not None
            covered = encode(self.model, self._cover(image, found.pixel_relevance[place], number))
            caption = search(self.model, covered)
            self.new_captions.append(" ".join(caption))
            gone = category not in {other for _, _, other in mentions(caption)}
            drop = whole - probability(self.model, covered, before, words[place])
            self.picture_rows.append((number, kind, "vanished", name, float(gone)))
            self.picture_rows.append((number, kind, "drop", name, drop))
        self.picture_rows.append((number, kind, "probability", "", whole))

    def _cover(self, image: torch.Tensor, relevance: np.ndarray, number: int) -> torch.Tensor:
        corners = [(top, left) for top in range(0, SIDE, self.patch) for left in range(0, SIDE, self.patch)]
        order = np.random.default_rng((self.seed, number)).permutation(len(corners)).tolist()
        sums = []
        for top, left in corners:
            total = 0.0
            for y in range(top, min(top + self.patch, SIDE)):
                for x in range(left, min(left + self.patch, SIDE)):
                    total += float(relevance[y, x])
            sums.append(total)
        covered = image.clone()
        for which in sorted(range(len(corners)), key=lambda one: (-sums[one], order[one]))[: self.patches]:
            top, left = corners[which]
            for y in range(top, min(top + self.patch, SIDE)):
                for x in range(left, min(left + self.patch, SIDE)):
                    for channel in range(3):
                        covered[0, channel, y, x] = 0.0
        return covered


def encode(model: Captioner, image: torch.Tensor) -> Memory:
    """Look at one picture."""
    with torch.no_grad():
        return model.encode(image)


def advance(model: Captioner, memory: Memory, state: State, word: str) -> tuple[dict[str, float], State]:
    """Read one word and return the logarithm of each next word's probability, and the new state."""
    with torch.no_grad():
        step = model.step(memory, model.embed(torch.tensor([model.vocabulary.words.index(word)])), state)
    logits = [float(value) for value in step.logits[0].double()]
    total = math.log(sum(math.exp(value) for value in logits))
    return {word: value - total for word, value in zip(model.vocabulary.words, logits, strict=True)}, step.state


def probability(model: Captioner, memory: Memory, before: list[str], word: str) -> float:
    """Return how likely a word is after others."""
    state = model.start(memory)
    for one in before:
        likely, state = advance(model, memory, state, one)
    return math.exp(likely[word])


def search(model: Captioner, memory: Memory, beam: int = 3, longest: int = 20) -> list[str]:
    """Search for a caption, a hypothesis and a word at a time."""
    hypotheses: list[tuple[float, list[str], State | None]] = [(0.0, [], model.start(memory))]
    for _ in range(longest):
        extended = [one for one in hypotheses if one[2] is None]  # finished ones
        for total, words, state in hypotheses:
            if state is None:
                continue
            likely, after = advance(model, memory, state, words[-1] if words else "<start>")
            for word, value in likely.items():
                if word == "<end>":
                    extended.append((total + value, words, None))
                elif word not in FORBIDDEN:
                    extended.append((total + value, [*words, word], after))
        hypotheses = sorted(extended, key=lambda one: -one[0])[:beam]
        if all(state is None for _, _, state in hypotheses):
            break
    return hypotheses[0][1]


def mentions(words: list[str]) -> list[tuple[int, int, str]]:
    """Find names of objects: first place, last place, category. A word alone of a name of two is none; a table is a dining table."""
    names = {**{name: name for name in NAMES}, "table": "dining table"}
    found = []
    for at in range(len(words)):
        for name, category in names.items():
            last = at + len(name.split())
            if " ".join(words[at:last]) == name:
                found.append((at, last - 1, category))
    return found


Value = tuple[float, float, float]


def estimates(rows: list[tuple[int, float]], pictures: list[int], seed: int) -> tuple[Value, list[float]]:
    """Return mean over words with its interval over drawn pictures, and the mean of every draw (NaN without words)."""
    means = []
    generator = np.random.default_rng(seed)
    own = [[value for owner, value in rows if owner == picture] for picture in pictures]
    for times in generator.multinomial(len(pictures), [1 / len(pictures)] * len(pictures), size=1000):
        total, count = 0.0, 0
        for values, often in zip(own, times.tolist(), strict=True):
            for value in values:
                total += often * value
                count += often
        means.append(total / count if count else math.nan)
    value = sum(one for _, one in rows) / len(rows)
    low, high = np.percentile([one for one in means if not math.isnan(one)], (2.5, 97.5))
    return (value, float(low), float(high)), means


def distance(first: tuple[Value, list[float]], second: tuple[Value, list[float]]) -> tuple[float, float, float, float]:
    """Return the difference of two means with its interval and two-sided p, over the draws of both."""
    apart = [a - b for a, b in zip(first[1], second[1], strict=True) if not math.isnan(a)]
    low, high = np.percentile(apart, (2.5, 97.5))
    below, above = sum(one <= 1e-9 for one in apart), sum(one >= -1e-9 for one in apart)
    p = min(1.0, 2 * (min(below, above) + 1) / (len(apart) + 1))
    return first[0][0] - second[0][0], float(low), float(high), p

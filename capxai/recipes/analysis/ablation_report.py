"""What an ablation found: means over words, split by their kinds, with the differences to the controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from capxai.evaluate.ablation import Loss, compare
from capxai.evaluate.bootstrap import Weights
from capxai.types import JsonObject

SCHEMA = 1
WORDS, PICTURES = "words", "pictures"
CHANCE = "chance"
"""The control of deleted words: the mean of random deletions of the same candidates."""
RANDOM = "random"
"""The control of covered patches: the method of that name, one draw for each word."""

Entry = tuple[int, JsonObject]
"""Number of a picture, and the record of one of its words."""


@dataclass(frozen=True)
class Group:
    """Words of one kind.

    Attributes:
        words: How many there are.
        pictures: In how many pictures.
        probability: Their mean probability before the ablation, or None without words.
        figures: By figure ("drop", "vanished"), by method: the loss; empty without words.
    """

    words: int
    pictures: int
    probability: float | None
    figures: dict[str, dict[str, Loss]]

    def to_json(self) -> JsonObject:
        """Return the group as a JSON object, method by method."""
        methods = dict.fromkeys(name for losses in self.figures.values() for name in losses)
        return {
            "words": self.words,
            "pictures": self.pictures,
            "probability": self.probability,
            "methods": {
                name: {figure: losses[name].to_json() for figure, losses in self.figures.items()} for name in methods
            },
        }


@dataclass(frozen=True)
class Part:
    """One of the two ablations.

    Attributes:
        control: The name under which its control stands among the methods.
        settings: What was taken away, and how.
        every: All words.
        kinds: The same for words of one kind.
    """

    control: str
    settings: JsonObject
    every: Group
    kinds: dict[str, Group]

    def to_json(self) -> JsonObject:
        """Return the part as a JSON object."""
        kinds = {name: group.to_json() for name, group in self.kinds.items()}
        return {"control": self.control, **self.settings, **self.every.to_json(), "kinds": kinds}


@dataclass(frozen=True)
class AblationReport:
    """What was measured.

    Attributes:
        model: The model folder, or "bundled".
        corpus: Name of the corpus.
        split: The split.
        pictures: Pictures that were looked at.
        words: The ablation of words, or None where it was not asked for.
        objects: The ablation of pictures, or None where it was not asked for.
        records: What was measured on each picture.
        provenance: Settings, versions and hashes.
    """

    model: str
    corpus: str
    split: str
    pictures: int
    words: Part | None
    objects: Part | None
    records: tuple[JsonObject, ...] = field(repr=False)
    provenance: JsonObject = field(repr=False)

    def to_json(self) -> JsonObject:
        """Return the report as JSON, without the single words, which are in tables of their own."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "corpus": self.corpus,
            "split": self.split,
            "pictures": self.pictures,
            "word_ablation": None if self.words is None else self.words.to_json(),
            "picture_ablation": None if self.objects is None else self.objects.to_json(),
            "provenance": self.provenance,
        }


def entries(records: Sequence[JsonObject], part: str) -> list[Entry]:
    """Return the records of the words of one part, with the numbers of their pictures; pictures without a caption have none."""
    return [(number, one) for number, record in enumerate(records) for one in record.get(part, ())]


def score_words(records: Sequence[JsonObject], settings: JsonObject, weights: Weights) -> Part:
    """Score the ablation of words: all, those that name objects, and the others."""
    found = entries(records, WORDS)
    complete = sum(one["control"]["complete"] for _, one in found)
    return Part(
        CHANCE,
        {**settings, "words_with_all_random_deletions": complete},
        _group(found, _word_losses, CHANCE, weights),
        {
            "object": _group([one for one in found if one[1]["category"]], _word_losses, CHANCE, weights),
            "other": _group([one for one in found if not one[1]["category"]], _word_losses, CHANCE, weights),
        },
    )


def score_pictures(records: Sequence[JsonObject], settings: JsonObject, weights: Weights) -> Part:
    """Score the ablation of pictures: all object words, those whose object is there, and the hallucinated ones."""
    found = entries(records, PICTURES)
    return Part(
        RANDOM,
        settings,
        _group(found, _object_losses, RANDOM, weights),
        {
            "true": _group([one for one in found if one[1]["present"]], _object_losses, RANDOM, weights),
            "hallucinated": _group([one for one in found if not one[1]["present"]], _object_losses, RANDOM, weights),
        },
    )


Losses = Mapping[str, Mapping[str, float]]


def _word_losses(record: JsonObject) -> Losses:
    """Return by figure and method what a word lost."""
    drops = {name: one["drop"] for name, one in record["methods"].items()}
    return {"drop": {**drops, CHANCE: record["control"]["drop"]}}


def _object_losses(record: JsonObject) -> Losses:
    methods: JsonObject = record["methods"]
    return {
        "vanished": {name: float(one["vanished"]) for name, one in methods.items()},
        "drop": {name: one["drop"] for name, one in methods.items()},
    }


def _group(found: Sequence[Entry], losses: Callable[[JsonObject], Losses], control: str, weights: Weights) -> Group:
    if not found:
        return Group(0, 0, None, {})
    pictures = [number for number, _ in found]
    tables = [losses(record) for _, record in found]
    figures = {
        figure: compare(pictures, {name: [table[figure][name] for table in tables] for name in names}, control, weights)
        for figure, names in tables[0].items()
    }
    probability = float(np.mean([record["probability"] for _, record in found]))
    return Group(len(found), len(set(pictures)), probability, figures)

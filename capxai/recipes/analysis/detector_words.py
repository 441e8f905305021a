"""Object words with what was measured of them, and the tables that regressions read.

Axes: n words, F numbers, C channels.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from capxai.evaluate.detection import Labels
from capxai.evaluate.lexicon import Lexicon
from capxai.explain.methods import Options
from capxai.recipes.analysis.detector_features import CATEGORY, GROUPS, PROTOTYPES, word_features
from capxai.recipes.analysis.mentions import mentions_of
from capxai.recipes.analysis.stream import Look
from capxai.types import JsonObject

Values = NDArray[np.float64]


def measure_words(
    look: Look, lexicon: Lexicon, objects: Mapping[int, frozenset[str]], options: Options | None = None
) -> list[JsonObject]:
    """Return for each picture its "mentions": where each object word stands, whether it is true, and what was measured of it."""
    mentioned = mentions_of(look, lexicon, objects)
    found = word_features(look, mentioned, options)
    records: list[JsonObject] = [{"mentions": []} for _ in look.pictures]
    for one, numbers, region in zip(mentioned, found.table, found.regions, strict=True):
        records[one.row]["mentions"].append(
            {
                "position": one.place,
                "last": one.last,
                "word": one.text,
                "category": one.category,
                "present": one.present,
                "features": numbers,
                "region": _packed(region),
            }
        )
    return records


def _packed(region: torch.Tensor) -> str:
    """Write a vector in a quarter of the room that digits take: float32, base 64."""
    return base64.b64encode(region.detach().cpu().numpy().astype("<f4").tobytes()).decode("ascii")


def _unpacked(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


@dataclass(frozen=True)
class DetectorWords:
    """The object words of all captions, in the order of the pictures.

    Attributes:
        pictures: (n,) number of each word's picture, from 0.
        count: How many pictures there are, those without words too.
        image_ids: Id of each word's picture.
        captions: The caption that it stands in.
        positions: Place of the first word of the name, from 0.
        words: The name as it stands there.
        categories: The category that it names.
        present: (n,) bool, whether the picture has one.
        names: F names of numbers.
        table: (n, F); NaN for a number that a word does not have.
        regions: (n, C) features of its most relevant region.
    """

    pictures: NDArray[np.int64]
    count: int
    image_ids: tuple[int, ...]
    captions: tuple[str, ...]
    positions: tuple[int, ...]
    words: tuple[str, ...]
    categories: tuple[str, ...]
    present: NDArray[np.bool_]
    names: tuple[str, ...]
    table: Values
    regions: Values

    @classmethod
    def of(cls, records: Sequence[JsonObject]) -> DetectorWords:
        """Gather the words of records."""
        each = [(number, record, one) for number, record in enumerate(records) for one in record.get("mentions", ())]
        names = tuple(each[0][2]["features"]) if each else ()
        table = np.array(
            [[one["features"][name] for name in names] for _, _, one in each], dtype=np.float64
        )  # None is NaN
        regions = [_unpacked(one["region"]) for _, _, one in each]

        def column(key: str) -> tuple[str, ...]:
            return tuple(one[key] for _, _, one in each)

        return cls(
            np.array([number for number, _, _ in each], dtype=np.int64),
            len(records),
            tuple(record["image_id"] for _, record, _ in each),
            tuple(record["caption"] for _, record, _ in each),
            tuple(one["position"] for _, _, one in each),
            column("word"),
            column("category"),
            np.array([one["present"] for _, _, one in each], dtype=bool),
            names,
            table.reshape(len(each), len(names)),
            np.array(regions, dtype=np.float64).reshape(len(each), -1 if regions else 0),
        )

    def __len__(self) -> int:
        """Return the number of words."""
        return len(self.words)

    @property
    def labels(self) -> Labels:
        """Which words are true, their pictures and categories."""
        return Labels.of(self.present.tolist(), self.pictures.tolist(), self.categories)

    @property
    def hallucinated(self) -> NDArray[np.bool_]:
        """(n,) bool, the words that name what is not there."""
        return ~self.present


@dataclass(frozen=True)
class Design:
    """What a regression reads.

    Attributes:
        names: F names.
        table: (n, F).
    """

    names: tuple[str, ...]
    table: Values


def design(words: DetectorWords, groups: Sequence[str], similar: Values, categories: Sequence[str]) -> Design:
    """Gather the numbers of some groups.

    Args:
        words: The words.
        groups: Names in `GROUPS`, or "category": one number for each category, 1 for the words that name it.
        similar: (n, 2) scores of the prototypes.
        categories: The categories that "category" knows; for another one all are 0.
    """
    parts: list[tuple[str, Values]] = []
    for group in groups:
        parts += _parts(group, words, similar, categories)
    columns = [values for _, values in parts]
    table = np.stack(columns, axis=1) if columns else np.zeros((len(words), 0))
    return Design(tuple(name for name, _ in parts), table)


def _parts(group: str, words: DetectorWords, similar: Values, categories: Sequence[str]) -> list[tuple[str, Values]]:
    if group == CATEGORY:
        kinds = np.asarray(words.categories, dtype=np.str_)
        return [(f"{CATEGORY}: {name}", (kinds == name).astype(np.float64)) for name in categories]
    if group == PROTOTYPES:
        return [(name, similar[:, place]) for place, name in enumerate(GROUPS[group])]
    place_of: Callable[[str], int] = words.names.index
    return [(name, words.table[:, place_of(name)]) for name in GROUPS[group] if name in words.names]

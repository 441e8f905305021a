"""The thresholds under which an object word has too little to stand on: ``grounding.json`` beside a model."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from capxai.errors import ModelError
from capxai.types import JsonObject

GROUNDING_FILE = "grounding.json"
SCHEMA = 1
FEWEST = 20
"""With fewer true mentions than this, a category is given the threshold of all categories together."""


@dataclass(frozen=True)
class Vetoed:
    """An object word that gave way to another in a caption.

    Attributes:
        step: Place in the caption, from 0.
        word: The word that was forbidden there, after the same words before it.
        instead: What the caption says there: a word, or ``<end>``.
        probability: The model's probability of the forbidden word, more than that of what is said.
        value: Its evidence, in the measure of the grounding.
        threshold: What it had to reach.
    """

    step: int
    word: str
    instead: str
    probability: float
    value: float
    threshold: float


@dataclass(frozen=True)
class Grounding:
    """When an object word gives way, for one set of weights.

    Attributes:
        weights_sha256: The weights that it was calibrated for.
        lexicon_sha256: The lexicon by which mentions were found.
        measure: A name in `capxai.recipes.grounding_veto.MEASURES`.
        quantile: Share of the true mentions that lie under the threshold, in (0, 1).
        pooled: The threshold of all categories together.
        thresholds: By category, of those with at least `FEWEST` true mentions.
        examples: By category, how many true mentions there were.
        provenance: What was calibrated on what, and with which command.
    """

    weights_sha256: str
    lexicon_sha256: str
    measure: str
    quantile: float
    pooled: float
    thresholds: dict[str, float]
    examples: dict[str, int]
    provenance: JsonObject = field(default_factory=dict)

    def threshold(self, category: str) -> float:
        """Return the threshold of a category, or that of all together where it was seen too rarely."""
        return self.thresholds.get(category, self.pooled)

    def to_json(self) -> JsonObject:
        """Return what ``grounding.json`` holds."""
        return {"schema": SCHEMA, **vars(self)}

    @classmethod
    def from_json(cls, value: JsonObject) -> Grounding:
        """Read what `to_json` wrote.

        Raises:
            ValueError: An entry has the wrong kind, or the schema is another one.
            KeyError: An entry is missing.
            AttributeError: A table is none.
            TypeError: A number is none.
        """
        if value.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {value.get('schema')!r}, not {SCHEMA}")
        thresholds = {str(name): float(level) for name, level in value["thresholds"].items()}
        found = cls(
            weights_sha256=_text(value, "weights_sha256"),
            lexicon_sha256=_text(value, "lexicon_sha256"),
            measure=_text(value, "measure"),
            quantile=float(value["quantile"]),
            pooled=float(value["pooled"]),
            thresholds=thresholds,
            examples={str(name): int(count) for name, count in value["examples"].items()},
            provenance=dict(value["provenance"]),
        )
        if not all(math.isfinite(number) for number in (found.quantile, found.pooled, *thresholds.values())):
            raise ValueError("a threshold is no number")
        return found


def _text(value: JsonObject, name: str) -> str:
    found = value[name]
    if not isinstance(found, str):
        raise ValueError(f"its {name} is no text")
    return found


def read_grounding(folder: Path, weights_sha256: str, lexicon_sha256: str, name: str) -> Grounding:
    """Read the grounding of a model.

    Args:
        folder: The model folder.
        weights_sha256: Hash of the weights of the model.
        lexicon_sha256: Hash of the lexicon that will tell object words.
        name: The model, as messages call it.

    Raises:
        ModelError: There is none, it cannot be read, or it was calibrated for other weights or another lexicon.
    """
    path = folder / GROUNDING_FILE
    command = "capxai analyze grounding" + ("" if name == "bundled" else f" --model {name}") + " --install"
    try:
        grounding = Grounding.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ModelError(
            f"The model '{name}' has no {GROUNDING_FILE}, so nobody knows how much evidence its words have when they are true. Expected "
            f"the file in its folder. Calibrate it: {command}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"'{path}' cannot be read: {_reason(error)}. Expected what 'capxai analyze grounding' writes. Calibrate: {command} --force"
        ) from error
    if grounding.weights_sha256 != weights_sha256:
        raise ModelError(
            f"'{path}' was calibrated for other weights (SHA-256 {grounding.weights_sha256[:12]}...) than those of the model '{name}' "
            f"({weights_sha256[:12]}...). Expected thresholds of these very weights. Calibrate it again: {command} --force"
        )
    if grounding.lexicon_sha256 != lexicon_sha256:
        raise ModelError(
            f"'{path}' was calibrated with another lexicon (SHA-256 {grounding.lexicon_sha256[:12]}...) than that of this capxai "
            f"({lexicon_sha256[:12]}...). Expected thresholds of its categories. Calibrate it again: {command} --force"
        )
    return grounding


def _reason(error: Exception) -> str:
    return f"there is no {error} in it" if isinstance(error, KeyError) else str(error)

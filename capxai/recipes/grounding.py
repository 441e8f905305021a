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
            ValueError: An entry is missing, of the wrong kind, or of another schema.
        """
        if value.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {value.get('schema')!r}, not {SCHEMA}")
        texts = [value.get(name) for name in ("weights_sha256", "lexicon_sha256", "measure")]
        tables = [value.get(name) for name in ("thresholds", "examples", "provenance")]
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(table, dict) for table in tables):
            raise ValueError("an entry is missing or of the wrong kind")
        thresholds, examples, provenance = tables
        numbers = [float(value[name]) for name in ("quantile", "pooled")]
        levels = {str(name): float(level) for name, level in thresholds.items()}
        if not all(math.isfinite(number) for number in (*numbers, *levels.values())):
            raise ValueError("a threshold is no number")
        counts = {str(name): int(count) for name, count in examples.items()}
        return cls(*texts, *numbers, levels, counts, provenance)


def read_grounding(folder: Path, weights_sha256: str, name: str) -> Grounding:
    """Read the grounding of a model.

    Args:
        folder: The model folder.
        weights_sha256: Hash of the weights of the model.
        name: The model, as messages call it.

    Raises:
        ModelError: There is none, it cannot be read, or it was calibrated for other weights.
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
            f"'{path}' cannot be read: {error}. Expected what 'capxai analyze grounding' writes. Calibrate it again: {command} --force"
        ) from error
    if grounding.weights_sha256 != weights_sha256:
        raise ModelError(
            f"'{path}' was calibrated for other weights (SHA-256 {grounding.weights_sha256[:12]}...) than those of the model '{name}' "
            f"({weights_sha256[:12]}...). Expected thresholds of these very weights. Calibrate it again: {command} --force"
        )
    return grounding

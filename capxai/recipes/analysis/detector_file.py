"""``detector.json``: a regression that gives the probability that an object word is hallucinated, for one set of weights."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capxai.errors import ModelError
from capxai.evaluate.logistic import Logistic, sigmoid
from capxai.recipes.analysis.detector_prototypes import Prototypes
from capxai.recipes.analysis.detector_words import DetectorWords, design
from capxai.types import JsonObject

DETECTOR_FILE = "detector.json"
SCHEMA = 1


@dataclass(frozen=True)
class Detector:
    """What tells hallucinated words of one model.

    Attributes:
        weights_sha256: The weights that it was calibrated for.
        lexicon_sha256: The lexicon by which object words were found.
        eps: Stabilizer of the epsilon rule of "lrp".
        groups: The groups of numbers that it reads.
        regression: Of the log odds that a word is true.
        prototypes: What true words look like.
        categories: The categories whose words it has an intercept for; empty where it reads no category.
        threshold: Least probability of being hallucinated at which a word is doubtful.
        figures: How it did when it was calibrated.
        provenance: What was calibrated on what, and with which command.
    """

    weights_sha256: str
    lexicon_sha256: str
    eps: float
    groups: tuple[str, ...]
    regression: Logistic
    prototypes: Prototypes
    categories: tuple[str, ...]
    threshold: float
    figures: JsonObject = field(default_factory=dict)
    provenance: JsonObject = field(default_factory=dict)

    def probabilities(self, words: DetectorWords) -> NDArray[np.float64]:
        """Return the probability (n,) that each word is hallucinated.

        Raises:
            ValueError: The numbers of the words are not those that were calibrated.
        """
        similar = self.prototypes.scores(words.regions, words.categories)
        read = design(words, self.groups, similar, self.categories)
        if read.names != self.regression.names:
            raise ValueError(f"Found the numbers {read.names}; expected {self.regression.names}.")
        return sigmoid(-self.regression.log_odds(read.table))

    def to_json(self) -> JsonObject:
        """Return what ``detector.json`` holds."""
        return {
            "schema": SCHEMA,
            "weights_sha256": self.weights_sha256,
            "lexicon_sha256": self.lexicon_sha256,
            "eps": self.eps,
            "groups": list(self.groups),
            "threshold": self.threshold,
            "categories": list(self.categories),
            "regression": self.regression.to_json(),
            "prototypes": self.prototypes.to_json(),
            "figures": self.figures,
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, value: JsonObject) -> Detector:
        """Read what `to_json` wrote.

        Raises:
            ValueError: An entry has the wrong kind, or the schema is another one.
            KeyError: An entry is missing.
            TypeError: An entry has the wrong kind.
            AttributeError: A table is none.
        """
        if value.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {value.get('schema')!r}, not {SCHEMA}")
        found = cls(
            weights_sha256=str(value["weights_sha256"]),
            lexicon_sha256=str(value["lexicon_sha256"]),
            eps=float(value["eps"]),
            groups=tuple(str(name) for name in value["groups"]),
            regression=Logistic.from_json(value["regression"]),
            prototypes=Prototypes.from_json(value["prototypes"]),
            categories=tuple(str(name) for name in value["categories"]),
            threshold=float(value["threshold"]),
            figures=dict(value["figures"]),
            provenance=dict(value["provenance"]),
        )
        if not math.isfinite(found.threshold) or not math.isfinite(found.eps):
            raise ValueError("its threshold or its eps is no number")
        return found


def read_detector(path: Path, weights_sha256: str, lexicon_sha256: str, name: str) -> Detector:
    """Read the detector of a model.

    Args:
        path: The file.
        weights_sha256: Hash of the weights of the model.
        lexicon_sha256: Hash of the lexicon by which object words are found now.
        name: The model, as messages call it.

    Raises:
        ModelError: There is none, it cannot be read, or it was calibrated for other weights or another lexicon.
    """
    command = _command(name)
    try:
        found = Detector.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ModelError(
            f"There is no detector '{path}', so nobody knows which words of the model '{name}' are doubtful. Expected the file beside "
            f"the model, or another one named with --detector. Calibrate one: {command}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"'{path}' cannot be read: {_reason(error)}. Expected what 'capxai analyze detector' writes. Calibrate it again: "
            f"{command} --force"
        ) from error
    if found.weights_sha256 != weights_sha256:
        raise ModelError(
            f"'{path}' was calibrated for other weights (SHA-256 {found.weights_sha256[:12]}...) than those of the model '{name}' "
            f"({weights_sha256[:12]}...). Expected a detector of these very weights. Calibrate one: {command} --force"
        )
    if found.lexicon_sha256 != lexicon_sha256:
        raise ModelError(
            f"'{path}' was calibrated with another lexicon (SHA-256 {found.lexicon_sha256[:12]}...) than the one in use "
            f"({lexicon_sha256[:12]}...). Expected the same names of objects. Calibrate it again: {command} --force"
        )
    return found


def _command(name: str) -> str:
    return "capxai analyze detector" + ("" if name == "bundled" else f" --model {name}") + " --install"


def _reason(error: Exception) -> str:
    return f"there is no {error} in it" if isinstance(error, KeyError) else str(error)


def known_categories(groups: Sequence[str], words: DetectorWords, category: str) -> tuple[str, ...]:
    """Return the categories of the words, sorted, if the groups have a number for each; else none."""
    return tuple(sorted(set(words.categories))) if category in groups else ()

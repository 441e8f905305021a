"""SPICE 1.0 (Anderson et al. 2016), in Java, with models that the user provides.

pycocoevalcap downloads the models into its own package folder at first use; here nothing is downloaded. Its cache of parsed
references, which needs native code and lies in the package folder too, is left out.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from capxai.evaluate.java_process import JavaLimits, JavaProcess, java, pycocoevalcap_file
from capxai.evaluate.metrics import MetricScores

_CLASS = "edu.anu.spice.SpiceScorer"


def spice(
    candidates: Sequence[str], references: Sequence[Sequence[str]], models: Sequence[Path], limits: JavaLimits
) -> MetricScores:
    """Score captions with SPICE.

    Args:
        candidates: N captions, tokenized and joined by spaces.
        references: The references of each, in the same form.
        models: The two files that `capxai.evaluate.spice_models` finds.
        limits: What Java may use.

    Returns:
        The mean F1 of scene graph tuples, and that of each picture, in [0, 1].

    Raises:
        DependencyError: Java is missing or fails, or SPICE returned something else than a score for each picture.
    """
    package = pycocoevalcap_file("spice/spice-1.0.jar").parent
    path = os.pathsep.join([str(package / "spice-1.0.jar"), *map(str, models), str(package / "lib" / "*")])
    pictures = [
        {"image_id": number, "test": candidate, "refs": list(given)}
        for number, (candidate, given) in enumerate(zip(candidates, references, strict=True))
    ]
    arguments = ["-cp", path, _CLASS, "in.json", "-out", "out.json", "-silent"]
    with java(arguments, "SPICE", limits, {"in.json": json.dumps(pictures)}) as process:
        process.ask_all(())
        scores = _read_scores(process, len(pictures))
    return MetricScores(float(np.mean(scores)), np.array(scores))


def _read_scores(process: JavaProcess, count: int) -> list[float]:
    """Return the score of each picture from the file that SPICE writes."""
    try:
        entries = json.loads((process.folder / "out.json").read_text(encoding="utf-8"))
        found = {int(entry["image_id"]): float(entry["scores"]["All"]["f"]) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise process.failure(f"its output cannot be read ({type(error).__name__}: {error})") from error
    scores = [found.get(number, math.nan) for number in range(count)]
    if not all(map(math.isfinite, scores)):
        raise process.failure(f"it returned {sum(map(math.isfinite, scores))} scores for {count} pictures")
    return scores

"""METEOR 1.5 (Denkowski and Lavie 2014), in Java, as pycocoevalcap runs it.

Axes: N pictures, D draws, S = 23 statistics of a caption: four lengths; content and function words matched, on both sides, for
each of the four kinds of match; chunks; words matched on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from capxai.evaluate.java_process import JavaLimits, JavaProcess, java, pycocoevalcap_file
from capxai.evaluate.metrics import MetricScores

Floats = NDArray[np.float64]

STATISTICS = 23
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
MATCH_WEIGHTS = (1.0, 0.6, 0.8, 0.6)
"""The parameters of METEOR 1.5 for English; matches are exact, by stem, by synonym and by paraphrase."""

_JAR = "meteor/meteor-1.5.jar"


def meteor(candidates: Sequence[str], references: Sequence[Sequence[str]], limits: JavaLimits) -> MetricScores:
    """Score captions with METEOR.

    Args:
        candidates: N captions, tokenized and joined by spaces.
        references: The references of each, in the same form, one or more.
        limits: What Java may use.

    Returns:
        The score of the corpus, which METEOR computes from summed statistics, and that of each picture, in [0, 1].

    Raises:
        DependencyError: Java is missing or fails.
    """
    arguments = ["-jar", str(pycocoevalcap_file(_JAR)), "-", "-", "-stdio", "-l", "en", "-norm"]
    with java(arguments, "METEOR", limits) as process:
        lines = [_question(candidate, given) for candidate, given in zip(candidates, references, strict=True)]
        answers = process.ask(lines, len(lines))
        statistics = np.array([_numbers(process, answer, STATISTICS) for answer in answers])
        scores = process.ask(["EVAL ||| " + " ||| ".join(answers)], len(lines) + 1)
        found = np.array([_numbers(process, answer, 1)[0] for answer in scores])
    return MetricScores(float(found[-1]), found[:-1], summable(statistics), meteor_of_statistics)


def summable(statistics: Floats) -> Floats:
    """Prepare statistics of captions (N, S) for sums over captions, as METEOR sums them.

    A caption that is a reference word for word has one chunk, which is no fragmentation: its chunk is not counted. In `scenes`, and
    wherever captions repeat references, the sums would else be too low.
    """
    counted = statistics.copy()
    chunks, ours, theirs = (statistics[:, place] for place in (20, 21, 22))
    counted[(chunks == 1) & (ours == statistics[:, 0]) & (theirs == statistics[:, 1]), 20] = 0
    return counted


def meteor_of_statistics(statistics: Floats) -> Floats:
    """Compute METEOR from `summable` statistics (..., S): of one caption, or summed over captions; returns (...).

    With m the weighted matches (content words count delta, function words 1 - delta) and l the weighted length on a side,
    P = m/l of the caption, R = m/l of the reference, F = 1 / (alpha / R + (1 - alpha) / P), and the score is
    F (1 - gamma (chunks / matched words)^beta).
    """
    of_sides = []
    for side in (0, 1):
        length, function_words = statistics[..., side], statistics[..., 2 + side]
        content, function = statistics[..., 4 + side : 20 : 4], statistics[..., 6 + side : 20 : 4]
        matches = (DELTA * content + (1 - DELTA) * function) @ np.array(MATCH_WEIGHTS)
        of_sides.append(_ratio(matches, DELTA * (length - function_words) + (1 - DELTA) * function_words))
    precision, recall = of_sides
    score = _ratio(precision * recall, ALPHA * precision + (1 - ALPHA) * recall)
    chunks, ours, theirs = (statistics[..., place] for place in (20, 21, 22))
    fragmentation = _ratio(chunks, (ours + theirs) / 2)
    found: Floats = score * (1 - GAMMA * fragmentation**BETA)
    return found


def _ratio(part: Floats, whole: Floats) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) != 0)
    return ratio


def _question(candidate: str, references: Sequence[str]) -> str:
    """Word what METEOR reads: its separator must not stand in a caption, nor a line end."""
    parts = [" ".join(part.replace("|||", " ").split()) for part in (*references, candidate)]
    return " ||| ".join(("SCORE", *parts))


def _numbers(process: JavaProcess, line: str, count: int) -> list[float]:
    try:
        numbers = [float(part) for part in line.split()]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise process.failure(f"it answered '{line[:200]}' where {count} numbers were expected")
    return numbers

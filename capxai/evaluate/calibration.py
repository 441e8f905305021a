"""Whether probabilities mean what they say, and what a threshold on them costs.

Axes: n words, B bins.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from capxai.types import JsonObject

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Words whose probability lies in one of equal parts of [0, 1].

    Attributes:
        low: Lower end, included.
        high: Upper end, excluded but for the last bin.
        words: How many words there are.
        predicted: Mean of their probabilities; None without any.
        observed: Share of them for which the event is true; None without any.
    """

    low: float
    high: float
    words: int
    predicted: float | None
    observed: float | None


@dataclass(frozen=True)
class Reliability:
    """How well calibrated probabilities are.

    Attributes:
        brier: Mean of (p - y)^2 (Brier 1950).
        reference: The Brier score of always saying the share of events, which knows nothing of the single word.
        error: Expected calibration error: mean of |predicted - observed| over the bins, weighted by their words (Naeini et al. 2015).
        bins: The bins.
    """

    brier: float
    reference: float
    error: float
    bins: tuple[Bin, ...]

    def to_json(self) -> JsonObject:
        """Return the figures as JSON."""
        return asdict(self)


def reliability(probabilities: ArrayLike, events: ArrayLike, bins: int = BINS) -> Reliability:
    """Compare probabilities (n,) in [0, 1] with events (n,) bool.

    Raises:
        ValueError: There is no word, the lengths differ, or a probability lies outside of [0, 1].
    """
    chance, event = np.asarray(probabilities, dtype=np.float64), np.asarray(events, dtype=bool)
    if not len(chance) or chance.shape != event.shape or not ((chance >= 0) & (chance <= 1)).all():
        raise ValueError(f"Found {chance.shape} probabilities and {event.shape} events; expected as many, in [0, 1].")
    places = np.minimum((chance * bins).astype(np.int64), bins - 1)
    found = []
    for number in range(bins):
        inside = places == number
        there = bool(inside.any())
        means = (float(chance[inside].mean()), float(event[inside].mean())) if there else (None, None)
        found.append(Bin(number / bins, (number + 1) / bins, int(inside.sum()), *means))
    error = sum(
        one.words * abs(one.predicted - one.observed)
        for one in found
        if one.predicted is not None and one.observed is not None
    )
    share = float(event.mean())
    return Reliability(float(((chance - event) ** 2).mean()), share * (1 - share), error / len(chance), tuple(found))


@dataclass(frozen=True)
class Alarm:
    """What calling words events from a threshold on finds.

    Attributes:
        threshold: Least probability of a word that is called an event.
        called: How many are.
        precision: Share of these that are; None where none is called.
        recall: Share of the events that are called; None without events.
        f1: Harmonic mean of both; 0 where one of them is 0 or undefined.
    """

    threshold: float
    called: int
    precision: float | None
    recall: float | None
    f1: float

    def to_json(self) -> JsonObject:
        """Return the figures as JSON."""
        return asdict(self)


def alarm(probabilities: ArrayLike, events: ArrayLike, threshold: float) -> Alarm:
    """Measure a threshold on probabilities (n,) of events (n,) bool."""
    chance, event = np.asarray(probabilities, dtype=np.float64), np.asarray(events, dtype=bool)
    called = chance >= threshold
    hits, calls, there = int((called & event).sum()), int(called.sum()), int(event.sum())
    return Alarm(
        threshold,
        calls,
        hits / calls if calls else None,
        hits / there if there else None,
        2 * hits / (calls + there) if calls + there else 0.0,
    )


def best_threshold(probabilities: ArrayLike, events: ArrayLike) -> float:
    """Return the threshold with the largest F1, half-way to the next lower probability; of equal ones the highest.

    Raises:
        ValueError: There is no event.
    """
    chance, event = np.asarray(probabilities, dtype=np.float64), np.asarray(events, dtype=bool)
    if not event.any():
        raise ValueError("Found no event; expected at least one.")
    order = np.argsort(-chance, kind="stable")
    ordered, hits = chance[order], np.cumsum(event[order])
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True))  # a tie is called together
    f1 = 2 * hits[last] / (last + 1 + int(event.sum()))
    place = last[int(np.argmax(f1))]
    lower = ordered[place + 1] if place + 1 < len(ordered) else ordered[place]
    return float((ordered[place] + lower) / 2)

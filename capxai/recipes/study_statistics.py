"""What several runs say together: base models from several training seeds, each fine-tuned with several seeds.

Runs are nested: those of one base model share all that its training left to chance. The mean is the mean over base models of the mean over
their seeds. Its interval is that of Student's t over the base models' means, with one degree of freedom less than there are base
models: these alone are independent, and their spread contains that of the seeds. With one base model the seeds take its place, and
the interval then says nothing about other base models. Differences and relative changes are formed within each base model, over the
seeds that both have, before anything is averaged.

A second interval is a bootstrap on three levels, draw by draw: base models with replacement, seeds of each with replacement, and pictures,
the same ones for every run. It counts the pictures' chance too, and is too narrow where there are few base models.

Axes: D draws, B base models, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from capxai.evaluate.bootstrap import PERCENTILES
from capxai.evaluate.student import interval_of_mean, p_of_mean, p_of_signs
from capxai.types import JsonObject

Floats = NDArray[np.float64]
Nested = Mapping[str, Mapping[int, float]]
"""A figure by base model and seed."""
NestedDraws = Mapping[str, Mapping[int, Floats]]
"""The same figure (D,) in every draw of pictures."""


@dataclass(frozen=True)
class Mean:
    """A mean and what is known of it.

    Attributes:
        value: Mean over base models of the mean over their seeds.
        low: Lower bound of its interval (95 %), None where there is one unit.
        high: Upper bound.
        units: Of what the interval is: so many base models, or seeds where there is one base model.
        runs: Runs that are in it.
    """

    value: float
    low: float | None
    high: float | None
    units: int
    runs: int

    def to_json(self) -> JsonObject:
        """Return the fields as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Contrast:
    """How a figure differs from that of the control.

    Attributes:
        difference: Row minus control, within base model and seed.
        relative: Row / control - 1 within each base model; None where the control is 0.
        p: Paired t-test over the base models, or over the seeds of a single one.
        pairs: Pairs of the same base model and seed.
        p_pairs: Paired t-test over these, as if they were independent.
        above: Pairs in which the row is above the control.
        below: Pairs in which it is below.
        p_sign: Sign test over the pairs.
    """

    difference: Mean
    relative: Mean | None
    p: float | None
    pairs: int
    p_pairs: float | None
    above: int
    below: int
    p_sign: float

    def to_json(self) -> JsonObject:
        """Return the fields as a JSON object."""
        return asdict(self)


def mean_of(values: Nested) -> Mean:
    """Average a figure.

    Raises:
        ValueError: There is no run.
    """
    runs = sum(len(seeds) for seeds in values.values())
    if not runs or not all(values.values()):
        raise ValueError("Found a base model without a run; expected one run or more for each.")
    return _mean(_units(values), runs)


def contrast(values: Nested, control: Nested) -> Contrast | None:
    """Compare a figure with the control's; None where they have no base model and seed in common."""
    common = {base: sorted(seeds.keys() & control[base].keys()) for base, seeds in values.items() if base in control}
    common = {base: seeds for base, seeds in common.items() if seeds}
    if not common:
        return None
    ours, theirs = ({base: {seed: side[base][seed] for seed in seeds} for base, seeds in common.items()}
                    for side in (values, control))  # fmt: skip
    apart = {base: {seed: ours[base][seed] - theirs[base][seed] for seed in seeds} for base, seeds in common.items()}
    pairs = [value for seeds in apart.values() for value in seeds.values()]
    above, below = sum(value > 0 for value in pairs), sum(value < 0 for value in pairs)
    return Contrast(
        difference=_mean(_units(apart), len(pairs)),
        relative=_relative(ours, theirs, len(pairs)),
        p=p_of_mean(_units(apart)),
        pairs=len(pairs),
        p_pairs=p_of_mean(pairs),
        above=above,
        below=below,
        p_sign=p_of_signs(above, below),
    )


def repeated(values: Nested, control: Nested) -> Nested:
    """Put a figure that knows no seeds, that of the base models themselves, beside every seed of the control."""
    return {
        base: dict.fromkeys(control[base], next(iter(seeds.values())))
        for base, seeds in values.items()
        if base in control
    }


def _units(values: Nested) -> list[float]:
    """Return the independent units: the means of the base models, or the seeds of a single one."""
    if len(values) == 1:
        return list(next(iter(values.values())).values())
    return [float(np.mean(list(seeds.values()))) for seeds in values.values()]


def _mean(units: list[float], runs: int) -> Mean:
    low, high = interval_of_mean(units) or (None, None)
    return Mean(float(np.mean(units)), low, high, len(units), runs)


def _relative(ours: Nested, theirs: Nested, runs: int) -> Mean | None:
    whole = _units(theirs)
    if not all(whole):
        return None
    return _mean([one / other - 1 for one, other in zip(_units(ours), whole, strict=True)], runs)


def bootstrap(draws: NestedDraws, seed: int = 0) -> tuple[float, float] | None:
    """Return the interval (95 %) of a mean by drawing base models, seeds and pictures with replacement; None if it is never defined.

    Args:
        draws: A figure, or a paired difference, in every draw of pictures. NaN, where it is undefined, leaves the draw out.
        seed: Seed of the draws of base models and seeds.
    """
    bases = [list(seeds.values()) for seeds in draws.values()]
    counts = np.array([len(seeds) for seeds in bases])
    number = len(bases[0][0])
    table = np.full((len(bases), counts.max(), number), np.nan)
    for place, seeds in enumerate(bases):
        table[place, : len(seeds)] = seeds
    generator = np.random.default_rng(seed)
    chosen = generator.integers(len(bases), size=(number, len(bases)))  # (D, B)
    lottery = generator.random((number, len(bases), counts.max()))
    seeds_chosen = (lottery * counts[chosen][:, :, None]).astype(np.int64)  # (D, B, S)
    means = table[chosen[:, :, None], seeds_chosen, np.arange(number)[:, None, None]].mean((1, 2))
    defined = means[~np.isnan(means)]
    if not defined.size:
        return None
    low, high = np.percentile(defined, PERCENTILES)
    return float(low), float(high)


def differences(draws: NestedDraws, control: NestedDraws) -> NestedDraws:
    """Subtract the control's draws, for the base models and seeds that both have."""
    found = {
        base: {seed: seeds[seed] - control[base][seed] for seed in sorted(seeds.keys() & control[base].keys())}
        for base, seeds in draws.items()
        if base in control
    }
    return {base: seeds for base, seeds in found.items() if seeds}

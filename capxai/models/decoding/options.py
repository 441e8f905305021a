"""How to look for a caption."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from capxai.errors import ConfigError, unknown_choice

STRATEGIES = ("greedy", "beam", "diverse-beam", "sample")


@dataclass(frozen=True)
class DecodingOptions:
    """Settings of `decode`. A strategy ignores those that are not its own.

    Attributes:
        strategy: One of `STRATEGIES`.
        beam: Hypotheses per picture in both beam searches.
        groups: Diverse beam search: into how many groups the beam is split; divides ``beam``.
        diversity_strength: Diverse beam search: what a word's score loses for each hypothesis of an earlier group that
            has chosen it at the same step (lambda of Vijayakumar et al. 2016, who found 0.2 to 0.8 good).
        temperature: Sampling: divides the logits; above 1 is more varied.
        top_k: Sampling: draw from the so many most probable words; None is no limit.
        top_p: Sampling: draw from the fewest words that hold this probability together (nucleus; Holtzman et al.
            2020); None is no limit.
        maximum_length: The number of steps, ``<end>`` counted: a caption that has not ended by then is cut after so
            many words.
        length_penalty: Beam searches compare hypotheses by their log-probability divided by length **
            ``length_penalty``, ``<end>`` counted: 0 takes the sum, 1 the mean per word (Wu et al. 2016 discuss the
            choice).
        seed: Sampling: of the random numbers.
    """

    strategy: str = "beam"
    beam: int = 3
    groups: int = 3
    diversity_strength: float = 0.5
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    maximum_length: int = 20
    length_penalty: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used.
        """
        problems = [problem for problem in (self._strategy_problem(), *self._number_problems()) if problem]
        if not problems and self.strategy == "diverse-beam" and self.beam % self.groups:
            divisors = ", ".join(str(number) for number in range(1, self.beam + 1) if self.beam % number == 0)
            problems.append(f"{self.groups} groups do not divide a beam of {self.beam}. Choose one of: {divisors}.")
        if problems:
            raise ConfigError("These decoding settings cannot be used:\n  " + "\n  ".join(problems))

    def _strategy_problem(self) -> str | None:
        return None if self.strategy in STRATEGIES else unknown_choice("strategy", str(self.strategy), STRATEGIES)

    def _number_problems(self) -> list[str | None]:
        return [
            *(_whole(name, getattr(self, name), 1) for name in ("beam", "groups", "maximum_length")),
            None if self.top_k is None else _whole("top_k", self.top_k, 1),
            _whole("seed", self.seed, 0),
            _number("diversity_strength", self.diversity_strength, most=1e6),
            _number("length_penalty", self.length_penalty, most=10),
            _number("temperature", self.temperature, positive=True),
            None if self.top_p is None else _number("top_p", self.top_p, positive=True, most=1.0),
        ]


def _whole(name: str, value: object, least: int) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63:
        return None
    return f"{name} is {value!r}. Expected a whole number of {least} or more."


def _number(name: str, value: Any, positive: bool = False, most: float = math.inf) -> str | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if usable and (value > 0 or (value == 0 and not positive)) and value <= most:
        return None
    limit = f" and at most {most:g}" if math.isfinite(most) else ""
    return f"{name} is {value!r}. Expected a number {'above 0' if positive else 'of 0 or more'}{limit}."

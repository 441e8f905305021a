"""What may tell a hallucinated object word from a true one, measured from the model alone; no boxes, no references.

Names of numbers by group are in `GROUPS`. Two ideas go beyond single statistics of the relevance. A hallucinated companion ("a car next to
a traffic light") has nothing of its own in the picture, so its relevance lies where that of the other object lies: their overlap is large.
And the region that spoke most for a word looks like the regions that spoke for it where it was right, or it does not: see
`capxai.recipes.analysis.detector_prototypes`.

Axes: W words, K regions, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from capxai.explain.attribution import Words
from capxai.explain.methods import Options
from capxai.finetune.regions import most_relevant
from capxai.recipes.analysis.hallucination_statistics import head_statistics, method_statistics, step_statistics
from capxai.recipes.analysis.mentions import Mentioned
from capxai.recipes.analysis.prefixes import Prefix, probabilities
from capxai.recipes.analysis.stream import Look

HIDDEN_SHARE = 0.15
"""Part of the regions that counts as where a word comes from, as in counterfactual fine-tuning."""
_LEAST = 1e-12

PROTOTYPES = "prototypes"
CATEGORY = "category"
LANGUAGE = "language"
GROUPS: Mapping[str, tuple[str, ...]] = {
    "token": ("log probability", "entropy", "margin"),
    "attention": ("attention maximum", "attention entropy"),
    "1 - beta": ("1 - beta",),
    "relevance": (
        "lrp regions share",
        "lrp words share",
        "lrp regions against words",
        "lrp regions positive mean",
        "lrp regions maximum",
        "lrp regions concentration",
    ),
    "word head": ("word head context share", "word head context against hidden"),
    "overlap": ("overlap of positive relevance", "correlation of relevance"),
    "counterfactual": ("without the picture", "without its regions", "its regions alone"),
    PROTOTYPES: ("prototype similarity", "prototype lead"),
    LANGUAGE: ("without other objects", "in the place of other objects"),
}
"""Numbers by group. Those of the prototypes need a calibration split; "1 - beta" is of models with a sentinel.

- token: of the step that says the first word of the name; natural logarithm, nats, logit units.
- overlap: with the other object word of the caption, of another category, with which it is largest: cosine of the positive parts of both
  maps of region relevance, and correlation of the maps; 0 where there is no other one.
- counterfactual: log probability after the same beginning, with every region replaced by the mean of all; with the most relevant 15 % of
  the regions replaced by the mean of the others; with these alone, and the others replaced by their mean.
- language: log probability after the same beginning without the names of objects before; largest log probability at the places where these
  names stand.
"""


@dataclass(frozen=True)
class WordFeatures:
    """What was measured of W object words.

    Attributes:
        table: For each word its numbers by name; None for a number that a word does not have.
        regions: (W, C) features of the region with the largest relevance for each word.
    """

    table: list[dict[str, float | None]]
    regions: Tensor


def word_features(look: Look, mentioned: Sequence[Mentioned], options: Options | None = None) -> WordFeatures:
    """Measure object words of captions; nothing goes through the encoder.

    Args:
        look: The pictures with their captions.
        mentioned: Words of these captions.
        options: Settings of "lrp".
    """
    options = options or Options()
    readings = look.readings
    if not mentioned:
        return WordFeatures([], readings.features[:0, 0])
    words = look.words([one.row for one in mentioned], [one.place for one in mentioned])
    seen = replace(look, readings=replace(readings, images=None, tape=None))
    ((_, maps),) = seen.maps(words, ("lrp",), options)
    assert maps.regions is not None
    relevance = maps.regions.detach()
    step = step_statistics(look, words)
    columns = {
        **step,
        "log probability": step["probability"].clamp_min(_LEAST).log(),
        **head_statistics(look, words, options.eps),
        **method_statistics("lrp", maps, {"regions": relevance}, step["logit"]),
        **overlaps(relevance, mentioned),
        **_counterfactuals(look, words, relevance),
        "without other objects": _without_other_objects(look, mentioned, words),
    }
    wanted = [name for names in GROUPS.values() for name in names if name in columns]
    rows = zip(*(columns[name].tolist() for name in wanted), strict=True)
    table: list[dict[str, float | None]] = [dict(zip(wanted, row, strict=True)) for row in rows]
    for row, value in zip(table, _in_other_places(look, mentioned, words), strict=True):
        row["in the place of other objects"] = value
    return WordFeatures(table, readings.features[words.rows, relevance.argmax(1)])


def overlaps(relevance: Tensor, mentioned: Sequence[Mentioned]) -> dict[str, Tensor]:
    """Return how much the relevance (W, K) of each word lies where that of another object word of its caption lies, (W,) each."""
    rows = torch.tensor([one.row for one in mentioned])
    kinds = {category: number for number, category in enumerate(sorted({one.category for one in mentioned}))}
    categories = torch.tensor([kinds[one.category] for one in mentioned])
    others = ((rows[:, None] == rows) & (categories[:, None] != categories)).to(relevance.device)
    maps = relevance.double()
    pairs = {
        "overlap of positive relevance": _cosines(maps.clamp_min(0)),
        "correlation of relevance": _cosines(maps - maps.mean(1, keepdim=True)),
    }
    there = others.any(1)
    return {
        name: torch.where(there, values.masked_fill(~others, -torch.inf).amax(1), 0.0) for name, values in pairs.items()
    }


def _cosines(vectors: Tensor) -> Tensor:
    """Return the cosine of every pair of rows, (W, W); 0 with a row of zeros."""
    length = vectors.norm(dim=1, keepdim=True)
    unit = torch.where(length > 0, vectors / torch.where(length > 0, length, 1.0), 0.0)
    return unit @ unit.T


def _counterfactuals(look: Look, words: Words, relevance: Tensor) -> dict[str, Tensor]:
    """Return the log probability of each word after the same beginning of the caption on changed pictures, (W,) each."""
    own = look.readings.features[words.rows]  # (W, K, C)
    top = most_relevant(relevance, HIDDEN_SHARE).unsqueeze(2)
    share = (~top).to(own.dtype)
    others = (own * share).sum(1, keepdim=True) / share.sum(1, keepdim=True)
    changed = {
        "without the picture": own.mean(1, keepdim=True).expand_as(own),
        "without its regions": torch.where(top, others, own),
        "its regions alone": torch.where(top, own, others),
    }
    inputs, places = look.readings.inputs.tolist(), words.places.tolist()
    said = [
        Prefix(number, tuple(inputs[row][: place + 1]), word)
        for number, (row, place, word) in enumerate(
            zip(words.rows.tolist(), places, words.tokens.tolist(), strict=True)
        )
    ]
    return {name: _log_probabilities(look, features, said) for name, features in changed.items()}


def _log_probabilities(look: Look, features: Tensor, prefixes: Sequence[Prefix]) -> Tensor:
    model = look.readings.model
    with torch.no_grad():
        found = probabilities(model, model.remember(features), prefixes)
    return torch.tensor(found, dtype=torch.float64).clamp_min(_LEAST).log()


def _without_other_objects(look: Look, mentioned: Sequence[Mentioned], words: Words) -> Tensor:
    inputs = look.readings.inputs.tolist()
    prefixes = []
    for one, word in zip(mentioned, words.tokens.tolist(), strict=True):
        named = {place for other in _before(one, mentioned) for place in range(other.place, other.last + 1)}
        # Input t + 1 is the word at place t; input 0 is <start>.
        kept = [token for t, token in enumerate(inputs[one.row][: one.place + 1]) if t == 0 or t - 1 not in named]
        prefixes.append(Prefix(one.row, tuple(kept), word))
    return _log_probabilities(look, look.readings.features, prefixes)


def _in_other_places(look: Look, mentioned: Sequence[Mentioned], words: Words) -> list[float | None]:
    found: list[float | None] = []
    chances = look.facts.logits.double().log_softmax(2)  # (B, T, V)
    for one, word in zip(mentioned, words.tokens.tolist(), strict=True):
        places = [other.place for other in _before(one, mentioned)]
        values = [max(float(chances[one.row, place, word]), math.log(_LEAST)) for place in places]
        found.append(max(values) if values else None)
    return found


def _before(one: Mentioned, mentioned: Sequence[Mentioned]) -> list[Mentioned]:
    return [other for other in mentioned if other.row == one.row and other.place < one.place]

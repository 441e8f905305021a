"""What the calibration of the veto reads off captions, and captions decoded again with a veto.

Axes: B pictures, T words, H hidden, V vocabulary, F object words, M mentions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from capxai.models.decoding import DecodingOptions, Veto, decode
from capxai.models.state import HeadInputs
from capxai.recipes.analysis.experiment import Experiment
from capxai.recipes.analysis.mentions import mentions_of
from capxai.recipes.analysis.stream import Look
from capxai.recipes.grounding import FEWEST, Grounding
from capxai.recipes.grounding_veto import MEASURES, gather_evidence, object_words
from capxai.types import JsonObject


def object_ids(work: Experiment) -> Tensor:
    """Return the vocabulary ids of the object words, (F,) int64.

    Raises:
        ConfigError: There is none.
    """
    found = object_words(work.model.vocabulary, work.lexicon)
    return torch.tensor(list(found), device=work.model.device)


@torch.no_grad()
def mention_values(look: Look, work: Experiment, words: Tensor) -> list[JsonObject]:
    """Return for each picture its "mentions": category, present, and "values" of every measure where the name begins."""
    records: list[JsonObject] = [{"mentions": []} for _ in look.pictures]
    at = {number: place for place, number in enumerate(words.tolist())}
    tokens = look.readings.tokens.tolist()
    found = [one for one in mentions_of(look, work.lexicon, work.objects) if tokens[one.row][one.place] in at]
    if not found:
        return records
    model = work.model
    places = [one.row for one in found], [one.place for one in found]
    seen = model.read(model.remember(look.readings.features), model.embed(look.readings.inputs))
    here = HeadInputs(seen.context[places], seen.hidden[places])  # (M, H) each
    evidence = gather_evidence(model.decoder.word_head, words, here, torch.log_softmax(model.speak(here), -1))
    chosen = torch.tensor([at[tokens[one.row][one.place]] for one in found], device=words.device)[:, None]
    values = {name: measure(evidence).gather(1, chosen)[:, 0].tolist() for name, measure in MEASURES.items()}
    for place, one in enumerate(found):
        records[one.row]["mentions"].append(
            {
                "category": one.category,
                "present": one.present,
                "values": {name: column[place] for name, column in values.items()},
            }
        )
    return records


def _mentions(records: Sequence[JsonObject]) -> Iterator[JsonObject]:
    for record in records:
        yield from record.get("mentions", ())


def calibrated(
    records: Sequence[JsonObject], measure: str, quantile: float, fewest: int = FEWEST
) -> tuple[float, dict[str, float], dict[str, int]]:
    """Take quantiles of the true mentions.

    Returns:
        The quantile over all categories together; that of each category with at least ``fewest`` true mentions; and how many each has.
        Without any true mention, 0 and nothing.
    """
    true: dict[str, list[float]] = defaultdict(list)
    for mention in _mentions(records):
        if mention["present"]:
            true[mention["category"]].append(mention["values"][measure])
    if not true:
        return 0.0, {}, {}
    pooled = float(np.quantile(np.concatenate([np.asarray(values) for values in true.values()]), quantile))
    names = sorted(true)
    thresholds = {name: float(np.quantile(true[name], quantile)) for name in names if len(true[name]) >= fewest}
    return pooled, thresholds, {name: len(true[name]) for name in names}


def veto_rate(records: Sequence[JsonObject], grounding: Grounding) -> float:
    """Return the share of the mentions of plain captions that lie under the threshold of their category; 0 without mentions."""
    hit = [one["values"][grounding.measure] < grounding.threshold(one["category"]) for one in _mentions(records)]
    return sum(hit) / len(hit) if hit else 0.0


@torch.no_grad()
def decoded_again(look: Look, veto: Veto, beam: int) -> list[str]:
    """Caption the pictures of a batch with a veto."""
    model = look.readings.model
    memory = model.remember(look.readings.features)
    found = decode(model, memory, DecodingOptions(strategy="beam", beam=beam), veto)
    return [model.vocabulary.decode(one.token_ids) for one in found]

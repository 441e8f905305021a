"""The veto while decoding: its hook, its relevance and its thresholds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_models import CAPTION, DECODERS, features, small_model
from test_decoding import pictures, tiny_model
from torch import Tensor

from capxai.data.vocabulary import Vocabulary
from capxai.errors import ConfigError
from capxai.evaluate.lexicon import Lexicon
from capxai.explain.attribution import Readings, Words, _through_head
from capxai.lrp.composites import lrp
from capxai.models.captioner import Captioner
from capxai.models.decoding import DecodingOptions, decode
from capxai.models.state import HeadInputs
from capxai.recipes.analysis.grounding_measure import calibrated, veto_rate
from capxai.recipes.grounding import Grounding
from capxai.recipes.grounding_veto import (
    MEASURES,
    Evidence,
    EvidenceVeto,
    drawn_veto,
    gather_evidence,
    grounded_veto,
    object_words,
    vetoed_words,
)

STRATEGIES = (
    DecodingOptions("greedy", maximum_length=6),
    DecodingOptions("beam", maximum_length=6),
    DecodingOptions("diverse-beam", maximum_length=6),
    DecodingOptions("sample", maximum_length=6, seed=3),
)
CAR, ROAD = 6, 9
NOUNS = (5, 7, 10)
"""Words that models of random weights say, in the vocabulary of `tiny_model`."""


def _logs(logits: Tensor) -> list[float]:
    values = [float(value) for value in logits]
    highest = max(values)
    whole = highest + math.log(sum(math.exp(value - highest) for value in values))
    return [value - whole for value in values]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("options", STRATEGIES, ids=lambda options: options.strategy)
def test_a_veto_that_forbids_nothing_changes_no_bit(decoder: str, options: DecodingOptions) -> None:
    model = small_model(decoder)
    memory = model.remember(features(count=5))
    steps = []

    def nothing(t: int, inputs: HeadInputs, log_probabilities: Tensor) -> Tensor:
        assert inputs.context.shape == inputs.hidden.shape == (len(log_probabilities), 4)
        steps.append(t)
        return log_probabilities

    assert decode(model, memory, options, nothing) == decode(model, memory, options)
    assert steps == list(range(len(steps))) and len(steps) > 1


def _forbidding(word: int, step: int) -> Any:
    def veto(t: int, _: HeadInputs, log_probabilities: Tensor) -> Tensor:
        changed = log_probabilities.clone()
        if t == step:
            changed[:, word] = -math.inf
        return changed

    return veto


@torch.no_grad()
def _slow_search(model: Captioner, picture: Tensor, width: int, forbidden: tuple[int, int], longest: int) -> list[int]:
    """Beam search of one picture with lists: (log-probability, words, state, ended)."""
    memory = model.remember(picture[None])
    beam: list[tuple[float, list[int], Any, bool]] = [(0.0, [], model.start(memory), False)]
    for t in range(longest):
        longer = []
        for total, words, state, ended in beam:
            if ended:
                longer.append((total, words, state, True))
                continue
            last = words[-1] if words else 1
            step = model.step(memory, model.embed(torch.tensor([last])), state)
            for word, value in enumerate(_logs(step.logits[0])):
                if word not in (0, 1, 3) and (word, t) != forbidden:
                    longer.append((total + value, [*words, word], step.state, word == 2))
        beam = sorted(longer, key=lambda one: -one[0])[:width]
    words = beam[0][1]
    return words[:-1] if words[-1] == 2 else words


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("width", [1, 3])
def test_a_forbidden_word_gives_way_at_its_step_alone(decoder: str, width: int) -> None:
    model, seen = tiny_model(decoder), pictures(3)
    options = DecodingOptions("beam", beam=width, maximum_length=5)
    plain = decode(model, model.remember(seen), options)
    changed = 0
    for step in range(3):
        word = plain[0].token_ids[step] if step < len(plain[0].token_ids) else CAR
        found = decode(model, model.remember(seen), options, _forbidding(word, step))
        for row, one in enumerate(found):
            assert list(one.token_ids) == _slow_search(model, seen[row], width, (word, step), 5)
            assert all(len(each.token_ids) <= step or each.token_ids[step] != word for each in (one, *one.alternatives))
            changed += one.token_ids != plain[row].token_ids
    assert changed


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("eps", [0.01, 0.3])
def test_relevance_at_the_head_is_the_engines(decoder: str, eps: float) -> None:
    model = small_model(decoder)
    tokens = torch.tensor([CAPTION, CAPTION[::-1]])
    readings = Readings(model, None, features(count=2), tokens, torch.tensor([5, 5]))
    with torch.no_grad():
        seen = model.read(model.remember(readings.features), model.embed(readings.inputs))
    words = torch.tensor([4, CAR, ROAD])
    for row, place in ((0, 0), (1, 2), (0, 4)):
        here = HeadInputs(seen.context[row, place][None], seen.hidden[row, place][None])
        found = gather_evidence(model.decoder.word_head, words, here, torch.zeros(1, 10).double(), eps)
        for column, word in enumerate(words.tolist()):
            one = Words(torch.tensor([row]), torch.tensor([place]), torch.tensor([word]))
            arrived, _ = _through_head(model, seen, one, lrp(eps))
            assert float(found.context[0, column]) == pytest.approx(float(arrived.context.sum().detach()), abs=1e-9)
            assert float(found.hidden[0, column]) == pytest.approx(float(arrived.hidden.sum()), abs=1e-9)


def test_measures_on_paper() -> None:
    found = Evidence(torch.tensor([[3.0, -1.0, 2.0]]), torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([[-1.0, -2, -3]]))
    expected = {
        "context": [3.0, -1, 2],
        "share": [0.75, -0.25, 1],
        "margin": [2.0, -4, 2],
        "lead": [1.0, -4, -1],  # 3 - 2, -1 - 3, 2 - 3
        "above": [3 - 4 / 3, -1 - 4 / 3, 2 - 4 / 3],
        "language": [-1.0, -3, 0],
        "probability": [-1.0, -2, -3],
    }
    assert list(MEASURES) == list(expected)
    for name, values in expected.items():
        torch.testing.assert_close(MEASURES[name](found), torch.tensor([values]))


def _veto(model: Captioner, threshold: float = 9.0, measure: str = "context") -> EvidenceVeto:
    words = torch.tensor(NOUNS)
    return EvidenceVeto(model.decoder.word_head, words, torch.full((3,), threshold, dtype=torch.float64), measure)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_batch_is_decoded_as_one_by_one(decoder: str) -> None:
    model, seen = tiny_model(decoder), pictures(3)
    for measure in ("context", "lead"):
        for options in STRATEGIES[:2]:
            together = decode(model, model.remember(seen), options, _veto(model, measure=measure))
            alone = [
                decode(model, model.remember(one[None]), options, _veto(model, measure=measure))[0] for one in seen
            ]
            assert [one.token_ids for one in together] == [one.token_ids for one in alone]


@torch.no_grad()
@pytest.mark.parametrize(("decoder", "threshold"), [("ada-lstm", 9.0), ("mh-fc", 1000.0), ("adaptive", 9.0)])
def test_what_was_vetoed_in_a_greedy_caption_is_what_would_have_been_said(decoder: str, threshold: float) -> None:
    model, seen = tiny_model(decoder), pictures(4)
    veto, total = _veto(model, threshold), 0
    captions = decode(model, model.remember(seen), STRATEGIES[0], veto)
    found = vetoed_words(model, model.remember(seen), captions, veto)
    for row, one in enumerate(captions):
        memory = model.remember(seen[row][None])
        state, last, expected = model.start(memory), 1, []
        for t, said in enumerate([*one.token_ids, *([2] if one.finished else [])]):
            with torch.no_grad():
                step = model.step(memory, model.embed(torch.tensor([last])), state)
            logs = _logs(step.logits[0])
            x = step.head_inputs.context[0] + step.head_inputs.hidden[0]
            for word in NOUNS:
                z = sum(float(a * b) for a, b in zip(model.decoder.word_head.fc.weight[word], x, strict=True))
                z += float(model.decoder.word_head.fc.bias[word])
                relevance = 0.0
                for c, unit, weight in zip(
                    step.head_inputs.context[0], x, model.decoder.word_head.fc.weight[word], strict=True
                ):
                    at_sum = float(unit * weight) / (z + math.copysign(0.01, z)) * z
                    relevance += float(c / (unit + math.copysign(0.01, unit))) * at_sum
                if logs[word] > logs[said] and relevance < threshold:
                    expected.append((t, word, said, pytest.approx(math.exp(logs[word])), pytest.approx(relevance)))
            state, last = step.state, said
        expected.sort(key=lambda each: (each[0], -logs_of(each)))
        known = model.vocabulary.words
        got: list[Any] = [
            (v.step, known.index(v.word), known.index(v.instead), v.probability, v.value) for v in found[row]
        ]
        assert got == expected
        total += len(expected)
    assert total


def logs_of(entry: tuple[Any, ...]) -> float:
    """The probability of an expected entry."""
    return float(entry[3].expected)


def test_words_that_begin_names() -> None:
    lexicon = Lexicon(
        {"traffic light": ["traffic light", "stoplight"], "car": ["car"], "traffic cone": ["traffic cone"]}
    )
    vocabulary = Vocabulary(("<pad>", "<start>", "<end>", "<unk>", "light", "traffic", "cars", "car", "a"))
    found = object_words(vocabulary, lexicon)
    assert found == {5: ("traffic cone", "traffic light"), 6: ("car",), 7: ("car",)}
    with pytest.raises(ConfigError, match="None of the 5 words of the model begins"):
        object_words(Vocabulary(("<pad>", "<start>", "<end>", "<unk>", "light")), lexicon)
    model = small_model("mh-fc")
    grounding = Grounding("w", "l", "context", 0.1, 0.4, {"traffic cone": 0.7, "car": 0.9}, {})
    veto = grounded_veto(model.decoder.word_head, vocabulary, lexicon, grounding)
    assert veto.words.tolist() == [5, 6, 7]
    assert veto.thresholds.tolist() == [0.4, 0.9, 0.9]  # of "traffic" the lower one: the pooled one of the light


def _mention(category: str, present: bool, value: float) -> dict[str, object]:
    return {"category": category, "present": present, "values": {"context": value}}


def test_thresholds_by_hand() -> None:
    records = [
        {"mentions": [_mention("car", True, 1.0), _mention("car", True, 3.0), _mention("dog", True, 10.0)]},
        {"mentions": [_mention("car", True, 2.0), _mention("car", False, -9.0), _mention("cat", False, 0.0)]},
        {},
    ]
    pooled, thresholds, examples = calibrated(records, "context", 0.25, fewest=2)
    # True: 1, 2, 3, 10; their lower quarter lies at 1 + 0.75 * (2 - 1). Of the cars 1, 2, 3 it lies at 1.5.
    assert (
        pooled == pytest.approx(1.75) and thresholds == {"car": pytest.approx(1.5)} and examples == {"car": 3, "dog": 1}
    )
    grounding = Grounding("", "", "context", 0.25, pooled, thresholds, examples)
    assert grounding.threshold("dog") == pooled and grounding.threshold("cat") == pooled
    assert veto_rate(records, grounding) == pytest.approx(3 / 6)  # cars of 1 and -9, and the cat of 0
    assert calibrated([{}], "context", 0.25) == (0.0, {}, {}) and veto_rate([{}], grounding) == 0


def test_vetoes_by_lot_belong_to_the_picture() -> None:
    words = torch.tensor([CAR, ROAD])
    both = drawn_veto(words, 0.5, [4, 7], 6)
    assert torch.equal(both.forbidden[1], drawn_veto(words, 0.5, [7], 6).forbidden[0])
    logs = torch.zeros(4, 10)
    for t in range(6):
        found = both(t, HeadInputs(logs, logs), logs)
        assert torch.equal(found[0], found[1]) and torch.equal(found[2], found[3])  # two hypotheses of each picture
        assert torch.equal(found[::2, words].isinf(), both.forbidden[:, t])
    assert not logs.any()
    share = drawn_veto(words, 0.3, range(200), 6).forbidden.double().mean()
    assert float(share) == pytest.approx(0.3, abs=0.04)


def test_thresholds_below_everything_forbid_nothing() -> None:
    model = tiny_model("ada-lstm")
    memory = model.remember(pictures(3))
    assert decode(model, memory, STRATEGIES[1], _veto(model, -math.inf)) == decode(model, memory, STRATEGIES[1])

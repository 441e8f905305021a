"""Objectives of fine-tuning: weights of LRP inference against explicit passes, and counterfactual losses against sums by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_relevance import Account
from small_models import DECODERS, WORDS, features, small_model
from torch import Tensor

from capxai.data.vocabulary import Vocabulary
from capxai.errors import ConfigError
from capxai.explain.attribution import Reading, attribute
from capxai.finetune.batches import Lottery
from capxai.finetune.boxes import ByBoxes, ObjectBoxes, covered_share, grid_regions
from capxai.finetune.counterfactual import Counterfactual
from capxai.finetune.inference_weights import (
    Shuffled,
    gradient_times_input,
    inference_weights,
    lrp_relevance,
    no_relevance,
    normalized,
    opposed,
)
from capxai.finetune.lrp_inference import CrossEntropy, LrpInference, Reweighted, Reweighting, summed_cross_entropy
from capxai.finetune.mentions import ObjectMentions, Scene
from capxai.finetune.regions import (
    ChosenWords,
    Origin,
    by_attention,
    by_chance,
    by_gradient_times_input,
    by_lrp,
    most_relevant,
    without_regions,
)
from capxai.finetune.stop_words import neutral_words, read_stop_words
from capxai.lrp.attach import attached
from capxai.lrp.composites import lrp
from capxai.models.captioner import Captioner
from capxai.models.decoding import DecodingOptions, decode
from capxai.models.decoding.sampling import sample
from capxai.models.state import HeadInputs
from capxai.train.examples import caption_batch
from capxai.train.self_critical import SelfCritical, inverse_draw

PAD, START, END = 0, 1, 2
A, RED, CAR, ON, THE, ROAD = range(4, 10)


@dataclass(frozen=True)
class Whole:
    rows: Tensor
    captions: Tensor


@dataclass(frozen=True)
class Batch:
    rows: Tensor
    inputs: Tensor
    targets: Tensor
    first: int
    whole: Whole
    total: int | None = None

    def share(self, first: int, count: int) -> Batch:
        part = slice(first, first + count)
        return Batch(self.rows[part], self.inputs[part], self.targets[part], first, self.whole)


def batch() -> Batch:
    """One caption of each of the three pictures of `mentions`."""
    targets = torch.tensor([[A, RED, CAR, END], [THE, ROAD, END, PAD], [A, CAR, ON, END]])
    inputs = torch.cat([torch.full((3, 1), START), targets[:, :-1]], 1)
    rows = torch.tensor([2, 0, 1])
    return Batch(rows, inputs, targets, 0, Whole(rows, torch.tensor([4, 0, 2])))


def read(model: Captioner, found: Batch) -> tuple[HeadInputs, Tensor]:
    memory = model.remember(features(count=3))
    inputs = model.read(memory, model.embed(found.inputs))
    return inputs, model.speak(inputs)


@pytest.mark.parametrize("decoder", DECODERS)
def test_weights_equal_an_explicit_pass_in_loops(decoder: str) -> None:
    model = small_model(decoder)
    inputs, logits = read(model, batch())
    words = logits.argmax(-1)
    fc = model.decoder.word_head.fc
    omega = inference_weights(fc, inputs, words, torch.zeros(len(WORDS), dtype=torch.bool))
    weight, bias = fc.weight.detach().numpy(), fc.bias.detach().numpy()
    for b in range(3):
        for t in range(4):
            account, word = Account(0.01), int(words[b, t])
            context, hidden = (part[b, t].detach().numpy() for part in (inputs.context, inputs.hidden))
            arrived = account.share(logits[b, t, word].item(), (context + hidden) * weight[word], float(bias[word]))
            for found, relevance in zip(
                (omega.context, omega.hidden), account.through_sum(arrived, context, hidden), strict=True
            ):
                expected = 1 + relevance / abs(relevance).max()
                assert abs(found[b, t].numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("decoder", DECODERS)
def test_weights_equal_the_engine_in_single_precision(decoder: str) -> None:
    model = small_model(decoder).float()
    memory = model.remember(features(count=3).float())
    inputs = model.read(memory, model.embed(batch().inputs))
    leaf = HeadInputs(*(part.detach().flatten(0, 1).requires_grad_() for part in (inputs.context, inputs.hidden)))
    with attached(model, lrp()):
        logits = model.speak(leaf)
    words = logits.argmax(-1)
    start = torch.zeros_like(logits).scatter_(1, words[:, None], logits.detach().gather(1, words[:, None]))
    arrived = torch.autograd.grad(logits, (leaf.context, leaf.hidden), start)
    omega = inference_weights(model.decoder.word_head.fc, leaf, words, torch.zeros(len(WORDS), dtype=torch.bool))
    for found, relevance in zip((omega.context, omega.hidden), arrived, strict=True):
        assert (found - normalized(relevance)).abs().max() < 1e-6


def test_stop_words_and_specials_keep_weights_of_one() -> None:
    vocabulary = Vocabulary(WORDS)
    neutral = neutral_words(vocabulary)
    assert [word for word, flag in zip(WORDS, neutral.tolist(), strict=True) if not flag] == ["red", "car", "road"]
    model = small_model("mh-fc")
    inputs, _ = read(model, batch())
    omega = inference_weights(model.decoder.word_head.fc, inputs, batch().targets, neutral)
    ones = neutral[batch().targets]
    assert bool((omega.context[ones] == 1).all()) and bool((omega.hidden[ones] == 1).all())
    assert not bool((omega.context[~ones] == 1).all(-1).any())
    assert bool(((omega.context >= 0) & (omega.context <= 2)).all())
    assert torch.equal(omega.context[~ones].sub(1).abs().amax(-1), torch.ones(int((~ones).sum()), dtype=torch.float64))


def test_no_gradient_flows_through_the_weights() -> None:
    model = small_model("ada-lstm")
    inputs, logits = read(model, batch())
    reweighting = Reweighting(neutral_words(model.vocabulary))
    inputs.context.retain_grad()
    changed = reweighting.apply(model, inputs, logits, batch().targets)
    omega = changed.context.detach() / inputs.context.detach()
    changed.context.sum().backward()
    torch.testing.assert_close(inputs.context.grad, omega)
    assert model.decoder.word_head.fc.weight.grad is None


def test_each_vector_alone_and_the_word_of_the_reference() -> None:
    model = small_model("adaptive")
    inputs, logits = read(model, batch())
    neutral = torch.zeros(len(WORDS), dtype=torch.bool)
    both = Reweighting(neutral, target="reference").apply(model, inputs, logits, batch().targets)
    context = Reweighting(neutral, vectors="context", target="reference").apply(model, inputs, logits, batch().targets)
    hidden = Reweighting(neutral, vectors="hidden", target="reference").apply(model, inputs, logits, batch().targets)
    assert torch.equal(context.context, both.context) and torch.equal(context.hidden, inputs.hidden)
    assert torch.equal(hidden.hidden, both.hidden) and torch.equal(hidden.context, inputs.context)
    explained = inference_weights(model.decoder.word_head.fc, inputs, batch().targets, neutral)
    assert torch.equal(both.context, explained.context * inputs.context)
    assert not torch.equal(both.context, Reweighting(neutral).apply(model, inputs, logits, batch().targets).context)


def test_the_loss_is_the_weighted_sum_of_both_cross_entropies() -> None:
    model = small_model("mh-fc")
    memory = model.remember(features(count=3))
    inputs, logits = read(model, batch())
    reweighting = Reweighting(neutral_words(model.vocabulary))
    improved = model.speak(reweighting.apply(model, inputs, logits, batch().targets))
    first, second = (float(summed_cross_entropy(found, batch().targets, PAD).detach()) for found in (logits, improved))
    by_hand = -sum(
        float(logits[b, t].log_softmax(-1)[batch().targets[b, t]].detach())
        for b in range(3)
        for t in range(4)
        if batch().targets[b, t] != PAD
    )
    assert first == pytest.approx(by_hand)
    for share in (0.0, 0.3, 1.0):
        loss, words = LrpInference(reweighting, share)(model, memory, batch())
        assert words == 11
        assert float(loss) == pytest.approx(share * first + (1 - share) * second)
    ones = Reweighting(neutral_words(model.vocabulary), no_relevance)
    assert float(LrpInference(ones, 0.0)(model, memory, batch())[0]) == pytest.approx(first)


def test_controls_have_the_distribution_they_promise() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = HeadInputs(torch.randn(2, 3, 8, generator=generator), torch.randn(2, 3, 8, generator=generator))
    rows = torch.randn(2, 3, 8, generator=generator)
    plain, shuffled = lrp_relevance(inputs, rows), Shuffled(Lottery(torch.arange(2), 2))(inputs, rows)
    assert torch.equal(shuffled.context.sort(-1).values, plain.context.sort(-1).values)
    assert not torch.equal(shuffled.context, plain.context)
    assert torch.equal(opposed(inputs, rows).hidden, -plain.hidden)
    assert torch.equal(gradient_times_input(inputs, rows).context, inputs.context * rows)
    without_eps = lrp_relevance(inputs, rows, eps=0.0)
    torch.testing.assert_close(without_eps.context, inputs.context * rows)
    assert torch.equal(normalized(torch.zeros(4)), torch.ones(4))


def chosen() -> ChosenWords:
    return ChosenWords(batch().inputs, torch.tensor([2, 1, 1]), torch.tensor([CAR, ROAD, CAR]))


@pytest.mark.parametrize("decoder", DECODERS)
def test_regional_relevance_of_a_batch_is_that_of_the_explanation(decoder: str) -> None:
    model = small_model(decoder).float().train()
    regions = features(count=3).float()
    found = by_lrp(model, regions, chosen())
    assert model.training and model.decoder.word_head.dropout.training
    model.eval()
    for b, (place, tokens) in enumerate([(2, (A, RED, CAR)), (1, (THE, ROAD)), (1, (A, CAR))]):
        reading = Reading(model, None, regions[b : b + 1], torch.tensor(tokens))
        expected = attribute(reading, lrp()).features[place].sum(-1)
        torch.testing.assert_close(found[b], expected, rtol=1e-4, atol=1e-5)


def test_other_ways_to_find_regions() -> None:
    model = small_model("mh-fc").float()
    regions = features(count=3).float()
    attention = by_attention(model, regions, chosen())
    torch.testing.assert_close(attention.sum(1), torch.ones(3))
    leaf = regions[:1].clone().requires_grad_()
    vectors = model.embed(batch().inputs[:1, :3])
    steps = model.unroll(model.remember(leaf), lambda t, _: vectors[:, t], 3)
    steps[2].logits[0, CAR].backward()
    product = by_gradient_times_input(model, regions, chosen())
    torch.testing.assert_close(product[0], (leaf.grad * regions[:1]).sum(-1)[0])
    origin = Origin(batch().rows, torch.tensor([1, 2, 1]), Lottery(torch.arange(3), 3))
    chance = by_chance(model, regions, replace(chosen(), origin=origin))
    assert chance.shape == (3, 6) and len(set(chance.flatten().tolist())) == 18
    with pytest.raises(ValueError, match="origin"):
        by_chance(model, regions, chosen())


def test_hidden_regions_become_the_mean_of_the_others() -> None:
    regions = torch.tensor([[[1.0, 0.0], [2.0, 2.0], [3.0, 4.0], [10.0, 8.0]]])
    scores = torch.tensor([[0.1, 0.2, 0.0, 0.9]])
    hidden = without_regions(regions, most_relevant(scores, 0.25))
    assert hidden.tolist() == [[[1.0, 0.0], [2.0, 2.0], [3.0, 4.0], [2.0, 2.0]]]  # mean of (1,0), (2,2), (3,4)
    half = without_regions(regions, most_relevant(scores, 0.5))
    assert half.tolist() == [[[1.0, 0.0], [2.0, 2.0], [3.0, 4.0], [2.0, 2.0]]]  # (1,0) and (3,4) stay: mean (2,2)
    everything = without_regions(regions, torch.ones(1, 4, dtype=torch.bool))
    assert everything.tolist() == [[[4.0, 3.5]] * 4]
    with pytest.raises(ValueError, match="one region"):
        most_relevant(torch.zeros(1, 1), 0.5)


def test_true_boxes_hide_what_they_cover() -> None:
    cells = grid_regions(2, 3)  # cells of a third by a half
    assert cells[4].tolist() == pytest.approx([1 / 3, 1 / 2, 2 / 3, 1.0])
    car, road = [0.0, 0.0, 0.5, 0.5], [0.0, 0.5, 1.0, 1.0]
    assert covered_share(cells, torch.tensor(car)).tolist() == pytest.approx([1, 0.5, 0, 0, 0, 0])
    objects = ObjectBoxes(torch.tensor([0, 1, 1, 3]), torch.tensor([road, car, road]), torch.tensor([2, 1, 2]))
    words = replace(
        chosen(), origin=Origin(torch.tensor([2, 0, 1]), torch.tensor([1, 2, 1]), Lottery(torch.arange(3), 3))
    )
    regions = features(count=3)
    found = ByBoxes(objects, lambda pictures: cells.expand(len(pictures), -1, -1))(small_model("mh-fc"), regions, words)
    assert found.tolist() == [pytest.approx([1, 0.5, 0, 0, 0, 0]), [0, 0, 0, 1, 1, 1], [0] * 6]
    most = ByBoxes(objects, lambda pictures: cells.expand(len(pictures), -1, -1), least=0.6)
    assert most(small_model("mh-fc"), regions, words)[0].tolist() == [1, 0, 0, 0, 0, 0]


@dataclass(frozen=True)
class Table:
    """Two captions of each of three pictures."""

    first: Tensor
    numbers: Tensor

    def targets(self, captions: Tensor, longest: int | None = None) -> Tensor:
        return self.numbers[captions]


def mentions() -> ObjectMentions:
    """Three pictures with two references each; "car" is category 1, "road" category 2."""
    references = torch.tensor(
        [
            [THE, ROAD, END, PAD],
            [A, CAR, END, PAD],
            [A, CAR, ON, END],
            [A, RED, CAR, END],
            [A, RED, CAR, END],
            [THE, ROAD, END, PAD],
        ]
    )
    begins = (references == CAR).int() + 2 * (references == ROAD).int()
    forms = torch.zeros(3, len(WORDS), dtype=torch.bool)
    forms[1, CAR] = forms[1, RED] = forms[2, ROAD] = True
    first = torch.tensor([0, 2, 4, 6])
    return ObjectMentions(Table(first, references), Table(first, begins), forms)


def test_mentions_of_a_batch_and_references_without_an_object() -> None:
    found = mentions()
    assert found.of(batch().whole).tolist() == [[0, 0, 1, 0], [0, 2, 0, 0], [0, 1, 0, 0]]
    other, exists = found.reference_without(batch().rows, torch.tensor([1, 2, 1]))
    assert exists.tolist() == [True, True, False]
    assert other[:2].tolist() == [5, 1]
    scene = Scene.draw(found, batch().whole)
    assert (scene.places.tolist(), scene.categories.tolist()) == ([2, 1, 1], [1, 2, 1])
    assert (scene.exists.tolist(), scene.steps) == ([True, True, False], 3)
    assert scene.share(1, 2).places.tolist() == [1, 1]


def counterfactual(found: ObjectMentions) -> Counterfactual:
    return Counterfactual(found, hidden_share=0.34, penalty=0.4, other_reference=0.5)


def test_the_counterfactual_loss_by_hand() -> None:
    model = small_model("mh-fc").eval()
    regions = features(count=3)
    loss, words = counterfactual(mentions())(model, model.remember(regions), batch())
    hidden = without_regions(regions, most_relevant(by_lrp(model, regions, chosen()), 0.34))
    spoken = plain_logits(model, hidden, batch().inputs)
    gone = [
        spoken[0, 2].softmax(-1)[[CAR, RED]].sum(),
        spoken[1, 1].softmax(-1)[[ROAD]].sum(),
        spoken[2, 1].softmax(-1)[[CAR, RED]].sum(),
    ]
    penalty = sum(-math.log(1 - float(p)) for p in gone) / 3
    other = torch.tensor([[THE, ROAD, END], [A, CAR, END]])
    inputs = torch.cat([torch.full((2, 1), START), other[:, :-1]], 1)
    written = plain_logits(model, hidden[:2], inputs)
    alternative = float(summed_cross_entropy(written, other, PAD)) / 6
    plain = float(summed_cross_entropy(plain_logits(model, regions, batch().inputs), batch().targets, PAD))
    assert words == 11
    assert float(loss) == pytest.approx(0.6 * plain + 11 * (0.4 * penalty + 0.5 * alternative), rel=1e-6)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_emphasis_adds_the_surprise_at_the_word_that_is_seen() -> None:
    model, regions = small_model("mh-fc").eval(), features(count=3)
    memory = model.remember(regions)
    without, words = counterfactual(mentions())(model, memory, batch())
    emphasized, _ = replace(counterfactual(mentions()), emphasis=0.25)(model, memory, batch())
    spoken = plain_logits(model, regions, batch().inputs).softmax(-1)
    named = [spoken[0, 2, [CAR, RED]].sum(), spoken[1, 1, ROAD], spoken[2, 1, [CAR, RED]].sum()]
    surprise = -sum(math.log(float(p)) for p in named) / 3
    assert float(emphasized - without) == pytest.approx(words * 0.25 * surprise, rel=1e-9)


def test_lrp_inference_takes_the_place_of_the_plain_loss_beside_the_penalty() -> None:
    model, regions = small_model("mh-fc").eval(), features(count=3)
    memory, neutral = model.remember(regions), torch.zeros(len(WORDS), dtype=torch.bool)
    inference = LrpInference(Reweighting(neutral), 0.3)
    plain, words = CrossEntropy()(model, memory, batch())
    improved, _ = inference(model, memory, batch())
    alone, _ = counterfactual(mentions())(model, memory, batch())
    both, number = replace(counterfactual(mentions()), as_it_is=inference)(model, memory, batch())
    assert number == words and float(improved) != pytest.approx(float(plain), rel=1e-3)
    assert float(both - alone) == pytest.approx(0.6 * float(improved - plain), rel=1e-9)


def test_a_reward_takes_the_place_of_the_plain_loss_beside_the_penalty() -> None:
    model, regions = small_model("mh-fc").eval(), features(count=3)
    memory = model.remember(regions)

    def losses(objective: Any) -> tuple[float, float]:
        torch.manual_seed(3)
        loss, words = objective(model, memory, batch())
        return float(loss), words

    critical = SelfCritical(lambda rows, captions: torch.arange(len(captions)).double())
    plain, rewarded = losses(CrossEntropy()), losses(critical)
    alone, both = losses(counterfactual(mentions())), losses(replace(counterfactual(mentions()), as_it_is=critical))
    assert both[1] == rewarded[1]
    # The mention of each caption is the same whatever is drawn before it: captions of this batch name one object each.
    assert both[0] - alone[0] == pytest.approx(0.6 * (rewarded[0] - plain[0]), rel=1e-6)


@pytest.mark.parametrize("decoder", DECODERS)
def test_shares_of_a_batch_add_up_to_the_whole(decoder: str) -> None:
    model, regions = small_model(decoder), features(count=3)
    for objective in (counterfactual(mentions()), Counterfactual(mentions(), by_chance)):
        found = []
        for first, count in ((0, 3), (0, 1), (1, 2), (3, 0)):
            torch.manual_seed(5)
            memory = model.remember(regions[first : first + count])
            found.append(objective(model, memory, batch().share(first, count)))
        whole, *parts = ((float(loss), words) for loss, words in found)
        assert whole == (pytest.approx(sum(loss for loss, _ in parts)), sum(words for _, words in parts))


def test_a_speaker_of_lrp_inference_says_phat() -> None:
    model = small_model("ada-lstm")
    reweighting = Reweighting(torch.zeros(len(WORDS), dtype=torch.bool))
    speaker = Reweighted(model, reweighting).eval()
    inputs, logits = read(model, batch())
    improved = model.speak(reweighting.apply(model, inputs, logits))
    memory = model.remember(features(count=3))
    assert torch.equal(speaker.speak(inputs), improved)
    step = speaker.step(memory, speaker.embed(batch().inputs[:, 0]), speaker.start(memory))
    torch.testing.assert_close(step.logits, improved[:, 0])
    assert not torch.allclose(improved, logits)
    assert {id(part) for part in speaker.parameters()} == {id(part) for part in model.parameters()}


def test_the_control_is_plain_cross_entropy() -> None:
    model = small_model("mh-fc")
    memory = model.remember(features(count=3))
    logits = plain_logits(model, features(count=3), batch().inputs).log_softmax(-1)
    by_hand = -sum(
        float(logits[b, t, word])
        for b, words in enumerate(batch().targets.tolist())
        for t, word in enumerate(words)
        if word != PAD
    )
    loss, words = CrossEntropy()(model, memory, batch())
    assert (float(loss), words) == (pytest.approx(by_hand), 11)


def test_stop_words_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# colors\nRed\nblue green\n")
    assert read_stop_words(path) == {"red", "blue", "green"}
    path.write_text("# nothing\n")
    with pytest.raises(ConfigError, match=r"has no words.*all_words=true"):
        read_stop_words(path)
    with pytest.raises(ConfigError, match=r"cannot be read.*one word a line"):
        read_stop_words(tmp_path / "missing.txt")


def plain_logits(model: Captioner, regions: Tensor, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        vectors = model.embed(inputs)
        steps = model.unroll(model.remember(regions), lambda t, _: vectors[:, t], inputs.shape[1])
        return torch.stack([step.logits for step in steps], 1)


def test_captions_without_objects_leave_plain_cross_entropy() -> None:
    model = small_model("adaptive").eval()
    found = mentions()
    nothing = replace(found, begins=replace(found.begins, numbers=torch.zeros_like(found.begins.numbers)))
    memory = model.remember(features(count=3))
    loss, words = Counterfactual(nothing)(model, memory, batch())
    plain = summed_cross_entropy(plain_logits(model, features(count=3), batch().inputs), batch().targets, PAD)
    assert words == 11 and float(loss) == pytest.approx(float(plain))


def test_self_critical_training_samples_and_scores_by_lrp_inference() -> None:
    model = small_model("ada-lstm")
    reweighting = Reweighting(torch.zeros(len(WORDS), dtype=torch.bool))
    speaker, memory = Reweighted(model, reweighting).eval(), model.remember(features(count=3))
    heard: list[list[list[int]]] = []

    def reward(rows: Tensor, captions: list[list[int]]) -> Tensor:
        heard.append(captions)
        return torch.tensor([2.0, 3.0, 4.0, 1.0, 1.0, 1.0])  # of the three sampled ones, then of the three greedy ones

    torch.manual_seed(1)
    objective = SelfCritical(reward, maximum_length=6, speaker=lambda found: Reweighted(found, reweighting))
    loss, words = objective(model, memory, caption_batch(batch().rows, batch().targets, model.vocabulary))
    torch.manual_seed(1)
    uniform = torch.rand(3, 6, dtype=torch.float64)
    with torch.no_grad():
        sampled = sample(speaker, memory, DecodingOptions("sample", maximum_length=6), inverse_draw(uniform))
        greedy = decode(model, memory, DecodingOptions("greedy", maximum_length=6))
    expected = [[*found.token_ids, END] if found.finished else list(found.token_ids) for found in [*sampled, *greedy]]
    assert heard == [expected]
    assert words == sum(map(len, expected[:3]))
    by_hand = 0.0
    for row, caption in enumerate(expected[:3]):
        inputs = torch.tensor([[START, *caption[:-1]]])
        logits = speaker.speak(speaker.read(memory.select(torch.tensor([row])), speaker.embed(inputs)))[0]
        logits[:, [PAD, START, 3]] = -torch.inf  # never said
        by_hand -= (row + 1) * float(logits.log_softmax(-1)[range(len(caption)), caption].sum().detach())
    assert float(loss) == pytest.approx(by_hand)

"""Self-critical training: its gradient against one worked out by hand, its loss against a loop, and that it raises CIDEr-D."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest
import torch
from small_models import CHANNELS, DECODERS, REGIONS, small_model
from torch import Tensor, nn

from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.decoding import DecodingOptions, decode
from capxai.models.specification import Specification
from capxai.models.state import HeadInputs, Memory, State, Step
from capxai.recipes.caption_reward import CaptionReward
from capxai.train.cross_entropy import CrossEntropy, Objective
from capxai.train.examples import CaptionBatch, caption_batch, encode_references
from capxai.train.self_critical import SelfCritical, caption_losses, evaluating, inverse_draw

TOY = Vocabulary(("<pad>", "<start>", "<end>", "<unk>", "yes", "no"))
YES, NO = 4, 5


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Coin(nn.Module):
    """Says "yes" with probability 3/4 and "no" with 1/4, whatever it sees; its logits are its only parameters."""

    vocabulary = TOY

    def __init__(self) -> None:
        super().__init__()
        logits = torch.zeros(len(TOY))
        logits[TOY.end] = -1e9
        logits[YES] = math.log(3)
        self.logits = nn.Parameter(logits)

    def start(self, memory: Memory) -> State:
        zeros = memory.features.new_zeros(len(memory.features), 1)
        return State((zeros,), (zeros,))

    def embed(self, tokens: Tensor) -> Tensor:
        return tokens.unsqueeze(-1).float()

    def step(self, memory: Memory, vector: Tensor, state: State) -> Step:
        head = HeadInputs(vector, vector)
        return Step(logits=self.speak(head), state=state, attention=vector, sentinel=None, head_inputs=head)

    def read(self, memory: Memory, vectors: Tensor) -> HeadInputs:
        return HeadInputs(vectors, vectors)

    def speak(self, inputs: HeadInputs) -> Tensor:
        return self.logits.expand(*inputs.hidden.shape[:-1], -1)


def empty_memory(batch: int) -> Memory:
    nothing = torch.zeros(batch, 1, 1)
    return Memory(nothing, nothing, nothing, nothing[:, 0])


def batch_of(count: int, vocabulary: Vocabulary = TOY) -> CaptionBatch:
    return caption_batch(torch.arange(count), torch.full((count, 1), vocabulary.end), vocabulary)


def worth(values: dict[int, float]) -> object:
    return lambda rows, captions: torch.tensor([values[caption[0]] for caption in captions], dtype=torch.float64)


def test_the_gradient_is_the_one_worked_out_by_hand() -> None:
    # The greedy word is "yes", worth 1; "no" is worth 0. A sampled "yes" has advantage 0. A sampled "no" has advantage -1, so its loss
    # is +log p(no), whose gradient is 1 - p(no) = 3/4 for the logit of "no" and -p(yes) = -3/4 for that of "yes".
    # In expectation: -p(no) p(yes) = -3/16 for "yes": down the slope "yes" becomes more probable.
    torch.manual_seed(0)
    coin, count = Coin(), 4000
    loss, words = SelfCritical(worth({YES: 1.0, NO: 0.0}), 1)(coin, empty_memory(count), batch_of(count))  # type: ignore[arg-type]
    loss.backward()
    gradient = coin.logits.grad
    assert gradient is not None and words == count
    drawn = float(loss.detach()) / math.log(1 / 4)
    assert drawn == pytest.approx(round(drawn), abs=1e-2)
    assert gradient.tolist() == pytest.approx([0, 0, 0, 0, -0.75 * drawn, 0.75 * drawn], rel=1e-4, abs=1e-6)
    assert float(gradient[YES]) / count == pytest.approx(-3 / 16, abs=0.02)  # three standard deviations


def test_a_reward_for_the_rarer_word_makes_it_more_probable() -> None:
    torch.manual_seed(0)
    coin = Coin()
    objective = SelfCritical(worth({YES: 0.2, NO: 1.0}), 1)  # type: ignore[arg-type]
    for _ in range(60):
        loss, words = objective(coin, empty_memory(50), batch_of(50))  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(loss / words, coin.logits)
        coin.logits.data -= gradient
    allowed = torch.softmax(coin.logits.detach()[[YES, NO]], 0)
    assert float(allowed[1]) > 0.9


def test_rewards_are_summed_until_they_are_taken() -> None:
    torch.manual_seed(0)
    objective = SelfCritical(worth({YES: 1.0, NO: 0.0}), 1)  # type: ignore[arg-type]
    losses = [objective(Coin(), empty_memory(10), batch_of(10))[0] for _ in range(2)]  # type: ignore[arg-type]
    no = sum(round(float(loss.detach()) / math.log(1 / 4)) for loss in losses)
    sums = objective.take_rewards()
    assert (sums.sampled, sums.greedy, sums.captions) == (20 - no, 20, 20)
    assert objective.take_rewards().captions == 0


# --- with real decoders


def regions(count: int) -> Tensor:
    return torch.rand(count, REGIONS, CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def rows_reward(rows: Tensor, captions: list[list[int]]) -> Tensor:
    """A number that depends on the picture and on every word, and not on what else is in the batch."""
    found = [
        math.sin(row + sum((place + 1) * word for place, word in enumerate(caption)))
        for row, caption in zip(rows.tolist(), captions, strict=True)
    ]
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_loss_is_that_of_a_loop_over_captions_and_words(decoder: str, temperature: float) -> None:
    model, count = small_model(decoder), 7
    model.train()
    seen: list[list[list[int]]] = []

    def reward(rows: Tensor, captions: list[list[int]]) -> Tensor:
        seen.append(captions)
        assert rows.tolist() == [*range(count)] * 2
        return rows_reward(rows, captions)

    torch.manual_seed(3)
    memory = model.remember(regions(count))
    loss, words = SelfCritical(reward, 6, temperature)(model, memory, batch_of(count, model.vocabulary))
    assert model.training and all(module.training for module in model.modules())
    gradients = torch.autograd.grad(loss, list(model.parameters()))

    ((*captions,),) = seen
    sampled, greedy = captions[:count], captions[count:]
    assert any(caption[-1] == model.vocabulary.end and len(caption) < 6 for caption in sampled)
    assert words == sum(map(len, sampled))
    advantage = rows_reward(torch.arange(count), sampled) - rows_reward(torch.arange(count), greedy)
    expected = torch.zeros((), dtype=torch.float64)
    model.eval()
    for row, caption in enumerate(sampled):
        own = model.remember(regions(count)[row : row + 1])
        state, last = model.start(own), model.vocabulary.start
        for word in caption:  # nothing after the end
            step = model.step(own, model.embed(torch.tensor([last])), state)
            allowed = [number for number in range(len(model.vocabulary)) if number not in (0, 1, 3)]
            scores = step.logits[0, allowed] / temperature
            expected = expected - advantage[row] * (scores[allowed.index(word)] - scores.logsumexp(0))
            state, last = step.state, word
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
    for own_gradient, slow in zip(gradients, torch.autograd.grad(expected, list(model.parameters())), strict=True):
        torch.testing.assert_close(own_gradient, slow, rtol=1e-7, atol=1e-10)
    for row, caption in enumerate(greedy):
        found = decode(
            model, model.remember(regions(count)[row : row + 1]), DecodingOptions("greedy", maximum_length=6)
        )[0]
        assert caption == [*found.token_ids, *([model.vocabulary.end] if found.finished else [])]


def test_what_follows_the_end_counts_nothing() -> None:
    model = small_model("mh-fc")
    memory, end, pad = model.remember(regions(2)), model.vocabulary.end, model.vocabulary.pad
    long = caption_losses(model, memory, torch.tensor([[4, end, pad, pad], [4, 5, 6, end]]), 1.0)
    short = caption_losses(model, memory.select(torch.tensor([0])), torch.tensor([[4, end]]), 1.0)
    torch.testing.assert_close(long[:1], short, rtol=1e-12, atol=0)
    assert bool(long[1] > 0)


def loss_of(model: Captioner, batch: CaptionBatch, seed: int) -> tuple[float, float, Tensor]:
    torch.manual_seed(seed)
    memory = model.remember(regions(8)[batch.rows])
    loss, words = SelfCritical(rows_reward, 6)(model, memory, batch)
    return float(loss.detach()), words, torch.get_rng_state()


def test_the_same_random_state_samples_the_same_captions() -> None:
    model, batch = small_model("ada-lstm"), batch_of(8, small_model("ada-lstm").vocabulary)
    first, again, other = (loss_of(model, batch, seed) for seed in (0, 0, 1))
    assert first[:2] == again[:2] and first[0] != other[0]
    assert torch.equal(first[2], again[2])


def test_shares_of_a_batch_sample_what_the_whole_batch_samples() -> None:
    model = small_model("ada-lstm")
    batch = batch_of(8, model.vocabulary)
    whole = loss_of(model, batch, 0)
    parts = [loss_of(model, batch.share(first, count), 0) for first, count in ((0, 3), (3, 5), (8, 0))]
    assert sum(part[0] for part in parts) == pytest.approx(whole[0], rel=1e-9)
    assert sum(part[1] for part in parts) == whole[1]
    assert all(torch.equal(part[2], whole[2]) for part in parts)  # the processes stay in step


def test_an_empty_share_has_gradients_of_zero() -> None:
    model = small_model("ada-lstm")
    batch = batch_of(8, model.vocabulary).share(8, 0)
    loss, words = SelfCritical(rows_reward, 6)(model, model.remember(regions(0)), batch)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert float(loss.detach()) == words == 0 and all(not gradient.any() for gradient in gradients)


def test_words_are_drawn_by_the_inverse_of_their_distribution() -> None:
    probabilities = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]])
    for uniform, word in ((0.0, 1), (0.2499, 1), (0.2501, 3), (1 - 2**-53, 3)):
        draw = inverse_draw(torch.tensor([[0.5, uniform]], dtype=torch.float64))
        assert draw(1, probabilities).tolist() == [[word]]
    many = torch.rand(20000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = inverse_draw(many)(0, probabilities.expand(20000, -1)).flatten()
    assert drawn.bincount(minlength=5).div(20000).tolist() == pytest.approx(probabilities[0].tolist(), abs=0.01)


def test_every_module_gets_its_mode_back() -> None:
    model = small_model("mh-fc")
    model.decoder.attention.train()
    before = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before and any(before)


# --- the reward


SENTENCES: Sequence[Sequence[str]] = (
    ("a red car on the road", "the red car"),
    ("a road", "the road on a car"),
    ("the car on a red road",),
)


def test_the_reward_is_cider_with_the_end_as_a_word() -> None:
    model = small_model("mh-fc")
    vocabulary = model.vocabulary
    reward = CaptionReward.of(encode_references(SENTENCES, vocabulary))
    exact = [*vocabulary.encode("the car on a red road"), vocabulary.end]
    cut = exact[:-1]
    rows = torch.tensor([2, 2, 0])
    scores = reward(rows, [exact, cut, [vocabulary.end]])
    assert scores.dtype == torch.float64 and float(scores[0]) == pytest.approx(10.0)
    assert float(scores[1]) < 9.5  # without the end, the longest phrases are not all there
    assert float(scores[2]) < 1
    by_lists = CaptionReward([[vocabulary.encode(text) for text in texts] for texts in SENTENCES], vocabulary.end)
    assert torch.equal(by_lists(rows, [exact, cut, [vocabulary.end]]), scores)


@pytest.mark.parametrize("decoder", ["ada-lstm", "mh-fc"])
def test_training_raises_the_reward_of_sampled_and_of_greedy_captions(decoder: str) -> None:
    torch.manual_seed(0)
    vocabulary = small_model(decoder).vocabulary
    sizes = Specification("features", decoder, 8, 9, 16, 16, len(vocabulary), 4 if decoder == "mh-fc" else 1)
    model = build_captioner(sizes, vocabulary, Preprocessing(24))
    references = encode_references(SENTENCES, vocabulary)
    reward, features, rows = CaptionReward.of(references), torch.rand(3, 9, 8), torch.arange(3).repeat(8)
    features[range(3), :, range(3)] += 2  # each picture has a channel of its own
    batch = caption_batch(rows, references.targets(references.first[rows]), vocabulary)
    adam = torch.optim.Adam(model.parameters(), 0.01)

    def descend(objective: Objective, steps: int) -> None:
        for _ in range(steps):
            model.train()
            loss, number = objective(model, model.remember(features[rows]), batch)
            adam.zero_grad()
            (loss / number).backward()
            nn.utils.clip_grad_value_(model.parameters(), 0.1)
            adam.step()

    def greedy_reward() -> float:
        model.eval()
        captions = decode(model, model.remember(features), DecodingOptions("greedy", maximum_length=9))
        ids = [[*found.token_ids, *([vocabulary.end] if found.finished else [])] for found in captions]
        return float(reward(torch.arange(3), ids).mean())

    descend(CrossEntropy(), 30)  # until words are found, before captions are
    before, objective = greedy_reward(), SelfCritical(reward, 9)
    descend(objective, 5)
    first = objective.take_rewards()
    descend(objective, 60)
    objective.take_rewards()
    descend(objective, 5)
    last = objective.take_rewards()
    assert first.captions == last.captions == 5 * 24
    assert last.sampled > 1.5 * first.sampled
    assert greedy_reward() > before + 0.5

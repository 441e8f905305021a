"""Decoding: batched strategies against slow replicas that know one picture and Python lists only."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.errors import ConfigError, ImageError, ModelError
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.decoding import Decoded, DecodingOptions, decode
from capxai.models.decoding.sampling import draw_probabilities
from capxai.models.specification import Specification
from capxai.models.state import State

WORDS = ("<pad>", "<start>", "<end>", "<unk>", "a", "bus", "car", "dog", "near", "on", "red", "road")
PAD, START, END, UNKNOWN = range(4)
PLAIN = range(4, len(WORDS))
SEEDS = {"ada-lstm": 7, "mh-fc": 1, "adaptive": 6}
"""Decoders, and the seeds whose random models say different things about different pictures."""
REGIONS, CHANNELS = 6, 8
STRATEGIES = (
    DecodingOptions("greedy"),
    DecodingOptions("beam"),
    DecodingOptions("beam", beam=5, length_penalty=0.7),
    DecodingOptions("diverse-beam", beam=6),
)


def tiny_model(decoder: str = "ada-lstm") -> Captioner:
    """A random model of stored features in float64 whose captions differ and end at various lengths."""
    torch.manual_seed(SEEDS[decoder])
    heads = 2 if decoder == "mh-fc" else 1
    specification = Specification("features", decoder, CHANNELS, REGIONS, 16, 16, len(WORDS), heads)
    model = build_captioner(specification, Vocabulary(WORDS), Preprocessing(8)).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.6)
        model.decoder.embedding.weight.normal_(0, 3)
        model.decoder.word_head.fc.bias.zero_()
        model.decoder.word_head.fc.bias[END] += 1
    return model


def pictures(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, REGIONS, CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Work on these tiny tensors without handing them to other threads, which takes longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=SEEDS)
def model(request: pytest.FixtureRequest) -> Captioner:
    return tiny_model(request.param)


def log_probability_list(logits: Tensor) -> list[float]:
    values = logits.squeeze(0).tolist()
    largest = max(values)
    normalizer = largest + math.log(sum(math.exp(value - largest) for value in values))
    return [value - normalizer for value in values]


@dataclass
class Replica:
    """One hypothesis of the slow search."""

    words: list[int]
    values: list[float]
    state: State
    ended: bool = False

    def score(self, penalty: float) -> float:
        return sum(self.values) / len(self.values) ** penalty


@torch.no_grad()
def slow_search(model: Captioner, features: Tensor, options: DecodingOptions, groups: int = 1) -> list[Replica]:
    """Search one picture (K, C) with lists and sorting, in the words of the definition."""
    memory = model.remember(features.unsqueeze(0))
    size = options.beam // groups
    beams = [[Replica([], [], model.start(memory))] for _ in range(groups)]
    for _ in range(options.maximum_length):
        used: Counter[int] = Counter()
        for group, beam in enumerate(beams):
            candidates: list[tuple[float, Replica]] = []
            for hypothesis in beam:
                if hypothesis.ended:
                    candidates.append((hypothesis.score(options.length_penalty), hypothesis))
                    continue
                last = hypothesis.words[-1] if hypothesis.words else START
                step = model.step(memory, model.embed(torch.tensor([last])), hypothesis.state)
                logs = log_probability_list(step.logits)
                for word in (END, *PLAIN):
                    longer = Replica(
                        [*hypothesis.words, word], [*hypothesis.values, logs[word]], step.state, word == END
                    )
                    penalty = options.diversity_strength * used[word]
                    candidates.append((longer.score(options.length_penalty) - penalty, longer))
            candidates.sort(key=lambda candidate: -candidate[0])
            kept = [candidate for _, candidate in candidates[:size]]
            used.update(hypothesis.words[-1] for hypothesis in kept if hypothesis not in beam)
            beams[group] = kept
    everything = [hypothesis for beam in beams for hypothesis in beam]
    return sorted(everything, key=lambda hypothesis: -hypothesis.score(options.length_penalty))


def all_of(caption: Decoded) -> list[Decoded]:
    return [caption, *caption.alternatives]


def assert_same(found: Decoded, expected: list[Replica], options: DecodingOptions) -> None:
    assert len(all_of(found)) == len(expected)
    for ours, theirs in zip(all_of(found), expected, strict=True):
        assert ours.token_ids == tuple(word for word in theirs.words if word != END)
        assert ours.finished == theirs.ended
        assert ours.token_log_probabilities == pytest.approx(theirs.values, abs=1e-6)
        assert ours.log_probability == pytest.approx(sum(theirs.values), abs=1e-6)
        assert ours.score == pytest.approx(theirs.score(options.length_penalty), abs=1e-6)


def assert_equal(found: list[Decoded], expected: list[Decoded]) -> None:
    for a, b in zip(found, expected, strict=True):
        for ours, theirs in zip(all_of(a), all_of(b), strict=True):
            assert (ours.token_ids, ours.finished) == (theirs.token_ids, theirs.finished)
            assert ours.token_log_probabilities == pytest.approx(theirs.token_log_probabilities, abs=1e-9)


@pytest.mark.parametrize("penalty", [0.0, 0.7])
@pytest.mark.parametrize("beam", [1, 3, 5])
def test_beam_search_is_the_slow_search(model: Captioner, beam: int, penalty: float) -> None:
    features = pictures(6)
    options = DecodingOptions("beam", beam=beam, length_penalty=penalty, maximum_length=8)
    found = decode(model, model.remember(features), options)
    for caption, picture in zip(found, features, strict=True):
        assert_same(caption, slow_search(model, picture, options), options)


def test_the_tiny_model_makes_captions_that_differ_and_end_at_various_lengths(model: Captioner) -> None:
    found = decode(model, model.remember(pictures(20)), DecodingOptions("beam", maximum_length=8))
    assert len({caption.token_ids for caption in found}) >= 5
    assert len({len(caption.token_ids) for caption in found}) >= 3


@pytest.mark.parametrize(("beam", "groups", "strength"), [(4, 2, 0.5), (3, 3, 5.0), (6, 2, 1.0), (24, 2, 1.0)])
def test_diverse_beam_search_is_the_slow_search(model: Captioner, beam: int, groups: int, strength: float) -> None:
    features = pictures(5)
    options = DecodingOptions("diverse-beam", beam=beam, groups=groups, diversity_strength=strength, maximum_length=7)
    found = decode(model, model.remember(features), options)
    for caption, picture in zip(found, features, strict=True):
        assert_same(caption, slow_search(model, picture, options, groups), options)


def test_one_group_is_plain_beam_search(model: Captioner) -> None:
    memory = model.remember(pictures(5))
    plain = decode(model, memory, DecodingOptions("beam", beam=4))
    assert decode(model, memory, DecodingOptions("diverse-beam", beam=4, groups=1, diversity_strength=9.0)) == plain


def test_strong_diversity_starts_every_group_with_another_word(model: Captioner) -> None:
    memory = model.remember(pictures(5))
    for strength, different in ((0.0, 1), (1000.0, 3)):
        options = DecodingOptions("diverse-beam", beam=3, groups=3, diversity_strength=strength)
        for caption in decode(model, memory, options):
            assert len({hypothesis.token_ids[:1] for hypothesis in all_of(caption)}) == different


def test_a_wide_beam_finds_the_best_of_all_captions() -> None:
    model, steps = tiny_model("adaptive"), 3
    features = pictures(2)
    found = decode(model, model.remember(features), DecodingOptions("beam", beam=80, maximum_length=steps))
    for caption, picture in zip(found, features, strict=True):
        best = max(
            ((log_probability_of(model, picture, words), words) for words in captions_up_to(steps)),
            key=lambda pair: pair[0],
        )
        assert caption.token_ids == tuple(word for word in best[1] if word != END)
        assert caption.log_probability == pytest.approx(best[0], abs=1e-9)


def captions_up_to(steps: int) -> Iterator[tuple[int, ...]]:
    for length in range(steps):
        for words in itertools.product(PLAIN, repeat=length):
            yield (*words, END)
    yield from itertools.product(PLAIN, repeat=steps)


def log_probability_of(model: Captioner, picture: Tensor, words: tuple[int, ...]) -> float:
    return sum(forced_log_probabilities(model, picture, words))


@torch.no_grad()
def forced_log_probabilities(model: Captioner, picture: Tensor, words: tuple[int, ...]) -> list[float]:
    """Feed the given words (K, C) and read the log-probability of each."""
    fed = torch.tensor([START, *words])
    steps = model.unroll(model.remember(picture.unsqueeze(0)), lambda t, _: model.embed(fed[t : t + 1]), len(words))
    return [float(torch.log_softmax(step.logits[0], 0)[word]) for step, word in zip(steps, words, strict=True)]


def test_greedy_is_the_greedy_feed_of_unroll(model: Captioner) -> None:
    features = pictures(12)

    def best_so_far(t: int, logits: Tensor | None) -> Tensor:
        return model.embed(torch.full((12,), START) if logits is None else best(logits))

    def best(logits: Tensor) -> Tensor:
        allowed = torch.tensor([END, *PLAIN])
        return allowed[logits[:, allowed].argmax(1)]

    with torch.no_grad():
        steps = model.unroll(model.remember(features), best_so_far, 9)
    rows = torch.stack([best(step.logits) for step in steps], dim=1).tolist()
    found = decode(model, model.remember(features), DecodingOptions("greedy", maximum_length=9))
    for caption, row in zip(found, rows, strict=True):
        until_end = row[: row.index(END)] if END in row else row
        assert caption.token_ids == tuple(until_end)
        assert caption.finished == (END in row)


def test_greedy_is_beam_search_of_width_one_exactly(model: Captioner) -> None:
    memory = model.remember(pictures(12))
    assert decode(model, memory, DecodingOptions("greedy")) == decode(model, memory, DecodingOptions("beam", beam=1))


@pytest.mark.parametrize("options", STRATEGIES, ids=lambda options: f"{options.strategy}-{options.beam}")
def test_a_batch_equals_its_pictures_one_by_one(model: Captioner, options: DecodingOptions) -> None:
    features = pictures(7)
    together = decode(model, model.remember(features), options)
    assert_equal(together, [decode(model, model.remember(picture.unsqueeze(0)), options)[0] for picture in features])
    backwards = decode(model, model.remember(features.flip(0)), options)
    assert_equal(together, backwards[::-1])


@pytest.mark.parametrize("options", [*STRATEGIES, DecodingOptions("sample", temperature=2.0)])
def test_log_probabilities_are_those_of_the_given_caption(model: Captioner, options: DecodingOptions) -> None:
    features = pictures(6)
    for caption, picture in zip(decode(model, model.remember(features), options), features, strict=True):
        for hypothesis in all_of(caption):
            words = hypothesis.token_ids + ((END,) if hypothesis.finished else ())
            expected = forced_log_probabilities(model, picture, words)
            assert hypothesis.token_log_probabilities == pytest.approx(expected, abs=1e-9)
            assert hypothesis.log_probability == pytest.approx(sum(expected), abs=1e-9)
            score = hypothesis.log_probability / len(words) ** options.length_penalty
            assert hypothesis.score == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize("options", [*STRATEGIES, DecodingOptions("sample", temperature=5.0)])
def test_specials_are_never_chosen_even_where_they_are_most_probable(options: DecodingOptions) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.decoder.word_head.fc.bias[[PAD, START, UNKNOWN]] += 30
    for caption in decode(model, model.remember(pictures(10)), replace(options, maximum_length=6)):
        for hypothesis in all_of(caption):
            assert set(hypothesis.token_ids) <= set(PLAIN)
            assert hypothesis.token_log_probabilities[0] < -10  # the model's own, not renormalized


@pytest.mark.parametrize("options", [*STRATEGIES, DecodingOptions("sample")])
def test_a_caption_may_be_empty_and_ends_the_search_at_once(
    options: DecodingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.decoder.word_head.fc.bias[END] += 1000
    calls = count_steps(model, monkeypatch)
    for caption in decode(model, model.remember(pictures(3)), options):
        assert caption.token_ids == () and caption.finished
        assert caption.token_log_probabilities == pytest.approx([0.0])
    assert calls[0] <= {"greedy": 1, "sample": 1}.get(options.strategy, options.maximum_length)


@pytest.mark.parametrize("options", [*STRATEGIES, DecodingOptions("sample")])
def test_the_number_of_steps_does_not_grow_with_the_batch(
    options: DecodingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    calls = count_steps(model, monkeypatch)
    decode(model, model.remember(pictures(30)), replace(options, maximum_length=8))
    assert 2 <= calls[0] <= 8


def count_steps(model: Captioner, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls, step = [0], model.step

    def counted(*arguments: object) -> object:
        calls[0] += 1
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "step", counted)
    return calls


def test_maximum_length_cuts_what_has_not_ended_and_changes_nothing_else() -> None:
    model = tiny_model()
    memory = model.remember(pictures(20))
    whole = decode(model, memory, DecodingOptions("greedy", maximum_length=30))
    short = decode(model, memory, DecodingOptions("greedy", maximum_length=2))
    assert any(not caption.finished for caption in short) and any(caption.finished for caption in short)
    for cut, caption in zip(short, whole, strict=True):
        assert cut.token_ids == caption.token_ids[:2]
        assert cut.finished == (caption.finished and len(caption.token_ids) < 2)
        assert len(cut.token_log_probabilities) == min(2, len(caption.token_ids) + 1)


def test_length_penalty_prefers_longer_captions() -> None:
    model = tiny_model()
    memory = model.remember(pictures(30))
    lengths = [
        sum(len(c.token_ids) for c in decode(model, memory, DecodingOptions("beam", length_penalty=penalty)))
        for penalty in (0.0, 1.5)
    ]
    assert lengths[0] < lengths[1]


def test_a_beam_wider_than_the_vocabulary_holds_no_caption_twice() -> None:
    model = tiny_model()
    picture = pictures(1)
    one_word = decode(model, model.remember(picture), DecodingOptions("beam", beam=40, maximum_length=1))[0]
    assert len(all_of(one_word)) == len(PLAIN) + 1  # every plain word, and <end>
    options = DecodingOptions("beam", beam=40, maximum_length=4)
    caption = decode(model, model.remember(picture), options)[0]
    assert_same(caption, slow_search(model, picture[0], options), options)
    assert len({(h.token_ids, h.finished) for h in all_of(caption)}) == 40


def test_no_pictures_give_no_captions() -> None:
    model = tiny_model()
    for options in (*STRATEGIES, DecodingOptions("sample")):
        assert decode(model, model.remember(pictures(0)), options) == []


def test_sampling_is_reproducible_and_leaves_the_global_random_state_alone() -> None:
    model = tiny_model()
    memory = model.remember(pictures(20))
    before = torch.get_rng_state()
    first = decode(model, memory, DecodingOptions("sample", seed=7))
    assert decode(model, memory, DecodingOptions("sample", seed=7)) == first
    assert decode(model, memory, DecodingOptions("sample", seed=8)) != first
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "settings_of_greedy", [{"top_k": 1}, {"temperature": 1e-6}, {"top_p": 1e-6}, {"temperature": 1e-40}]
)
def test_sampling_without_freedom_is_greedy(model: Captioner, settings_of_greedy: dict[str, float]) -> None:
    memory = model.remember(pictures(10))
    sampled = decode(model, memory, DecodingOptions("sample", **settings_of_greedy))  # type: ignore[arg-type]
    assert_equal(sampled, decode(model, memory, DecodingOptions("greedy")))


def test_sampled_first_words_follow_the_model_by_a_chi_square_test() -> None:
    model, draws = tiny_model(), 20_000
    memory = model.remember(pictures(1)).select(torch.zeros(draws, dtype=torch.int64))
    options = DecodingOptions("sample", maximum_length=1, temperature=3.0)
    found = Counter(caption.token_ids or (END,) for caption in decode(model, memory, options))
    with torch.no_grad():
        step = model.step(memory, model.embed(torch.full((draws,), START)), model.start(memory))
    weights = {word: math.exp(float(step.logits[0, word]) / 3.0) for word in (END, *PLAIN)}
    expected = {word: draws * weight / sum(weights.values()) for word, weight in weights.items()}
    assert min(expected.values()) > 5
    statistic = sum((found[(word,)] - count) ** 2 / count for word, count in expected.items())
    assert statistic < 26.1  # 99.9 % quantile of chi-square with 8 degrees of freedom


def test_draw_probabilities_with_a_pencil() -> None:
    logs = torch.log(torch.tensor([[0.05, 0.5, 0.15, 0.3]], dtype=torch.float64))

    def drawn(**settings_of_draw: float) -> list[float]:
        options = DecodingOptions("sample", **settings_of_draw)  # type: ignore[arg-type]
        return [float(value) for value in draw_probabilities(logs, options)[0]]

    assert drawn() == pytest.approx([0.05, 0.5, 0.15, 0.3])
    for tiny in (1e-6, 1e-40, 5e-324):
        options = DecodingOptions("sample", temperature=tiny)
        assert draw_probabilities(logs.float(), options).tolist() == [[0, 1, 0, 0]]
    assert drawn(top_k=2) == pytest.approx([0, 0.625, 0, 0.375])  # 0.5 and 0.3 over 0.8
    assert drawn(top_p=0.75) == pytest.approx([0, 0.625, 0, 0.375])  # 0.5 is not enough, 0.8 is
    assert drawn(top_p=0.45) == pytest.approx([0, 1, 0, 0])
    assert drawn(top_k=3, top_p=0.84) == pytest.approx([0, 0.625, 0, 0.375])  # of 0.95: 0.8 is 84.2 %
    squares = [0.0025, 0.25, 0.0225, 0.09]  # their sum is 0.365
    assert drawn(temperature=0.5) == pytest.approx([square / 0.365 for square in squares])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    logits=st.lists(st.floats(-8, 8), min_size=4, max_size=12),
    temperature=st.floats(0.05, 5),
    top_k=st.none() | st.integers(1, 15),
    top_p=st.none() | st.floats(0.01, 1),
)
def test_draw_probabilities_keep_the_most_probable_words(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> None:
    options = DecodingOptions("sample", temperature=temperature, top_k=top_k, top_p=top_p)
    logs = torch.log_softmax(torch.tensor([logits], dtype=torch.float64), 1)
    drawn = draw_probabilities(logs, options)[0]
    kept = drawn > 0
    assert float(drawn.sum()) == pytest.approx(1)
    assert bool(kept.any())
    assert top_k is None or int(kept.sum()) <= top_k
    if not bool(kept.all()):
        tempered = torch.softmax(logs[0] / temperature, 0)
        assert float(tempered[kept].min()) >= float(tempered[~kept].max()) * (1 - 1e-9)


@pytest.mark.parametrize("options", [*STRATEGIES, DecodingOptions("sample")])
def test_logits_that_are_no_numbers_are_an_error(options: DecodingOptions) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.decoder.word_head.fc.bias[5] = math.nan
    with pytest.raises(ModelError, match="The model's logits are not numbers"):
        decode(model, model.remember(pictures(2)), options)


@pytest.mark.parametrize("options", [*STRATEGIES, DecodingOptions("sample")])
def test_decoding_changes_neither_model_nor_memory(options: DecodingOptions) -> None:
    model = tiny_model()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    memory = model.remember(pictures(3))
    values = memory.values.clone()
    decode(model, memory, options)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(memory.values, values)


def test_half_precision_logits_are_decoded_in_float32() -> None:
    model = tiny_model().bfloat16()
    for options in (*STRATEGIES, DecodingOptions("sample")):
        for caption in decode(model, model.remember(pictures(2).bfloat16()), options):
            first = caption.token_log_probabilities[0]
            assert first != float(torch.tensor(first).bfloat16())


def test_all_problems_of_the_options_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        DecodingOptions(
            "bean",
            beam=0,
            length_penalty=-1,
            diversity_strength=1e7,
            top_p=1.5,
            temperature=math.nan,
            seed=True,
            maximum_length=2.5,  # type: ignore[arg-type]
        )
    message = str(caught.value)
    assert "Unknown strategy 'bean'. Choose one of: greedy, beam, diverse-beam, sample. Did you mean 'beam'?" in message
    assert "beam is 0. Expected a whole number of 1 or more." in message
    assert "length_penalty is -1. Expected a number of 0 or more and at most 10." in message
    assert "diversity_strength is 10000000.0. Expected a number of 0 or more and at most 1e+06." in message
    assert "top_p is 1.5. Expected a number above 0 and at most 1." in message
    assert "temperature is nan. Expected a number above 0." in message
    assert "seed is True. Expected a whole number of 0 or more." in message
    assert "maximum_length is 2.5. Expected a whole number of 1 or more." in message


def test_groups_must_divide_the_beam_of_a_diverse_search_only() -> None:
    assert DecodingOptions("beam", beam=4, groups=3).beam == 4
    with pytest.raises(ConfigError, match="3 groups do not divide a beam of 4. Choose one of: 1, 2, 4."):
        DecodingOptions("diverse-beam", beam=4, groups=3)


@pytest.fixture
def seeing_model() -> Captioner:
    """A random model with an encoder, for pictures of 32 x 32."""
    torch.manual_seed(3)
    specification = Specification("compact", "ada-lstm", 112, 16, 16, 16, len(WORDS))
    model = build_captioner(specification, Vocabulary(WORDS), Preprocessing(32))
    with torch.no_grad():
        model.decoder.word_head.fc.weight.mul_(10)
    return model


def test_caption_reads_prepares_and_decodes(seeing_model: Captioner, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    seeing_model.eval()
    prepared = seeing_model.preprocessing
    with torch.no_grad():
        memory = seeing_model.encode(prepared.normalize(torch.from_numpy(prepared.resize(pixels)).unsqueeze(0)))
    for beam in (1, 3):
        expected = decode(seeing_model, memory, DecodingOptions(beam=beam))[0].token_ids
        assert expected
        text = " ".join(WORDS[word] for word in expected)
        assert seeing_model.caption(tmp_path / "image.png", beam=beam) == text
        assert seeing_model.caption(str(tmp_path / "image.png"), beam) == text
        assert seeing_model.caption(pixels, beam) == text


def test_caption_works_in_evaluation_mode_and_restores_the_mode_of_every_module(seeing_model: Captioner) -> None:
    pixels = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    expected = seeing_model.eval().caption(pixels)
    pixels = pixels[::-1].copy()[::-1]  # the same picture, of a layout that torch refuses
    seeing_model.train()
    assert seeing_model.encoder is not None
    seeing_model.encoder.eval()
    statistics = seeing_model.encoder.trunk[1].running_mean.clone()  # type: ignore[union-attr, operator]
    assert seeing_model.caption(pixels) == expected
    with pytest.raises(ImageError):
        seeing_model.caption("no-such-file.jpg")
    assert seeing_model.training and seeing_model.decoder.word_head.dropout.training
    assert not any(module.training for module in seeing_model.encoder.modules())
    assert torch.equal(statistics, seeing_model.encoder.trunk[1].running_mean)  # type: ignore[arg-type]


def test_caption_says_what_it_cannot_use(seeing_model: Captioner) -> None:
    with pytest.raises(ImageError, match=r"array of shape \(4, 4\) and type float64. Expected \(H, W, 3\) uint8 RGB"):
        seeing_model.caption(np.zeros((4, 4)))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="beam is 0"):
        seeing_model.caption(np.zeros((4, 4, 3), np.uint8), beam=0)
    with pytest.raises(ModelError, match="has no encoder"):
        tiny_model().caption(np.zeros((4, 4, 3), np.uint8))

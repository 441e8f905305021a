"""Training: its pieces against hand-made cases, whole runs of a tiny model, determinism and failures."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from capxai.data.preprocessing import Preprocessing
from capxai.data.scenes import write_corpus
from capxai.data.vocabulary import Vocabulary
from capxai.errors import ConfigError, CorpusError, ModelError
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.decoding import DecodingOptions
from capxai.models.encoders.compact import CompactEncoder
from capxai.models.folder import load_model
from capxai.models.specification import Specification
from capxai.recipes import builtin_corpus, evaluate, train
from capxai.recipes.evaluate import EvaluateConfig
from capxai.recipes.train import TrainConfig, TrainReport
from capxai.train.cross_entropy import (
    CaptionSettings,
    teacher_forcing,
    train_captions,
    validation_loss,
    word_losses,
    write_captions,
)
from capxai.train.examples import cell_coverage, encode_references, epoch_of_captions
from capxai.train.localization import CellExamples, LocalizationSettings, augment, cell_loss, train_encoder
from capxai.train.optimization import DivergedError, Optimization, cosine_with_warm_up
from capxai.types import SILENT

SENTENCES = ("a red car", "a boat and a bird", "there is a cup near a fork", "a clock")
VOCABULARY = Vocabulary.build(SENTENCES, 1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute on one thread: threads of so small a model wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny_captioner(decoder: str = "ada-lstm") -> Captioner:
    """Return a 16-unit model of 9 regions with 8 channels, the same each time."""
    torch.manual_seed(0)
    specification = Specification("features", decoder, 8, 9, 16, 16, len(VOCABULARY), 4 if decoder == "mh-fc" else 1)
    return build_captioner(specification, VOCABULARY, Preprocessing(24))


def tiny_features(pictures: int) -> torch.Tensor:
    """Return features (pictures, 9, 8), the same each time; each picture has a channel of its own."""
    features = torch.rand(pictures, 9, 8, generator=torch.Generator().manual_seed(1))
    for picture in range(pictures):
        features[picture, :, picture] += 2
    return features


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Render forty training pictures."""
    folder = tmp_path_factory.mktemp("corpora") / "scenes"
    write_corpus(folder, 40, 0)
    return folder


def tiny_config(corpus: Path, out: Path, **settings: object) -> TrainConfig:
    """Return settings of a run of a few seconds."""
    small: dict[str, object] = {
        "corpus": corpus,
        "out": out,
        "hidden_size": 16,
        "embedding_size": 16,
        "heads": 4,
        "minimum_count": 1,
        "encoder_epochs": 1,
        "encoder_batch_size": 20,
        "decoder_epochs": 2,
        "batch_size": 20,
        "threads": 1,
    }
    return TrainConfig(**{**small, **settings})  # type: ignore[arg-type]


# --- examples


def test_coverage_of_cells_by_hand() -> None:
    mask = np.zeros((8, 8), dtype=np.bool_)
    mask[0:4, 0:4] = True  # all of the first cell
    mask[4:6, 4:8] = True  # half of the last one
    assert cell_coverage(mask, 2).tolist() == [[255, 0], [0, 128]]


def test_references_end_and_are_padded() -> None:
    tokens = encode_references([["a clock"], ["a red car", "a strange boat"]], VOCABULARY)
    words = [[[VOCABULARY.words[token] for token in caption] for caption in texts] for texts in tokens.tolist()]
    assert words == [
        [["a", "clock", "<end>", "<pad>"], ["a", "clock", "<end>", "<pad>"]],
        [["a", "red", "car", "<end>"], ["a", "<unk>", "boat", "<end>"]],
    ]


def test_an_epoch_shows_every_picture_once_and_shifts_its_words() -> None:
    tokens = encode_references(
        [[SENTENCES[number % 4], SENTENCES[(number + 1) % 4]] for number in range(10)], VOCABULARY
    )
    batches = list(epoch_of_captions(tokens, VOCABULARY, 3, torch.Generator().manual_seed(0)))
    assert sorted(torch.cat([batch.rows for batch in batches]).tolist()) == list(range(10))
    for batch in batches:
        assert (batch.inputs[:, 0] == VOCABULARY.start).all()
        assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
        for row, target in zip(batch.rows.tolist(), batch.targets.tolist(), strict=True):
            assert VOCABULARY.decode(target) in (SENTENCES[row % 4], SENTENCES[(row + 1) % 4])
        assert (batch.targets != VOCABULARY.pad).any(0).all()  # no column of padding alone


# --- encoder


def test_the_loss_of_cells_leaves_out_what_is_not_judged() -> None:
    coverage = torch.tensor([255, 0, 40], dtype=torch.uint8).reshape(1, 1, 1, 3).expand(1, 1, 3, 3)
    logits = torch.tensor([1.0, -2.0, 50.0]).reshape(1, 1, 1, 3).expand(1, 1, 3, 3)
    # A covered cell counts four times, an empty one once, one covered to 16 % not at all.
    expected = 3 * (4 * math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 9
    assert float(cell_loss(logits, coverage)) == pytest.approx(expected)


def test_augmentation_mirrors_labels_with_their_picture() -> None:
    images = torch.zeros(16, 4, 4, 3, dtype=torch.uint8)
    images[:, :, :2] = 200  # the left half is bright
    coverage = torch.zeros(16, 1, 2, 2, dtype=torch.uint8)
    coverage[:, :, :, 0] = 255
    changed, labels = augment(images, coverage, torch.Generator().manual_seed(0))
    bright_left = changed[:, :, :2].float().mean((1, 2, 3)) > 100
    assert 0 < int(bright_left.sum()) < 16
    assert torch.equal(labels[:, 0, 0, 0] == 255, bright_left)
    assert torch.equal(labels[:, 0, 0, 1] == 255, ~bright_left)


def encoder_losses(seed: int) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Train on eight pictures whose left or right half is bright, for a few epochs; return losses and weights."""
    images = torch.zeros(8, 112, 112, 3, dtype=torch.uint8)
    coverage = torch.zeros(8, 2, 14, 14, dtype=torch.uint8)
    for number in range(8):
        half = slice(0, 56) if number % 2 else slice(56, 112)
        images[number, :, half, number % 2] = 200
        coverage[number, number % 2, :, half.start // 8 : half.stop // 8] = 255
    torch.manual_seed(0)
    encoder = CompactEncoder()
    settings = LocalizationSettings(6, 4, 3e-3, seed)
    examples = CellExamples(images, coverage)
    losses = [epoch.loss for epoch in train_encoder(encoder, Preprocessing(112), examples, settings, lambda _: None)]
    assert not encoder.training
    return losses, encoder.state_dict()


def test_the_encoder_learns_and_repeats() -> None:
    losses, weights = encoder_losses(0)
    again, same = encoder_losses(0)
    other, _ = encoder_losses(1)
    assert losses[-1] < 0.5 * losses[0]
    assert losses == again
    assert other != losses
    assert all(torch.equal(weights[name], same[name]) for name in weights)


# --- captions


@pytest.mark.parametrize("decoder", ["ada-lstm", "mh-fc", "adaptive"])
def test_a_handful_of_captions_is_learned_by_heart(decoder: str) -> None:
    model, features = tiny_captioner(decoder), tiny_features(4)
    tokens = encode_references([[text] for text in SENTENCES], VOCABULARY)
    settings = CaptionSettings(150, 4, 0.03, 0.0, 0)
    epochs = list(train_captions(model, lambda rows: model.remember(features[rows]), tokens, settings, lambda _: None))
    assert epochs[-1].loss < 0.2 * epochs[0].loss
    written = write_captions(model, lambda rows: model.remember(features[rows]), 4, 3, DecodingOptions("greedy"))
    assert written == list(SENTENCES)
    assert validation_loss(model, lambda rows: model.remember(features[rows]), tokens, 3) < 0.2


def test_the_loss_of_words_leaves_out_padding() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, 0], [3, 0, 0]])
    total, count = word_losses(logits, targets, 0)
    log_probability = logits.log_softmax(2)
    expected = -(log_probability[0, 0, 1] + log_probability[0, 1, 2] + log_probability[1, 0, 3])
    assert count == 3
    assert float(total) == pytest.approx(float(expected), rel=1e-6)


def test_padding_changes_no_word_before_it() -> None:
    model, features = tiny_captioner().eval(), tiny_features(2)
    inputs = torch.tensor([[VOCABULARY.start, 5, 6], [VOCABULARY.start, 7, 8]])
    longer = torch.cat([inputs, torch.full((2, 4), VOCABULARY.pad)], dim=1)
    with torch.no_grad():
        short = teacher_forcing(model, model.remember(features), inputs)
        padded = teacher_forcing(model, model.remember(features), longer)
    assert torch.equal(short, padded[:, :3])


def test_the_validation_loss_does_not_depend_on_the_batch_size() -> None:
    model, features = tiny_captioner().eval(), tiny_features(4)
    tokens = encode_references([[text] for text in SENTENCES], VOCABULARY)
    losses = [validation_loss(model, lambda rows: model.remember(features[rows]), tokens, size) for size in (1, 3, 4)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


# --- optimization


def test_the_learning_rate_rises_and_falls() -> None:
    shares = [cosine_with_warm_up(step, 100) for step in range(101)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[5] == 1
    assert shares[100] == pytest.approx(0, abs=1e-12)
    assert all(later <= earlier for earlier, later in itertools.pairwise(shares[5:]))


def test_a_loss_that_is_no_number_stops_and_keeps_the_weights() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimization = Optimization([([weight], 0.1)], 10)
    with pytest.raises(DivergedError, match=r"loss became nan.*Lower the learning rate"):
        optimization.descend((weight * torch.nan).sum())
    assert torch.equal(weight.detach(), torch.ones(3))


def test_gradients_are_clipped_by_value() -> None:
    weight = nn.Parameter(torch.zeros(2))
    Optimization([([weight], 0.1)], 10).descend((weight * torch.tensor([5.0, 0.01])).sum())
    assert weight.grad is not None
    assert weight.grad.tolist() == pytest.approx([0.1, 0.01])


# --- whole runs


@pytest.mark.parametrize("decoder", ["ada-lstm", "mh-fc"])
def test_a_run_makes_a_model_folder_with_its_lineage(corpus: Path, tmp_path: Path, decoder: str) -> None:
    out = tmp_path / "run"
    report = train.run(tiny_config(corpus, out, decoder=decoder, joint_epochs=1))
    model = load_model(out)
    assert model.lineage["domain"] == "scenes"
    assert "scenes" in str(model.lineage["domain_note"])
    assert model.lineage["command"] == report.command
    assert f"--decoder {decoder} --corpus {corpus} " in report.command
    assert "--set hidden_size=16" in report.command
    assert model.lineage["figures"] == report.figures
    assert set(report.figures) == {"test", "robust"}
    assert set(report.figures["test"]) == {"macro_f1", "chair_i", "chair_s", "recall", "objects_per_caption"}
    log = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in log] == ["encoder", "decoder", "decoder", "joint"]
    assert all(math.isfinite(line["loss"]) for line in log)
    assert json.loads((out / "run.json").read_text())["config"]["hidden_size"] == 16
    json.dumps(report.to_json())


def weights_of(report: TrainReport) -> dict[str, torch.Tensor]:
    """Return the weights of a finished run."""
    return load_model(report.out).state_dict()


def test_runs_repeat_bit_for_bit_and_leave_the_random_state_alone(corpus: Path, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    first = weights_of(train.run(tiny_config(corpus, tmp_path / "1", joint_epochs=1)))
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(3)
    second = weights_of(train.run(tiny_config(corpus, tmp_path / "2", joint_epochs=1)))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = weights_of(train.run(tiny_config(corpus, tmp_path / "3", joint_epochs=1, seed=1)))
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_encoder_is_the_same_for_every_decoder(corpus: Path, tmp_path: Path) -> None:
    runs = [
        train.run(tiny_config(corpus, tmp_path / decoder, decoder=decoder, decoder_epochs=1, figure_splits=()))
        for decoder in ("ada-lstm", "mh-fc")
    ]
    first, second = (weights_of(report) for report in runs)
    names = [name for name in first if name.startswith("encoder.")]
    assert names
    assert all(torch.equal(first[name], second[name]) for name in names)


def test_without_joint_training_captions_leave_the_encoder_alone(corpus: Path, tmp_path: Path) -> None:
    short = weights_of(train.run(tiny_config(corpus, tmp_path / "1", decoder_epochs=1, figure_splits=())))
    longer = weights_of(train.run(tiny_config(corpus, tmp_path / "2", decoder_epochs=2, figure_splits=())))
    joint = weights_of(
        train.run(tiny_config(corpus, tmp_path / "3", decoder_epochs=0, joint_epochs=1, figure_splits=()))
    )
    name = "encoder.trunk.0.weight"
    assert torch.equal(short[name], longer[name])
    assert not torch.equal(short[name], joint[name])


def test_a_model_that_is_there_is_kept(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out).mkdir()
    (out / "model.json").write_text("{}")
    with pytest.raises(ModelError, match=r"already holds a model.*--force"):
        train.run(tiny_config(corpus, out))
    assert (out / "model.json").read_text() == "{}"


def test_diverging_keeps_the_best_model_so_far(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from capxai.train import cross_entropy

    calls = 0

    def break_later(logits: torch.Tensor, targets: torch.Tensor, pad: int) -> tuple[torch.Tensor, int]:
        nonlocal calls
        calls += 1
        loss, count = word_losses(logits, targets, pad)
        return (loss * torch.nan if calls > 3 else loss), count  # two steps and a validation are the first epoch

    monkeypatch.setattr(cross_entropy, "word_losses", break_later)
    with pytest.raises(DivergedError, match="loss became nan"):
        train.run(tiny_config(corpus, tmp_path / "run"))
    model = load_model(tmp_path / "run")
    assert model.lineage["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_all_settings_that_cannot_be_used_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(hidden_size=10, heads=4, decoder="mh-fc", seed=-1, learning_rate=math.nan, decoder_epochs=0)
    message = str(caught.value)
    for part in ("seed is -1", "learning_rate is nan", "4 heads do not divide", "both 0"):
        assert part in message


def test_the_builtin_corpus_is_rendered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(builtin_corpus.CACHE_VARIABLE, str(tmp_path))
    reporter = SILENT
    first = builtin_corpus.open_corpus(None, 8, 3, reporter)
    assert first.folder == tmp_path / "capxai" / "scenes-8-3"
    marker = first.folder / "marker"
    marker.touch()
    assert builtin_corpus.open_corpus(None, 8, 3, reporter).folder == first.folder
    assert marker.exists()
    manifest = json.loads((first.folder / "corpus.json").read_text())
    (first.folder / "corpus.json").write_text(json.dumps({**manifest, "p_bias": 0.123}))
    builtin_corpus.open_corpus(None, 8, 3, reporter)  # rendered with another bias: made anew
    assert not marker.exists()


# --- evaluate


def test_evaluation_of_a_trained_model(corpus: Path, tmp_path: Path) -> None:
    trained = train.run(tiny_config(corpus, tmp_path / "run", figure_splits=("test",)))
    config = EvaluateConfig(model=trained.out, corpus=corpus, split="test", device="cpu", out=tmp_path / "eval")
    report = evaluate.run(config)
    values = report.objects.values()
    assert values["chair_i"] == pytest.approx(trained.figures["test"]["chair_i"], abs=1e-4)
    assert values["f1"] == pytest.approx(trained.figures["test"]["macro_f1"], abs=1e-4)
    written = json.loads((tmp_path / "eval" / "eval.json").read_text())
    assert written == report.to_json()
    assert len(written["images"]) == 8
    assert set(written["overall"]["chair_i"]) == {"value", "low", "high"}
    assert len(written["provenance"]["image_list_sha256"]) == 64


def test_evaluation_refuses_an_unknown_split(corpus: Path, tmp_path: Path) -> None:
    trained = train.run(tiny_config(corpus, tmp_path / "run", decoder_epochs=1, figure_splits=()))
    with pytest.raises(CorpusError, match="robust-val"):
        evaluate.run(EvaluateConfig(model=trained.out, corpus=corpus, split="robst", device="cpu"))
    with pytest.raises(ConfigError, match="beam is 0"):
        EvaluateConfig(beam=0)

"""Training: its pieces against hand-made cases, whole runs of a tiny model, determinism and failures."""

from __future__ import annotations

import io
import itertools
import json
import math
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from capxai.train.captions import CaptionTask
from capxai.train.cross_entropy import CrossEntropy, draw_words, scheduled_sampling, teacher_forcing, word_losses
from capxai.train.examples import (
    References,
    batches_of,
    caption_batch,
    cell_coverage,
    encode_references,
    plan_of_captions,
)
from capxai.train.localization import CellExamples, CellTask, augment, cell_loss
from capxai.train.loop import Loop, LoopSettings, Task
from capxai.train.optimization import DivergedError, Numerics, Optimization
from capxai.train.processes import Processes
from capxai.train.schedule import Cosine, Plateau, cosine_with_warm_up
from capxai.train.sources import FeatureSource, Rows
from capxai.train.writing import Examiner
from capxai.types import SILENT

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)

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
        "device": "cpu",
    }
    return TrainConfig(**{**small, **settings})  # type: ignore[arg-type]


# --- examples


def test_coverage_of_cells_by_hand() -> None:
    mask = np.zeros((8, 8), dtype=np.bool_)
    mask[0:4, 0:4] = True  # all of the first cell
    mask[4:6, 4:8] = True  # half of the last one
    assert cell_coverage(mask, 2).tolist() == [[255, 0], [0, 128]]


def test_references_end_and_are_padded() -> None:
    references = encode_references([["a clock"], ["a red car", "a strange boat"]], VOCABULARY)
    assert references.counts.tolist() == [1, 2]
    assert references.lengths(torch.arange(3)).tolist() == [3, 4, 4]
    words = [[VOCABULARY.words[token] for token in caption] for caption in references.targets(torch.arange(3)).tolist()]
    assert words == [
        ["a", "clock", "<end>", "<pad>"],
        ["a", "red", "car", "<end>"],
        ["a", "<unk>", "boat", "<end>"],
    ]
    assert references.targets(torch.tensor([0])).shape == (1, 3)  # cut to the longest of the batch


def test_references_of_one_picture_are_drawn_equally_often() -> None:
    references = encode_references([["a clock"] * 3, ["a red car"] * 2, ["a boat"]], VOCABULARY)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([references.draw(generator) for _ in range(3000)])
    shares = torch.bincount(drawn.flatten(), minlength=6) / 3000
    assert shares.tolist() == pytest.approx([1 / 3] * 3 + [1 / 2] * 2 + [1], abs=0.03)


def test_an_epoch_shows_every_picture_once_and_shifts_its_words() -> None:
    texts = [[SENTENCES[number % 4], SENTENCES[(number + 1) % 4]][: 1 + number % 2] for number in range(10)]
    references = encode_references(texts, VOCABULARY)
    plan = plan_of_captions(references, 3, torch.Generator().manual_seed(0))
    assert len(plan) == batches_of(10, 3)
    batches = [chosen.batch(references, VOCABULARY) for chosen in plan]
    assert sorted(torch.cat([batch.rows for batch in batches]).tolist()) == list(range(10))
    for batch in batches:
        assert (batch.inputs[:, 0] == VOCABULARY.start).all()
        assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
        for row, target in zip(batch.rows.tolist(), batch.targets.tolist(), strict=True):
            assert VOCABULARY.decode(target) in texts[row]
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
    task = CellTask(encoder, Preprocessing(112), CellExamples(Rows(images), coverage), 4)
    loop = make_loop(task, [(task.network.parameters(), 3e-3)], LoopSettings(6, seed, Numerics(CPU)), 12)
    return losses_of(loop), encoder.state_dict()


def make_loop(task: Task, groups: list[tuple[Any, float]], settings: LoopSettings, steps: int) -> Loop:
    """Return a loop whose learning rate follows a cosine over the steps."""
    return Loop(task, Optimization(groups, Cosine(steps), settings.numerics), settings, ALONE)


def losses_of(loop: Loop) -> list[float]:
    """Run a loop to its end; return the loss of every epoch."""
    losses = []
    for progress in loop.run():
        if progress.over:
            losses.append(progress.loss)
            loop.next_epoch()
    return losses


def test_the_encoder_learns_and_repeats() -> None:
    losses, weights = encoder_losses(0)
    again, same = encoder_losses(0)
    other, _ = encoder_losses(1)
    assert losses[-1] < 0.5 * losses[0]
    assert losses == again
    assert other != losses
    assert all(torch.equal(weights[name], same[name]) for name in weights)


# --- captions


def caption_loop(
    model: Captioner, references: References, settings: LoopSettings, rate: float = 0.03, sampling: float = 0.0
) -> Loop:
    """Return a loop over captions of as many pictures as there are references, four at a time."""
    task = CaptionTask(model, source(len(references)), references, 4, lambda epoch: CrossEntropy(sampling))
    steps = settings.epochs * batches_of(len(references), 4)
    return make_loop(task, [(model.decoder.parameters(), rate)], settings, steps)


def source(pictures: int) -> FeatureSource:
    """Return stored features."""
    return FeatureSource(Rows(tiny_features(pictures)))


def examiner(model: Captioner, batch_size: int = 3) -> Examiner:
    """Return somebody who looks at the model of four pictures."""
    return Examiner(model, source(4), Numerics(CPU), ALONE, batch_size)


def nothing(amount: int) -> None:
    """Show no progress."""


@pytest.mark.parametrize(
    ("decoder", "sampling"), [("ada-lstm", 0.0), ("mh-fc", 0.0), ("adaptive", 0.0), ("adaptive", 0.2)]
)
def test_a_handful_of_captions_is_learned_by_heart(decoder: str, sampling: float) -> None:
    model = tiny_captioner(decoder)
    references = encode_references([[text] for text in SENTENCES], VOCABULARY)
    losses = losses_of(caption_loop(model, references, LoopSettings(150, 0, Numerics(CPU)), sampling=sampling))
    assert losses[-1] < 0.2 * losses[0]
    assert examiner(model).captions(4, DecodingOptions("greedy"), nothing) == list(SENTENCES)
    assert examiner(model).loss(references, 4, nothing) < 0.2


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_too(precision: str) -> None:
    model = tiny_captioner()
    references = encode_references([[text] for text in SENTENCES], VOCABULARY)
    losses = losses_of(caption_loop(model, references, LoopSettings(40, 0, Numerics(CPU, precision))))
    exact = losses_of(caption_loop(tiny_captioner(), references, LoopSettings(40, 0, Numerics(CPU))))
    assert losses != exact
    assert losses[-1] == pytest.approx(exact[-1], abs=0.1)
    assert next(model.parameters()).dtype == torch.float32


def test_a_batch_cut_into_parts_takes_the_same_steps() -> None:
    references = encode_references([[SENTENCES[number % 4]] for number in range(8)], VOCABULARY)
    curves = []
    for parts in (1, 2, 3):
        torch.manual_seed(0)
        settings = LoopSettings(5, 0, Numerics(CPU), parts)
        curves.append(losses_of(caption_loop(tiny_captioner("mh-fc"), references, settings, sampling=0.3)))
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    assert curves[2] == pytest.approx(curves[0], abs=1e-5)


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_loop_goes_on_where_it_was(stop: int) -> None:
    references = encode_references([[SENTENCES[number % 4]] * 2 for number in range(8)], VOCABULARY)
    settings = LoopSettings(3, 0, Numerics(CPU))
    model = tiny_captioner("mh-fc")
    losses_of(caption_loop(model, references, settings, sampling=0.3))
    first = caption_loop(tiny_captioner("mh-fc"), references, settings, sampling=0.3)
    saved = io.BytesIO()
    for step, progress in enumerate(first.run(), 1):
        if step == stop:  # after an even number of steps an epoch is over, and not dealt with
            torch.save(first.state(), saved)
            break
        if progress.over:
            first.next_epoch()
    torch.manual_seed(99)
    other = tiny_captioner("mh-fc")
    second = caption_loop(other, references, settings, sampling=0.3)
    saved.seek(0)
    second.restore(torch.load(saved, weights_only=True))
    losses_of(second)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_words_are_drawn_from_the_softmax() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.7]]).log().expand(4, 3)
    assert draw_words(logits, torch.tensor([0.05, 0.15, 0.31, 0.9999])).tolist() == [0, 1, 2, 2]


def test_scheduled_sampling_replaces_words_as_often_as_asked_and_for_each_share_alike() -> None:
    model = tiny_captioner().eval()
    references = encode_references([[SENTENCES[1]] for _ in range(4)], VOCABULARY)
    batch = caption_batch(torch.arange(4), references.targets(torch.arange(4)), VOCABULARY)
    memory = model.remember(tiny_features(4))
    forced = teacher_forcing(model, memory, batch.inputs)
    torch.testing.assert_close(scheduled_sampling(model, memory, batch, 0.0), forced)
    torch.manual_seed(5)
    whole = scheduled_sampling(model, memory, batch, 0.5)
    torch.testing.assert_close(whole[:, 0], forced[:, 0])  # nothing has been predicted before the first word
    assert not torch.allclose(whole[:, 1:], forced[:, 1:])
    torch.manual_seed(5)
    half = scheduled_sampling(model, memory.select(torch.tensor([2, 3])), batch.share(2, 2), 0.5)
    torch.testing.assert_close(half, whole[2:])


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
    references = encode_references([[text] for text in SENTENCES], VOCABULARY)
    losses = [examiner(tiny_captioner(), size).loss(references, 4, nothing) for size in (1, 3, 4)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


# --- optimization


def test_the_learning_rate_rises_and_falls() -> None:
    shares = [cosine_with_warm_up(step, 100) for step in range(101)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[5] == 1
    assert shares[100] == pytest.approx(0, abs=1e-12)
    assert all(later <= earlier for earlier, later in itertools.pairwise(shares[5:]))


def test_the_plateau_rule_lowers_the_learning_rate_after_two_epochs_without_a_better_score() -> None:
    plateau = Plateau()
    shares = []
    for score in (1.0, 0.9, 1.0, 1.1, 1.0, 1.1, 0.5, 0.6):
        plateau.report(score)
        shares.append(plateau.share)
    assert shares == pytest.approx([1, 1, 0.8, 0.8, 0.8, 0.64, 0.64, 0.512])


def descend(weight: nn.Parameter, loss: torch.Tensor) -> None:
    """Take one step."""
    optimization = Optimization([([weight], 0.1)], Cosine(10), Numerics(CPU))
    optimization.backward(loss)
    optimization.descend(float(loss.detach()))


def test_a_loss_that_is_no_number_stops_and_keeps_the_weights() -> None:
    weight = nn.Parameter(torch.ones(3))
    with pytest.raises(DivergedError, match=r"loss became nan.*Lower the learning rate"):
        descend(weight, (weight * torch.nan).sum())
    assert torch.equal(weight.detach(), torch.ones(3))


def test_gradients_are_clipped_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[float]] = []
    monkeypatch.setattr(torch.optim.Adam, "step", lambda adam: seen.append(weight.grad.tolist()))
    weight = nn.Parameter(torch.zeros(2))
    descend(weight, (weight * torch.tensor([5.0, 0.01])).sum())
    assert seen == [pytest.approx([0.1, 0.01])]


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
    assert set(report.figures["test"]) == {"cider", "macro_f1", "chair_i", "chair_s", "recall", "objects_per_caption"}
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


def test_a_run_that_cannot_begin_leaves_nothing_to_resume(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(CorpusError, match="does not exist"):
        train.run(tiny_config(tmp_path / "nowhere", out))
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    with pytest.raises(ConfigError, match="monitor"):
        train.run(replace(tiny_config(without_objects(corpus, tmp_path), out), monitor="macro_f1"))
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    done = tiny_config(corpus, tmp_path / "done", decoder_epochs=1, figure_splits=())
    train.run(done)
    record = (tmp_path / "done" / "run.json").read_bytes()
    with pytest.raises(CorpusError, match="does not exist"):
        train.run(replace(done, corpus=tmp_path / "nowhere", force=True))
    assert (tmp_path / "done" / "run.json").read_bytes() == record
    load_model(tmp_path / "done")


def without_objects(corpus: Path, folder: Path) -> Path:
    """Make a corpus of the training captions alone."""
    manifest = json.loads((corpus / "corpus.json").read_text())
    entry = manifest["splits"]["train"]
    split = {"images": str(corpus / entry["images"]), "captions": str(corpus / entry["captions"])}
    made = folder / "captions-only"
    made.mkdir()
    (made / "corpus.json").write_text(json.dumps({"schema": 1, "name": "own", "splits": {"train": split}}))
    return made


def test_diverging_keeps_the_best_model_so_far(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from capxai.train import cross_entropy

    calls = 0

    def break_later(logits: torch.Tensor, targets: torch.Tensor, pad: int) -> tuple[torch.Tensor, int]:
        nonlocal calls
        calls += 1
        loss, count = word_losses(logits, targets, pad)
        return (loss * torch.nan if calls > 2 else loss), count  # two steps are the first epoch

    monkeypatch.setattr(cross_entropy, "word_losses", break_later)
    with pytest.raises(DivergedError, match="loss became nan"):
        train.run(tiny_config(corpus, tmp_path / "run"))
    model = load_model(tmp_path / "run")
    assert model.lineage["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_the_command_of_a_run_can_be_typed() -> None:
    command = TrainConfig(corpus=Path("my corpus"), encoder_weights=Path("a b.pth")).command()
    assert shlex.split(command)[4:] == ["--corpus", "my corpus", "--set", "encoder_weights=a b.pth"]


def test_all_settings_that_cannot_be_used_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(hidden_size=10, heads=4, decoder="mh-fc", seed=-1, learning_rate=math.nan, decoder_epochs=0)
    message = str(caught.value)
    for part in ("seed is -1", "learning_rate is nan", "4 heads do not divide", "all 0"):
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


def test_the_figures_of_a_run_are_those_of_its_evaluation(corpus: Path, tmp_path: Path) -> None:
    trained = train.run(tiny_config(corpus, tmp_path / "run", figure_splits=("test",)))
    report = evaluate.run(EvaluateConfig(model=trained.out, corpus=corpus, split="test", device="cpu", chair=True))
    values = report.objects.values()
    assert values["chair_i"] == pytest.approx(trained.figures["test"]["chair_i"], abs=1e-4)
    assert values["f1"] == pytest.approx(trained.figures["test"]["macro_f1"], abs=1e-4)

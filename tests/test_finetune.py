"""Fine-tuning: every objective with every decoder, whole runs, what is kept, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from finetune_cases import REGIONS, base_model, settings, write_base
from torch import nn
from typer.testing import CliRunner

from capxai.cli.finetune import EXAMPLES, finetune
from capxai.cli.guard import guarded
from capxai.data.corpus import Corpus
from capxai.data.feature_format import FeatureDescription
from capxai.data.feature_store import FeatureStore
from capxai.data.feature_writer import FeatureWriter
from capxai.data.scenes import write_corpus
from capxai.errors import ConfigError, CorpusError, ModelError
from capxai.evaluate.lexicon import Lexicon, coco_lexicon
from capxai.finetune.boxes import grid_regions
from capxai.models.captioner import Captioner
from capxai.models.decoders import DECODERS
from capxai.models.folder import bundled_folder, load_model
from capxai.recipes import finetune as recipe
from capxai.recipes import finetune_stage, training_curve
from capxai.recipes.finetune import FinetuneConfig
from capxai.recipes.finetune_base import base_folder, check_captions, choose_base, set_dropout
from capxai.recipes.finetune_choices import choose
from capxai.recipes.finetune_mentions import read_boxes, read_mentions, regions_of_grid, regions_of_store
from capxai.recipes.finetune_objectives import OBJECTIVES, Materials, Objective, make_objective, register
from capxai.recipes.finetune_task import FinetuneTask, Rounds
from capxai.recipes.training_data import Examples, read_examples
from capxai.train.examples import encode_references, plan_of_captions
from capxai.train.loop import Loop, LoopSettings
from capxai.train.optimization import DivergedError, Numerics, Optimization
from capxai.train.processes import Processes
from capxai.train.schedule import make_schedule
from capxai.train.sources import FeatureSource, Rows
from capxai.types import SILENT, SilentReporter

CPU = torch.device("cpu")


class Listener(SilentReporter):
    """Remembers warnings and notes."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, text: str) -> None:
        self.heard.append(text)

    def warn(self, text: str) -> None:
        self.heard.append(text)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute on one thread, and draw no curves: they take longer than the runs."""
    monkeypatch.setattr(training_curve, "draw_curve", lambda records: b"a curve")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Render twelve training pictures."""
    folder = tmp_path_factory.mktemp("corpora") / "scenes"
    write_corpus(folder, 12, 0)
    return folder


@pytest.fixture(scope="module")
def base(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("models") / "base", corpus)


@pytest.fixture(scope="module")
def examples(corpus: Path) -> Examples:
    opened = Corpus.open(corpus)
    return read_examples(opened, "train", base_model(opened, "ada-lstm").vocabulary)


# --- objectives in the loop


def make_loop(model: Captioner, examples: Examples, objective: Objective, updates: int = 2, parts: int = 1) -> Loop:
    """Return a loop over random features."""
    features = torch.rand(len(examples), REGIONS, 112, generator=torch.Generator().manual_seed(1))
    rounds = Rounds(updates, updates)
    task = FinetuneTask(model, FeatureSource(Rows(features)), examples.references, objective, (5, rounds))
    numerics = Numerics(CPU)
    optimization = Optimization(
        [(list(model.decoder.parameters()), 1e-2)], make_schedule("constant", updates), numerics
    )
    return Loop(task, optimization, LoopSettings(1, 0, numerics, parts), Processes(0, 1, CPU))


def tune(
    corpus: Path, examples: Examples, decoder: str, config: FinetuneConfig, parts: int = 1, dropping: bool = True
) -> dict[str, torch.Tensor]:
    """Take two updates; return the weights of the decoder."""
    model = base_model(Corpus.open(corpus), decoder)
    set_dropout(model, None if dropping else 0.0)
    materials = Materials(config, model, examples, None, coco_lexicon(), SILENT)
    with torch.random.fork_rng():
        for progress in (loop := make_loop(model, examples, make_objective(materials), parts=parts)).run():
            if progress.over:
                assert progress.step == 2
                loop.next_epoch()
    return model.decoder.state_dict()


@pytest.mark.parametrize("decoder", sorted(DECODERS))
@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_every_objective_changes_every_decoder(corpus: Path, examples: Examples, decoder: str, objective: str) -> None:
    before = base_model(Corpus.open(corpus), decoder).decoder.state_dict()
    after = tune(corpus, examples, decoder, FinetuneConfig(objective=objective))
    assert after.keys() == before.keys()
    assert all(torch.isfinite(weights).all() for weights in after.values())
    assert not torch.equal(after["word_head.fc.weight"], before["word_head.fc.weight"])


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return how far all weights are from each other; single ones that get no gradient are moved by rounding."""
    return float(torch.cat([(one[name] - other[name]).flatten() for name in one]).norm())


@pytest.mark.parametrize(
    "objective", ["lrp-omega-random", "lrp-counterfactual", "random-counterfactual", "scst", "scst-counterfactual"]
)
def test_a_batch_in_parts_teaches_the_same(corpus: Path, examples: Examples, objective: str) -> None:
    config = FinetuneConfig(objective=objective, all_words=True)
    whole, parts = (tune(corpus, examples, "mh-fc", config, number) for number in (1, 3))
    assert distance(parts, whole) < 0.02 * distance(
        whole, base_model(Corpus.open(corpus), "mh-fc").decoder.state_dict()
    )


def test_lrp_with_all_weight_on_the_plain_pass_is_the_control_bit_for_bit(corpus: Path, examples: Examples) -> None:
    control = tune(corpus, examples, "mh-fc", FinetuneConfig(objective="ce"))
    for objective in ("lrp", "lrp-omega-random"):  # one draws nothing more than a dropout mask, the other much
        config = FinetuneConfig(objective=objective, plain_share=1.0, all_words=True)
        found = tune(corpus, examples, "mh-fc", config)
        assert all(torch.equal(found[name], control[name]) for name in control)
    other = tune(corpus, examples, "mh-fc", FinetuneConfig(objective="lrp", all_words=True))
    assert any(not torch.equal(other[name], control[name]) for name in control)


@pytest.mark.parametrize("decoder", sorted(DECODERS))
def test_lrp_without_relevance_is_the_control(corpus: Path, examples: Examples, decoder: str) -> None:
    control = tune(corpus, examples, decoder, FinetuneConfig(objective="ce"), dropping=False)
    config = FinetuneConfig(objective="lrp-omega-one", plain_share=0.0)
    found = tune(corpus, examples, decoder, config, dropping=False)
    for name in control:
        torch.testing.assert_close(found[name], control[name])


def test_the_control_by_hand(corpus: Path, examples: Examples) -> None:
    found = tune(corpus, examples, "adaptive", FinetuneConfig(objective="ce"), dropping=False)
    model = base_model(Corpus.open(corpus), "adaptive")
    features = torch.rand(len(examples), REGIONS, 112, generator=torch.Generator().manual_seed(1))
    plan = plan_of_captions(examples.references, 5, torch.Generator().manual_seed(0))
    adam = torch.optim.Adam(model.decoder.parameters(), lr=1e-2, betas=(0.8, 0.999))
    for item in plan[:2]:
        batch = item.batch(examples.references, model.vocabulary)
        vectors = model.embed(batch.inputs)
        steps = model.unroll(
            model.remember(features[batch.rows]), lambda t, _, found=vectors: found[:, t], batch.inputs.shape[1]
        )
        logits = torch.stack([step.logits for step in steps], 1)
        words = batch.targets != model.vocabulary.pad
        loss = -logits.log_softmax(-1).gather(2, batch.targets[..., None])[..., 0][words].mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(model.decoder.parameters(), 0.1)
        adam.step()
    before = base_model(Corpus.open(corpus), "adaptive").decoder.state_dict()
    assert distance(found, model.decoder.state_dict()) < 1e-3 * distance(found, before)


def test_a_round_is_cut_off_after_its_last_update(examples: Examples, corpus: Path) -> None:
    rounds = Rounds(updates=10, length=4)
    assert [rounds.count, *(rounds.updates_of(n) for n in (1, 2, 3))] == [3, 4, 4, 2]
    assert [rounds.updates_after(n) for n in (0, 1, 3)] == [0, 4, 10]
    model = base_model(Corpus.open(corpus), "adaptive")
    task = FinetuneTask(
        model,
        FeatureSource(Rows(torch.zeros(12, 1, 1))),
        examples.references,
        lambda *_: (torch.zeros(()), 1),
        (5, rounds),
    )
    plan = task.plan(torch.Generator().manual_seed(0))  # twelve pictures make batches of 5, 5 and 2
    assert [len(item.rows) for item in plan][3] in (2, 5)
    assert len(plan) == 4
    assert sorted(torch.cat([item.rows for item in plan[:3]]).tolist()) == list(range(12))
    task.running = lambda: 3
    assert len(task.plan(torch.Generator().manual_seed(0))) == 2


def test_names_of_objectives() -> None:
    assert {"lrp", "ce", "scst", "lrp-scst", "lrp-counterfactual", "box-counterfactual"} < set(OBJECTIVES)
    with pytest.raises(ConfigError, match=r"'ce' is there already"):
        register("ce", "again", lambda materials: lambda *_: (torch.zeros(()), 1))
    with pytest.raises(ConfigError, match=r"Unknown objective 'lpr'.*Did you mean 'lrp'"):
        FinetuneConfig(objective="lpr")


def test_what_is_chosen_by_the_corpus() -> None:
    scenes, coco = choose("scenes", False, {}), choose("coco", False, {"epochs": 2})
    assert scenes.updates and scenes.epochs is None
    assert (coco.learning_rate, coco.updates, coco.epochs) == (1e-5, None, 2)
    assert choose("coco", True, {}).learning_rate == 5e-5
    assert choose("coco", True, {"learning_rate": 1e-3}).learning_rate == 1e-3
    assert choose("scenes", False, {"epochs": 1}).updates is None
    constant = make_schedule("constant", 3)
    constant.step()
    assert constant.share == 1.0
    with pytest.raises(ConfigError, match=r"Unknown schedule 'cosin'.*'cosine'"):
        make_schedule("cosin", 3)


# --- mentions


def test_mentions_are_found_in_the_words_of_the_corpus(examples: Examples, corpus: Path) -> None:
    vocabulary, lexicon = base_model(Corpus.open(corpus), "adaptive").vocabulary, coco_lexicon()
    found = read_mentions(examples, vocabulary, lexicon, SILENT)
    texts = [text for picture in examples.split.pictures for text in examples.split.captions[picture.id]]
    begins = found.begins.targets(torch.arange(len(texts)))
    words = found.references.targets(torch.arange(len(texts)))
    for caption, text in enumerate(texts):
        expected = {mention.position: mention.category for mention in lexicon.mentions(text)}
        marked = {
            int(place): lexicon.categories[int(begins[caption, place]) - 1] for place in begins[caption].nonzero()
        }
        assert marked == expected
        for place in marked:
            assert bool(found.forms[begins[caption, place], words[caption, place]])
    assert not found.forms[0].any()
    assert not found.forms[:, list(vocabulary.specials)].any()
    used = {vocabulary.words[int(word)] for _, word in found.forms.nonzero()}
    assert used == {text.split()[m.position] for text in texts for m in lexicon.mentions(text)}


def test_only_mentions_with_a_box_are_kept_for_true_boxes(examples: Examples, corpus: Path) -> None:
    vocabulary, lexicon = base_model(Corpus.open(corpus), "adaptive").vocabulary, coco_lexicon()
    first = examples.split.pictures[0].id
    fewer = replace(examples.split, objects={**examples.split.objects, first: examples.split.objects[first][:1]})
    boxes = read_boxes(fewer, lexicon)
    assert boxes.boxes.min() >= 0 and boxes.boxes.max() <= 1
    found = read_mentions(replace(examples, split=fewer), vocabulary, lexicon, SILENT, boxes)
    kept = found.begins.targets(torch.arange(5))
    only = lexicon.categories.index(lexicon.category(fewer.objects[first][0].category)) + 1
    assert set(kept.unique().tolist()) == {0, only}
    assert len(found.begins.targets(torch.arange(5, 60)).unique()) > 2


def test_captions_without_objects_are_refused(examples: Examples, corpus: Path) -> None:
    vocabulary = base_model(Corpus.open(corpus), "adaptive").vocabulary
    with pytest.raises(CorpusError, match=r"None of the 60 references.*lexicon=FILE"):
        read_mentions(examples, vocabulary, Lexicon({"unicorn": ["unicorn"]}), SILENT)


# --- whole runs


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_a_run_makes_a_model_that_differs_in_its_weights_alone(corpus: Path, base: Path, tmp_path: Path) -> None:
    untouched = (base / "model.safetensors").read_bytes()
    config = settings(corpus, base, tmp_path / "run", figure_splits=("test", "nowhere"), validate_every=2)
    report = recipe.run(config)
    described = [json.loads((folder / "model.json").read_text()) for folder in (base, report.out)]
    for section in ("schema", "specification", "vocabulary", "preprocessing"):
        assert described[0][section] == described[1][section]
    assert (base / "model.safetensors").read_bytes() == untouched
    lineage = load_model(report.out).lineage
    assert lineage["base"]["weights_sha256"] == described[0]["lineage"]["weights_sha256"]
    assert lineage["base"]["lineage"]["name"] == "base"
    assert (lineage["objective"], lineage["updates"], lineage["domain"]) == ("lrp", 3, "scenes")
    assert lineage["figures"] == report.figures and set(report.figures) == {"test"}
    assert [line["epoch"] for line in log_of(report.out)] == [0, 1, 2]
    assert log_of(report.out)[0]["validation"] == report.before
    assert log_of(report.out)[2]["validation"] == report.validation != report.before
    names = {path.name for path in report.out.iterdir()}
    assert {"model.safetensors", "model.json", "run.json", "train.jsonl", "train.csv", "curve.png"} == names - {
        "tensorboard"
    }
    assert json.loads((report.out / "run.json").read_text())["report"] == report.to_json()
    before, after = load_model(base).state_dict(), load_model(report.out).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("encoder."))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_the_encoder_learns_where_it_is_asked_to(corpus: Path, base: Path, tmp_path: Path) -> None:
    config = settings(
        corpus, base, tmp_path / "run", train_encoder=True, encoder_learning_rate=1e-3, objective="lrp-counterfactual",
        precision="bfloat16",
    )  # fmt: skip
    report = recipe.run(config)
    before, after = load_model(base).state_dict(), load_model(report.out).state_dict()
    assert not torch.equal(before["encoder.trunk.0.weight"], after["encoder.trunk.0.weight"])


def test_the_last_model_is_kept_or_the_best(
    corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([9.0, 3.0, 1.0, 2.0] * 2)
    original = finetune_stage.FineTuning._validate

    def validate(self: Any, updates: int) -> Any:
        found = original(self, updates)
        return replace(found, values={**found.values, "loss": next(values)})

    monkeypatch.setattr(finetune_stage.FineTuning, "_validate", validate)
    config = settings(corpus, base, tmp_path / "last", validate_every=1)
    last = recipe.run(config)
    best = recipe.run(replace(config, out=tmp_path / "best", keep="best", monitor="loss"))
    assert (last.updates, last.validation["loss"]) == (3, 2.0)
    assert (best.updates, best.validation["loss"]) == (2, 1.0)
    assert load_model(best.out).lineage["updates"] == 2


def test_the_base_is_the_newest_run_or_the_bundled_model(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listener = Listener()
    assert base_folder(choose_base(FinetuneConfig(), listener)) == bundled_folder()
    shutil.copytree(base, tmp_path / "runs" / "one")
    assert choose_base(FinetuneConfig(), listener) == Path("runs", "one")
    assert choose_base(FinetuneConfig(model=base), listener) == base
    assert [text.split(",")[0] for text in listener.heard[:2]] == [
        "Base model: the bundled one; there is no run under 'runs'.",
        "Base model: runs/one",
    ]


# --- what is refused


def test_settings_that_cannot_be_used_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        FinetuneConfig(
            objective="lrp-scst", target="reference", updates=1, epochs=1, schedule="plateau", plain_share=1.5,
            temperature=0.0, all_words=True, stop_words=Path("w.txt"), learning_rate=-1.0, hidden_share=0.0, dropout=2.0,
        )  # fmt: skip
    message = str(caught.value)
    for part in (
        "updates is 1 and epochs is 1",
        "use keep=best",
        "plain_share is 1.5",
        "temperature is 0.0",
        "all_words is on",
        "learning_rate is -1.0",
        "lrp-scst has no reference",
        "hidden_share is 0.0",
        "dropout is 2.0",
    ):
        assert part in message


def test_a_loss_that_is_no_number_keeps_the_last_good_model(
    corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, calls = OBJECTIVES["ce"].make, iter(range(100))

    def breaking(materials: Materials) -> Objective:
        plain = make(materials)

        def objective(model: Any, memory: Any, batch: Any) -> tuple[torch.Tensor, float]:
            loss, words = plain(model, memory, batch)
            return (loss * torch.nan if next(calls) == 2 else loss), words

        return objective

    monkeypatch.setitem(OBJECTIVES, "ce", replace(OBJECTIVES["ce"], make=breaking))
    config = settings(corpus, base, tmp_path / "run", objective="ce", validate_every=2)
    with pytest.raises(
        DivergedError, match=r"loss became nan.*The model after 2 updates is kept in '.*run'; the last good"
    ):
        recipe.run(config)
    assert load_model(tmp_path / "run").lineage["updates"] == 2
    assert all(torch.isfinite(value).all() for value in load_model(tmp_path / "run").state_dict().values())
    assert (tmp_path / "run" / "checkpoint.pt").exists()


def narrowed(examples: Examples, texts: list[str], model: Captioner) -> Examples:
    picture = examples.split.pictures[0]
    split = replace(examples.split, pictures=(picture,), captions={picture.id: tuple(texts)})
    return Examples(split, encode_references([texts], model.vocabulary))


def test_captions_that_the_model_cannot_learn_from(examples: Examples, corpus: Path) -> None:
    model, listener = base_model(Corpus.open(corpus), "adaptive"), Listener()
    with pytest.raises(CorpusError, match=r"has 1 caption\. Expected two or more"):
        check_captions(model, narrowed(examples, ["a car"], model), listener)
    with pytest.raises(CorpusError, match=r"6 of 8 words \(75%\).*<unk>"):
        check_captions(model, narrowed(examples, ["un chien noir dort", "a la boat rouge"], model), listener)
    check_captions(model, narrowed(examples, ["a car near a boat", "a zebra"], model), listener)
    assert "1 of 7 words (14%)" in listener.heard[0]
    check_captions(model, examples, listener)
    assert len(listener.heard) == 1


def without(corpus: Path, out: Path, key: str) -> Path:
    """Copy a corpus without its instances, or without its training pictures."""
    shutil.copytree(corpus, out)
    manifest = json.loads((out / "corpus.json").read_text())
    train = manifest["splits"]["train"]
    for name in ("pictures", "captions_count", "objects", "sha256"):
        train.pop(name, None)
    if key == "instances":
        train.pop("instances")
    else:
        file = out / train["captions"]
        file.write_text(json.dumps({**json.loads(file.read_text()), "images": [], "annotations": []}))
        train.pop("instances")
    (out / "corpus.json").write_text(json.dumps(manifest))
    return out


def test_a_corpus_that_lacks_what_is_needed(corpus: Path, base: Path, tmp_path: Path) -> None:
    bare, empty = without(corpus, tmp_path / "bare", "instances"), without(corpus, tmp_path / "empty", "images")
    with pytest.raises(CorpusError, match=r"no boxes of objects.*choose lrp-counterfactual"):
        recipe.run(settings(bare, base, tmp_path / "1", objective="box-counterfactual"))
    assert not (tmp_path / "1").exists()  # nothing to resume
    assert recipe.run(settings(bare, base, tmp_path / "2", objective="lrp-counterfactual")).updates == 3
    with pytest.raises(CorpusError, match=r"'train' has no pictures"):
        recipe.run(settings(empty, base, tmp_path / "3"))


def test_a_model_of_stored_features_wants_them(corpus: Path, tmp_path: Path) -> None:
    blind = write_base(tmp_path / "blind", corpus, encoder="features")
    with pytest.raises(ModelError, match=r"works on stored features.*--features"):
        recipe.run(settings(corpus, blind, tmp_path / "run"))


def write_features(path: Path, corpus: Path, kind: str, encoder: str, regions: int = REGIONS) -> Path:
    """Write random features of all pictures of a corpus; regions get the boxes of a grid."""
    opened = Corpus.open(corpus)
    pictures = [picture for name in opened.splits for picture in opened.split(name).pictures]
    numbers = np.random.default_rng(0).random((len(pictures), regions, 112), dtype=np.float32)
    boxed = kind == "region"
    description = FeatureDescription(
        kind, encoder, "a" * 64, None, regions, 112, "float16", None if boxed else (4, regions // 4), "scenes", {}
    )  # fmt: skip
    sizes = [(picture.height, picture.width) for picture in pictures]
    cells = grid_regions(4, regions // 4).numpy()
    boxes = np.stack([cells * np.array([width, height] * 2, dtype=np.float32) for height, width in sizes])
    ids = [picture.id for picture in pictures]
    with FeatureWriter.create_or_resume(path, description, ids, sizes, block=len(ids)) as writer:
        writer.write(0, numbers, boxes if boxed else None)
        writer.finish()
    return path


@pytest.mark.parametrize("kind", ["grid", "region"])
def test_stored_features_serve_a_model_without_an_encoder(corpus: Path, tmp_path: Path, kind: str) -> None:
    blind = write_base(tmp_path / "blind", corpus, "mh-fc", encoder="features")
    file = write_features(tmp_path / "f.h5", corpus, kind, "resnet101")
    for objective in ("lrp", "box-counterfactual"):
        config = settings(
            corpus, blind, tmp_path / objective, features=file, objective=objective, figure_splits=("test",)
        )
        report = recipe.run(config)
        assert report.updates == 3 and set(report.figures) == {"test"}
    with pytest.raises(ConfigError, match="train_encoder is on"):
        recipe.run(replace(config, train_encoder=True, out=tmp_path / "learning"))


def test_features_of_another_encoder_are_refused(corpus: Path, base: Path, tmp_path: Path) -> None:
    file = write_features(tmp_path / "f.h5", corpus, "grid", "vgg16", regions=20)
    with pytest.raises(CorpusError, match=r"20 regions of 112 channels, where the model has 16.*encoder 'vgg16'"):
        recipe.run(settings(corpus, base, tmp_path / "run", features=file))


def test_regions_with_boxes_are_found_by_the_boxes_of_objects(corpus: Path, examples: Examples, tmp_path: Path) -> None:
    file = write_features(tmp_path / "f.h5", corpus, "region", "resnet101")
    regions_of = regions_of_store(FeatureStore.open(file), examples.image_ids)
    expected = grid_regions(4, 4).expand(2, -1, -1)
    torch.testing.assert_close(regions_of(torch.tensor([5, 0])), expected)
    torch.testing.assert_close(regions_of_grid(16, None)(torch.tensor([5, 0])), expected)


def test_folders_that_are_taken(corpus: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="are the same folder"):
        recipe.run(settings(corpus, base, base, force=True))
    other = shutil.copytree(base, tmp_path / "other")
    with pytest.raises(ModelError, match=r"already holds a model.*--force"):
        recipe.run(settings(corpus, base, other))
    with pytest.raises(ModelError, match=r"no run in '.*nowhere' to resume.*capxai finetune"):
        recipe.run(replace(settings(corpus, base, tmp_path / "nowhere"), resume=True))


# --- the command line


def invoke(*words: object) -> Any:
    app = typer.Typer()
    app.command("finetune")(guarded(finetune))
    app.command("other")(lambda: None)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_line(corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, tmp_path / "runs" / "x")
    small = [
        word
        for item in ("updates=2", "batch_size=4", "validation_pictures=4", "figure_splits=", "threads=1", "workers=0")
        for word in ("--set", item)
    ]
    done = invoke("finetune", "--corpus", corpus, "--objective", "ce", "--device", "cpu", *small, "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["out"], report["base"], report["updates"]) == ("runs/ada-lstm-ce-1", "runs/x", 2)
    assert "newest run" in done.stderr
    shown = invoke("finetune", "--model", "runs/x", "--corpus", corpus, "--lambda", 0.3, "--device", "cpu", *small)
    assert shown.exit_code == 0, shown.stderr
    assert "val, before" in shown.stdout and "--set plain_share=0.3" in shown.stdout.replace("\n", " ")
    wrong = invoke("finetune", "--objective", "lrp-counterfactal")
    assert wrong.exit_code == 1
    assert "Did you mean 'lrp-counterfactual'?" in wrong.stderr.replace("\n", " ")
    listed = invoke("finetune", "--objective", "list")
    assert listed.exit_code == 0
    assert all(name in listed.stdout for name in OBJECTIVES)
    assert all("finetune" in line for line in EXAMPLES)

"""Where training gets its pictures from: stored features, features in memory, files decoded by worker processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from capxai.data.corpus import Corpus
from capxai.data.feature_store import FeatureStore
from capxai.data.scenes import write_corpus
from capxai.errors import ConfigError, CorpusError, ModelError
from capxai.models.folder import load_model
from capxai.recipes import extract_features, train
from capxai.recipes.extract_features import ExtractConfig
from capxai.recipes.train import TrainConfig
from capxai.recipes.training_data import PictureFiles, read_examples, read_vocabulary
from capxai.train.sources import Reader, Rows
from capxai.types import SILENT, SilentReporter


class Listener(SilentReporter):
    """Remembers warnings and notes."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, text: str) -> None:
        self.heard.append(text)

    def warn(self, text: str) -> None:
        self.heard.append(text)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
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
def features(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Extract features with the encoder of the bundled model, exactly."""
    out = tmp_path_factory.mktemp("features") / "scenes.h5"
    extract_features.run(ExtractConfig(corpus=corpus, out=out, dtype="float32", device="cpu", workers=0))
    return out


def config(corpus: Path, out: Path, **more: object) -> TrainConfig:
    """Return settings of a run of a second."""
    return TrainConfig(
        corpus=corpus,
        out=out,
        hidden_size=16,
        embedding_size=16,
        minimum_count=1,
        encoder_epochs=0,
        decoder_epochs=2,
        batch_size=6,
        figure_splits=("test",),
        device="cpu",
        threads=1,
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_reader_keeps_the_order_and_leaves_the_random_state_alone(workers: int) -> None:
    plan = [torch.tensor([3, 1]), torch.tensor([0]), torch.tensor([2, 2, 2])]
    before = torch.random.get_rng_state()
    reader = Reader(Rows(torch.arange(4) * 10), workers)
    assert [found.tolist() for found in reader.batches(plan)] == [[30, 10], [0], [20, 20, 20]]
    assert torch.equal(before, torch.random.get_rng_state())
    assert reader.waited > 0


def test_stored_features_teach_a_model_that_sees_pictures(corpus: Path, features: Path, tmp_path: Path) -> None:
    report = train.run(config(corpus, tmp_path / "run", features=features))
    model, store = load_model(report.out), FeatureStore.open(features)
    assert model.specification.encoder == "compact"
    assert model.lineage["features"]["weights_sha256"] == store.description.weights_sha256  # type: ignore[index]
    examples = read_examples(Corpus.open(corpus), "test", model.vocabulary)
    pictures = PictureFiles(tuple(picture.path for picture in examples.split.pictures), model.preprocessing)
    rows = torch.arange(2)
    with torch.no_grad():
        seen = model.features(model.preprocessing.normalize(pictures(rows)))
    stored = store.read(store.rows_of(examples.image_ids)[rows.numpy()])
    np.testing.assert_allclose(seen.numpy(), stored, atol=1e-4)


def test_stored_features_equal_features_in_memory(corpus: Path, features: Path, tmp_path: Path) -> None:
    weights = features.with_name("scenes.encoder.safetensors")
    stored = train.run(config(corpus, tmp_path / "stored", features=features))
    computed = train.run(config(corpus, tmp_path / "computed", encoder_weights=weights))
    again = train.run(config(corpus, tmp_path / "again", encoder_weights=weights, memory=0, workers=2))
    assert computed.validation["loss"] == pytest.approx(stored.validation["loss"], abs=1e-3)
    assert again.validation["loss"] == pytest.approx(stored.validation["loss"], abs=1e-3)


def test_features_without_their_encoder_make_a_model_of_features(corpus: Path, features: Path, tmp_path: Path) -> None:
    lonely, listener = tmp_path / "lonely.h5", Listener()
    lonely.write_bytes(features.read_bytes())
    report = train.run(config(corpus, tmp_path / "run", features=lonely), listener)
    assert load_model(report.out).specification.encoder == "features"
    assert any("cannot see pictures" in text for text in listener.heard)
    with pytest.raises(CorpusError, match="no encoder"):
        train.run(config(corpus, tmp_path / "joint", features=lonely, joint_epochs=1))
    assert not (tmp_path / "joint").exists()  # refused before the first epoch


def test_features_of_another_encoder_or_with_other_weights_are_refused(
    corpus: Path, features: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="features of the encoder 'compact', and the settings name 'vgg16'"):
        train.run(config(corpus, tmp_path / "1", features=features, encoder="vgg16"))
    with pytest.raises(ConfigError, match="Encoder weights 'random' came with the features"):
        train.run(config(corpus, tmp_path / "1", features=features, encoder_weights=Path("random")))
    copy = tmp_path / "copy.h5"
    copy.write_bytes(features.read_bytes())
    content = bytearray(features.with_name("scenes.encoder.safetensors").read_bytes())
    content[-1] ^= 1
    copy.with_name("copy.encoder.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="is not the encoder that"):
        train.run(config(corpus, tmp_path / "2", features=copy))


def test_features_of_some_splits_are_enough(corpus: Path, tmp_path: Path) -> None:
    """Splits on which the finished model cannot be measured are named at the beginning; those for learning are needed."""
    out, listener = tmp_path / "some.h5", Listener()
    extract_features.run(ExtractConfig(corpus=corpus, out=out, split=("train", "val"), device="cpu", workers=0))
    report = train.run(config(corpus, tmp_path / "run", features=out), listener)
    assert report.figures == {} and report.validation
    (place,) = (place for place, text in enumerate(listener.heard) if "no features of the split test:" in text)
    assert place < min(place for place, text in enumerate(listener.heard) if text.startswith("decoder epoch"))
    only = tmp_path / "only.h5"
    extract_features.run(ExtractConfig(corpus=corpus, out=only, split=("train",), device="cpu", workers=0))
    with pytest.raises(CorpusError, match="has no features of"):
        train.run(config(corpus, tmp_path / "refused", features=only))
    assert not (tmp_path / "refused").exists()


def test_features_that_do_not_fit_into_memory_are_to_be_stored_first(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError) as caught:
        train.run(config(corpus, tmp_path / "run", encoder="resnet50", encoder_weights=Path("random"), memory=1000))
    message = str(caught.value)
    assert f"capxai extract-features --corpus {corpus} --encoder resnet50 --encoder-weights random --out" in message
    assert f"capxai train --corpus {corpus} --features" in message


def test_a_corpus_without_objects_and_validation_split(corpus: Path, tmp_path: Path) -> None:
    """Captions alone, a different number for each picture; the paper's choices, made small."""
    plain = tmp_path / "plain"
    plain.mkdir()
    manifest = json.loads((corpus / "corpus.json").read_text())
    entry = manifest["splits"]["train"]
    captions = json.loads((corpus / entry["captions"]).read_text())
    captions["annotations"] = captions["annotations"][2:]  # the first picture keeps three of its five
    (plain / "captions.json").write_text(json.dumps(captions))
    split = {"images": str(corpus / entry["images"]), "captions": "captions.json"}
    (plain / "corpus.json").write_text(json.dumps({"schema": 1, "name": "own", "splits": {"train": split}}))
    settings = replace(config(plain, tmp_path / "run", encoder_weights=Path("random")), patience=1)
    listener = Listener()
    report = train.run(settings, listener)
    assert set(report.validation) == {"loss", "cider"}
    assert any("no split 'val'" in text for text in listener.heard)
    assert any("learning rate: plateau; best epoch by cider" in text for text in listener.heard)
    with pytest.raises(CorpusError, match="has no objects"):
        train.run(replace(config(plain, tmp_path / "2"), encoder_epochs=1))
    with pytest.raises(ConfigError, match="monitor is 'macro_f1'"):
        train.run(replace(settings, out=tmp_path / "3", monitor="macro_f1"))


def test_the_vocabulary_of_a_scenes_corpus_is_built(corpus: Path) -> None:
    vocabulary = read_vocabulary(Corpus.open(corpus), 1, SILENT)
    examples = read_examples(Corpus.open(corpus), "train", vocabulary)
    assert examples.references.counts.tolist() == [5] * 12
    assert int(examples.references.words.max()) < len(vocabulary)

"""The report before and after: which words vanished or appeared, whether they were true, and what they were seen from."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from capxai.data.annotations import ObjectAnnotation, Picture
from capxai.data.corpus import Corpus, Split
from capxai.data.feature_store import FeatureStore
from capxai.data.scenes import write_corpus
from capxai.errors import ConfigError
from capxai.evaluate.lexicon import coco_lexicon
from capxai.explain.explainer import explain
from capxai.models.captioner import Captioner
from capxai.models.folder import load, save_model
from capxai.recipes import extract_features, finetune_changes
from capxai.recipes.extract_features import ExtractConfig
from capxai.recipes.finetune_changes import ChangesConfig
from capxai.recipes.finetune_changes_page import render_changes
from capxai.recipes.finetune_comparison import (
    Comparison,
    ComparisonOptions,
    PictureChange,
    changed_pictures,
    compare_models,
    write_comparison,
)
from capxai.recipes.finetune_relevance import FromFeatures, from_picture


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def split_of(objects: dict[int, tuple[str, ...]]) -> Split:
    """Pictures 1, 2, ... with these objects, and a reference that names none."""
    names = sorted({name for found in objects.values() for name in found} | {"person"})
    annotated = {
        number: tuple(
            ObjectAnnotation(10 * number + place, number, names.index(name), name, (0.0, 0.0, 1.0, 1.0), None)
            for place, name in enumerate(found)
        )
        for number, found in objects.items()
    }
    pictures = tuple(Picture(number, Path(f"{number}.png"), 8, 8) for number in objects)
    captions = dict.fromkeys(objects, ("something",))
    return Split("test", pictures, captions, annotated, dict(enumerate(names)), True)


BEFORE = {1: "a dog and a cat on a bench", 2: "a cup", 3: "a <b>dog</b> & two dogs", 4: "a clock"}
AFTER = {1: "a dog near a pizza on a chair", 2: "a cup", 3: "nothing", 4: "the clock"}


def hand_made() -> Comparison:
    split = split_of({1: ("dog", "cat", "pizza"), 2: ("cup",), 3: ("dog",), 4: ("clock",)})
    changes = changed_pictures(split, BEFORE, AFTER, coco_lexicon())
    return Comparison(("base", "tuned"), "test", 4, tuple(changes))


def words(change: PictureChange) -> list[tuple[str, str, bool, int]]:
    return [(word.kind, word.text, word.true, word.place) for word in change.words]


def test_words_that_only_one_caption_has() -> None:
    found = {change.picture.id: change for change in hand_made().changes}
    assert list(found) == [1, 3, 4]  # the caption of 2 is the same
    assert words(found[1]) == [
        ("vanished", "cat", True, 4),
        ("vanished", "bench", False, 7),
        ("appeared", "pizza", True, 4),
        ("appeared", "chair", False, 7),
    ]
    assert [(word.kind, word.category) for word in found[3].words] == [("vanished", "dog")]  # once, though said twice
    assert found[4].words == ()


def test_counts_by_hand() -> None:
    comparison = hand_made()
    assert comparison.counts() == {
        "pictures": 4,
        "changed_captions": 3,
        "vanished_hallucinations": 1,
        "vanished_true": 2,
        "appeared_hallucinations": 1,
        "appeared_true": 1,
    }
    assert comparison.categories()["dog"] == {"vanished_true": 1}
    assert comparison.to_json()["changes"][0]["words"][1] == {
        "kind": "vanished",
        "category": "bench",
        "word": "bench",
        "position": 7,
        "true": False,
    }


def test_the_page_marks_words_and_escapes_texts() -> None:
    page = render_changes(hand_made(), shown=2)
    assert '<mark class="gone-false" title="vanished, was hallucinated">bench</mark>' in page
    assert '<mark class="new-false" title="appeared, hallucinated">chair</mark>' in page
    assert "&lt;b&gt;" in page and "<b>dog</b>" not in page and " &amp; two dogs" in page
    assert page.count("<article") == 2 and "1 further changed captions are left out" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "@@" not in page
    assert '<td class="value">3 of 4</td>' in page


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("comparison") / "corpus"
    write_corpus(folder, 8, 0)
    return Corpus.open(folder)


def changed(model: Captioner) -> Captioner:
    """The model with a vocabulary that has become a little random, so that it says something else."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.decoder.word_head.fc.bias += 1.5 * torch.randn_like(model.decoder.word_head.fc.bias)
    return model


def test_two_models_are_compared_and_their_words_explained(corpus: Corpus, tmp_path: Path) -> None:
    before, after, split = load(), changed(load()), corpus.split("robust")
    options = ComparisonOptions(pictures=6, explained=2, beam=1, names=("base", "tuned"))
    found = compare_models(before, after, split, options)
    assert found.pictures == 6 and found.counts()["changed_captions"] == len(found.changes) > 0
    for change in found.changes:
        assert change.before != change.after
        assert (change.before, change.after)[0] == before.caption(change.picture.path, beam=1)
    explained = [change for change in found.changes if any(word.before for word in change.words)]
    assert len(explained) == min(2, sum(bool(change.words) for change in found.changes)) > 0
    word = explained[0].words[0]
    caption = explained[0].caption_of(word)
    for model, one in ((before, word.before), (after, word.after)):
        whole = explain(model, explained[0].picture.path, "lrp", caption)
        assert one is not None and whole.tokens[word.place] == word.text.split()[0]
        assert one.probability == pytest.approx(float(whole.probability[word.place]))
        assert one.picture == pytest.approx(whole.shares(word.place).picture)
        assert one.heat is not None and one.heat.shape == whole.image.shape[:2]
    write_comparison(found, tmp_path)
    kept = json.loads((tmp_path / "changes.json").read_text(encoding="utf-8"))
    assert kept["counts"] == found.counts() and len(kept["changes"]) == len(found.changes)
    page = (tmp_path / "changes.html").read_text(encoding="utf-8")
    uris = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(uris) == len(found.changes) + 2 * sum(word.before is not None for one in explained for word in one.words)
    heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(uris[1]))))
    assert heat.shape == (224, 224, 3) and heat.std() > 1


def test_nothing_changes_between_equal_models(corpus: Corpus) -> None:
    found = compare_models(load(), load(), corpus.split("robust"), ComparisonOptions(pictures=3, beam=1))
    assert found.changes == () and found.counts()["pictures"] == 3
    assert "0 of 3" in render_changes(found, 5)


def test_words_are_explained_from_stored_features_too(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    extract_features.run(
        ExtractConfig(corpus=corpus.folder, split=("robust",), out=path, dtype="float32", device="cpu", workers=0)
    )
    model, picture = load(), corpus.split("robust").pictures[0]
    caption = model.caption(picture.path, beam=1)
    with FeatureStore.open(path) as store:
        of_word = FromFeatures(store)(model, picture, caption)
        seen = from_picture(model, picture, caption)
        for place in range(len(caption.split())):
            ours, theirs = of_word(place), seen(place)
            assert ours.probability == pytest.approx(theirs.probability, abs=1e-5)
            assert ours.picture == pytest.approx(theirs.picture, abs=0.05)  # to the regions and to the pixels
            assert ours.words == pytest.approx(theirs.words, abs=1e-4)
        assert ours.heat is not None and ours.image is not None
        blind = load()
        blind.encoder = None
        options = ComparisonOptions(pictures=4, explained=2, beam=1, features=path)
        found = compare_models(blind, changed(replace_encoder(load())), corpus.split("robust"), options)
    assert any(word.before is not None for change in found.changes for word in change.words) and not found.notes


def replace_encoder(model: Captioner) -> Captioner:
    model.encoder = None
    return model


def test_a_picture_that_cannot_be_explained_is_noted(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "features.h5"
    extract_features.run(ExtractConfig(corpus=corpus.folder, split=("robust",), out=path, device="cpu", workers=0))
    split = corpus.split("robust")
    lost = tuple(replace(picture, path=tmp_path / "gone.png") for picture in split.pictures)
    missing = Split(split.name, lost, split.captions, split.objects, split.categories, True)
    options = ComparisonOptions(pictures=6, explained=1, beam=1, features=path)
    found = compare_models(load(), changed(load()), missing, options)
    assert len(found.notes) == 1 and "are not explained" in found.notes[0] and "gone.png" in found.notes[0]
    assert found.changes and f"picture {found.changes[0].picture.id}" in render_changes(found, 9)


def test_the_report_of_two_folders(corpus: Corpus, tmp_path: Path) -> None:
    save_model(changed(load()), tmp_path / "tuned")
    features = tmp_path / "features.h5"
    extract_features.run(ExtractConfig(corpus=corpus.folder, split=("test",), out=features, device="cpu", workers=0))
    config = ChangesConfig(
        after=tmp_path / "tuned", corpus=corpus.folder, features=features, pictures=3, explained=1, beam=1, device="cpu"
    )
    report = finetune_changes.run(config)  # the features lack the split robust, so the models look for themselves
    assert report.page == tmp_path / "tuned" / "changes.html" and report.split == "robust"
    kept = json.loads((tmp_path / "tuned" / "changes.json").read_text(encoding="utf-8"))
    assert kept["counts"] == report.counts and kept["models"] == ["bundled model", str(tmp_path / "tuned")]
    stored = finetune_changes.run(replace(config, split="test", explained=0, out=tmp_path / "elsewhere"))
    assert stored.page.is_file() and stored.page.parent.name == "elsewhere" and stored.counts["pictures"] == 3
    with pytest.raises(ConfigError, match="Did you mean 'robust'"):
        finetune_changes.run(replace(config, split="robustt"))
    with pytest.raises(ConfigError, match=r"pictures is 0(.|\n)*beam is 0"):
        replace(config, pictures=0, beam=0)

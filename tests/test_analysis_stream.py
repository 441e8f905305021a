"""The stream of captioned pictures that all experiments measure: what a batch is, and which pictures are in it."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planted_corpus import CAPTION, OBJECTS, SIDE, planted_model, write_planted_corpus

from capxai.data.annotations import Picture
from capxai.data.corpus import Corpus, Split
from capxai.data.images import read_image
from capxai.errors import ConfigError, CorpusError, ImageError
from capxai.evaluate.lexicon import coco_lexicon
from capxai.explain.explainer import explain, read
from capxai.explain.methods import METHODS, Options
from capxai.models.captioner import Captioner
from capxai.models.folder import load_model, save_model
from capxai.recipes.analysis.correctness import CorrectnessConfig, run
from capxai.recipes.analysis.correctness_report import CorrectnessReport
from capxai.recipes.analysis.experiment import experiment
from capxai.recipes.analysis.mentions import mentions_of
from capxai.recipes.analysis.stream import Look, Looking

SPOKEN = len(CAPTION.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus, a model that speaks about all three pictures, and one that says nothing about the second."""
    root = tmp_path_factory.mktemp("stream")
    write_planted_corpus(root / "corpus", with_instances=True)
    save_model(planted_model(root / "corpus" / "images"), root / "model")
    save_model(planted_model(root / "corpus" / "images", silent={2}), root / "half-silent")
    save_model(planted_model(root / "corpus" / "images", silent=set(OBJECTS)), root / "silent")
    return root


@pytest.fixture(scope="module")
def model(folder: Path) -> Captioner:
    return load_model(folder / "model")


@pytest.fixture(scope="module")
def split(folder: Path) -> Split:
    return Corpus.open(folder / "corpus").split("test")


def look_at(model: Captioner, pictures: tuple[Picture, ...], methods: tuple[str, ...] = ("lrp",)) -> Look | None:
    pixels = torch.from_numpy(np.stack([model.preprocessing.resize(read_image(picture.path)) for picture in pictures]))
    return Looking(model, 3, methods, Options()).look(pictures, pixels)


def test_a_batch_says_of_each_picture_what_is_said_of_it_alone(model: Captioner, split: Split) -> None:
    look = look_at(model, split.pictures)
    assert look is not None and look.captions == (CAPTION,) * 3
    facts, readings = look.facts, look.readings
    assert facts.sentinel is not None
    for row, picture in enumerate(split.pictures):
        alone = read(model, model.preprocessing.resize(read_image(picture.path)), None)
        assert torch.equal(readings.tokens[row, : readings.lengths[row]], alone.tokens)
        with torch.no_grad():
            steps = alone.unroll()
        for place, step in enumerate(steps):
            torch.testing.assert_close(facts.logits[row, place], step.logits[0], rtol=0, atol=1e-3)  # of 10
            torch.testing.assert_close(facts.attention[row, place], step.attention[0], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(facts.sentinel[row, place], step.sentinel[0], rtol=1e-4, atol=1e-6)


def test_every_method_explains_words_as_the_library_does(model: Captioner, split: Split) -> None:
    look = look_at(model, split.pictures, tuple(METHODS))
    assert look is not None
    chosen = [(2, 8), (0, 1), (2, 0), (1, 5)]
    words = look.words([row for row, _ in chosen], [place for _, place in chosen])
    seen = []
    for name, maps in look.maps(words, tuple(METHODS), Options(seed=7)):
        seen.append(name)
        for number, (row, place) in enumerate(chosen):
            picture = split.pictures[row]
            expected = explain(model, picture.path, name, CAPTION, options=Options(seed=7 + picture.id))
            for mine, its in (("pixels", "pixel"), ("regions", "region"), ("words", "word")):
                values, array = getattr(maps, mine), getattr(expected, f"{its}_relevance")
                assert (values is None) == (array is None)
                if array is not None:
                    scale = max(1e-6, float(np.abs(array).max()))
                    np.testing.assert_allclose(values[number].numpy() / scale, array[place] / scale, atol=2e-5)
    assert seen == list(METHODS)


def test_options_of_lrp_reach_no_other_method(model: Captioner, split: Split) -> None:
    look = look_at(model, split.pictures[:1], ("lrp", "gradient"))
    assert look is not None
    words, options = look.words([0], [1]), Options(eps=10.0)
    found = dict(look.maps(words, ("lrp", "gradient"), options))
    usual = dict(look.maps(words, ("lrp", "gradient"), Options()))
    assert not torch.allclose(found["lrp"].regions, usual["lrp"].regions)
    assert torch.equal(found["gradient"].regions, usual["gradient"].regions)


def test_a_picture_about_which_nothing_is_said_is_left_out_and_the_others_stay_right(
    folder: Path, split: Split
) -> None:
    model = load_model(folder / "half-silent")
    look = look_at(model, split.pictures)
    assert look is not None
    assert [picture.id for picture in look.pictures] == [1, 3] and look.captions == (CAPTION, CAPTION)
    words = look.words([0, 1], [1, 8])
    ((_, maps),) = look.maps(words, ("lrp",), Options())
    for number, (picture, place) in enumerate(((split.pictures[0], 1), (split.pictures[2], 8))):
        expected = explain(model, picture.path, "lrp", CAPTION).pixel_relevance
        assert expected is not None and maps.pixels is not None
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(maps.pixels[number].numpy() / scale, expected[place] / scale, atol=2e-5)
    assert look_at(model, split.pictures[1:2]) is None


def test_a_silent_picture_is_counted_and_not_explained(folder: Path) -> None:
    report = run(config(folder, model=folder / "half-silent", method=("lrp",)))
    assert (report.pictures, report.silent_pictures, report.pictures_with_words) == (3, 1, 2)
    assert {word.image_id for word in report.words} == {1, 3}
    assert report.to_json()["silent_pictures"] == 1
    whole = run(config(folder, model=folder / "half-silent", method=("lrp",), batch_size=1))
    assert figures(whole) == pytest.approx(figures(report), abs=1e-5)
    with pytest.raises(CorpusError, match="nothing to measure"):
        run(config(folder, model=folder / "silent", method=("random",)))


def config(folder: Path, **settings: object) -> CorrectnessConfig:
    given = {"model": folder / "model", "corpus": folder / "corpus", "device": "cpu", "pictures": 0, **settings}
    return CorrectnessConfig(**given)  # type: ignore[arg-type]


def figures(report: CorrectnessReport) -> list[float]:
    return [
        bound
        for score in report.methods.values()
        for found in (*score.figures.values(), *score.thresholds, *score.above.values())
        for bound in (found.value, found.low, found.high)
    ]


def test_neither_batches_nor_workers_change_a_figure(folder: Path) -> None:
    usual = run(config(folder, method=("lrp", "gradient", "random")))
    for settings in ({"batch_size": 1}, {"batch_size": 2}, {"workers": 1}):
        other = run(config(folder, method=("lrp", "gradient", "random"), **settings))
        assert [word.image_id for word in other.words] == [word.image_id for word in usual.words]
        assert figures(other) == pytest.approx(figures(usual), abs=1e-4)


def test_an_unreadable_picture_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "corpus", tmp_path / "corpus")
    (tmp_path / "corpus" / "images" / "2.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"2\.png"):
        run(config(folder, corpus=tmp_path / "corpus", method=("random",)))
    assert run(config(folder, corpus=tmp_path / "corpus", method=("random",), pictures=1)).pictures == 1


def test_how_many_pictures_go_together_goes_by_their_size(model: Captioner) -> None:
    looking = Looking(model, 3, ("lrp",), Options())
    assert looking.batch_size(5) == 5
    assert looking.batch_size() == 8 * 112 * 112 // SIDE**2
    for size, together in ((112, 8), (224, 2), (448, 1)):
        large = copy.copy(model)
        large.preprocessing = replace(model.preprocessing, image_size=size)
        assert Looking(large, 3, ("lrp",), Options()).batch_size() == together


def test_mentions_tell_true_words_from_hallucinated_ones(model: Captioner, split: Split) -> None:
    look = look_at(model, split.pictures)
    assert look is not None
    objects = {number: frozenset(there) for number, there in OBJECTS.items()}
    found = mentions_of(look, coco_lexicon(), objects)
    # "a car near a traffic light near a knife" of each picture
    spans = [(1, 1, "car"), (4, 5, "traffic light"), (8, 8, "knife")]
    assert [(one.row, one.place, one.last, one.category) for one in found] == [
        (row, *span) for row in range(3) for span in spans
    ]
    assert [one.present for one in found] == [True, False, True, True, True, False, False, False, True]


def test_an_experiment_knows_its_pictures_and_what_is_in_them(folder: Path) -> None:
    with experiment(config(folder, pictures=2)) as work:
        assert [picture.id for picture in work.pictures] == [1, 2]
        assert work.objects[2] == {"car", "traffic light"}
        assert work.options == Options(eps=0.01, seed=0) and work.name == str(folder / "model")
        assert not work.model.training
    with experiment(config(folder, pictures=0)) as work:
        assert len(work.pictures) == 3


def test_settings_that_cannot_be_used_are_all_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"pictures is -1. Expected 0 or more.\n.*beam is 0.*\n.*batch_size is 0"):
        config(folder, pictures=-1, beam=0, batch_size=0)

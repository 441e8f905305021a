"""Caption metrics against pycocoevalcap called directly, by pencil, and without Java."""

from __future__ import annotations

import json
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capxai.errors import ConfigError, CorpusError, DependencyError
from capxai.evaluate.bootstrap import draws
from capxai.evaluate.java_meteor import meteor_of_statistics
from capxai.evaluate.metrics import bleu, cider, rouge_l
from capxai.recipes.caption_metrics import METRICS, CaptionScores, MetricOptions, caption_metrics

ANNOTATIONS = Path(__file__).resolve().parents[2] / "shared" / "coco-mini" / "annotations"
WITHOUT_JAVA = ("bleu", "rouge-l", "cider")
PYTHON = MetricOptions(tokenizer="python")

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
needs_captions = pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason="needs ../shared/coco-mini")


@dataclass(frozen=True)
class Rotated:
    """coco-mini with its captions rotated among the pictures, scored by capxai, and by pycocoevalcap called directly."""

    candidates: Mapping[int, str]
    ours: CaptionScores
    theirs: Mapping[str, tuple[float, np.ndarray]]
    package_before: list[tuple[str, int, int]]
    package_after: list[tuple[str, int, int]]


def _references() -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for part in ("train", "val"):
        for entry in json.loads((ANNOTATIONS / f"captions_{part}2017.json").read_text())["annotations"]:
            found[entry["image_id"]].append(entry["caption"])
    return dict(found)


def _rotate(references: Mapping[int, list[str]]) -> dict[int, str]:
    ids = list(references)
    return {picture: references[other][0] for picture, other in zip(ids, [*ids[1:], ids[0]], strict=True)}


def _package_files() -> list[tuple[str, int, int]]:
    """Return name, size and time of change of everything in pycocoevalcap's folder, but for Python's own cache."""
    import pycocoevalcap

    paths = sorted(Path(next(iter(pycocoevalcap.__path__))).rglob("*"))
    states = [(str(path), path.stat()) for path in paths if "__pycache__" not in path.parts and path.is_file()]
    return [(name, state.st_size, state.st_mtime_ns) for name, state in states]


def _score_directly(
    candidates: Mapping[int, str], references: Mapping[int, list[str]]
) -> dict[str, tuple[float, np.ndarray]]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    gts = tokenizer.tokenize({key: [{"caption": one} for one in many] for key, many in references.items()})
    res = tokenizer.tokenize({key: [{"caption": one}] for key, one in candidates.items()})
    values, of_pictures = Bleu(4).compute_score(gts, res, verbose=0)
    found = {f"bleu_{order + 1}": (values[order], np.array(of_pictures[order])) for order in range(4)}
    for name, scorer in (("meteor", Meteor()), ("rouge_l", Rouge()), ("cider", Cider())):
        value, scores = scorer.compute_score(gts, res)
        found[name] = value, np.array(scores)
    return found


@pytest.fixture(scope="module")
def rotated() -> Rotated:
    references = _references()
    candidates = _rotate(references)
    before = _package_files()
    ours = caption_metrics(candidates, references, ("bleu", "meteor", "rouge-l", "cider"))
    after = _package_files()
    return Rotated(candidates, ours, _score_directly(candidates, references), before, after)


@needs_java
@needs_captions
def test_metrics_equal_pycocoevalcap_on_coco_mini(rotated: Rotated) -> None:
    assert rotated.ours.tokenizer == "ptb-java"
    assert rotated.ours.not_run == {}
    assert rotated.ours.image_ids == tuple(rotated.candidates)
    assert set(rotated.ours.scores) == set(rotated.theirs)
    for name, (value, per_picture) in rotated.theirs.items():
        assert rotated.ours.scores[name].value == pytest.approx(value, abs=1e-6), name
        assert rotated.ours.scores[name].per_picture == pytest.approx(per_picture, abs=1e-6), name
    assert rotated.theirs["bleu_4"][0] > 1e-3
    assert rotated.theirs["meteor"][0] > 0.01


@needs_java
@needs_captions
def test_nothing_is_written_into_the_installed_package(rotated: Rotated) -> None:
    assert len(rotated.package_before) > 20
    assert rotated.package_after == rotated.package_before


@needs_java
@needs_captions
def test_meteor_follows_from_its_statistics(rotated: Rotated) -> None:
    scores = rotated.ours.scores["meteor"]
    assert scores.statistics is not None
    assert meteor_of_statistics(scores.statistics) == pytest.approx(scores.per_picture, abs=1e-9)
    assert meteor_of_statistics(scores.statistics.sum(axis=0)) == pytest.approx(scores.value, abs=1e-9)
    chosen = np.arange(len(scores.per_picture)) < 10
    drawn = scores.resampled(chosen[None].astype(np.int32))
    assert drawn == pytest.approx(meteor_of_statistics(scores.statistics[:10].sum(axis=0)))
    assert drawn != pytest.approx(scores.per_picture[:10].mean(), abs=1e-6)  # it is no mean over captions


@needs_java
@needs_captions
def test_meteor_of_captions_that_repeat_references_follows_from_its_statistics() -> None:
    """METEOR counts no chunk of a caption that is a reference word for word, in a sum over captions too."""
    references = dict(list(_references().items())[:8])
    candidates = _rotate(references) | {picture: references[picture][1] for picture in list(references)[::2]}
    scores = caption_metrics(candidates, references, ("meteor",)).scores["meteor"]
    assert scores.value == pytest.approx(_score_directly(candidates, references)["meteor"][0], abs=1e-6)
    assert scores.resampled(np.ones((1, 8), np.int32)) == pytest.approx(scores.value, abs=1e-9)
    assert scores.figure is not None and scores.statistics is not None
    assert scores.figure(scores.statistics) == pytest.approx(scores.per_picture, abs=1e-9)
    assert scores.per_picture[::2] == pytest.approx(1.0)  # word for word


@needs_captions
def test_every_metric_of_drawn_pictures_is_that_of_a_corpus_of_them() -> None:
    references = _references()
    candidates = _rotate(references)
    scores = caption_metrics(candidates, references, WITHOUT_JAVA, PYTHON).scores
    weights = draws(len(candidates), seed=3, number=4)
    for row, weight in enumerate(weights):
        chosen = np.repeat(list(candidates), weight)
        corpus = {number: candidates[int(picture)] for number, picture in enumerate(chosen)}
        of_corpus = {number: references[int(picture)] for number, picture in enumerate(chosen)}
        again = caption_metrics(corpus, of_corpus, ("bleu", "rouge-l"), PYTHON).scores
        for name, found in again.items():
            assert scores[name].resampled(weights)[row] == pytest.approx(found.value, abs=1e-12), name
        assert scores["cider"].resampled(weights)[row] == pytest.approx(
            np.repeat(scores["cider"].per_picture, weight).mean()
        )


@pytest.mark.slow
@needs_captions
def test_five_thousand_captions_with_intervals_take_less_than_a_minute() -> None:
    generator = np.random.default_rng(0)
    written = [caption.split() for captions in _references().values() for caption in captions]

    def cross() -> str:
        one, other = generator.integers(len(written), size=2)
        return " ".join([*written[one][: len(written[one]) // 2], *written[other][len(written[other]) // 2 :]])

    candidates = {number: cross() for number in range(5000)}
    references = {number: [cross() for _ in range(5)] for number in range(5000)}
    start = time.monotonic()
    scores = caption_metrics(candidates, references, WITHOUT_JAVA, PYTHON).scores
    weights = draws(5000, seed=0)
    for metric in scores.values():
        low, high = np.percentile(metric.resampled(weights), (2.5, 97.5))
        assert low < metric.value < high
    assert time.monotonic() - start < 60


def test_bleu_by_pencil() -> None:
    # "the cat sat on mat" against "the cat sat on the mat": 5/5 words, 3/4 pairs, 2/3 triples, 1/2 fours; penalty e^(1 - 6/5).
    scores = bleu(["the cat sat on mat"], [["the cat sat on the mat", "a dog"]])
    penalty = np.exp(-0.2)
    assert scores["bleu_1"].value == pytest.approx(penalty)
    assert scores["bleu_2"].value == pytest.approx(penalty * (3 / 4) ** (1 / 2))
    assert scores["bleu_4"].value == pytest.approx(penalty * (3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4))
    assert scores["bleu_4"].statistics == pytest.approx(np.array([[5, 3, 2, 1, 5, 4, 3, 2, 5, 6]]))


def test_rouge_l_by_pencil() -> None:
    # Longest common subsequence of "a b c d" and "a c d x y": a c d; precision 3/4, recall 3/5.
    precision, recall = 3 / 4, 3 / 5
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l(["a b c d"], [["a c d x y", "z"]]).value == pytest.approx(expected)


def test_captions_without_words_score_nothing_and_break_nothing() -> None:
    empty = ["", ""]
    references = [["a dog"], ["a cat", "x"]]
    for scores in (*bleu(empty, references).values(), rouge_l(empty, references), cider(empty, references)):
        assert scores.value == pytest.approx(0, abs=1e-9)
        assert np.isfinite(scores.per_picture).all()
        assert np.isfinite(scores.resampled(np.array([[2, 0], [1, 1]], np.int32))).all()
    found = caption_metrics({1: "...", 2: "a cat"}, {1: ["a dog"], 2: ["a cat"]}, WITHOUT_JAVA, PYTHON).scores
    assert found["bleu_1"].per_picture == pytest.approx([0, 1], abs=1e-6)
    assert found["rouge_l"].per_picture == pytest.approx([0, 1])


def test_few_pictures_are_noted() -> None:
    one = caption_metrics({7: "a dog"}, {7: ["a dog"]}, ["cider"], PYTHON)
    assert one.scores["cider"].value == 0
    assert "CIDEr of one picture is always 0" in one.notes[0]
    few = caption_metrics({7: "a dog", 8: "x"}, {7: ["a dog"], 8: ["a cat"]}, ["cider", "bleu"], PYTHON)
    assert "counted over 2 pictures that means nothing" in few.notes[0]
    assert caption_metrics({7: "a dog"}, {7: ["a dog"]}, ["bleu"], PYTHON).notes == ()
    many = dict.fromkeys(range(100), "a dog")
    assert caption_metrics(many, {key: ["a dog"] for key in many}, ["cider"], PYTHON).notes == ()


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PATH", "/nowhere")
    yield
    assert shutil.which("java") is None


@pytest.mark.usefixtures("no_java")
def test_without_java_the_rest_still_runs_and_says_so() -> None:
    found = caption_metrics({7: "A dog's."}, {7: ["a dog 's", "a cat"]}, METRICS)
    assert found.tokenizer == "python"
    assert set(found.scores) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"}
    assert set(found.not_run) == {"meteor", "spice"}
    assert "Java was not found on the PATH" in found.not_run["meteor"]
    assert "apt install default-jre-headless" in found.not_run["spice"]
    assert found.notes[0].startswith("Captions were split by the tokenizer in Python, since Java's did not run. Java")
    assert found.scores["bleu_1"].value == pytest.approx(1)
    with pytest.raises(DependencyError, match="Java was not found"):
        caption_metrics({7: "a dog"}, {7: ["a dog"]}, ["bleu"], MetricOptions(tokenizer="java"))


def test_a_metric_starts_no_process_that_it_does_not_need(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.Popen", refuse)
    for name in WITHOUT_JAVA:
        assert caption_metrics({7: "a dog"}, {7: ["a dog"]}, [name], PYTHON).not_run == {}


@needs_java
def test_spice_downloads_nothing_and_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", None)  # nothing may be started, as the models are missing
    options = MetricOptions(tokenizer="python", spice_models=tmp_path / "models")
    found = caption_metrics({7: "a dog"}, {7: ["a dog"]}, ["spice"], options)
    assert found.scores == {}
    assert f"The models of SPICE were not found in '{tmp_path / 'models'}'" in found.not_run["spice"]
    assert "stanford-corenlp-3.6.0-models.jar" in found.not_run["spice"]
    assert "http://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip" in found.not_run["spice"]
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
@needs_java
def test_meteor_takes_what_would_break_its_protocol() -> None:
    candidates = {1: "a dog ||| a cat\nEVAL ||| 1", 2: "...", 3: "un café \N{GRINNING FACE} \u2028 \x85 日本"}
    references = {1: ["a dog ||| runs", "one\ntwo"], 2: ["a dog"], 3: ["un café", "!"]}
    found = caption_metrics(candidates, references, ["meteor"], PYTHON)
    assert found.not_run == {}
    assert found.scores["meteor"].per_picture[1] == 0
    assert (found.scores["meteor"].per_picture[[0, 2]] > 0.1).all()


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Unknown metric 'blue'.*Did you mean 'bleu'"):
        caption_metrics({7: "a"}, {7: ["a"]}, ["blue"], PYTHON)
    with pytest.raises(ConfigError, match="No caption metric was named"):
        caption_metrics({7: "a"}, {7: ["a"]}, [], PYTHON)
    with pytest.raises(CorpusError, match="2 pictures have no reference, the first of them 8"):
        caption_metrics({7: "a", 8: "b", 9: "c"}, {7: ["a"], 8: []}, ["bleu"], PYTHON)
    with pytest.raises(CorpusError, match="no caption to measure"):
        caption_metrics({}, {7: ["a"]}, ["bleu"], PYTHON)
    with pytest.raises(ConfigError, match="Unknown tokenizer 'jav'"):
        MetricOptions(tokenizer="jav")
    with pytest.raises(ConfigError, match="The memory of Java is '2 GB'"):
        MetricOptions(java_memory="2 GB")
    with pytest.raises(ConfigError, match="time limit of Java is 0"):
        MetricOptions(java_seconds=0)

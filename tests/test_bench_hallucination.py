"""The benchmark of the hallucination stream: both sides do the work that they are said to do, and the report adds it up right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.errors import CapxaiError, ConfigError, RelevanceError
from capxai.explain.explainer import explain
from capxai.recipes import bench_hallucination
from capxai.recipes.bench_hallucination import (
    BenchHallucinationConfig,
    BenchHallucinationReport,
    _check,
    _costs,
    run,
)
from capxai.recipes.bench_hallucination_subjects import (
    ALL_WORDS,
    EXPLAIN,
    GIVEN,
    OBJECT_WORDS,
    SUBJECTS,
    Stream,
    Watch,
    stream,
)
from capxai.recipes.bench_memory import verb_memory
from capxai.recipes.bench_planted import CAPTION, SIZES, planted

PICTURES = 6


@pytest.fixture(scope="module")
def running() -> Iterator[Stream]:
    with planted("small", PICTURES) as place, stream(place, "lrp", 1) as found:
        yield found


@pytest.fixture(scope="module")
def report() -> BenchHallucinationReport:
    return run(BenchHallucinationConfig(size="small", threads=1, pictures=5, turn=2, memory=False))


def test_the_full_size_is_the_one_that_figures_are_stated_for() -> None:
    full = SIZES["full"]
    assert (full.encoder, full.image_size, full.units, full.vocabulary, full.words) == ("vgg16", 224, 512, 9586, 10)
    assert len(CAPTION.split()) == 10


def test_the_model_says_its_caption_of_pictures_that_its_head_was_not_solved_on(running: Stream) -> None:
    assert len(running.pictures) == PICTURES
    for picture in running.pictures:
        found = explain(running.experiment.model, picture.path)
        assert " ".join(found.tokens) == CAPTION
        assert (found.probability > 0.99).all()


def test_the_stream_measures_what_the_explanations_say(running: Stream) -> None:
    records = running.run(ALL_WORDS, running.pictures)
    assert [record["image_id"] for record in records] == [picture.id for picture in running.pictures]
    for picture, record in zip(running.pictures, records, strict=True):
        found = explain(running.experiment.model, picture.path)
        assert found.pixel_relevance is not None and found.word_relevance is not None
        assert len(record["words"]) == 10
        for place, word in enumerate(record["words"]):
            assert word["lrp pixels sum"] == pytest.approx(float(found.pixel_relevance[place].sum()), abs=1e-4)
            assert word["lrp words sum"] == pytest.approx(float(found.word_relevance[place].sum()), abs=1e-4)


def test_the_verb_asks_for_object_words_alone(running: Stream) -> None:
    every = running.run(ALL_WORDS, running.pictures[:3])
    objects = running.run(OBJECT_WORDS, running.pictures[:3])
    places = [CAPTION.split().index(name) for name in ("man", "dog", "bench")]
    for one, other in zip(every, objects, strict=True):
        assert len(other["words"]) == 3
        for place, word in zip(places, other["words"], strict=True):
            assert word["lrp pixels mean"] == pytest.approx(one["words"][place]["lrp pixels mean"], rel=1e-4, abs=1e-9)


def test_nothing_is_left_of_a_stretch(running: Stream) -> None:
    running.run(OBJECT_WORDS, running.pictures[:1])
    assert not list(running.out.rglob("*.jsonl"))


def test_explanations_alone_are_those_of_the_library(running: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str | None]] = []
    monkeypatch.setattr(
        "capxai.recipes.bench_hallucination_subjects.explain",
        lambda model, path, method, caption: asked.append((path.name, method, caption)),
    )
    running.run(EXPLAIN, running.pictures[:2])
    running.run(GIVEN, running.pictures[1:2])
    assert asked == [("0.jpg", "lrp", None), ("1.jpg", "lrp", None), ("1.jpg", "lrp", CAPTION)]


def test_the_corpus_has_an_object_in_every_picture(running: Stream) -> None:
    split = running.experiment.split
    for picture in running.pictures:
        (found,) = split.objects[picture.id]
        assert split.categories[found.category_id] == "dog"
        assert 0.2 < np.mean(split.mask(found)) < 0.3  # half as wide and half as high as the picture
        assert running.experiment.objects[picture.id] == {"dog"}


def test_costs_by_hand() -> None:
    times = {EXPLAIN: [(1.0, 2.0), (2.0, 2.0), (4.0, 2.0)], GIVEN: [(1.0, 1.0)] * 3}
    times |= {ALL_WORDS: [(1.5, 3.0), (2.0, 3.0), (4.4, 3.0)], OBJECT_WORDS: [(0.5, 1.0)] * 3}
    costs = _costs(times)
    one = costs["all_words_over_explain"]
    assert (one.over.seconds, one.over.fastest, one.over.cpu_seconds) == (2 / 2, 1.5 / 1, 3 / 2)
    assert one.paired == pytest.approx(1.1)  # of 1.5, 1 and 1.1
    assert one.paired_cpu == 1.5
    assert costs["all_words_over_explain_with_caption_given"].paired == 2
    assert costs["object_words_over_explain"].paired == 0.25  # of 0.5, 0.25 and 0.125
    made = BenchHallucinationReport("x", 3, 10, 3, {}, costs, None, {})
    assert made.target == 1.2 and made.reached
    slower = costs | {"all_words_over_explain": costs["all_words_over_explain_with_caption_given"]}
    assert not BenchHallucinationReport("x", 3, 10, 3, {}, slower, None, {}).reached


def test_the_report(report: BenchHallucinationReport) -> None:
    assert list(report.subjects) == list(SUBJECTS)
    for found in report.subjects.values():
        assert 0 < found.fastest <= found.seconds <= found.slowest and found.cpu_seconds > 0
    assert (report.pictures, report.words, report.object_words, report.memory) == (5, 10, 3, None)
    written = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert written["provenance"]["config"]["turn"] == 2 and written["target"] == 1.2
    assert written["costs"]["object_words_over_explain"]["paired"] > 0


def test_every_turn_sees_all_subjects_in_turned_order(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting:
        pictures = tuple("abcde")
        seen: list[tuple[str, str]] = []  # noqa: RUF012

        def run(self, name: str, pictures: tuple[str, ...]) -> list[object]:
            self.seen.append((name, "".join(pictures)))
            return []

    times = bench_hallucination._times(Counting(), BenchHallucinationConfig(turn=2), bench_hallucination.SILENT)  # type: ignore[arg-type]
    assert Counting.seen[:4] == [(name, "ab") for name in SUBJECTS]  # warming up
    assert Counting.seen[4:8] == [(name, "ab") for name in SUBJECTS]
    assert Counting.seen[8:12] == [(name, "cd") for name in SUBJECTS[::-1]]
    assert Counting.seen[12:] == [(name, "e") for name in SUBJECTS]
    assert {len(found) for found in times.values()} == {3}


def test_another_caption_is_refused() -> None:
    _check([{"caption": CAPTION}])
    with pytest.raises(CapxaiError, match="said 'a cat'. Expected 'a man with a dog"):
        _check([{"caption": CAPTION}, {"caption": "a cat"}])


def test_watching_counts_what_is_done() -> None:
    seen: list[int] = []
    with Watch(seen.append).track("Explaining", 5) as advance:
        advance(2)
        advance(2)
        advance(1)
    assert seen == [2, 4, 5]


def test_settings_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match=r"pictures is 1\. Expected 2 or more\.\n.*turn is 0"):
        BenchHallucinationConfig(pictures=1, turn=0)
    with pytest.raises(RelevanceError, match="Did you mean 'lrp'"):
        run(BenchHallucinationConfig(method="lpr", size="small"))


@pytest.mark.slow
def test_memory_of_the_whole_verb_in_a_process_of_its_own() -> None:
    with planted("small", 4) as place:
        found = verb_memory(place.model, place.corpus, "lrp", 1, 2)
        assert Path(place.corpus / "watched" / "hallucination.json").is_file()
    assert (found["settled"]["pictures"], found["end"]["pictures"]) == (4, 4)
    assert 0 < found["settled"]["peak_gib"] <= found["end"]["peak_gib"] < 4
    assert found["growth_gib"] == pytest.approx(found["end"]["peak_gib"] - found["settled"]["peak_gib"])


def test_the_command() -> None:
    typed = ["bench", "hallucination", "--size", "small", "--pictures", "2", "--threads", "1", "--quiet"]
    typed += ["--set", "memory=no"]
    threads = torch.get_num_threads()
    table = CliRunner().invoke(app, typed)
    assert table.exit_code == 0, table.output
    assert torch.get_num_threads() == threads
    assert "stream, object words" in table.stdout and "all words over explain" in table.stdout
    assert "captions of 10 words, 3 of them objects" in table.stdout
    found = json.loads(CliRunner().invoke(app, [*typed, "--json"]).stdout)
    assert found["words"] == 10 and found["memory"] is None

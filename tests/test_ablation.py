"""What ablation measures: choices and figures worked out by hand, and everything recomputed with loops on twenty pictures."""

from __future__ import annotations

import csv
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import slow_ablation
import torch
from ablation_cases import COUNT, learned_model, write_corpus
from slow_ablation import Slow
from small_models import DECODERS, features, small_model
from typer.testing import CliRunner

from capxai.cli.main import app
from capxai.errors import CapxaiError, ConfigError, RelevanceError
from capxai.evaluate.ablation import (
    compare,
    generator_of,
    most_relevant_patches,
    most_relevant_words,
    patch_grid,
    random_words,
)
from capxai.evaluate.bootstrap import draws
from capxai.models.folder import load_model
from capxai.recipes.analysis import ablation_pictures, experiment
from capxai.recipes.analysis.ablation import AblationConfig, run
from capxai.recipes.analysis.ablation_report import AblationReport, Part
from capxai.recipes.analysis.ablation_words import WordAblation
from capxai.recipes.analysis.prefixes import Prefix, probabilities

DRAWS = 12
METHODS = ("lrp", "gradient", "grad-cam", "attention", "random")


def test_the_most_relevant_words_are_chosen_by_sign_and_start_never() -> None:
    #            <start>   1     2    3     4    5
    relevance = [9.0, -8.0, 0.5, 2.0, -0.1, 1.0]
    assert most_relevant_words(relevance, 3) == (2, 3, 5)  # 2.0, 1.0, 0.5; neither 9 of <start> nor the large -8
    assert most_relevant_words(relevance, 1) == (3,)
    assert most_relevant_words([0.0, 1.0, 1.0, 1.0], 2) == (1, 2)  # the earlier of equals


def test_too_few_words_and_relevance_that_is_no_number_are_refused() -> None:
    with pytest.raises(ValueError, match="Found 2 to choose from; expected at least the 3"):
        most_relevant_words([5.0, 1.0, 2.0], 3)
    with pytest.raises(ValueError, match="not finite"):
        most_relevant_words([0.0, 1.0, np.nan, 2.0], 1)
    with pytest.raises(ValueError, match="Found 3 of 2 words"):
        random_words(2, 3, 5, np.random.default_rng(0))


def test_few_random_deletions_are_enumerated() -> None:
    found, complete = random_words(4, 3, 4, np.random.default_rng(0))
    assert complete and found == [(1, 2, 3), (1, 2, 4), (1, 3, 4), (2, 3, 4)]
    found, complete = random_words(5, 3, 9, np.random.default_rng(0))  # ten there are
    assert not complete and len(set(found)) == 9


def test_random_deletions_take_every_word_alike_the_last_one_too() -> None:
    counts: Counter[int] = Counter()
    for seed in range(300):
        found, _ = random_words(8, 3, 20, np.random.default_rng((seed, 1, 8)))
        assert len(set(found)) == 20 and all(len(set(one)) == 3 and sorted(one) == list(one) for one in found)
        counts.update(itertools.chain.from_iterable(found))
    assert set(counts) == set(range(1, 9))  # 0, <start>, is not among them, and 8, the last word, is
    expected = 300 * 20 * 3 / 8
    assert all(abs(count - expected) < 0.06 * expected for count in counts.values())


def test_every_word_of_every_picture_has_random_numbers_of_its_own() -> None:
    asked = [(0, 7), (1, 7), (0, 8), (0, -7), (0, 7, 5), (0, 7, 6)]
    assert len({generator_of(*one).integers(2**60) for one in asked}) == len(asked)
    assert generator_of(0, -7).integers(2**60) == generator_of(0, -7).integers(2**60)


def test_patches_that_do_not_fit_are_smaller() -> None:
    # 3 x 5 pixels in patches of 2: three columns, of which the last is one pixel wide, and two rows.
    expected = [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    assert patch_grid(3, 5, 2).tolist() == expected


def test_the_patches_with_the_largest_sums_are_chosen() -> None:
    grid = patch_grid(2, 6, 2)
    relevance = np.array([[5.0, -9.0, 1.0, 1.0, 0.0, 2.0], [0.0, 0.0, 1.0, 1.0, 0.0, 1.0]])  # sums -4, 4, 3
    ties = np.arange(3)
    assert most_relevant_patches(relevance, grid, 1, ties) == (1,)
    assert most_relevant_patches(relevance, grid, 2, ties) == (1, 2)
    assert most_relevant_patches(np.zeros((2, 6)), grid, 2, np.array([2, 0, 1])) == (1, 2)  # all equal: as ties say
    with pytest.raises(ValueError, match="Found 3 to choose from; expected at least the 4"):
        most_relevant_patches(relevance, grid, 4, ties)


def test_means_are_over_words_and_differences_word_by_word() -> None:
    # Picture 0 has two words, picture 1 one, picture 2 none.
    found = compare([0, 0, 1], {"lrp": [0.5, 0.1, 0.9], "chance": [0.2, 0.2, 0.2]}, "chance", draws(3, seed=4))
    assert found["lrp"].mean.value == pytest.approx(1.5 / 3)
    assert found["lrp"].above is not None and found["lrp"].above.value == pytest.approx(0.3)
    assert found["chance"].above is None and not found["chance"].beats_control
    assert (found["lrp"].mean.low, found["lrp"].mean.high) == pytest.approx((0.3, 0.9))  # picture 0 alone, 1 alone
    assert (found["lrp"].above.low, found["lrp"].above.high) == pytest.approx((0.1, 0.7))
    assert found["lrp"].beats_control
    assert compare([], {"lrp": []}, "chance", draws(3, seed=4)) == {}


@pytest.mark.parametrize("decoder", DECODERS)
def test_beginnings_of_different_length_are_read_as_if_alone(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(decoder)
    with torch.no_grad():
        memory = model.remember(features(count=2))
    asked = [Prefix(1, (1, 4, 6), 7), Prefix(0, (1,), 4), Prefix(1, (1, 4, 6, 7, 8), 9), Prefix(0, (1, 5, 5), 2)]
    together = probabilities(model, memory, asked)
    for one, found in zip(asked, together, strict=True):
        with torch.no_grad():
            own = memory.select(torch.tensor([one.row]))
            state = model.start(own)
            for token in one.inputs:
                step = model.step(own, model.embed(torch.tensor([token])), state)
                state = step.state
        assert found == pytest.approx(float(torch.softmax(step.logits[0], 0)[one.word]), abs=1e-12)
    monkeypatch.setattr("capxai.recipes.analysis.prefixes._NUMBERS_AT_ONCE", 1)
    assert probabilities(model, memory, asked) == pytest.approx(together, abs=1e-12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A corpus; models are in double precision, so that one word more or less in a batch does not matter."""
    root = tmp_path_factory.mktemp("ablation")
    write_corpus(root / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "load", lambda path, device: load_model(path, device).double())
        yield root


def _config(folder: Path, decoder: str = "ada-lstm", **settings: object) -> AblationConfig:
    if not (folder / decoder).exists():
        learned_model(decoder, folder / "corpus", folder / decoder)
    given = {
        "method": METHODS,
        "seed": 5,
        "control_draws": DRAWS,
        "patch": 5,
        "patches": 6,
        "device": "cpu",
        **settings,
    }
    return AblationConfig(model=folder / decoder, corpus=folder / "corpus", **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report(folder: Path) -> AblationReport:
    return run(_config(folder, out=folder / "out"))


@pytest.mark.parametrize("decoder", ["ada-lstm", "mh-fc"])
def test_every_figure_is_that_of_the_loops(folder: Path, report: AblationReport, decoder: str) -> None:
    methods = METHODS if decoder == "ada-lstm" else ("lrp", "random")
    found = report if decoder == "ada-lstm" else run(_config(folder, decoder, method=methods))
    slow = Slow(load_model(folder / decoder).double(), folder / "corpus", methods, 5, DRAWS, patch=5, patches=6)
    for number in range(1, COUNT + 1):
        slow.picture(number)
    assert {one["image_id"]: one["caption"] for one in found.records} == slow.captions
    assert found.words is not None and found.objects is not None
    again = [one["caption"] for words in _all(found, "pictures") for one in words["methods"].values()]
    assert again == slow.new_captions
    assert len({*again}) > 5 and found.words.every.words > 20 and found.objects.every.words > 20  # a test of something
    _assert_part(found.words, slow.word_rows, ("object", "other"))
    _assert_part(found.objects, slow.picture_rows, ("true", "hallucinated"))


def _all(report: AblationReport, part: str) -> list[dict]:  # type: ignore[type-arg]
    return [one for record in report.records for one in record.get(part, ())]


def _assert_part(part: Part, rows: list[tuple[int, str, str, str, float]], kinds: tuple[str, ...]) -> None:
    assert tuple(part.kinds) == kinds
    for group, wanted in ((part.every, kinds), *((part.kinds[kind], (kind,)) for kind in kinds)):
        own = [row for row in rows if row[1] in wanted]
        likely = [value for _, _, figure, _, value in own if figure == "probability"]
        assert (group.words, group.pictures) == (len(likely), len({row[0] for row in own})) and likely
        assert group.probability == pytest.approx(sum(likely) / len(likely), abs=1e-6)
        for figure, losses in group.figures.items():
            values = {
                name: [(number, value) for number, _, which, method, value in own if (which, method) == (figure, name)]
                for name in losses
            }
            spread = {name: slow_ablation.estimates(one, list(range(1, COUNT + 1)), 5) for name, one in values.items()}
            for name, loss in losses.items():
                found = (loss.mean.value, loss.mean.low, loss.mean.high)
                assert found == pytest.approx(spread[name][0], abs=1e-6), (figure, name)
                if name == part.control:
                    assert loss.above is None
                    continue
                assert loss.above is not None
                apart = (loss.above.value, loss.above.low, loss.above.high, loss.above.p)
                assert apart == pytest.approx(slow_ablation.distance(spread[name], spread[part.control]), abs=1e-6)


def test_the_parts_name_what_they_measured(report: AblationReport) -> None:
    assert report.words is not None and report.objects is not None
    assert list(report.words.every.figures["drop"]) == ["lrp", "gradient", "random", "chance"]
    assert report.words.settings["left_out"] == ["grad-cam", "attention"]
    assert report.words.settings["words_with_all_random_deletions"] == sum(
        one["position"] == 5
        for one in _all(report, "words")  # 10 of 5 words, but 20 of 6
    )
    assert list(report.objects.every.figures) == ["vanished", "drop"]
    assert list(report.objects.every.figures["drop"]) == list(METHODS)
    assert report.objects.settings["grid"] == [7, 7]
    assert min(one["position"] for one in _all(report, "words")) == 5
    assert report.records[-1] == {"image_id": COUNT, "caption": ""}  # nothing said, nothing measured


def test_figures_do_not_depend_on_the_batch(folder: Path, report: AblationReport) -> None:
    found = run(_config(folder, batch_size=7))
    _assert_close(found.to_json() | {"provenance": None}, report.to_json() | {"provenance": None})
    _assert_close(list(found.records), list(report.records))


def test_pictures_alone_give_the_same(folder: Path, report: AblationReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation_pictures, "_PICTURES_AT_ONCE", 1)  # covered pictures too
    found = run(_config(folder, batch_size=1, pictures=4))
    _assert_close(list(found.records), list(report.records[:4]))


def _assert_close(found: object, expected: object) -> None:
    if isinstance(expected, dict):
        assert isinstance(found, dict) and found.keys() == expected.keys()
        for name in expected:
            _assert_close(found[name], expected[name])
    elif isinstance(expected, list):
        assert isinstance(found, list) and len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _assert_close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-9)
    else:
        assert found == expected


def test_files(folder: Path, report: AblationReport) -> None:
    out = folder / "out"
    assert json.loads((out / "ablation.json").read_text()) == json.loads(json.dumps(report.to_json()))
    plots = {"ablation-words.png", "ablation-vanished.png", "ablation-pictures.png"}
    assert {file.name for file in out.iterdir()} == plots | {
        "ablation.json",
        "ablation-words.csv",
        "ablation-pictures.csv",
        "run.json",
    }
    assert report.words is not None and report.objects is not None
    with (out / "ablation-words.csv").open(newline="") as file:
        words = list(csv.DictReader(file))
    assert len(words) == report.words.every.words * 4
    lrp = [float(row["drop"]) for row in words if row["method"] == "lrp"]
    assert np.mean(lrp) == pytest.approx(report.words.every.figures["drop"]["lrp"].mean.value, abs=1e-6)
    with (out / "ablation-pictures.csv").open(newline="") as file:
        objects = list(csv.DictReader(file))
    assert len(objects) == report.objects.every.words * len(METHODS)
    assert all(len(row["patches"].split()) == 6 for row in objects)
    gone = [int(row["vanished"]) for row in objects if row["method"] == "random"]
    assert np.mean(gone) == pytest.approx(report.objects.every.figures["vanished"]["random"].mean.value, abs=1e-6)


def test_one_part_alone_leaves_no_files_of_the_other(folder: Path) -> None:
    out = folder / "parts"
    run(_config(folder, pictures=3, method=("random",), out=out))
    with pytest.raises(CapxaiError, match="--force"):
        run(_config(folder, pictures=3, method=("random",), out=out))
    found = run(_config(folder, pictures=3, method=("attention",), part=("pictures",), out=out, force=True))
    assert found.words is None and found.objects is not None
    assert list(found.objects.every.figures["drop"]) == ["attention", "random"]  # the control comes unasked
    assert not (out / "ablation-words.csv").exists() and (out / "ablation-pictures.csv").exists()


def test_errors_say_what_to_do(folder: Path) -> None:
    with pytest.raises(RelevanceError, match="Did you mean 'lrp'"):
        run(_config(folder, method=("lpr",)))
    with pytest.raises(
        ConfigError, match=r"None of the methods \(grad-cam, attention\).*Expected one that does.*--part"
    ):
        run(_config(folder, method=("grad-cam", "attention"), part=("words",)))
    with pytest.raises(ConfigError, match=r"patches is 20, but a picture of 32 x 32 pixels has 16 patches of 8 x 8"):
        run(_config(folder, patch=8, patches=20))
    with pytest.raises(ConfigError, match=r"patch is 0.*\n.*first_word is 4 and deleted is 3.*5 or more.*\n.*No part"):
        AblationConfig(patch=0, first_word=4, part=())


def _typed(folder: Path, out: str, *more: str) -> list[str]:
    _config(folder)  # the model is there
    typed = ["analyze", "ablation", "--model", str(folder / "ada-lstm"), "--corpus", str(folder / "corpus")]
    typed += ["--method", "lrp", "--method", "attention", "--pictures", "5", "--out", str(folder / out), "--seed", "3"]
    for setting in ("batch_size=2", "patch=5", "patches=6"):
        typed += ["--set", setting]
    return [*typed, *more]


def test_the_command_prints_tables_and_json(folder: Path) -> None:
    table = CliRunner().invoke(app, _typed(folder, "typed", "--quiet"))
    assert table.exit_code == 0, table.output
    assert "3 most relevant preceding words deleted, from word 6 on" in table.stdout
    assert "6 of 7 x 7 patches of 5 x 5 pixels covered" in table.stdout
    assert "Left out, as they say nothing about preceding words: attention." in table.stdout
    assert [line.split()[0] for line in table.stdout.splitlines() if line.startswith(("lrp", "att", "ran", "cha"))] == [
        *("lrp", "chance", "chance:"),
        *("lrp", "attention", "random", "random:"),
    ]
    occupied = CliRunner().invoke(app, _typed(folder, "typed"))
    assert occupied.exit_code == 1 and "already holds a report" in occupied.stderr and "--force" in occupied.stderr
    again = CliRunner().invoke(app, _typed(folder, "typed", "--json", "--quiet", "--force", "--part", "pictures"))
    printed = json.loads(again.stdout)
    assert printed["word_ablation"] is None
    assert list(printed["picture_ablation"]["methods"]) == ["lrp", "attention", "random"]
    assert printed == json.loads((folder / "typed" / "ablation.json").read_text())


def test_a_stopped_run_goes_on_to_the_same_figures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = CliRunner().invoke(app, _typed(folder, "whole", "--json", "--quiet"))
    calls: list[int] = []
    measure = WordAblation.of

    def stopping(self: WordAblation, *given: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(WordAblation, "of", stopping)
    stopped = CliRunner().invoke(app, _typed(folder, "stopped", "--json", "--quiet"))
    assert stopped.exit_code == 130 and "Run the same command again" in stopped.stderr
    assert not (folder / "stopped" / "ablation.json").exists()
    resumed = CliRunner().invoke(app, _typed(folder, "stopped", "--json", "--quiet"))
    assert resumed.exit_code == 0 and len(calls) == 2 + 2  # of three batches the first was done
    figures = [
        {name: value for name, value in json.loads(one.stdout).items() if name != "provenance"}
        for one in (whole, resumed)
    ]
    assert figures[0] == figures[1]
    for table in ("ablation-words.csv", "ablation-pictures.csv"):
        assert (folder / "stopped" / table).read_bytes() == (folder / "whole" / table).read_bytes()
    assert not (folder / "stopped" / "progress").exists()


def test_help_needs_no_model() -> None:
    shown = CliRunner().invoke(app, ["analyze", "ablation", "--help"])
    assert shown.exit_code == 0
    assert "words|pictures" in shown.stdout and "capxai analyze ablation --pictures 20" in shown.stdout

"""Studies: which runs there are, that finished ones stay and changed ones are refused, and the tables of hand-made figures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from capxai.errors import ConfigError, ModelError
from capxai.recipes import study_finetune, study_run
from capxai.recipes.finetune import FinetuneConfig
from capxai.recipes.study import StudyConfig, run
from capxai.recipes.study_figures import Measured
from capxai.recipes.study_plan import Base, claimed, name_bases, plan_runs, settings_hash
from capxai.recipes.study_plot import draw_study
from capxai.recipes.study_results import Results, compare_runs
from capxai.recipes.study_tables import csv_text, markdown, tables

BASES = (Base("one", None, "1" * 64, Path("a.h5")), Base("two", Path("x"), "2" * 64, Path("b.h5")))
IDENTITY = {"corpus": "c", "splits": ["test"], "beam": 3}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def planned(config: StudyConfig) -> list[tuple[str, str, int]]:
    ratios = {"lrp": 1.4, "lrp-counterfactual": 2.6}
    return [(one.row, one.base.name, one.seed) for one in plan_runs(config, BASES, IDENTITY, ratios)]


def test_every_base_model_objective_and_seed_has_a_run() -> None:
    config = StudyConfig(objectives=("lrp",), seeds=(3, 4), equal_compute=())
    tuned = [(row, base, seed) for seed in (3, 4) for base in ("one", "two") for row in ("ce", "lrp")]
    assert planned(config) == [("plain", "one", 0), ("plain", "two", 0), *tuned]
    assert planned(replace(config, plain=False)) == tuned


def test_the_control_is_given_as_much_compute() -> None:
    config = StudyConfig(updates=150, seeds=(0,), plain=False)
    runs = plan_runs(config, BASES[:1], IDENTITY, {"lrp": 1.4, "lrp-counterfactual": 2.6})
    found = {one.row: (one.objective, one.settings["updates"]) for one in runs}
    assert found == {
        "ce": ("ce", 150),
        "lrp": ("lrp", 150),
        "lrp-counterfactual": ("lrp-counterfactual", 150),
        "ce@lrp": ("ce", 210),
        "ce@lrp-counterfactual": ("ce", 390),
    }
    faster = plan_runs(config, BASES[:1], IDENTITY, {"lrp": 0.9, "lrp-counterfactual": 1.0})
    assert {one.settings["updates"] for one in faster} == {150}


def test_learning_rates_and_settings_of_single_objectives() -> None:
    config = StudyConfig(
        objectives=("lrp", "scst"),
        learning_rate=5e-4,
        learning_rates=("lrp=1e-3",),
        settings=("batch_size=8", "lrp:plain_share=0.25", "lrp:batch_size=4"),
    )
    assert [config.rate_of(name) for name in ("ce", "lrp", "scst")] == [5e-4, 1e-3, 5e-4]
    assert config.settings_of("ce") == ("batch_size=8",)
    assert config.settings_of("lrp") == ("batch_size=8", "plain_share=0.25", "batch_size=4")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": ()}, "seeds is empty"),
        ({"objectives": ("lrp", "lrp")}, "objectives names 'lrp' twice"),
        ({"learning_rates": ("lrpp=1e-3",)}, "learning_rates has 'lrpp=1e-3'"),
        ({"learning_rates": ("lrp=-1",)}, "a rate above 0"),
        ({"settings": ("scst:temperature=2",)}, "objective:key=value with an objective of the study"),
        ({"equal_compute": ("ce",)}, "other than the control"),
        ({"updates": 0, "beam": 0}, r"updates is 0(.|\n)*beam is 0"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StudyConfig(**settings)


def test_settings_of_fine_tuning_are_checked_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'plain_share'"):
        run(StudyConfig(settings=("plain_shaer=1",), out=tmp_path / "study"))
    with pytest.raises(ConfigError, match="Did you mean 'lrp'"):
        run(StudyConfig(objectives=("lrpp",), out=tmp_path / "study"))
    with pytest.raises(ConfigError, match="an encoder that stays as it is"):
        run(StudyConfig(settings=("lrp:train_encoder=true",), out=tmp_path / "study"))
    assert not (tmp_path / "study").exists()


def test_torchrun_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="without torchrun"):
        run(StudyConfig(out=tmp_path))


def test_equal_names_of_base_models_are_numbered(tmp_path: Path) -> None:
    for name in ("a/best", "b/best", "c"):
        (tmp_path / name).mkdir(parents=True)
    folders = [tmp_path / "a/best", tmp_path / "b/best", tmp_path / "c", None]
    assert name_bases(folders) == ["best-1", "best-2", "c", "bundled"]
    with pytest.raises(ModelError, match="d. Expected folders of base models"):
        name_bases([tmp_path / "d"])


def test_a_run_of_other_settings_is_refused_and_names_them(tmp_path: Path) -> None:
    config = StudyConfig(out=tmp_path, seeds=(0,), plain=False, equal_compute=())
    one = plan_runs(config, BASES[:1], IDENTITY, {})[0]
    one.folder.mkdir(parents=True)
    kept = {"settings": one.settings, "splits": {}}
    (one.folder / "figures.json").write_text(json.dumps(kept), encoding="utf-8")
    assert one.finished() == kept
    other = plan_runs(replace(config, updates=99), BASES[:1], IDENTITY, {})[0]
    with pytest.raises(ConfigError, match=r"'ce, one, seed 0'(.|\n)*updates was 150 and is 99(.|\n)*--force"):
        other.finished()
    assert settings_hash(one.settings) != settings_hash(other.settings)


def test_work_is_claimed_by_one_at_a_time(tmp_path: Path) -> None:
    with claimed(tmp_path / "lock") as mine, claimed(tmp_path / "lock") as theirs:
        assert mine and not theirs
    with claimed(tmp_path / "lock") as again:
        assert again


def test_compute_is_measured_in_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seconds = {"ce": iter([2.0, 4.0, 1.0]), "lrp": iter([3.0, 4.0, 3.0])}
    asked: list[str] = []

    class Report:
        def __init__(self, config: FinetuneConfig) -> None:
            self.updates, self.training_seconds = 7, 7 * next(seconds[config.objective])

    def fake(config: FinetuneConfig, reporter: object) -> Report:
        asked.append(config.objective)
        return Report(config)

    monkeypatch.setattr(study_finetune, "finetune", fake)
    found = study_finetune.measure_ratios(StudyConfig(), BASES[1], tmp_path, ["lrp"], study_run.SILENT)
    assert found == {"lrp": 1.5}  # the median of 3 / 2, 4 / 4 and 3 / 1
    assert asked == ["ce", "lrp"] * 3


def hand_made() -> Results:
    """CHAIRi of the objective lies a fifth below the control's in each of two base models with two seeds."""
    generator = np.random.default_rng(0)

    def measured(chair: float, cider: float) -> Measured:
        values = {"chair_i": chair, "recall": 0.7, "cider": cider, "objects_per_caption": 2.0}
        return Measured(values, {name: value + generator.normal(0, 1e-4, 200) for name, value in values.items()})

    found = {("plain", base, 0): measured(0.5, 2.0) for base in "ab"}
    for base, level in (("a", 0.30), ("b", 0.40)):
        for seed in (0, 1):
            found["ce", base, seed] = measured(level + 0.01 * seed, 2.3)
            found["lrp", base, seed] = measured(0.8 * (level + 0.01 * seed), 2.5)
    return compare_runs({"robust": found}, ("plain", "ce", "lrp", "scst"), {"ce": 1.0, "lrp": 2.0})


def test_results_by_hand() -> None:
    results = hand_made()
    assert results.rows == ("plain", "ce", "lrp")  # no run of scst is finished
    lrp = results.figures["robust"]["lrp"]["chair_i"]
    assert lrp.mean.value == pytest.approx(0.8 * (0.305 + 0.405) / 2) and lrp.mean.runs == 4
    against = lrp.against["ce"]
    assert against.relative is not None and against.relative.value == pytest.approx(-0.2)
    assert against.difference.value == pytest.approx(-0.2 * 0.355) and (against.below, against.above) == (4, 0)
    low, high = lrp.drawn_difference["ce"] or (0, 0)
    assert low < -0.0710 < high < 0
    plain = results.figures["robust"]["plain"]["chair_i"].against["ce"]
    assert plain.pairs == 4 and plain.difference.value == pytest.approx(0.5 - 0.355)
    assert results.figures["robust"]["ce"]["chair_i"].against == {}


def test_tables_show_what_was_found() -> None:
    results = hand_made()
    means, against = tables(results)
    assert means.header == ("objective", "CHAIRi", "object recall", "CIDEr-D", "objects per caption", "runs")
    assert (
        means.rows[2][0] == "lrp" and means.rows[2][1].startswith("28.4 +- ") and means.rows[2][3].startswith("250.0")
    )
    assert means.rows[1][4] == "2.00 +- 0.00" and means.rows[0][5] == "2"
    row = next(row for row in against.rows if row[0] == "lrp")
    assert row[1] == "ce" and row[2].startswith("-20.0 [") and row[5] == "4 / 0" and row[6] == "0.1250"
    text = markdown(results, "A study", ["12 of 12 runs are finished."])
    assert "| lrp | ce | -20.0 [" in text and "12 of 12" in text and text.startswith("# A study\n")


def test_the_csv_file_has_every_figure_and_comparison() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(hand_made()))))
    one = [row for row in rows if (row["objective"], row["figure"]) == ("lrp", "chair_i")]
    assert [row["against"] for row in one] == ["", "ce"]
    assert float(one[0]["value"]) == pytest.approx(0.284) and one[0]["difference"] == ""
    assert float(one[1]["relative"]) == pytest.approx(-0.2) and one[1]["below"] == "4"
    assert len(rows) == 3 * 4 + 2 * 4  # three rows with four figures, two of them compared


def test_the_plot_is_a_picture_of_its_size() -> None:
    drawn = draw_study(hand_made())
    assert drawn is not None
    picture = Image.open(io.BytesIO(drawn))
    assert picture.format == "PNG" and picture.size == (1430, 676)
    colors = {color for _, color in picture.convert("RGB").getcolors(2**20) or []}
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115)} <= colors  # a mark for each row


def test_a_split_without_objects_has_no_plot() -> None:
    bare = {("ce", "a", 0): Measured({"cider": 1.0, "bleu_4": 0.5}, {"cider": np.ones(9), "bleu_4": np.ones(9)})}
    results = compare_runs({"test": bare}, ("ce",), {})
    assert draw_study(results) is None and [table.title for table in tables(results)] == ["On test"]

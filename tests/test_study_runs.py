"""Whole studies of the bundled model on a tiny corpus: what they keep, that they grow and go on, and the command line."""

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
from typer.testing import CliRunner

from capxai.cli.finetune import finetune
from capxai.cli.guard import guarded
from capxai.data.corpus import Corpus
from capxai.data.scenes import write_corpus
from capxai.errors import ConfigError
from capxai.evaluate.predictions import read_predictions
from capxai.models.folder import bundled_folder, load, save_model
from capxai.recipes import study_run
from capxai.recipes.study import StudyConfig, StudyReport, run
from capxai.recipes.study_figures import FIGURES, SplitJudge
from capxai.train.optimization import DivergedError


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus, and a second base model: the bundled one with other biases of its vocabulary."""
    folder = tmp_path_factory.mktemp("study")
    write_corpus(folder / "corpus", 12, 0)
    model = load()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        model.decoder.word_head.fc.bias += torch.randn_like(model.decoder.word_head.fc.bias)
    save_model(model, folder / "other")
    return folder


def settings(place: Path, out: Path, **changes: Any) -> StudyConfig:
    config = StudyConfig(
        models=(bundled_folder(), place / "other"),
        objectives=("lrp",),
        seeds=(0, 1),
        splits=("robust",),
        corpus=place / "corpus",
        updates=2,
        settings=("batch_size=4",),
        learning_rates=("lrp=2e-3",),
        equal_compute=(),
        beam=1,
        out=out,
        device="cpu",
    )
    return replace(config, **changes)


@pytest.fixture(scope="module")
def studied(place: Path) -> tuple[StudyConfig, StudyReport]:
    config = settings(place, place / "out")
    torch.set_num_threads(1)
    return config, run(config)


def test_a_study_keeps_what_its_table_is_made_of(studied: tuple[StudyConfig, StudyReport]) -> None:
    config, report = studied
    assert (report.finished, report.runs, report.failed, report.compute) == (10, 10, {}, {})
    figures = report.results.figures["robust"]
    assert list(figures) == ["plain", "ce", "lrp"] and list(figures["lrp"]) == list(FIGURES)
    judge = SplitJudge.of(Corpus.open(config.corpus or Path()).split("robust"))
    by_base = []
    for base in ("bundled", "other"):
        values = []
        for seed in (0, 1):
            folder = config.out / "runs" / base / "lrp" / f"seed-{seed}"
            captions = read_predictions(folder / "predictions-robust.json", allow_empty=True).captions
            values.append(judge.measure(captions).values["cider"])
            assert not list(folder.rglob("*.safetensors")) and (folder / "training" / "train.jsonl").is_file()
        by_base.append(np.mean(values))
    assert figures["lrp"]["cider"].mean.value == pytest.approx(np.mean(by_base))
    assert len({path.name for path in (config.out / "features").glob("*.h5")}) == 1  # both have the same encoder
    assert {path.name for path in report.files} == {"study.json", "study.csv", "study.md", "study.png"}
    kept = json.loads((config.out / "study.json").read_text(encoding="utf-8"))
    assert kept["report"]["results"]["rows"] == ["plain", "ce", "lrp"] and kept["verb"] == "finetune --study"


def test_a_finished_study_is_not_done_again_and_grows(
    studied: tuple[StudyConfig, StudyReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, report = studied
    done: list[str] = []
    original = study_run.fine_tune

    def counted(one: Any, *rest: Any) -> Any:
        done.append(one.name)
        return original(one, *rest)

    monkeypatch.setattr(study_run, "fine_tune", counted)
    again = run(config)
    assert done == [] and again.results.to_json() == report.results.to_json()
    grown = run(replace(config, models=config.models[:1], seeds=(0, 2), plain=False))
    assert done == ["ce, bundled, seed 2", "lrp, bundled, seed 2"] and grown.runs == 4


def test_a_killed_study_goes_on(
    place: Path, tmp_path: Path, studied: tuple[StudyConfig, StudyReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "killed"
    shutil.copytree(studied[0].out / "features", out / "features")
    config = settings(place, out, models=(bundled_folder(),), seeds=(0,))
    original, captioned = study_run.caption_split, []

    def killed(*arguments: Any) -> Any:
        captioned.append(arguments)
        if len(captioned) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(study_run, "caption_split", killed)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert sorted(path.parent.name for path in out.rglob("figures.json")) == ["plain", "seed-0"]
    monkeypatch.setattr(study_run, "caption_split", original)
    report = run(config)
    assert report.finished == 3
    expected = studied[0].out / "runs/bundled/lrp/seed-0/predictions-robust.json"
    found = out / "runs/bundled/lrp/seed-0/predictions-robust.json"
    assert found.read_bytes() == expected.read_bytes()  # as if nobody had interrupted


def test_changed_settings_are_refused_or_begun_afresh(
    place: Path, tmp_path: Path, studied: tuple[StudyConfig, StudyReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(place, studied[0].out, updates=3)
    with pytest.raises(ConfigError, match="updates was 2 and is 3"):
        run(config)
    out = tmp_path / "copy"
    shutil.copytree(studied[0].out, out)

    def diverging(one: Any, *rest: Any) -> Any:
        raise DivergedError(f"The loss of {one.seed} is nan.")

    monkeypatch.setattr(study_run, "fine_tune", diverging)
    report = run(replace(config, out=out, force=True, models=config.models[:1], seeds=(0,)))
    assert report.finished == 1 and report.failed == dict.fromkeys(
        ("ce, bundled, seed 0", "lrp, bundled, seed 0"), "The loss of 0 is nan."
    )
    assert "Left out: ce, bundled, seed 0 (The loss of 0 is nan.)" in (out / "study.md").read_text(encoding="utf-8")


def test_base_models_of_different_decoders_are_not_averaged(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named(folder: Path | None) -> Any:
        model = load()
        if folder is not None and folder.name == "other":
            model.specification = replace(model.specification, decoder="mh-fc")
        return model

    monkeypatch.setattr("capxai.recipes.study_bases.load", named)
    with pytest.raises(ConfigError, match="the decoders ada-lstm, mh-fc. Expected one"):
        run(settings(place, tmp_path))


def test_an_unknown_split_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'robust'"):
        run(settings(place, tmp_path, splits=("robustt",)))


def invoke(*words: object) -> Any:
    app = typer.Typer()
    app.command("finetune")(guarded(finetune))
    app.command("other")(lambda: None)
    return CliRunner().invoke(app, ["finetune", *(str(word) for word in words)])


def test_the_command_line_of_a_study(place: Path, tmp_path: Path, studied: tuple[StudyConfig, StudyReport]) -> None:
    config, report = studied
    chosen = ("seeds=0,1", "splits=robust", "updates=2", "settings=batch_size=4", "learning_rates=lrp=2e-3")
    words = [word for item in (*chosen, "equal_compute=", "beam=1") for word in ("--set", item)]
    models = ("--model", bundled_folder(), "--model", place / "other")
    shared = (*models, "--corpus", place / "corpus", "--out", config.out, "--device", "cpu", *words, "--quiet")
    found = invoke("--study", "--objective", "lrp", *shared, "--json")
    assert found.exit_code == 0, found.stderr
    assert json.loads(found.stdout)["results"] == json.loads(json.dumps(report.results.to_json()))
    table = invoke("--study", "--objective", "lrp", *shared)
    assert table.exit_code == 0 and "10 of 10 runs are finished." in table.stdout, table.stderr
    assert "On robust, against the control" in table.stdout and "study.png" in table.stdout


def test_options_that_a_study_lacks_and_that_only_a_study_has() -> None:
    for option, advice in (
        ("--seed=1", "seeds=0,1,2"),
        ("--lambda=0.5", "lrp:plain_share"),
        ("--resume", "same command"),
    ):
        refused = invoke("--study", option)
        assert refused.exit_code == 1 and advice in refused.stderr.replace("\n", " ")
    twice = invoke("--objective", "lrp", "--objective", "ce")
    assert twice.exit_code == 1 and "--objective was typed 2 times" in twice.stderr.replace("\n", " ")


def test_a_single_fine_tuning_writes_what_was_changed(place: Path, tmp_path: Path) -> None:
    chosen = ("updates=1", "batch_size=4", "validation_pictures=2", "figure_splits=", "workers=0")
    words = [word for item in chosen for word in ("--set", item)]
    shared = ("--model", bundled_folder(), "--corpus", place / "corpus", "--device", "cpu", *words, "--quiet")
    shown = invoke(*shared, "--out", tmp_path / "one")
    assert shown.exit_code == 0 and "Captions that changed on robust: " in shown.stdout, shown.stderr
    counts = json.loads((tmp_path / "one" / "changes.json").read_text(encoding="utf-8"))["counts"]
    assert f"Captions that changed on robust: {counts['changed_captions']} of {counts['pictures']}." in shown.stdout
    without = invoke(*shared, "--out", tmp_path / "two", "--no-report", "--json")
    assert json.loads(without.stdout)["changes"] is None and not (tmp_path / "two" / "changes.html").exists()

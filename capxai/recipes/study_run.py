"""Performs a study: features once, then run after run, each captioned and measured, then the comparison of all."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from capxai.data.corpus import MANIFEST, Corpus
from capxai.errors import ConfigError, unknown_choice
from capxai.evaluate.predictions import write_predictions
from capxai.files import replacing, write_json_atomically
from capxai.models.captioner import Captioner
from capxai.models.decoding import DecodingOptions
from capxai.models.folder import load
from capxai.recipes.bench_timing import torch_threads
from capxai.recipes.builtin_corpus import open_corpus
from capxai.recipes.device import choose_device
from capxai.recipes.evaluation_captions import Captioning, caption_split
from capxai.recipes.study import StudyConfig, StudyReport
from capxai.recipes.study_bases import read_bases
from capxai.recipes.study_figures import TOKENIZER, Measured, SplitJudge
from capxai.recipes.study_finetune import TRAINING_FOLDER, check_settings, discard_weights, fine_tune, measure_ratios
from capxai.recipes.study_plan import (
    DRAWS_FILE,
    FAILURE_FILE,
    FIGURES_FILE,
    PLAIN,
    SCHEMA,
    Base,
    Run,
    claimed,
    plan_runs,
    read_kept,
    settings_hash,
)
from capxai.recipes.study_report import report_runs
from capxai.train.optimization import DivergedError
from capxai.train.processes import Processes
from capxai.types import SILENT, Advance, JsonObject, Reporter, Show

LOCK = ".lock"


class _Quieter:
    """Passes on what a run warns of and how far it is, and drops its notes and its dashboard: a study has hundreds of runs."""

    def __init__(self, reporter: Reporter) -> None:
        self.warn: Callable[[str], None] = reporter.warn
        self.track: Callable[[str, int], AbstractContextManager[Advance]] = reporter.track

    def note(self, text: str) -> None:
        """Drop the note."""

    def dashboard(self, title: str) -> AbstractContextManager[Show]:
        """Show nothing."""
        return SILENT.dashboard(title)


class Study:
    """One call of ``capxai finetune --study``."""

    def __init__(self, config: StudyConfig, reporter: Reporter) -> None:
        """Remember what to do.

        Raises:
            ConfigError: torchrun started this process.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                "A study was started by torchrun. Expected single processes, which share the runs and not the batches: start the same "
                "command several times at once, without torchrun."
            )
        self._config, self._reporter = config, reporter
        self._begun = time.perf_counter()
        self._judges: dict[str, SplitJudge] = {}
        self._group = Processes(0, 1, choose_device(config.device))

    def perform(self) -> StudyReport:
        """Perform the study; see `capxai.recipes.study.run`."""
        import torch

        check_settings(self._config)
        with torch_threads(self._config.threads or torch.get_num_threads()):
            corpus = self._open_corpus()
            bases = read_bases(self._config, corpus, self._group.device, self._reporter)
            ratios = self._ratios(bases, corpus)
            runs = plan_runs(self._config, bases, self._identity(corpus), ratios)
            self._refuse_changed(runs)
            with self._reporter.track("Runs of the study", len(runs)) as advance:
                for run in runs:
                    self._perform_run(run, corpus)
                    advance(1)
            with claimed(self._config.out / "report.lock", wait=True):  # whoever writes last has read last
                return report_runs(self._config, runs, ratios, time.perf_counter() - self._begun)

    def _open_corpus(self) -> Corpus:
        config = self._config
        with claimed(config.out / "corpus.lock", wait=True):
            corpus = open_corpus(config.corpus, config.size, config.corpus_seed, self._reporter)
        for name in config.splits:
            if name not in corpus.splits:
                raise ConfigError(unknown_choice("split", name, corpus.splits))
        return corpus

    def _identity(self, corpus: Corpus) -> JsonObject:
        """Describe what all runs share and figures depend on."""
        manifest = hashlib.sha256((corpus.folder / MANIFEST).read_bytes()).hexdigest()
        config = self._config
        return {"corpus": manifest, "splits": list(config.splits), "beam": config.beam, "tokenizer": TOKENIZER}

    def _ratios(self, bases: Sequence[Base], corpus: Corpus) -> dict[str, float]:
        """Measure the cost of the objectives that need it, once for the study: the numbers of steps depend on it."""
        path = self._config.out / "compute.json"
        with claimed(self._config.out / "compute.lock", wait=True):
            known: dict[str, float] = read_kept(path) or {}
            missing = [name for name in self._config.compute_controls if name not in known]
            if missing:
                known |= measure_ratios(self._config, bases[0], corpus.folder, missing, self._reporter)
                write_json_atomically(path, known)
        return known

    def _refuse_changed(self, runs: Sequence[Run]) -> None:
        """Refuse finished runs of other settings before time is spent, or remove them where that is wanted.

        Raises:
            ConfigError: There is one.
        """
        for run in runs:
            try:
                run.finished()
            except ConfigError:
                if not self._config.force:
                    raise
                shutil.rmtree(run.folder)

    def _perform_run(self, run: Run, corpus: Corpus) -> None:
        """Do a run, unless it is done or another process is doing it."""
        with claimed(run.folder / LOCK) as mine:
            if not mine:
                self._reporter.note(f"Another process is at '{run.name}'.")
                return
            if run.finished() is None:
                try:
                    self._do(run, corpus)
                except DivergedError as error:
                    self._reporter.warn(f"The run '{run.name}' diverged and is left out: {error}")
                    write_json_atomically(run.folder / FAILURE_FILE, {"message": str(error)})
                    return
            (run.folder / FAILURE_FILE).unlink(missing_ok=True)
            if not self._config.keep_models:
                discard_weights(run.folder / TRAINING_FOLDER)

    def _do(self, run: Run, corpus: Corpus) -> None:
        begun, training = time.perf_counter(), {}
        if run.row != PLAIN:
            self._reporter.note(f"Fine-tuning: {run.name}.")
            training = fine_tune(run, self._config, corpus.folder, _Quieter(self._reporter))
        tuned = time.perf_counter() - begun
        model = load(run.base.folder if run.row == PLAIN else run.folder / TRAINING_FOLDER, self._group.device)
        measured = {name: self._measure(run, model, corpus, name) for name in self._config.splits}
        _write_draws(run.folder / DRAWS_FILE, measured)
        kept: JsonObject = {
            "schema": SCHEMA,
            "settings": run.settings,
            "settings_sha256": settings_hash(run.settings),
            "row": run.row,
            "base": run.base.name,
            "seed": run.seed,
            "seconds": tuned,
            "training": training,
            "splits": {name: found.values for name, found in measured.items()},
        }
        write_json_atomically(run.folder / FIGURES_FILE, kept)

    def _measure(self, run: Run, model: Captioner, corpus: Corpus, name: str) -> Measured:
        if name not in self._judges:
            self._judges[name] = SplitJudge.of(corpus.split(name))
        judge, config = self._judges[name], self._config
        options = (
            DecodingOptions(strategy="beam", beam=config.beam)
            if config.beam > 1
            else DecodingOptions(strategy="greedy")
        )
        how = Captioning(options, config.batch_size, run.base.features)
        captions = caption_split(model, judge.split, how, self._group, self._reporter)
        write_predictions(run.folder / f"predictions-{name}.json", captions)
        return judge.measure(captions)


def _write_draws(path: Path, measured: dict[str, Measured]) -> None:
    arrays = {f"{split}/{name}": drawn for split, found in measured.items() for name, drawn in found.draws.items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

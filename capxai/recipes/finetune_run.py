"""A fine-tuning from its settings to its report: the base model, the folder, the processes, and what is kept when it fails."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch

from capxai.config import to_json
from capxai.data.corpus import Corpus
from capxai.data.feature_store import FeatureStore
from capxai.models.captioner import Captioner
from capxai.models.folder import WEIGHTS_HASH, load_model
from capxai.recipes.device import choose_device
from capxai.recipes.finetune import OUTPUTS, FinetuneConfig, FinetuneReport
from capxai.recipes.finetune_base import base_folder, check_features, choose_base, eye_of, refuse_own_base, set_dropout
from capxai.recipes.finetune_stage import FineTuning
from capxai.recipes.interruption import CheckingReporter, Interruption, interruption
from capxai.recipes.record import write_record
from capxai.recipes.run_folder import RunFolders, refuse_differences, remove_leftovers
from capxai.recipes.run_frame import open_shared_corpus, read_shared_checkpoint, torch_state
from capxai.recipes.train import TrainConfig
from capxai.recipes.training_choices import PAPER
from capxai.recipes.training_data import fingerprint
from capxai.recipes.training_run import Place
from capxai.recipes.training_sources import Setting
from capxai.train.checkpoint import State, remove_checkpoint
from capxai.train.optimization import DivergedError
from capxai.train.processes import Processes, processes
from capxai.types import JsonObject, Reporter

FOLDERS = RunFolders("finetune")
FREE = (*OUTPUTS, "threads", "memory", "figure_splits")
"""Settings that a resumed run may have otherwise."""


def finetune(config: FinetuneConfig, reporter: Reporter) -> FinetuneReport:
    """Fine-tune; see `capxai.recipes.finetune.run`."""
    with processes(choose_device(config.device)) as group, interruption() as found:
        reporter = group.reporter(reporter)
        config = group.broadcast(_placed(config, reporter) if group.main else config)
        assert config.out is not None
        finished = group.broadcast(_finished_report(config) if group.main else None)
        if finished is not None:
            reporter.note(f"The run in {config.out} is finished already; there is nothing to go on with.")
            return finished
        checked = reporter if group.world > 1 else CheckingReporter(reporter, found)
        try:
            with torch_state(config.seed, config.threads, group.device):
                return _finetune(config, group, found, checked)
        except KeyboardInterrupt:
            if group.main and FOLDERS.is_unfinished(config.out):
                command = FOLDERS.resume_command(config.out)
                reporter.warn(f"Fine-tuning was stopped, and nothing is lost. Go on with: {command}")
            raise


def _placed(config: FinetuneConfig, reporter: Reporter) -> FinetuneConfig:
    """Settle the folder and the base model."""
    if config.resume:
        folder = FOLDERS.choose(config, "")
        saved = FOLDERS.saved_settings(folder).get("model")
        model = Path(saved) if config.model is None and saved else config.model
        return replace(config, out=folder, model=model)
    base = choose_base(config, reporter)
    config = replace(config, model=base)
    if config.out is not None:
        refuse_own_base(base, config.out)
        return replace(config, out=FOLDERS.choose(config, ""))
    decoder = load_model(base_folder(base)).specification.decoder
    return replace(config, out=FOLDERS.choose(config, f"{decoder}-{config.objective}"))


def _finetune(config: FinetuneConfig, group: Processes, found: Interruption, reporter: Reporter) -> FinetuneReport:
    begun = time.perf_counter()
    assert config.out is not None and config.model is not None
    model, store = _load(config)
    saved = group.broadcast(FOLDERS.saved_settings(config.out) if config.resume and group.main else None)
    if saved is not None:
        refuse_differences(config, saved, FREE, ", ".join(FREE))
    corpus = open_shared_corpus(config.corpus, (config.size, config.corpus_seed), group, reporter)
    data = {**fingerprint(corpus, model.vocabulary, store), "base model": model.lineage.get(WEIGHTS_HASH)}
    identity: JsonObject = {"config": to_json(config), "data": data}
    checkpoint = read_shared_checkpoint(config.out, identity, group) if config.resume else None
    model.to(group.device)
    place = Place(config.out, group, reporter, found, config.checkpoint_seconds, identity)
    work = FineTuning(config, _setting(config, corpus, store, model), model, place)
    _begin_folder(config, group)
    _perform(work, config, checkpoint)
    report = _report(work, config, time.perf_counter() - begun)
    if group.main:
        FOLDERS.finish(report.out, report.to_json())
        remove_checkpoint(report.out)
    return report


def _load(config: FinetuneConfig) -> tuple[Captioner, FeatureStore | None]:
    """Load the base model and open its features."""
    assert config.model is not None
    model = load_model(base_folder(config.model))
    store = None if config.features is None else FeatureStore.open(config.features)
    check_features(model, store, config)
    set_dropout(model, config.dropout)
    if model.encoder is not None:
        model.encoder.to(memory_format=torch.channels_last)  # faster convolutions on CPUs
    return model, store


def _perform(work: FineTuning, config: FinetuneConfig, checkpoint: State | None) -> None:
    try:
        work.perform(checkpoint)
    except DivergedError as error:
        best = work.run.best
        kept = (
            f"The model after {work.rounds.updates_after(best.epoch)} updates is kept in '{config.out}'"
            if best.epoch
            else f"There was no validation yet, so that '{config.out}' has no model"
        )
        raise DivergedError(
            f"Fine-tuning by {config.objective} failed. {error} {kept}; the last good checkpoint is beside it, and the base model "
            f"'{config.model}' is as it was."
        ) from error


def _report(work: FineTuning, config: FinetuneConfig, seconds: float) -> FinetuneReport:
    assert config.out is not None and config.model is not None
    best, log = work.run.best, work.run.log
    training = sum(float(record.get("seconds") or 0) for record in (() if log is None else log.records))
    return FinetuneReport(
        out=config.out,
        base=config.model,
        objective=config.objective,
        command=config.command(),
        updates=work.rounds.updates_after(best.epoch),
        before=work.before,
        validation=best.figures,
        figures=work.figures,
        seconds=seconds,
        training_seconds=training,
    )


def _finished_report(config: FinetuneConfig) -> FinetuneReport | None:
    """Return the report of a run that is to be resumed and has nothing left to do."""
    assert config.out is not None
    if not config.resume or FOLDERS.is_unfinished(config.out):
        return None
    record = FOLDERS.record(config.out)
    assert record is not None
    report = record["report"]
    return FinetuneReport(**{**report, "out": config.out, "base": Path(report["base"])})


def _begin_folder(config: FinetuneConfig, group: Processes) -> None:
    """Note the settings before the first work, once everything has been found usable."""
    assert config.out is not None
    if group.main:
        remove_leftovers(config.out)
        if not config.resume:
            remove_checkpoint(config.out)
        settings = replace(config, resume=False, force=False)
        write_record(config.out, "finetune", settings, device=str(group.device), processes=group.world, finished=False)
    group.barrier()


def _setting(config: FinetuneConfig, corpus: Corpus, store: FeatureStore | None, model: Captioner) -> Setting:
    """Describe to the sources of training where pictures come from."""
    reading = TrainConfig(corpus=config.corpus, features=config.features, memory=config.memory, workers=config.workers)
    return Setting(reading, PAPER, corpus, store, eye_of(model))

"""The stages of training: the encoder, the decoder, both together, and the reward; then the best epoch is measured once."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from capxai.config import to_json
from capxai.data.feature_store import FeatureStore
from capxai.recipes.device import choose_device
from capxai.recipes.interruption import CheckingReporter, Interruption, interruption
from capxai.recipes.record import write_record
from capxai.recipes.run_folder import remove_leftovers
from capxai.recipes.run_frame import open_shared_corpus, read_shared_checkpoint, torch_state
from capxai.recipes.train import TrainConfig, TrainReport
from capxai.recipes.training_choices import Choices
from capxai.recipes.training_data import fingerprint, read_vocabulary
from capxai.recipes.training_model import build_model, choose_eye, fill_encoder
from capxai.recipes.training_resume import (
    FOLDERS,
    choose_folder,
    is_unfinished,
    read_record,
    refuse_other_settings,
    resume_command,
    saved_settings,
)
from capxai.recipes.training_run import Place
from capxai.recipes.training_sources import Setting
from capxai.recipes.training_stages import Stages
from capxai.train.checkpoint import remove_checkpoint
from capxai.train.processes import Processes, processes
from capxai.types import Reporter


def train(config: TrainConfig, reporter: Reporter) -> TrainReport:
    """Run all stages; see `capxai.recipes.train.run`."""
    with processes(choose_device(config.device)) as group, interruption() as found:
        reporter = group.reporter(reporter)
        folder = group.broadcast(choose_folder(config) if group.main else Path())
        config = replace(config, out=folder)
        finished = group.broadcast(_finished_report(config) if group.main else None)
        if finished is not None:
            reporter.note(f"The run in {folder} is finished already; there is nothing to go on with.")
            return finished
        checked = reporter if group.world > 1 else CheckingReporter(reporter, found)
        try:
            with torch_state(config.seed, config.threads, group.device):
                return _train(config, group, found, checked)
        except KeyboardInterrupt:
            reporter.warn(f"Training was stopped, and nothing is lost. Go on with: {resume_command(folder)}")
            raise


def _train(config: TrainConfig, group: Processes, found: Interruption, reporter: Reporter) -> TrainReport:
    begun = time.perf_counter()
    assert config.out is not None
    saved = group.broadcast(saved_settings(config.out) if config.resume and group.main else None)
    if saved is None:
        _begin_folder(config, group)
    corpus = open_shared_corpus(config.corpus, (config.size, config.corpus_seed), group, reporter)
    store = None if config.features is None else FeatureStore.open(config.features)
    choices = config.choices(corpus.name, store is not None and store.description.kind == "region")
    vocabulary = read_vocabulary(corpus, config.minimum_count, reporter)
    eye = choose_eye(config, store, reporter)
    identity = {"config": to_json(config), "data": fingerprint(corpus, vocabulary, store)}
    if saved is not None:
        refuse_other_settings(config, saved, choices.schedule)
        _begin_folder(config, group)
    checkpoint = read_shared_checkpoint(config.out, identity, group) if config.resume else None
    model = build_model(config, choices, eye, vocabulary)
    fill_encoder(model, config, store, reporter)
    model.to(group.device)
    _announce(config, choices, group, reporter)
    place = Place(config.out, group, reporter, found, config.checkpoint_seconds, identity)
    stages = Stages(Setting(config, choices, corpus, store, eye), model, place, checkpoint)
    figures, best = stages.perform(), stages.run.best
    seconds = time.perf_counter() - begun
    report = TrainReport(config.out, config.command(), best.epoch, best.figures, figures, seconds)
    if group.main:
        _finish_folder(report)
    return report


def _finished_report(config: TrainConfig) -> TrainReport | None:
    """Return the report of a run that is to be resumed and has nothing left to do."""
    if not config.resume or config.out is None or is_unfinished(config.out):
        return None
    record = read_record(config.out)
    assert record is not None
    report = record["report"]
    return TrainReport(**{**report, "out": config.out})


def _begin_folder(config: TrainConfig, group: Processes) -> None:
    """Note the settings first of all, so that a run can be resumed however early it ends."""
    assert config.out is not None
    if group.main:
        remove_leftovers(config.out)
        if not config.resume:
            remove_checkpoint(config.out)
        settings = replace(config, resume=False, force=False)
        write_record(config.out, "train", settings, device=str(group.device), processes=group.world, finished=False)
    group.barrier()


def _finish_folder(report: TrainReport) -> None:
    FOLDERS.finish(report.out, report.to_json())
    remove_checkpoint(report.out)


def _announce(config: TrainConfig, choices: Choices, group: Processes, reporter: Reporter) -> None:
    shared = f" in {group.world} processes" if group.world > 1 else ""
    reporter.note(
        f"Training {config.decoder} (H {choices.hidden_size}, E {choices.embedding_size}) with {config.features or config.encoder} on "
        f"{group.device}{shared}; learning rate: {choices.schedule}; best epoch by {choices.monitor}. The model goes to {config.out}."
    )

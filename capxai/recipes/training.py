"""The stages of training: the encoder, the decoder, both together, and the reward; then the best epoch is measured once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from capxai.config import to_json
from capxai.data.feature_store import FeatureStore
from capxai.errors import CapxaiError, ConfigError, CorpusError, DependencyError, ModelError, VocabularyError
from capxai.files import write_atomically
from capxai.recipes.device import choose_device
from capxai.recipes.interruption import CheckingReporter, Interruption, interruption
from capxai.recipes.record import RECORD_FILE, write_record
from capxai.recipes.run_folder import remove_leftovers
from capxai.recipes.run_frame import open_shared_corpus, read_shared_checkpoint, torch_state
from capxai.recipes.train import TrainConfig, TrainReport
from capxai.recipes.training_choices import Choices
from capxai.recipes.training_data import fingerprint, read_vocabulary
from capxai.recipes.training_log import LOG_FILE, TABLE_FILE
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
from capxai.train.checkpoint import CHECKPOINT_FILE, remove_checkpoint
from capxai.train.optimization import DivergedError
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
            with torch_state(config.seed, config.threads, group.device), _withdrawn_if_unusable(config, group):
                return _train(config, group, found, checked)
        except KeyboardInterrupt:
            if group.main:
                reporter.warn(f"Training was stopped, and nothing is lost. Go on with: {resume_command(folder)}")
            raise
        except CapxaiError as error:
            if group.main and (folder / CHECKPOINT_FILE).exists() and not isinstance(error, DivergedError):
                reporter.warn(
                    f"The last checkpoint is whole. Once the cause is mended, go on with: {resume_command(folder)}"
                )
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


@contextmanager
def _withdrawn_if_unusable(config: TrainConfig, group: Processes) -> Iterator[None]:
    """Leave no run behind where settings or data turn out to be unusable before anything was learned.

    It could never be resumed, and would be the newest one that waits for it.
    """
    assert config.out is not None
    record, here = config.out / RECORD_FILE, config.out.exists()
    before = record.read_bytes() if group.main and record.is_file() else None
    try:
        yield
    except (ConfigError, CorpusError, VocabularyError, ModelError, DependencyError):
        if group.main and not config.resume and not (config.out / CHECKPOINT_FILE).exists():
            _withdraw(config.out, before, here)
        raise


def _withdraw(folder: Path, record: bytes | None, was_there: bool) -> None:
    """Take back what the begin of a run wrote; ``record`` is that of an older run, or None."""
    if record is not None:
        write_atomically(folder / RECORD_FILE, record)
        return
    for name in (RECORD_FILE, LOG_FILE, TABLE_FILE):
        (folder / name).unlink(missing_ok=True)
    if not was_there:
        with suppress(OSError):  # it is not empty, or another process is in it
            folder.rmdir()


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

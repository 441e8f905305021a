"""A run: stages of training in a folder, with checkpoints, a log and the best model so far; it can end at any moment and go on later."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capxai.models.captioner import Captioner
from capxai.models.folder import load_model, save_model
from capxai.recipes.interruption import Interruption
from capxai.recipes.training_log import TrainingLog
from capxai.recipes.training_validation import Figures
from capxai.train.checkpoint import State, write_checkpoint
from capxai.train.loop import Loop, Progress
from capxai.train.processes import Processes
from capxai.types import JsonObject, Reporter, Show, TrainingStatus


@dataclass
class Best:
    """The best epoch so far.

    Attributes:
        score: See `capxai.recipes.training_validation.Figures.score`.
        epoch: Its number among all epochs of captions, from 1; 0 where there is none yet.
        figures: What its validation found.
        waited: Epochs since then, in the running stage.
    """

    score: tuple[float, float] = (float("-inf"), float("-inf"))
    epoch: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    waited: int = 0

    def state(self) -> State:
        """Return the fields for a checkpoint."""
        return {**vars(self), "score": list(self.score)}

    @classmethod
    def of_state(cls, state: State) -> Best:
        """Return what `state` described."""
        return cls(**{**state, "score": (state["score"][0], state["score"][1])})


@dataclass(frozen=True)
class Place:
    """Where a run keeps what it makes, and with whom it works.

    Attributes:
        folder: The folder.
        group: The processes that work together.
        reporter: Where progress is shown.
        interruption: Whether somebody wants it to end.
        checkpoint_seconds: Time between two checkpoints.
        identity: What a checkpoint notes about the run: settings and data.
    """

    folder: Path
    group: Processes
    reporter: Reporter
    interruption: Interruption
    checkpoint_seconds: float
    identity: JsonObject


@dataclass(frozen=True)
class Stage:
    """A stage of training.

    Attributes:
        name: "encoder", "decoder", "joint" or "self-critical", or what another recipe calls its own.
        make: Makes its loop; the weights are those that the stage before has left.
        validate: Looks at the model after an epoch; None where the stage writes no captions.
        monitor: The figure by which epochs are compared.
        patience: Epochs without a better one that end the stage; None for no end.
        words: Whether what the loss is summed over are words, whose number a second is worth showing.
        more: More for the log of an epoch.
        doing: What is done in it, for the display; None for "Training the" and its name.
    """

    name: str
    make: Callable[[], Loop]
    validate: Callable[[], Figures] | None = None
    monitor: str = "cider"
    patience: int | None = None
    words: bool = True
    more: Callable[[], JsonObject] = dict
    doing: str | None = None

    @property
    def title(self) -> str:
        """What is done in it."""
        return self.doing or f"Training the {self.name}"


class Run:
    """What the stages of a run share.

    Attributes:
        best: The best epoch so far.
        log: The log; None in processes that do not write.
    """

    def __init__(
        self, model: Captioner, place: Place, checkpoint: State | None, lineage: Callable[[Best], JsonObject]
    ) -> None:
        """Begin a run, or go on with one.

        Args:
            model: The captioner that is trained.
            place: Where, and with whom.
            checkpoint: From where to go on; None begins.
            lineage: Describes the model of an epoch for its folder.
        """
        self._model, self._place, self._checkpoint, self._lineage = model, place, checkpoint, lineage
        self.best = Best() if checkpoint is None else Best.of_state(checkpoint["best"])
        lines = None if checkpoint is None else int(checkpoint["log_lines"])
        self.log = TrainingLog(place.folder, lines) if place.group.main else None
        self._captioned = 0 if checkpoint is None else int(checkpoint["captioned_epochs"])
        self._stage = "" if checkpoint is None else str(checkpoint["stage"])
        self._saved_at = time.monotonic()
        self._last = Figures({})
        self._seconds_of_validation = 0.0

    def perform(self, stage: Stage) -> None:
        """Train a stage to its end, or skip it where a resumed run has left it behind.

        Raises:
            KeyboardInterrupt: Somebody wanted the run to end; a checkpoint was written.
        """
        resumed = self._checkpoint
        if resumed is not None and resumed["stage"] != stage.name:
            return
        if resumed is not None and stage.validate is not None:
            self._model.load_state_dict(resumed["loop"]["network"])  # before features are made with its encoder
        loop = stage.make()
        self._stage = stage.name
        if resumed is not None:
            loop.restore(resumed["loop"])
            self._checkpoint = None
        else:
            self.best.waited = 0
            self.save(loop)
        try:
            with self._dashboard(stage.title) as show:
                self._train(stage, loop, show)
        except KeyboardInterrupt:
            if not self._place.interruption.hurried:
                self.save(loop)
            raise
        if stage.validate is not None:
            self.load_best()

    def _dashboard(self, title: str) -> AbstractContextManager[Show]:
        return self._place.reporter.dashboard(f"{title} in {self._place.folder}")

    def _train(self, stage: Stage, loop: Loop, show: Show) -> None:
        if self._is_out_of_patience(stage):
            return
        total = loop.settings.epochs
        with self._place.reporter.track(stage.title, total) as advance:
            advance(loop.epoch - 1)
            for progress in loop.run():
                self._show(stage, loop, progress, show)
                if progress.over:
                    self._finish_epoch(stage, loop, progress)
                    self._show(stage, loop, progress, show)
                    advance(1)
                self._look_around(stage, loop, progress)
                if progress.over and self._is_out_of_patience(stage):
                    return

    def _is_out_of_patience(self, stage: Stage) -> bool:
        return stage.patience is not None and self.best.waited >= stage.patience

    def _look_around(self, stage: Stage, loop: Loop, progress: Progress) -> None:
        """Stop if that is wanted, in all processes after the same step; write a checkpoint where one is due."""
        wanted = self._place.interruption.wanted
        if loop.stopping or (loop.group.world == 1 and wanted):
            raise KeyboardInterrupt
        loop.stop_wanted = wanted
        if progress.over or time.monotonic() - self._saved_at >= self._place.checkpoint_seconds:
            self.save(loop)

    def _finish_epoch(self, stage: Stage, loop: Loop, progress: Progress) -> None:
        """Validate, keep the model where it is the best so far, and write the log."""
        record: JsonObject = {"stage": stage.name, "epoch": progress.epoch, "loss": progress.loss}
        record |= {"learning_rate": progress.learning_rate, **_speed(stage, progress), **stage.more()}
        if stage.validate is None:
            self._write(record)
            loop.next_epoch()
            return
        begun = time.monotonic()
        self._last = found = stage.validate()
        self._seconds_of_validation = time.monotonic() - begun
        shown = ", ".join(f"{name} {value:g}" for name, value in found.values.items())
        self._place.reporter.note(f"{stage.name} epoch {progress.epoch}: {shown}")
        self._write({**record, "validation": found.values})
        score = found.score(stage.monitor)
        loop.optimization.report(score[0])
        self._captioned += 1
        self.best.waited += 1
        if score > self.best.score:
            self.best = Best(score, self._captioned, dict(found.values))
            self.save_model()
        loop.next_epoch()

    def _write(self, record: JsonObject) -> None:
        if self.log is not None:
            self.log.append(record)

    def save(self, loop: Loop) -> None:
        """Write a checkpoint."""
        self._saved_at = time.monotonic()
        if not self._place.group.main:
            return
        assert self.log is not None
        state: dict[str, Any] = {"identity": self._place.identity, "stage": self._stage, "loop": loop.state()}
        state |= {"best": self.best.state(), "captioned_epochs": self._captioned, "log_lines": self.log.lines}
        write_checkpoint(self._place.folder, state)

    def save_model(self) -> None:
        """Write the model folder: the model as it is."""
        if self._place.group.main:
            self._model.lineage = dict(self._lineage(self.best))
            save_model(self._model, self._place.folder, force=True)

    def load_best(self) -> None:
        """Take the weights of the best epoch back."""
        weights: Mapping[str, Any] | None = None
        if self._place.group.main:
            weights = load_model(self._place.folder).state_dict()
        found = self._place.group.broadcast(weights)
        assert found is not None
        self._model.load_state_dict(found)

    def _show(self, stage: Stage, loop: Loop, progress: Progress, show: Show) -> None:
        speed = _speed(stage, progress)
        show(
            TrainingStatus(
                stage=stage.name,
                epoch=progress.epoch,
                epochs=loop.settings.epochs,
                step=progress.step,
                steps=progress.steps,
                loss=progress.loss,
                learning_rate=progress.learning_rate,
                tokens_per_second=speed.get("tokens_per_second"),
                waiting_share=speed.get("waiting_share", 0.0),
                eta_seconds=self._time_left(loop, progress),
                validation=self._last.values,
                samples=self._last.samples,
            )
        )

    def _time_left(self, loop: Loop, progress: Progress) -> float | None:
        """Guess the seconds to the end of the stage from the steps of this process in this epoch."""
        if not progress.taken:
            return None
        epochs_left = loop.settings.epochs - progress.epoch
        steps_left = epochs_left * progress.steps + progress.steps - progress.step
        return steps_left * progress.seconds / progress.taken + (epochs_left + 1) * self._seconds_of_validation


def _speed(stage: Stage, progress: Progress) -> dict[str, float]:
    """Return what the log and the display say about time."""
    if progress.seconds <= 0:
        return {}
    found = {"seconds": round(progress.seconds, 2), "waiting_share": round(progress.waited / progress.seconds, 4)}
    if stage.words:
        found["tokens_per_second"] = round(progress.number / progress.seconds, 1)
    return found

"""One fine-tuning: its objective, its rounds of updates, a validation after each, and the figures of the model at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from capxai.config import run_record
from capxai.evaluate.lexicon import coco_lexicon
from capxai.evaluate.lexicon_file import read_lexicon
from capxai.finetune.counterfactual import Counterfactual
from capxai.models.captioner import Captioner
from capxai.models.decoding import DecodingOptions
from capxai.models.folder import WEIGHTS_HASH
from capxai.recipes.finetune import FinetuneConfig
from capxai.recipes.finetune_base import check_captions
from capxai.recipes.finetune_objectives import OBJECTIVES, Materials, make_objective
from capxai.recipes.finetune_task import FinetuneTask, Rounds
from capxai.recipes.training_data import TRAIN, VALIDATION, Examples
from capxai.recipes.training_run import Best, Place, Run, Stage
from capxai.recipes.training_sources import EVALUATION_BATCH, Setting, Sources
from capxai.recipes.training_stages import mean_rewards
from capxai.recipes.training_validation import Figures, Validation, caption_figures
from capxai.train.checkpoint import State
from capxai.train.examples import batches_of
from capxai.train.loop import Loop, LoopSettings
from capxai.train.optimization import DivergedError, Numerics, Optimization
from capxai.train.schedule import make_schedule
from capxai.train.self_critical import SelfCritical
from capxai.train.sources import Source
from capxai.train.writing import Examiner
from capxai.types import JsonObject

INHERITED = ("domain", "domain_note", "features")
"""What the base model's lineage says about every model that is made of it."""
_CORPUS_KEYS = ("name", "seed", "size", "p_bias", "p_haze")


@dataclass(frozen=True)
class RoundFigures(Figures):
    """What the validation after a round found.

    Attributes:
        updates: Updates so far.
        latest: Whether a later round is better than an earlier one, whatever the figures say.
    """

    updates: int = 0
    latest: bool = True

    def score(self, monitor: str) -> tuple[float, float]:
        """Return what rounds are compared by, more being better."""
        return (float(self.updates), 0.0) if self.latest else super().score(monitor)


class FineTuning:
    """A fine-tuning and what it works with.

    Attributes:
        run: The run in its folder.
        rounds: Its updates.
        before: Figures of the base model on the validation split.
        figures: Figures of the model that was kept, by split.
    """

    run: Run

    def __init__(self, config: FinetuneConfig, setting: Setting, model: Captioner, place: Place) -> None:
        """Read the splits, make the objective, and refuse what cannot be used before anything is written.

        Raises:
            CorpusError: The corpus cannot be used, or lacks what the objective needs.
            ConfigError: Rounds cannot be compared by the figure that the settings name.
        """
        self._config, self._setting, self._model, self._place = config, setting, model, place
        self._choices = config.choices(setting.corpus.name, OBJECTIVES[config.objective].rewards)
        self._numerics = Numerics(place.group.device, config.precision)
        self._sources = Sources(setting, model, self._numerics, place.reporter)
        self._train = self._sources.examples(TRAIN)
        check_captions(model, self._train, place.reporter)
        lexicon = coco_lexicon() if config.lexicon is None else read_lexicon(config.lexicon)
        self._validation = Validation(self._validation_examples(), config.validation_pictures, lexicon)
        if config.keep == "best":
            self._validation.refuse_monitor(config.monitor)
        materials = Materials(config, model, self._train, setting.store, lexicon, place.reporter)
        self._objective = make_objective(materials)
        self.rounds = self._plan_rounds()
        self.before: dict[str, float] = {}
        self.figures: dict[str, dict[str, float]] = {}
        self._begun_with = dict(model.lineage)

    def _validation_examples(self) -> Examples:
        if VALIDATION in self._setting.corpus.splits:
            return self._sources.examples(VALIDATION)
        self._place.reporter.warn(
            f"The corpus has no split '{VALIDATION}': the model is validated on the training pictures, whose captions are being learned."
        )
        return self._train

    def _plan_rounds(self) -> Rounds:
        epoch = batches_of(len(self._train), self._choices.batch_size)
        updates = self._choices.updates or (self._choices.epochs or 1) * epoch
        return Rounds(updates, min(updates, self._config.validate_every or epoch))

    def perform(self, checkpoint: State | None) -> None:
        """Validate the base model, fine-tune it, and measure what was kept; or go on from a checkpoint.

        Raises:
            DivergedError: The loss is not finite.
        """
        place, config = self._place, self._config
        shared = f" in {place.group.world} processes" if place.group.world > 1 else ""
        place.reporter.note(
            f"Fine-tuning by {config.objective} on {place.group.device}{shared}: {self.rounds.updates} updates. The model goes to "
            f"{place.folder}."
        )
        self.run = Run(self._model, place, checkpoint, self._lineage)
        source = self._sources.learning(TRAIN) if config.train_encoder else self._sources.frozen(TRAIN)
        self._note_before(fresh=checkpoint is None)
        self.run.perform(self._stage(source))
        if self.run.log is not None:
            self.run.log.close()
        self._measure()

    def _stage(self, source: Source) -> Stage:
        loops: list[Loop] = []

        def make() -> Loop:
            loops.append(self._make_loop(source))
            return loops[0]

        def updates() -> int:
            return self.rounds.updates_after(loops[0].epoch)

        name = self._config.objective
        return Stage(
            name,
            make,
            lambda: self._validate(updates()),
            self._config.monitor,
            more=lambda: self._more(updates()),
            doing=f"Fine-tuning by {name}",
        )

    def _more(self, updates: int) -> JsonObject:
        """Return what the log says beside loss and figures: the updates so far and, where there is one, the reward."""
        objective = self._objective.as_it_is if isinstance(self._objective, Counterfactual) else self._objective
        rewards = mean_rewards(objective, self._place.group) if isinstance(objective, SelfCritical) else {}
        return {"updates": updates, **rewards}

    def _note_before(self, fresh: bool) -> None:
        """Validate the base model, once in a run, and write that down as its first line."""
        log = self.run.log
        if not fresh:
            self.before = dict(log.records[0]["validation"]) if log is not None and log.lines else {}
            return
        self.before = self._validate(0).values
        if log is not None:
            log.append({"stage": self._config.objective, "epoch": 0, "updates": 0, "validation": self.before})

    def _make_loop(self, source: Source) -> Loop:
        config, choices, model = self._config, self._choices, self._model
        sizes = (choices.batch_size, self.rounds)
        task = FinetuneTask(model, source, self._train.references, self._objective, sizes)
        groups: list[tuple[Sequence[nn.Parameter], float]] = [(list(model.decoder.parameters()), choices.learning_rate)]
        if model.encoder is not None:
            model.encoder.requires_grad_(config.train_encoder)
            if config.train_encoder:
                groups.append((list(model.encoder.parameters()), config.encoder_learning_rate))
        schedule = make_schedule(choices.schedule, self.rounds.updates)
        optimization = Optimization(groups, schedule, self._numerics)
        settings = LoopSettings(self.rounds.count, config.seed, self._numerics, config.accumulation)
        loop = Loop(task, optimization, settings, self._place.group)
        task.running = lambda: loop.epoch
        return loop

    def _examiner(self, name: str) -> Examiner:
        source = self._sources.current(name)
        return Examiner(self._model, source, self._numerics, self._place.group, EVALUATION_BATCH)

    def _validate(self, updates: int) -> RoundFigures:
        found = self._validation.measure(self._examiner(self._validation.examples.split.name), self._place.reporter)
        if not math.isfinite(found.values["loss"]):
            raise DivergedError(
                f"The validation loss after {updates} updates is {found.values['loss']}. Expected a finite number. Lower the learning rate."
            )
        return RoundFigures(found.values, found.samples, updates, self._config.keep == "last")

    def _measure(self) -> None:
        """Measure the model that was kept on the splits asked for, with the default beam, and save it with these figures."""
        for name in self._config.figure_splits:
            if name not in self._setting.corpus.splits:
                continue
            split = self._sources.examples(name).split
            with self._place.reporter.track(f"Captioning {name} pictures", len(split)) as advance:
                captions = self._examiner(name).captions(len(split), DecodingOptions(), advance)
            self.figures[name] = caption_figures(captions, split, self._validation.lexicon)
        if self._model.encoder is not None:
            self._model.encoder.requires_grad_(True)
        self.run.save_model()

    def _lineage(self, best: Best) -> JsonObject:
        base, corpus, record = self._begun_with, self._setting.corpus, run_record(self._config)
        found: JsonObject = {
            "command": self._config.command(),
            "objective": self._config.objective,
            "base": {"model": str(self._config.model), WEIGHTS_HASH: base.get(WEIGHTS_HASH), "lineage": base},
            "config": record["config"],
            "choices": asdict(self._choices),
            "versions": record["versions"],
            "threads": torch.get_num_threads(),
            "processes": self._place.group.world,
            "corpus": {key: corpus.manifest[key] for key in _CORPUS_KEYS if key in corpus.manifest},
            "epoch": best.epoch,
            "updates": self.rounds.updates_after(best.epoch),
            "validation": best.figures,
            "figures": self.figures,
        }
        return found | {key: base[key] for key in INHERITED if key in base}

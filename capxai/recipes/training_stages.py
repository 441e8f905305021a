"""What each stage of training learns, from which pictures, by which objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from torch import nn

from capxai.config import run_record
from capxai.evaluate.lexicon import coco_lexicon
from capxai.models.captioner import Captioner
from capxai.models.decoding import DecodingOptions
from capxai.recipes.caption_reward import CaptionReward
from capxai.recipes.corpus_arrays import read_coverage
from capxai.recipes.training_choices import SCENES
from capxai.recipes.training_data import TRAIN, VALIDATION, Examples, reference_ids
from capxai.recipes.training_model import refuse_without_objects
from capxai.recipes.training_run import Best, Place, Run, Stage
from capxai.recipes.training_sources import EVALUATION_BATCH, Setting, Sources
from capxai.recipes.training_validation import Figures, Validation, caption_figures
from capxai.train.captions import CaptionTask, ObjectiveOfEpoch
from capxai.train.checkpoint import State
from capxai.train.cross_entropy import CrossEntropy
from capxai.train.examples import batches_of
from capxai.train.localization import CellExamples, CellTask
from capxai.train.loop import Loop, LoopSettings
from capxai.train.optimization import Numerics, Optimization
from capxai.train.processes import Processes
from capxai.train.schedule import Cosine, Schedule, make_schedule
from capxai.train.self_critical import SelfCritical
from capxai.train.sources import PictureSource, Source
from capxai.train.writing import Examiner
from capxai.types import JsonObject

_CORPUS_KEYS = ("name", "seed", "size", "p_bias", "p_haze")
DOMAIN_NOTE = (
    "This model was trained on the synthetic pictures of the built-in corpus 'scenes' alone: flat drawings of 17 kinds of objects. "
    "What it says about a photograph means nothing; for photographs import a published checkpoint (capxai import-checkpoint) and "
    "pass its folder with --model."
)


class Stages:
    """The stages of one training and what they share."""

    def __init__(self, setting: Setting, model: Captioner, place: Place, checkpoint: State | None) -> None:
        """Read the splits, and go on from a checkpoint where there is one."""
        self._setting, self._model, self._place = setting, model, place
        self._config, self._choices = setting.config, setting.choices
        self._numerics = Numerics(place.group.device, setting.config.precision)
        self._figures: dict[str, dict[str, float]] = {}
        self._sources = Sources(setting, model, self._numerics, place.reporter)
        self._validation = Validation(self._validation_examples(), self._config.validation_pictures, coco_lexicon())
        self._validation.refuse_monitor(self._choices.monitor)
        self._sources.refuse_impossible(TRAIN, self._validation.examples.split.name)
        self._measured = self._measured_splits()
        self.run = Run(model, place, checkpoint, self._lineage)

    def _validation_examples(self) -> Examples:
        if VALIDATION in self._setting.corpus.splits:
            return self._sources.examples(VALIDATION)
        self._place.reporter.warn(
            f"The corpus has no split '{VALIDATION}': epochs are compared on the training pictures, whose captions are being learned."
        )
        return self._sources.examples(TRAIN)

    def _measured_splits(self) -> list[str]:
        """Return the splits on which the finished model can be measured, and say on which it cannot."""
        present = [name for name in self._config.figure_splits if name in self._setting.corpus.splits]
        measured = [name for name in present if self._sources.has_features(name)]
        if without := [name for name in present if name not in measured]:
            self._place.reporter.note(
                f"'{self._config.features}' has no features of the split {', '.join(without)}: the finished model is not measured there."
            )
        return measured

    def perform(self) -> dict[str, dict[str, float]]:
        """Train all stages and measure the best model; return its figures by split."""
        config = self._config
        if self._setting.eye.trained_here:
            self.run.perform(Stage("encoder", self._encoder_loop, words=False))
        if self._choices.decoder_epochs:
            self._perform_captions("decoder", self._decoder_loop)
        if config.joint_epochs:
            self._perform_captions("joint", self._joint_loop)
        if config.self_critical_epochs:
            objective = SelfCritical(self._reward())
            self._perform_captions(
                "self-critical",
                lambda: self._reward_loop(objective),
                lambda: mean_rewards(objective, self._place.group),
            )
        if self.run.log is not None:
            self.run.log.close()
        self._measure()
        return self._figures

    def _perform_captions(self, name: str, make: Callable[[], Loop], more: Callable[[], JsonObject] = dict) -> None:
        validate = self._validate
        monitor, patience = self._choices.monitor, self._config.patience
        self.run.perform(Stage(name, make, validate, monitor, patience, more=more))

    def _encoder_loop(self) -> Loop:
        """Make the loop that teaches the encoder from cell labels; it is the whole batch's in every process."""
        config, encoder, examples = self._config, self._model.encoder, self._sources.examples(TRAIN)
        assert encoder is not None
        refuse_without_objects(examples.split.has_objects, self._setting.corpus.folder)
        categories = sorted(examples.split.categories.values())
        cells = self._model.preprocessing.image_size // encoder.stride
        coverage = read_coverage(examples.split, categories, cells, self._place.reporter)
        pictures = self._sources.pictures(TRAIN)
        torch.manual_seed(config.seed)
        cell_examples = CellExamples(pictures.read, coverage, pictures.workers)
        task = CellTask(encoder, self._model.preprocessing, cell_examples, config.encoder_batch_size)
        task.network.to(self._numerics.device)
        steps = config.encoder_epochs * -(-len(coverage) // config.encoder_batch_size)
        groups = [(task.network.parameters(), config.encoder_learning_rate)]
        optimization = Optimization(groups, Cosine(steps), self._numerics)
        settings = LoopSettings(config.encoder_epochs, config.seed, self._numerics)
        return Loop(task, optimization, settings, Processes(0, 1, self._numerics.device))

    def _decoder_loop(self) -> Loop:
        """Make the loop of the decoder on features of the encoder as it is."""
        source = self._sources.frozen(TRAIN)
        self._sources.frozen(self._validation.examples.split.name)  # encoded before the clock of the first epoch runs
        return self._caption_loop(source, self._choices.decoder_epochs, self._choices.learning_rate, 0, self._words)

    def _joint_loop(self) -> Loop:
        """Make the loop of decoder and encoder together."""
        config = self._config
        source = self._sources.learning(TRAIN)
        return self._caption_loop(source, config.joint_epochs, config.joint_learning_rate, 1, self._words)

    def _reward_loop(self, objective: SelfCritical) -> Loop:
        """Make the loop that maximizes the reward; the encoder stays as it is."""
        config = self._config
        if config.joint_epochs:
            self._sources.forget_features()
        source = self._sources.frozen(TRAIN)
        rate = config.self_critical_learning_rate
        return self._caption_loop(source, config.self_critical_epochs, rate, 2, lambda epoch: objective)

    def _words(self, epoch: int) -> CrossEntropy:
        return CrossEntropy(min(self._config.sampling_most, self._choices.sampling_rise * (epoch - 1)))

    def _reward(self) -> CaptionReward:
        references = self._sources.examples(TRAIN).references
        return CaptionReward(reference_ids(references), self._model.vocabulary.end)

    def _caption_loop(
        self, source: Source, epochs: int, rate: float, seed: int, objective_of: ObjectiveOfEpoch
    ) -> Loop:
        """Make a loop of captions; ``seed`` is added to that of the settings."""
        references, batch_size = self._sources.examples(TRAIN).references, self._choices.batch_size
        task = CaptionTask(self._model, source, references, batch_size, objective_of)
        learns = isinstance(source, PictureSource) and not source.frozen
        groups: list[tuple[Sequence[nn.Parameter], float]] = [(list(self._model.decoder.parameters()), rate)]
        if self._model.encoder is not None:
            self._model.encoder.requires_grad_(learns)
            if learns:
                groups.append((list(self._model.encoder.parameters()), self._config.joint_encoder_learning_rate))
        optimization = Optimization(groups, self._schedule(epochs, len(references)), self._numerics)
        settings = LoopSettings(epochs, self._config.seed + seed, self._numerics, self._config.accumulation)
        return Loop(task, optimization, settings, self._place.group)

    def _schedule(self, epochs: int, pictures: int) -> Schedule:
        return make_schedule(self._choices.schedule, epochs * batches_of(pictures, self._choices.batch_size))

    def _examiner(self, name: str) -> Examiner:
        source = self._sources.current(name)
        return Examiner(self._model, source, self._numerics, self._place.group, EVALUATION_BATCH)

    def _validate(self) -> Figures:
        examiner = self._examiner(self._validation.examples.split.name)
        return self._validation.measure(examiner, self._place.reporter)

    def _measure(self) -> None:
        """Measure the finished model on the splits asked for, with the default beam, and save it with these figures."""
        for name in self._measured:
            split = self._sources.examples(name).split
            with self._place.reporter.track(f"Captioning {name} pictures", len(split)) as advance:
                captions = self._examiner(name).captions(len(split), DecodingOptions(), advance)
            self._figures[name] = caption_figures(captions, split, self._validation.lexicon)
        if self._model.encoder is not None:
            self._model.encoder.requires_grad_(True)
        self.run.save_model()

    def _lineage(self, best: Best) -> JsonObject:
        corpus, config = self._setting.corpus, self._config
        record = run_record(config)
        found: JsonObject = {
            "command": config.command(),
            "config": record["config"],
            "choices": asdict(self._choices),
            "versions": record["versions"],
            "threads": torch.get_num_threads(),
            "processes": self._place.group.world,
            "corpus": {key: corpus.manifest[key] for key in _CORPUS_KEYS if key in corpus.manifest},
            "epoch": best.epoch,
            "validation": best.figures,
            "figures": self._figures,
        }
        if self._setting.store is not None:
            found["features"] = self._setting.store.description.to_json()
        if corpus.name == SCENES:
            found |= {"domain": "scenes", "domain_note": DOMAIN_NOTE}
        return found


def mean_rewards(objective: SelfCritical, group: Processes) -> JsonObject:
    """Return the mean rewards of the sampled and the greedy captions since the last call, over all processes."""
    found = objective.take_rewards()
    sums = group.sum(torch.tensor([found.sampled, found.greedy, found.captions], dtype=torch.float64)).tolist()
    return {"reward": sums[0] / max(1.0, sums[2]), "greedy_reward": sums[1] / max(1.0, sums[2])}

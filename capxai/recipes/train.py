"""Trains a captioner: the encoder from cell labels, the decoder from captions, then, if asked for, both together, then by reward."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from capxai.errors import ConfigError
from capxai.recipes.training_choices import Choices, choose
from capxai.types import SILENT, JsonObject, Reporter

OUTPUTS = ("out", "resume", "force", "workers", "checkpoint_seconds", "device")
"""Settings that say where and how often something is done, and change no result."""
LEAST = {
    "size": 1,
    "corpus_seed": 0,
    "hidden_size": 1,
    "embedding_size": 1,
    "heads": 1,
    "minimum_count": 1,
    "encoder_epochs": 0,
    "encoder_batch_size": 1,
    "decoder_epochs": 0,
    "batch_size": 1,
    "joint_epochs": 0,
    "self_critical_epochs": 0,
    "accumulation": 1,
    "patience": 1,
    "sampling_rise": 0,
    "sampling_most": 0,
    "dropout": 0,
    "validation_pictures": 1,
    "memory": 0,
    "workers": 0,
    "checkpoint_seconds": 0,
    "threads": 1,
    "seed": 0,
}
ABOVE_ZERO = (
    "encoder_learning_rate",
    "learning_rate",
    "joint_learning_rate",
    "joint_encoder_learning_rate",
    "self_critical_learning_rate",
)
EPOCHS = ("encoder_epochs", "decoder_epochs", "joint_epochs", "self_critical_epochs")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of ``capxai train``. None leaves a choice to `capxai.recipes.training_choices`, which looks at the corpus.

    Attributes:
        corpus: Corpus folder; None renders the built-in corpus ``scenes`` once and keeps it in the cache.
        size: Training pictures of the built-in corpus.
        corpus_seed: Seed of the built-in corpus.
        features: Feature file of the corpus, from ``capxai extract-features``; None computes features from the pictures.
        decoder: Which language model.
        encoder: "compact", which is trained here, or one of torchvision's with its ImageNet weights; features bring their own.
        encoder_weights: File with the encoder's weights, or "random"; None trains "compact" here and lets torchvision find the others'.
        hidden_size: H.
        embedding_size: E.
        heads: N of ``mh-fc``.
        minimum_count: Words that occur less often in the training captions become ``<unk>``; a corpus with a vocabulary brings its own.
        encoder_epochs: Epochs of the compact encoder on cell labels.
        encoder_batch_size: Pictures a step of these.
        encoder_learning_rate: Highest learning rate of these; it falls by a cosine.
        decoder_epochs: Epochs of the decoder on features of the finished encoder.
        batch_size: Captions a step, over all processes.
        learning_rate: Highest learning rate of the decoder.
        schedule: "cosine" (up, then down to 0), or "plateau" (times 0.8 after two epochs without a better validation).
        sampling_rise: By how much the probability of scheduled sampling rises with each epoch.
        sampling_most: The highest probability of scheduled sampling.
        dropout: Probability of dropping in the decoder; None is its own (0.5 in the word head, mh-fc 0.3 there and 0.1 in its attention).
        joint_epochs: Epochs of decoder and encoder together, afterwards.
        joint_learning_rate: The decoder's highest learning rate then.
        joint_encoder_learning_rate: The encoder's highest learning rate then.
        self_critical_epochs: Epochs that maximize CIDEr-D, at last.
        self_critical_learning_rate: The decoder's highest learning rate then.
        monitor: The figure of the validation that chooses the best epoch and feeds the plateau rule: "macro_f1" (object words;
            wants objects), "cider" or "loss"; where it is equal, the loss decides.
        patience: A stage ends after so many epochs without a better one; None lets it run to its end.
        validation_pictures: At most so many pictures of the validation split are looked at, the first ones.
        figure_splits: Splits on which the finished model is measured once, for its lineage; those that the corpus lacks are skipped.
        accumulation: Parts into which a batch is cut to save memory; the gradient stays that of the whole batch.
        precision: Of the networks in training: "float32", "bfloat16" or "float16"; weights are float32 always.
        device: Where to compute.
        memory: Bytes of pictures or features that may be kept in memory; beyond, pictures are decoded again in every epoch.
        workers: Processes that decode pictures; None takes one for each core but one, 0 a thread.
        checkpoint_seconds: Time between two checkpoints; there is also one after each epoch.
        threads: Threads of torch; None keeps its own choice. Results are the same bit for bit only with the same number.
        seed: Seed of all that is random in training.
        out: Model folder to make; None takes the next free ``runs/<decoder>-<n>``.
        resume: Go on with the unfinished run in ``out``; without ``out``, with the newest one under ``runs``.
        force: Replace a model in ``out``.
    """

    corpus: Path | None = None
    size: int = 5000
    corpus_seed: int = 0
    features: Path | None = None
    decoder: Literal["ada-lstm", "mh-fc", "adaptive"] = "ada-lstm"
    encoder: str = "compact"
    encoder_weights: Path | None = None
    hidden_size: int | None = None
    embedding_size: int | None = None
    heads: int = 8
    minimum_count: int = 4
    encoder_epochs: int = 5
    encoder_batch_size: int = 64
    encoder_learning_rate: float = 2e-3
    decoder_epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    schedule: Literal["cosine", "plateau"] | None = None
    sampling_rise: float | None = None
    sampling_most: float = 0.25
    dropout: float | None = None
    joint_epochs: int = 0
    joint_learning_rate: float = 3e-4
    joint_encoder_learning_rate: float = 1e-4
    self_critical_epochs: int = 0
    self_critical_learning_rate: float = 5e-5
    monitor: Literal["macro_f1", "cider", "loss"] | None = None
    patience: int | None = None
    validation_pictures: int = 1000
    figure_splits: tuple[str, ...] = ("test", "robust")
    accumulation: int = 1
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    memory: int = 2 * 2**30
    workers: int | None = None
    checkpoint_seconds: float = 120.0
    threads: int | None = None
    seed: int = 0
    out: Path | None = None
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used.
        """
        problems = self._number_problems()
        hidden = self.hidden_size
        if self.decoder == "mh-fc" and hidden and self.heads >= 1 and hidden % self.heads:
            problems.append(f"{self.heads} heads do not divide a hidden size of {hidden}. Choose a divisor.")
        if self.resume and self.force:
            problems.append("resume goes on with what is there, and force replaces it. Choose one of them.")
        if problems:
            raise ConfigError("These training settings cannot be used:\n  " + "\n  ".join(problems))

    def _number_problems(self) -> list[str]:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        problems = [
            f"{name} is {values[name]}. Expected {least} or more."
            for name, least in LEAST.items()
            if values[name] is not None and not values[name] >= least
        ]
        problems += [
            f"{name} is {values[name]}. Expected a number above 0."
            for name in ABOVE_ZERO
            if values[name] is not None and not values[name] > 0
        ]
        problems += [
            f"{name} is {values[name]}. Expected a probability, at most 1."
            for name in ("sampling_most", "dropout")
            if values[name] is not None and values[name] > 1
        ]
        if self.decoder_epochs == 0 and self.joint_epochs + self.self_critical_epochs < 1:
            problems.append(
                "decoder_epochs, joint_epochs and self_critical_epochs are all 0. Expected at least one epoch of captions."
            )
        return problems

    def choices(self, corpus: str, regions: bool) -> Choices:
        """Settle what was left open, for a corpus of that name; ``regions`` tells whether features are those of boxes."""
        given = {item.name: getattr(self, item.name) for item in fields(Choices)}
        return choose(corpus, regions, {name: value for name, value in given.items() if value is not None})

    def command(self) -> str:
        """Return the command line that trains the same model: the decoder and every setting that is not the default."""
        words = ["capxai train", f"--decoder {self.decoder}"]
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in (*OUTPUTS, "decoder") or value == item.default:
                continue
            if item.name in ("corpus", "features"):
                words.append(f"--{item.name} {shlex.quote(str(value))}")
            else:
                text = ",".join(value) if isinstance(value, tuple) else str(value)
                words.append(f"--set {shlex.quote(f'{item.name}={text}')}")
        return " ".join(words)


@dataclass(frozen=True)
class TrainReport:
    """What was trained.

    Attributes:
        out: The model folder.
        command: The command line that trains the same model again.
        epoch: Which epoch of captions gave the model that was kept, from 1.
        validation: Its figures on the validation split.
        figures: Its figures on each of the splits asked for.
        seconds: How long everything took, in this process.
    """

    out: Path
    command: str
    epoch: int
    validation: dict[str, float]
    figures: dict[str, dict[str, float]]
    seconds: float

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        return {**asdict(self), "out": str(self.out)}


def run(config: TrainConfig, reporter: Reporter = SILENT) -> TrainReport:
    """Train a captioner and write its model folder, with logs, a curve and the settings beside the model.

    The folder holds ``model.safetensors`` and ``model.json`` (the best epoch so far), ``train.jsonl``, ``train.csv`` and
    ``curve.png``, ``run.json``, and ``checkpoint.pt`` until the run is finished. The same settings and number of threads give the same
    weights on the same kind of processor, bit for bit, however often the run was stopped and resumed. Started by torchrun, every batch
    is shared by all processes.

    Raises:
        ModelError: The folder holds a model already, the encoder has no weights, or a checkpoint cannot be used.
        CorpusError: The corpus or its features cannot be used.
        ConfigError: Settings do not fit together, or a run is resumed with others than it was begun with.
        DivergedError: The loss is not finite; the best model so far, if there is one, is in the folder.
        CapxaiError: The disk is full; the last checkpoint is whole.
        KeyboardInterrupt: The run was interrupted; a checkpoint was written.
    """
    from capxai.recipes.training import train

    return train(config, reporter)

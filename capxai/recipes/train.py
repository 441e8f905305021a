"""Trains a captioner: the encoder from cell labels, then the decoder from captions, then, if asked for, both together."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from capxai.errors import ConfigError
from capxai.types import SILENT, JsonObject, Reporter

OUTPUTS = ("out", "force")
"""Settings that say where results go, and change none."""
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
    "seed": 0,
}
ABOVE_ZERO = ("encoder_learning_rate", "learning_rate", "joint_learning_rate", "joint_encoder_learning_rate")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of ``capxai train``.

    Attributes:
        corpus: Corpus folder; None renders the built-in corpus ``scenes`` once and keeps it in the cache.
        size: Training pictures of the built-in corpus.
        corpus_seed: Seed of the built-in corpus.
        decoder: Which language model.
        encoder: "compact", which is trained here, or one of torchvision's with its ImageNet weights.
        encoder_weights: Local file with the weights of one of torchvision's encoders; None lets torchvision find them.
        hidden_size: H.
        embedding_size: E.
        heads: N of ``mh-fc``.
        minimum_count: Words that occur less often in the training captions become ``<unk>``.
        encoder_epochs: Epochs of the compact encoder on cell labels.
        encoder_batch_size: Pictures a step of these.
        encoder_learning_rate: Highest learning rate of these.
        decoder_epochs: Epochs of the decoder on features of the finished encoder.
        batch_size: Captions a step.
        learning_rate: Highest learning rate of the decoder.
        joint_epochs: Epochs of decoder and encoder together, afterwards.
        joint_learning_rate: The decoder's highest learning rate then.
        joint_encoder_learning_rate: The encoder's highest learning rate then.
        precision: "float32", or "bfloat16" for the encoder's convolutions in training: faster where the processor knows it.
        seed: Seed of all that is random in training.
        figure_splits: Splits on which the finished model is measured once, for its lineage; those that the corpus lacks are skipped.
        threads: Threads of torch; None keeps its own choice. Results are the same bit for bit only with the same number.
        out: Model folder to make; None takes the next free ``runs/<decoder>-<n>``.
        force: Replace a model in ``out``.
    """

    corpus: Path | None = None
    size: int = 5000
    corpus_seed: int = 0
    decoder: Literal["ada-lstm", "mh-fc", "adaptive"] = "ada-lstm"
    encoder: str = "compact"
    encoder_weights: Path | None = None
    hidden_size: int = 128
    embedding_size: int = 128
    heads: int = 8
    minimum_count: int = 4
    encoder_epochs: int = 5
    encoder_batch_size: int = 64
    encoder_learning_rate: float = 2e-3
    decoder_epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 3e-3
    joint_epochs: int = 0
    joint_learning_rate: float = 3e-4
    joint_encoder_learning_rate: float = 1e-4
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    figure_splits: tuple[str, ...] = ("test", "robust")
    threads: int | None = None
    out: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used.
        """
        problems = self._number_problems()
        if self.decoder == "mh-fc" and self.heads >= 1 and self.hidden_size % self.heads:
            problems.append(f"{self.heads} heads do not divide a hidden size of {self.hidden_size}. Choose a divisor.")
        if problems:
            raise ConfigError("These training settings cannot be used:\n  " + "\n  ".join(problems))

    def _number_problems(self) -> list[str]:
        problems = [
            f"{name} is {getattr(self, name)}. Expected {least} or more."
            for name, least in LEAST.items()
            if getattr(self, name) < least
        ]
        problems += [
            f"{name} is {getattr(self, name)}. Expected a number above 0."
            for name in ABOVE_ZERO
            if not getattr(self, name) > 0
        ]
        if self.threads is not None and self.threads < 1:
            problems.append(f"threads is {self.threads}. Expected 1 or more, or none for torch's own choice.")
        if self.decoder_epochs + self.joint_epochs < 1:
            problems.append("decoder_epochs and joint_epochs are both 0. Expected at least one epoch of captions.")
        return problems

    def command(self) -> str:
        """Return the command line that trains the same model: the decoder and every setting that is not the default."""
        words = ["capxai train", f"--decoder {self.decoder}"]
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in (*OUTPUTS, "decoder") or value == item.default:
                continue
            if item.name == "corpus":
                words.append(f"--corpus {value}")
            else:
                words.append(f"--set {item.name}={','.join(value) if isinstance(value, tuple) else value}")
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
        seconds: How long everything took.
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
    """Train a captioner and write its model folder, with the log ``train.jsonl`` and the settings ``run.json`` beside the model.

    The same settings and number of threads give the same weights on the same kind of processor, bit for bit.

    Raises:
        ModelError: The folder holds a model already, or the encoder has no weights.
        CorpusError: The corpus cannot be used.
        DivergedError: The loss is not finite; the best model so far, if there is one, is in the folder.
    """
    from capxai.recipes.training import train

    return train(config, reporter)

"""Fine-tunes a captioner: by LRP inference, by counterfactual pictures, by reward, or by a control of these."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from capxai.errors import ConfigError
from capxai.recipes.finetune_choices import FinetuneChoices, choose
from capxai.types import SILENT, JsonObject, Reporter

OUTPUTS = ("out", "resume", "force", "workers", "checkpoint_seconds", "device")
"""Settings that say where and how often something is done, and change no result."""
LEAST = {
    "size": 1,
    "corpus_seed": 0,
    "updates": 1,
    "epochs": 1,
    "validate_every": 1,
    "batch_size": 1,
    "accumulation": 1,
    "validation_pictures": 1,
    "other_reference": 0,
    "emphasis": 0,
    "memory": 0,
    "workers": 0,
    "checkpoint_seconds": 0,
    "threads": 1,
    "seed": 0,
}
ABOVE_ZERO = ("learning_rate", "encoder_learning_rate", "temperature", "hidden_share")
SHARES = ("plain_share", "penalty", "hidden_share", "dropout")


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of ``capxai finetune``. None leaves a choice to `capxai.recipes.finetune_choices`, which looks at the corpus.

    Attributes:
        model: Model folder to begin with, which is not changed; "bundled" is the bundled model. None takes the newest run under ``runs``,
            else the bundled model.
        objective: What is made small, see `capxai.recipes.finetune_objectives`.
        corpus: Corpus folder; None takes the built-in corpus ``scenes``.
        size: Training pictures of the built-in corpus.
        corpus_seed: Seed of the built-in corpus.
        features: Feature file of the corpus; None computes features from the pictures with the encoder of the model.
        plain_share: lambda of LRP inference in [0, 1]: the weight of the plain cross-entropy.
        target: LRP inference explains the most probable word ("argmax"), or the word of the reference.
        vectors: Which vectors LRP inference re-weights: "context", "hidden" or "both".
        stop_words: File of words, one a line, whose weights stay 1; None takes a built-in list of English function words.
        all_words: Re-weight every word but the specials, stop words too.
        temperature: Of sampling, for self-critical objectives.
        lexicon: Lexicon file that says which words name which objects; None takes that of COCO's categories.
        penalty: mu of counterfactual objectives in [0, 1]: the weight of the penalty for naming what is hidden.
        other_reference: rho of these: the weight of a reference that does not name what is hidden.
        emphasis: kappa of these, 0 or more: the weight of naming the object where it is seen, beyond the cross-entropy.
        hidden_share: Part of the regions that is hidden; true boxes hide what they cover.
        updates: Steps of the optimizer; instead of ``epochs``.
        epochs: Times that every picture is seen; instead of ``updates``.
        validate_every: Updates between two validations; None validates after every epoch and at the end.
        batch_size: Captions a step, over all processes.
        learning_rate: Highest learning rate of the decoder.
        schedule: "constant", "cosine" (up, then down to 0), or "plateau" (times 0.8 after two validations without a better one; wants
            ``keep=best``).
        dropout: Probability of dropping in the decoder; None is its own (0.5 in the word head, mh-fc 0.3 there and 0.1 in its attention).
        train_encoder: Let the encoder learn too; otherwise it stays as it is.
        encoder_learning_rate: The encoder's highest learning rate then.
        keep: "last" keeps the model after the last update, so that objectives are compared after equal work; "best" that of the best
            validation by ``monitor``. Both are the same rule for every objective.
        monitor: The figure of the validation that "best" looks at: "cider", "macro_f1" (object words; wants objects) or "loss".
        validation_pictures: At most so many pictures of the validation split are looked at, the first ones.
        figure_splits: Splits on which the finished model is measured; those that the corpus lacks are skipped.
        accumulation: Parts into which a batch is cut to save memory.
        precision: Of the networks in training: "float32", "bfloat16" or "float16"; weights are float32 always.
        device: Where to compute.
        memory: Bytes of pictures or features that may be kept in memory.
        workers: Processes that decode pictures; None takes one for each core but one, 0 a thread.
        checkpoint_seconds: Time between two checkpoints; there is also one after each validation.
        threads: Threads of torch; None keeps its own choice. Results are the same bit for bit only with the same number.
        seed: Seed of all that is random.
        out: Model folder to make; None takes the next free ``runs/<decoder>-<objective>-<n>``.
        resume: Go on with the unfinished run in ``out``; without ``out``, with the newest one under ``runs``.
        force: Replace a model in ``out``.
    """

    model: Path | None = None
    objective: str = "lrp"
    corpus: Path | None = None
    size: int = 5000
    corpus_seed: int = 0
    features: Path | None = None
    plain_share: float = 0.5
    target: Literal["argmax", "reference"] = "argmax"
    vectors: Literal["both", "context", "hidden"] = "both"
    stop_words: Path | None = None
    all_words: bool = False
    temperature: float = 1.0
    lexicon: Path | None = None
    penalty: float = 0.1
    other_reference: float = 0.0
    emphasis: float = 0.0
    hidden_share: float = 0.15
    updates: int | None = None
    epochs: int | None = None
    validate_every: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    schedule: Literal["constant", "cosine", "plateau"] | None = None
    dropout: float | None = None
    train_encoder: bool = False
    encoder_learning_rate: float = 1e-5
    keep: Literal["last", "best"] = "last"
    monitor: Literal["cider", "macro_f1", "loss"] = "cider"
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
        problems = [*self._number_problems(), *self._contradictions()]
        if problems:
            raise ConfigError("These settings of fine-tuning cannot be used:\n  " + "\n  ".join(problems))

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
            f"{name} is {values[name]}. Expected a share, from 0 to 1."
            for name in SHARES
            if values[name] is not None and not 0 <= values[name] <= 1 and f"{name} is" not in " ".join(problems)
        ]
        return problems

    def _contradictions(self) -> list[str]:
        from capxai.recipes.finetune_objectives import OBJECTIVES, unknown_objective

        problems = [] if self.objective in OBJECTIVES else [unknown_objective(self.objective)]
        if self.updates is not None and self.epochs is not None:
            problems.append(f"updates is {self.updates} and epochs is {self.epochs}. Expected one of the two.")
        if self.schedule == "plateau" and self.keep == "last":
            problems.append(
                "schedule is 'plateau' and keep is 'last'. A plateau is seen by the best one: use keep=best."
            )
        if self.all_words and self.stop_words is not None:
            problems.append(f"all_words is on, and stop_words is '{self.stop_words}'. Expected one of the two.")
        if self.objective == "lrp-scst" and self.target == "reference":
            problems.append("target is 'reference', and lrp-scst has no reference to explain. Use target=argmax.")
        if self.resume and self.force:
            problems.append("resume goes on with what is there, and force replaces it. Choose one of them.")
        return problems

    def choices(self, corpus: str, rewards: bool) -> FinetuneChoices:
        """Settle what was left open, for a corpus of that name; ``rewards`` tells whether the objective is self-critical."""
        given = {item.name: getattr(self, item.name) for item in fields(FinetuneChoices)}
        return choose(corpus, rewards, {name: value for name, value in given.items() if value is not None})

    def command(self) -> str:
        """Return the command line that fine-tunes the same model: every setting that is not the default."""
        words = ["capxai finetune"]
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in OUTPUTS or value == item.default:
                continue
            if item.name in ("model", "objective", "corpus", "features"):
                words.append(f"--{item.name} {value}")
            else:
                words.append(f"--set {item.name}={','.join(value) if isinstance(value, tuple) else value}")
        return " ".join(words)


@dataclass(frozen=True)
class FinetuneReport:
    """What was fine-tuned.

    Attributes:
        out: The model folder.
        base: The model folder that was begun with.
        objective: What was made small.
        command: The command line that makes the same model again.
        updates: Steps of the optimizer in the model that was kept.
        before: Figures of the base model on the validation split.
        validation: Those of the model that was kept.
        figures: Its figures on each of the splits asked for.
        seconds: How long everything took, in this process.
        training_seconds: How long the updates took, without validation, data and figures; an interrupted round counts from its resumption.
    """

    out: Path
    base: Path
    objective: str
    command: str
    updates: int
    before: dict[str, float]
    validation: dict[str, float]
    figures: dict[str, dict[str, float]]
    seconds: float
    training_seconds: float

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        return {**asdict(self), "out": str(self.out), "base": str(self.base)}


def run(config: FinetuneConfig, reporter: Reporter = SILENT) -> FinetuneReport:
    """Fine-tune a captioner and write its model folder, with logs, a curve and the settings beside the model.

    The folder is one like that of `capxai.recipes.train.run`, with the same files. Architecture, vocabulary and preprocessing are those of
    the base model, so that everything works with it as before; the lineage names the base and its weights. The same settings and number
    of threads give the same weights on the same kind of processor, bit for bit, however often the run was stopped and resumed. All
    objectives see the same pictures and captions in the same order, and drop the same units in the plain pass.

    Raises:
        ModelError: There is no base model, it does not fit the features, the folder holds a model already, or a checkpoint cannot be used.
        CorpusError: The corpus or its features cannot be used.
        ConfigError: Settings do not fit together, or a run is resumed with others than it was begun with.
        DivergedError: The loss is not finite; the base model and the last good checkpoint are kept.
        CapxaiError: The disk is full; the last checkpoint is whole.
        KeyboardInterrupt: The run was interrupted; a checkpoint was written.
    """
    from capxai.recipes.finetune_run import finetune

    return finetune(config, reporter)

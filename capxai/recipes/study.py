"""Fine-tunes one or several base models by several objectives with several seeds, and compares what comes out on chosen splits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from capxai.errors import ConfigError
from capxai.types import SILENT, JsonObject, Reporter

if TYPE_CHECKING:
    from capxai.recipes.study_results import Results

CONTROL = "ce"
AT = "@"
"""Joins the control's name to an objective: "ce@lrp" is the control with as much compute as lrp."""
STUDIED = ("ce", "lrp", "lrp-counterfactual")
_LEAST = {"updates": 1, "size": 1, "corpus_seed": 0, "beam": 1, "batch_size": 1, "threads": 1, "timed_steps": 1}


@dataclass(frozen=True)
class StudyConfig:
    """Settings of ``capxai finetune --study``.

    Attributes:
        models: Folders of base models, best of several training seeds; none named takes the bundled model.
        objectives: What is compared. The control "ce" is always among them.
        seeds: Seeds of fine-tuning, for each base model and objective.
        splits: Splits that every run is measured on, once.
        corpus: Corpus folder; None takes the built-in corpus ``scenes``.
        size: Training pictures of the built-in corpus.
        corpus_seed: Seed of the built-in corpus.
        features: Feature file with the pictures of all splits; None computes the features once for each encoder, into ``out``.
        updates: Steps of every run.
        learning_rate: Of every run that is not in ``learning_rates``; None takes the default of fine-tuning.
        learning_rates: "objective=rate" for single objectives.
        settings: Further settings of fine-tuning, "key=value" for all runs or "objective:key=value" for those of one objective.
        equal_compute: Objectives besides which the control is given as much compute, by the measured ratio of their steps; None takes those
            of "lrp" and "lrp-counterfactual" that are studied.
        timed_steps: Steps of each objective that are timed for this ratio.
        plain: Measure the base models themselves, too.
        beam: Width of the beam; 1 is greedy.
        batch_size: Pictures that are captioned at a time.
        keep_models: Keep the fine-tuned weights of every run, not only captions and figures.
        device: Where to compute.
        threads: Threads of torch; None keeps its own choice.
        out: Folder of the study. Finished runs in it are taken over, unfinished ones gone on with.
        force: Begin afresh those runs that were made with other settings.
    """

    models: tuple[Path, ...] = ()
    objectives: tuple[str, ...] = STUDIED
    seeds: tuple[int, ...] = (0, 1, 2)
    splits: tuple[str, ...] = ("test", "robust")
    corpus: Path | None = None
    size: int = 5000
    corpus_seed: int = 0
    features: Path | None = None
    updates: int = 150
    learning_rate: float | None = None
    learning_rates: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    equal_compute: tuple[str, ...] | None = None
    timed_steps: int = 7
    plain: bool = True
    beam: int = 3
    batch_size: int = 64
    keep_models: bool = False
    device: str = "auto"
    threads: int | None = None
    out: Path = Path("runs/study")
    force: bool = False

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used.
        """
        problems = [
            f"{name} is empty. Expected one or more." for name in ("seeds", "splits") if not getattr(self, name)
        ]
        problems += [
            f"{name} names '{item}' twice. Expected each once."
            for name in ("models", "objectives", "seeds", "splits")
            for item in sorted({str(one) for one in getattr(self, name) if getattr(self, name).count(one) > 1})
        ]
        numbers = {name: getattr(self, name) for name in _LEAST}
        problems += [
            f"{name} is {value}. Expected {_LEAST[name]} or more."
            for name, value in numbers.items()
            if value is not None and value < _LEAST[name]
        ]
        problems += [*self._rate_problems(), *self._setting_problems()]
        if problems:
            raise ConfigError("These settings of the study cannot be used:\n  " + "\n  ".join(problems))

    def _rate_problems(self) -> list[str]:
        problems = []
        for text in self.learning_rates:
            name, _, rate = text.partition("=")
            if name not in self.compared or not _is_above_zero(rate):
                problems.append(
                    f"learning_rates has '{text}'. Expected objective=rate with an objective of the study and a rate above 0, such as "
                    f"{CONTROL}=5e-4."
                )
        if self.learning_rate is not None and not self.learning_rate > 0:
            problems.append(f"learning_rate is {self.learning_rate}. Expected a number above 0.")
        return problems

    def _setting_problems(self) -> list[str]:
        problems = [
            f"equal_compute names '{name}'. Expected an objective of the study other than the control: "
            f"{', '.join(one for one in self.compared if one != CONTROL)}."
            for name in self.equal_compute or ()
            if name not in self.compared or name == CONTROL
        ]
        for text in self.settings:
            key, equals, _ = text.partition("=")
            objective, colon, _ = key.partition(":")
            if not equals or (colon and objective not in self.compared):
                problems.append(
                    f"settings has '{text}'. Expected key=value, or objective:key=value with an objective of the study."
                )
        return problems

    @property
    def compared(self) -> tuple[str, ...]:
        """The objectives, the control first."""
        return (CONTROL, *(name for name in self.objectives if name != CONTROL))

    @property
    def compute_controls(self) -> tuple[str, ...]:
        """The objectives whose compute the control is given, too."""
        if self.equal_compute is not None:
            return self.equal_compute
        return tuple(name for name in ("lrp", "lrp-counterfactual") if name in self.compared)

    def rate_of(self, objective: str) -> float | None:
        """Return the learning rate of an objective; None for the default of fine-tuning."""
        rates = {name: float(rate) for name, _, rate in (text.partition("=") for text in self.learning_rates)}
        return rates.get(objective, self.learning_rate)

    def settings_of(self, objective: str) -> tuple[str, ...]:
        """Return the further settings of an objective, as ``--set`` takes them; those of the objective alone come last."""
        for_all = [text for text in self.settings if ":" not in text.partition("=")[0]]
        own = [text.partition(":")[2] for text in self.settings if text.startswith(f"{objective}:")]
        return (*for_all, *own)


def _is_above_zero(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


@dataclass(frozen=True)
class StudyReport:
    """What a study found.

    Attributes:
        out: Its folder.
        results: The comparison of the runs that are finished.
        finished: How many runs are finished.
        runs: How many there are.
        failed: What went wrong with runs that diverged, by their names.
        compute: Steps of an objective in steps of the control, by measurement.
        seconds: How long this call took.
        files: What was written.
    """

    out: Path
    results: Results
    finished: int
    runs: int
    failed: dict[str, str]
    compute: dict[str, float]
    seconds: float
    files: tuple[Path, ...] = field(default=())

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        fields = asdict(self) | {"out": str(self.out), "results": self.results.to_json()}
        return fields | {"files": [str(path) for path in self.files]}


def run(config: StudyConfig, reporter: Reporter = SILENT) -> StudyReport:
    """Perform all runs that are not finished yet, and compare all that are.

    The folder holds ``study.json``, ``study.csv``, ``study.md``, ``study.png``, and for each run its captions and figures. The same command
    started several times at once shares the runs among the processes; killed at any moment, it goes on where it was.

    Raises:
        ConfigError: A run was made with other settings, or settings of fine-tuning cannot be used.
        ModelError: A base model cannot be loaded, or sees no pictures and there are no features.
        CorpusError: The corpus lacks a split, or cannot be read.
        CapxaiError: Something cannot be written.
        KeyboardInterrupt: The study was interrupted; the same command goes on with it.
    """
    from capxai.recipes.study_run import Study

    return Study(config, reporter).perform()

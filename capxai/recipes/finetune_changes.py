"""Writes what a fine-tuning changed: loads both models and the pictures, compares, and puts the report beside the fine-tuned model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from capxai.errors import ConfigError, unknown_choice
from capxai.types import SILENT, JsonObject, Reporter

PREFERRED = ("robust", "test", "val", "train")
"""Splits in the order in which one is chosen: where objects are parted, hallucinations show."""
_LEAST = {"size": 1, "corpus_seed": 0, "pictures": 1, "explained": 0, "shown": 0, "beam": 1, "batch_size": 1}


@dataclass(frozen=True)
class ChangesConfig:
    """Settings of the report before and after.

    Attributes:
        after: Folder of the fine-tuned model.
        before: Folder of the base model; None takes the bundled one.
        corpus: Corpus folder; None takes the built-in corpus ``scenes``.
        size: Training pictures of the built-in corpus.
        corpus_seed: Seed of the built-in corpus.
        split: Split whose pictures are captioned; None takes the first there is of robust, test, val and train.
        features: Feature file; None, or one without these pictures, lets the models look at the pictures.
        pictures: At most so many pictures.
        explained: Pictures whose changed object words are explained; 0 explains none.
        shown: Pictures with another caption that the page shows at most.
        beam: Width of the beam; 1 is greedy.
        batch_size: Pictures that are captioned at a time.
        device: Where to compute.
        out: Folder for changes.html and changes.json; None takes ``after``.
    """

    after: Path
    before: Path | None = None
    corpus: Path | None = None
    size: int = 5000
    corpus_seed: int = 0
    split: str | None = None
    features: Path | None = None
    pictures: int = 200
    explained: int = 8
    shown: int = 100
    beam: int = 3
    batch_size: int = 64
    device: str = "auto"
    out: Path | None = None

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used.
        """
        problems = [
            f"{name} is {getattr(self, name)}. Expected {least} or more."
            for name, least in _LEAST.items()
            if getattr(self, name) < least
        ]
        if problems:
            raise ConfigError("These settings of the report cannot be used:\n  " + "\n  ".join(problems))


@dataclass(frozen=True)
class ChangesReport:
    """What was written.

    Attributes:
        page: The page.
        split: The split that was captioned.
        counts: Pictures, changed captions, and words that vanished and appeared.
    """

    page: Path
    split: str
    counts: dict[str, int]

    def to_json(self) -> JsonObject:
        """Return the report as JSON."""
        return {"page": str(self.page), "split": self.split, "counts": self.counts}


def run(config: ChangesConfig, reporter: Reporter = SILENT) -> ChangesReport:
    """Compare two models and write ``changes.html`` and ``changes.json``; existing ones are replaced.

    Raises:
        ConfigError: The corpus lacks the split.
        ModelError: A model cannot be loaded, or has no encoder while there are no features.
        CorpusError: The corpus cannot be read.
        ImageError: A picture cannot be read.
        CapxaiError: The files cannot be written.
    """
    from capxai.models.folder import bundled_folder, load
    from capxai.recipes.builtin_corpus import open_corpus
    from capxai.recipes.device import choose_device
    from capxai.recipes.finetune_comparison import PAGE_FILE, ComparisonOptions, compare_models, write_comparison

    corpus = open_corpus(config.corpus, config.size, config.corpus_seed, reporter)
    split = corpus.split(_choose_split(config.split, corpus.splits))
    device = choose_device(config.device)
    before, after = load(config.before, device), load(config.after, device)
    seeing = before.encoder is not None and after.encoder is not None
    options = ComparisonOptions(
        pictures=config.pictures,
        explained=config.explained,
        shown=config.shown,
        beam=config.beam,
        batch_size=config.batch_size,
        features=_usable(config.features, [picture.id for picture in split.pictures[: config.pictures]], seeing),
        names=(
            "bundled model" if config.before in (None, bundled_folder()) else str(config.before),
            str(config.after),
        ),
    )
    comparison = compare_models(before, after, split, options, reporter)
    folder = config.out or config.after
    write_comparison(comparison, folder, config.shown)
    return ChangesReport(folder / PAGE_FILE, split.name, comparison.counts())


def _choose_split(wanted: str | None, there: tuple[str, ...]) -> str:
    if wanted is None:
        return next(name for name in (*PREFERRED, *there) if name in there)
    if wanted not in there:
        raise ConfigError(unknown_choice("split", wanted, there))
    return wanted


def _usable(path: Path | None, image_ids: list[int], seeing: bool) -> Path | None:
    """Return the feature file, or None where it lacks pictures and the models can see for themselves."""
    from capxai.data.feature_store import FeatureStore
    from capxai.errors import CorpusError

    if path is None:
        return None
    with FeatureStore.open(path) as store:
        try:
            store.rows_of(image_ids)
        except CorpusError:
            if seeing:
                return None
            raise
    return path

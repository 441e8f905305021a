"""Settings of ``capxai eval``, checked together."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from capxai.errors import ConfigError, unknown_choice
from capxai.evaluate.java_process import JavaLimits

METRICS = ("bleu", "meteor", "rouge-l", "cider", "spice")
ALL, NONE = "all", "none"
FREQUENT = {"paper-coco": "coco", "paper-flickr": "flickr30k", "corpus": "corpus"}
"""Lists of frequent object words, and their names in `capxai.evaluate.frequent_objects`."""
TRUTHS = ("instances", "references", "both")


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of ``capxai eval``.

    Attributes:
        model: Model folder; None takes the newest run under ``runs/``, or else the bundled model.
        predictions: File of captions to measure instead of a model's.
        corpus: Corpus folder; None takes the built-in corpus ``scenes``, unless annotation files are given.
        size: Training pictures of the built-in corpus; the other splits are parts of that.
        corpus_seed: Seed of the built-in corpus.
        split: The split to measure on.
        captions: COCO caption file with the references, instead of a corpus.
        instances: COCO instance file with the objects, instead of a corpus.
        pictures: Folder of the picture files of the annotation files.
        features: Features file to caption from, for a model of stored features.
        images: File of image ids: only these pictures are measured.
        partial: Measure only pictures for which ``predictions`` has a caption.
        allow_empty: Take empty captions in ``predictions`` for what they are.
        chair: Measure objects: CHAIRi, CHAIRs, precision, recall and F1. None does so where ``metrics`` is None too, and there are objects.
        metrics: Of bleu, meteor, rouge-l, cider and spice, or all, or none; None is all, unless ``chair`` is asked for.
        tokenizer: How captions are split for the caption metrics: java (pycocoevalcap's), python, or auto, which takes java where it runs.
        java_memory: Largest heap of Java, as in 4G; None is 2G, and 8G for SPICE.
        java_seconds: Longest run of one Java process.
        spice_models: Folder of the models of SPICE; None is ``spice`` in capxai's folder of the user's cache.
        lexicon: Word list for objects in the format of the original CHAIR; None takes the one that comes with capxai.
        truth: What is in a picture: its instances, what its references name, or both. None takes all that there is.
        frequent: List of frequent object words: paper-coco, paper-flickr or corpus; None leaves it out.
        compare: Another file of predictions for the same pictures, for a paired bootstrap.
        beam: Captions kept while searching; 1 is greedy.
        maximum_length: Longest caption, in words, ``<end>`` counted.
        batch_size: Pictures captioned at a time.
        limit: Only the first so many pictures; None for all.
        draws: Bootstrap draws.
        seed: Seed of the bootstrap.
        device: Name of the device.
        out: Folder for the report's files; None writes nothing.
        html: Whether to write the page eval.html; None writes it wherever there is ``out``.
        force: Replace outputs that are there.
    """

    model: Path | None = None
    predictions: Path | None = None
    corpus: Path | None = None
    size: int = 5000
    corpus_seed: int = 0
    split: str = "test"
    captions: Path | None = None
    instances: Path | None = None
    pictures: Path | None = None
    features: Path | None = None
    images: Path | None = None
    partial: bool = False
    allow_empty: bool = False
    chair: bool | None = None
    metrics: tuple[str, ...] | None = None
    tokenizer: str = "auto"
    java_memory: str | None = None
    java_seconds: float = 1800.0
    spice_models: Path | None = None
    lexicon: Path | None = None
    truth: str | None = None
    frequent: str | None = None
    compare: Path | None = None
    beam: int = 3
    maximum_length: int = 20
    batch_size: int = 64
    limit: int | None = None
    draws: int = 1000
    seed: int = 0
    device: str = "auto"
    out: Path | None = None
    html: bool | None = None
    force: bool = False

    def __post_init__(self) -> None:
        """Check all settings and report all problems at once.

        Raises:
            ConfigError: One or more settings cannot be used, or exclude each other.
        """
        problems = [*_numbers(self), *_names(self), *_conflicts(self), *_unused(self)]
        if problems:
            raise ConfigError("These settings of the evaluation cannot be used:\n  " + "\n  ".join(problems))

    @property
    def caption_metrics(self) -> tuple[str, ...]:
        """The caption metrics that are asked for, each once."""
        asked = self.metrics if self.metrics is not None else ((NONE,) if self.chair else (ALL,))
        return METRICS if ALL in asked else tuple(name for name in METRICS if name in asked)

    @property
    def objects_asked(self) -> bool:
        """Whether objects are to be measured, by name or because nothing was named."""
        return self.chair is True or (self.chair is None and self.metrics is None)

    @property
    def page(self) -> bool:
        """Whether the page is written."""
        return self.out is not None and self.html is not False

    @property
    def files_given(self) -> bool:
        """Whether captions are compared with annotation files instead of a corpus."""
        return self.captions is not None or self.instances is not None


def _numbers(config: EvaluateConfig) -> list[str]:
    problems = [
        f"{name} is {getattr(config, name)}. Expected 1 or more."
        for name in ("beam", "maximum_length", "batch_size", "draws")
        if getattr(config, name) < 1
    ]
    if config.limit is not None and config.limit < 1:
        problems.append(f"limit is {config.limit}. Expected 1 or more, or none.")
    if config.seed < 0:
        problems.append(f"seed is {config.seed}. Expected 0 or more.")
    try:
        JavaLimits(config.java_memory or "2G", config.java_seconds)
    except ConfigError as error:
        problems.append(str(error))
    return problems


def _names(config: EvaluateConfig) -> list[str]:
    known = (*METRICS, ALL, NONE)
    problems = [unknown_choice("metric", name, known) for name in config.metrics or () if name not in known]
    if (
        config.metrics is not None
        and not problems
        and (not config.metrics or (len(set(config.metrics)) > 1 and NONE in config.metrics))
    ):
        problems.append(f"metrics are '{','.join(config.metrics)}'. Expected names, or all, or none alone.")
    for kind, given, choices in (
        ("truth", config.truth, TRUTHS),
        ("tokenizer", config.tokenizer, ("auto", "java", "python")),
        ("list of frequent objects", config.frequent, FREQUENT),
    ):
        if given is not None and given not in choices:
            problems.append(unknown_choice(kind, given, choices))
    return problems


def _conflicts(config: EvaluateConfig) -> list[str]:
    """Find settings that exclude each other or need another one."""
    files, given = config.files_given, config.predictions is not None
    found = {
        "No metric was chosen. Expected at least one. Choose --chair, --metrics, or both.": set(config.metrics or ())
        == {NONE}
        and config.chair is not True,
        "--model and --predictions were both given. Expected captions of one of them.": given
        and config.model is not None,
        "--corpus was given beside --captions or --instances. Expected either a corpus or annotation files.": files
        and config.corpus is not None,
        "--pictures was given without --captions or --instances. A corpus knows where its pictures are.": not files
        and config.pictures is not None,
        "A model is to caption the pictures of annotation files. Expected their folder (--pictures), or --features, or captions with "
        "--predictions.": files and not given and config.pictures is None and config.features is None,
        "--features was given beside --predictions. Expected features only where a model captions.": given
        and config.features is not None,
        "--partial or --allow-empty was given without --predictions. A model captions every picture.": not given
        and (config.partial or config.allow_empty),
        "--lexicon, --truth or --frequent was given, and objects were not asked for. Expected --chair beside them.": (
            config.lexicon is not None or config.truth is not None or config.frequent is not None
        )
        and not config.objects_asked,
        "--html was given without --out. Expected a folder for the page.": config.html is True and config.out is None,
        "--instances was given without --captions; caption metrics, --frequent and this --truth need references.": files
        and config.captions is None
        and (
            bool(config.metrics and config.caption_metrics)
            or config.truth in ("references", "both")
            or config.frequent is not None
        ),
        "--captions was given without --instances, and objects of instances were asked for. Expected an instance file.": files
        and config.instances is None
        and config.truth in ("instances", "both"),
    }
    return [message for message, wrong in found.items() if wrong]


def _unused(config: EvaluateConfig) -> list[str]:
    """Find settings that differ from their defaults and that nothing would use."""
    rules = (
        (("beam", "maximum_length", "batch_size"), config.predictions is not None, "the captions are given"),
        (("split",), config.files_given, "annotation files have no splits"),
        (
            ("pictures",),
            config.predictions is not None and not config.page,
            "they are for a model, or the page in --out",
        ),
        (("force",), config.out is None, "nothing is written without --out"),
        (
            ("size", "corpus_seed"),
            config.files_given or config.corpus is not None,
            "they are of the built-in corpus, which is not measured on",
        ),
        (
            ("tokenizer", "java_memory", "java_seconds", "spice_models"),
            not config.caption_metrics,
            "no caption metric is measured",
        ),
    )
    defaults = {field.name: field.default for field in fields(config)}
    problems = []
    for names, useless, reason in rules:
        changed = [f"{name} = {getattr(config, name)}" for name in names if getattr(config, name) != defaults[name]]
        if useless and changed:
            problems.append(
                f"{', '.join(changed)} would change nothing, since {reason}. Expected settings that count. Leave it out."
            )
    return problems

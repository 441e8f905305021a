"""Caption metrics of a set of captions: each on its own, and those that cannot run here named with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

from capxai.errors import ConfigError, CorpusError, DependencyError, unknown_choice
from capxai.evaluate.java_meteor import meteor
from capxai.evaluate.java_process import JavaLimits, find_java
from capxai.evaluate.java_spice import spice
from capxai.evaluate.java_tokenizer import tokenize_all_with_java
from capxai.evaluate.metrics import MetricScores, bleu, cider, rouge_l
from capxai.evaluate.spice_models import find_models
from capxai.evaluate.tokenizer import tokenize_all
from capxai.recipes.builtin_corpus import cache_folder
from capxai.types import SILENT, Reporter

METRICS = ("bleu", "meteor", "rouge-l", "cider", "spice")
TOKENIZERS = ("auto", "java", "python")
HANDFUL = 100
"""Pictures below which CIDEr's document frequencies are said to mean nothing."""

SPICE_MEMORY = "8G"
JAVA_MEMORY = "2G"
"""Memory for Java where none is given: what pycocoevalcap gives SPICE, and the rest."""

TokenizerUsed = Literal["ptb-java", "python"]


@dataclass(frozen=True)
class MetricOptions:
    """How metrics are computed.

    Attributes:
        tokenizer: java (the field's), python, or auto: java where it works.
        java_memory: Largest heap of Java, as in "4G"; None is 2G, and 8G for SPICE.
        java_seconds: Longest run of one Java process.
        spice_models: Folder of the models of SPICE; None is ``spice`` in capxai's folder of the user's cache.
    """

    tokenizer: str = "auto"
    java_memory: str | None = None
    java_seconds: float = 1800.0
    spice_models: Path | None = None

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: The tokenizer is unknown, or Java's limits are no sizes.
        """
        if self.tokenizer not in TOKENIZERS:
            raise ConfigError(unknown_choice("tokenizer", self.tokenizer, TOKENIZERS))
        self.limits()

    def limits(self, memory: str = JAVA_MEMORY) -> JavaLimits:
        """Return Java's limits; ``memory`` is used where none was given."""
        return JavaLimits(self.java_memory or memory, self.java_seconds)

    def models(self) -> Path:
        """Return the folder of the models of SPICE."""
        return self.spice_models or cache_folder() / "spice"


@dataclass(frozen=True)
class CaptionScores:
    """The caption metrics of a set of captions.

    Attributes:
        image_ids: The pictures, in the order of all arrays.
        tokenizer: How captions were split: "ptb-java" or "python".
        scores: By name: bleu_1 to bleu_4, meteor, rouge_l, cider, spice.
        not_run: Metrics that were asked for and did not run, by the name asked for, and why.
        notes: What a reader of the figures should know.
    """

    image_ids: tuple[int, ...]
    tokenizer: TokenizerUsed
    scores: Mapping[str, MetricScores] = field(default_factory=dict)
    not_run: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Sentences:
    """Tokenized captions, in the order of the pictures; the tokens of each joined by spaces."""

    candidates: Sequence[str]
    references: Sequence[Sequence[str]]
    tokenizer: TokenizerUsed


def caption_metrics(
    candidates: Mapping[int, str],
    references: Mapping[int, Sequence[str]],
    names: Sequence[str],
    options: MetricOptions | None = None,
    reporter: Reporter = SILENT,
) -> CaptionScores:
    """Compute metrics of one caption for each picture.

    No process is started that the named metrics do not need: with the Python tokenizer BLEU, ROUGE-L and CIDEr need none.

    Args:
        candidates: A caption for each image id. One without words scores 0.
        references: For each of these ids, and perhaps further ones, its references.
        names: Of bleu, meteor, rouge-l, cider and spice.
        options: How to compute them.
        reporter: Where progress is shown.

    Raises:
        ConfigError: A name is unknown, or there is none.
        CorpusError: There is no caption, or a picture has no reference.
        DependencyError: The Java tokenizer was asked for and does not work.
    """
    options = options or MetricOptions()
    _refuse_unusable(candidates, references, names)
    notes: list[str] = []
    sentences = _tokenize(candidates, references, options, notes)
    scores: dict[str, MetricScores] = {}
    not_run: dict[str, str] = {}
    with reporter.track("Caption metrics", len(names)) as advance:
        for name in names:
            try:
                scores |= _METRICS[name](sentences, options)
            except DependencyError as error:
                not_run[name] = str(error)
            advance(1)
    if "cider" in scores and len(candidates) < HANDFUL:
        notes.append(_few_pictures(len(candidates)))
    return CaptionScores(tuple(candidates), sentences.tokenizer, scores, not_run, tuple(notes))


def _refuse_unusable(
    candidates: Mapping[int, str], references: Mapping[int, Sequence[str]], names: Sequence[str]
) -> None:
    if not names:
        raise ConfigError(f"No caption metric was named. Expected one or more. Choose from: {', '.join(METRICS)}.")
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise ConfigError(unknown_choice("metric", unknown[0], METRICS))
    if not candidates:
        raise CorpusError("There is no caption to measure. Expected one for each picture. Check the list of pictures.")
    bare = [picture for picture in candidates if not references.get(picture)]
    if bare:
        raise CorpusError(
            f"{len(bare)} pictures have no reference, the first of them {bare[0]}. Caption metrics compare with one or more. "
            "Leave these pictures out, or give their captions."
        )


def _tokenize(
    candidates: Mapping[int, str],
    references: Mapping[int, Sequence[str]],
    options: MetricOptions,
    notes: list[str],
) -> _Sentences:
    """Tokenize candidates and references in one go, so that Java starts once."""
    counts = [len(references[picture]) for picture in candidates]
    texts = [*candidates.values(), *chain.from_iterable(references[picture] for picture in candidates)]
    used: TokenizerUsed = "python"
    if options.tokenizer == "python":
        lines = tokenize_all(texts)
    else:
        try:
            lines = tokenize_all_with_java(texts, options.limits())
            used = "ptb-java"
        except DependencyError as error:
            if options.tokenizer == "java":
                raise
            notes.append(f"Captions were split by the tokenizer in Python, since Java's did not run. {error}")
            lines = tokenize_all(texts)
    rest = iter(lines[len(counts) :])
    return _Sentences(lines[: len(counts)], [[next(rest) for _ in range(count)] for count in counts], used)


def _meteor(sentences: _Sentences, options: MetricOptions) -> dict[str, MetricScores]:
    return {"meteor": meteor(sentences.candidates, sentences.references, options.limits())}


def _spice(sentences: _Sentences, options: MetricOptions) -> dict[str, MetricScores]:
    find_java()
    limits = options.limits(SPICE_MEMORY)
    return {"spice": spice(sentences.candidates, sentences.references, find_models(options.models()), limits)}


_METRICS: dict[str, Callable[[_Sentences, MetricOptions], dict[str, MetricScores]]] = {
    "bleu": lambda sentences, _: bleu(sentences.candidates, sentences.references),
    "meteor": _meteor,
    "rouge-l": lambda sentences, _: {"rouge_l": rouge_l(sentences.candidates, sentences.references)},
    "cider": lambda sentences, _: {"cider": cider(sentences.candidates, sentences.references)},
    "spice": _spice,
}


def _few_pictures(count: int) -> str:
    if count == 1:
        return "CIDEr of one picture is always 0: it weighs words by how few of the pictures have them."
    return (
        f"CIDEr weighs words by how few of the pictures have them; counted over {count} pictures that means nothing. "
        f"Compare it only with CIDEr of the same pictures, or measure {HANDFUL} or more."
    )

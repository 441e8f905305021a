"""How the figures of an evaluation are called and read, wherever they are shown."""

from __future__ import annotations

from typing import NamedTuple


class Title(NamedTuple):
    """How a figure is shown.

    Attributes:
        name: As the field calls it.
        lower_is_better: Whether a smaller figure means better captions.
        meaning: What it is, in a few words.
    """

    name: str
    lower_is_better: bool = False
    meaning: str = ""


TITLES: dict[str, Title] = {
    "bleu_1": Title("BLEU-1", meaning="words that a reference has, corpus"),
    "bleu_2": Title("BLEU-2", meaning="word pairs that a reference has, corpus"),
    "bleu_3": Title("BLEU-3", meaning="up to three words in a row, corpus"),
    "bleu_4": Title("BLEU-4", meaning="up to four words in a row, corpus"),
    "meteor": Title("METEOR", meaning="words, stems and synonyms, corpus"),
    "rouge_l": Title("ROUGE-L", meaning="longest common subsequence"),
    "cider": Title("CIDEr-D", meaning="rare phrases count most; can exceed 1"),
    "spice": Title("SPICE", meaning="objects, attributes and relations"),
    "chair_i": Title("CHAIRi", True, "hallucinated mentions / mentions"),
    "chair_s": Title("CHAIRs", True, "captions with a hallucination / captions"),
    "precision": Title("object precision", meaning="macro mean over categories"),
    "recall": Title("object recall", meaning="macro mean over categories"),
    "f1": Title("object F1", meaning="macro mean over categories"),
    "objects_per_caption": Title("objects per caption", meaning="mentions"),
    "macro_precision": Title("frequent-object precision", meaning="macro mean over frequent object words"),
    "macro_recall": Title("frequent-object recall", meaning="macro mean over frequent object words"),
    "macro_f1": Title("frequent-object F1", meaning="macro mean over frequent object words"),
}

CAPTION_METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider", "spice")
"""The figures that compare captions with references; the others are about objects."""


def title(name: str) -> Title:
    """Return how a figure is shown; one that is not listed keeps its name."""
    return TITLES.get(name, Title(name.replace("_", " ")))


def number(value: float | None) -> str:
    """Write a figure with four digits behind the point, and one that does not exist as a dash."""
    return "–" if value is None else f"{value:.4f}"

"""Scores captions of a corpus split by the objects that they name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from capxai.data.corpus import Split
from capxai.errors import ConfigError, CorpusError, unknown_choice
from capxai.evaluate.bootstrap import Weights
from capxai.evaluate.frequent_objects import (
    CORPUS,
    FREQUENT_WORDS,
    FrequentReport,
    WordList,
    find_word_list,
    most_frequent,
    score_frequent,
)
from capxai.evaluate.lexicon import Lexicon
from capxai.evaluate.objects import ObjectReport, PictureTruth, Truth, ground_truth, score_objects

TRUTHS: tuple[Truth, ...] = ("both", "instances", "references")


def available_truth(split: Split) -> Truth:
    """Return what a split has: instances, references or both."""
    if not split.has_objects:
        return "references"
    return "both" if any(split.captions[picture.id] for picture in split.pictures) else "instances"


def split_truths(split: Split, lexicon: Lexicon, truth: Truth | None = None) -> list[PictureTruth]:
    """Return what is in every picture of a split, in the order of its pictures.

    Args:
        split: The pictures, their references and instances.
        lexicon: Which words name what.
        truth: Where the objects are taken from; None takes what the split has.

    Raises:
        ConfigError: There is no such truth.
        CorpusError: The split has no instances, the lexicon none of their categories, or a picture no reference, and it was asked for them.
    """
    chosen = available_truth(split) if truth is None else truth
    _check_truth(split, lexicon, chosen)
    return [
        ground_truth(
            picture.id,
            (item.category for item in split.objects[picture.id]),
            split.captions[picture.id],
            lexicon,
            chosen,
        )
        for picture in split.pictures
    ]


def _check_truth(split: Split, lexicon: Lexicon, truth: Truth) -> None:
    if truth not in TRUTHS:
        raise ConfigError(unknown_choice("truth", truth, TRUTHS))
    if truth != "references":
        if not split.has_objects:
            raise CorpusError(
                f"The split '{split.name}' has no instance file. Expected one, as the truth is '{truth}'. Choose a corpus with instances, "
                "or take the truth from the references."
            )
        unknown = unmentionable(split, lexicon)
        if unknown and len(unknown) == len(set(split.categories.values())):
            raise CorpusError(
                f"The lexicon knows none of the {len(unknown)} categories of the split '{split.name}' ({', '.join(unknown[:3])}, ...). "
                "Expected the names of categories in the lexicon. Name the lexicon of the corpus with --lexicon."
            )
    if truth != "instances":
        silent = [picture.id for picture in split.pictures if not split.captions[picture.id]]
        if silent:
            raise CorpusError(
                f"{len(silent)} pictures of the split '{split.name}' have no reference (image ids {silent[:3]}). Expected at least one for "
                f"each, as the truth is '{truth}'. Complete the caption file, or take the truth from the instances."
            )


def unmentionable(split: Split, lexicon: Lexicon) -> tuple[str, ...]:
    """Return the categories of a split's instances that no word of the lexicon names; they do not count as being there."""
    return tuple(sorted({name for name in split.categories.values() if not lexicon.category(name)}))


def score_captions(
    captions: Sequence[str],
    split: Split,
    lexicon: Lexicon,
    seed: int = 0,
    *,
    truth: Truth | None = None,
    weights: Weights | None = None,
) -> ObjectReport:
    """Score one caption for each picture of a split, in the order of its pictures.

    Args:
        captions: The captions.
        split: The pictures.
        lexicon: Which words name what.
        seed: Seed of the bootstrap.
        truth: Where the objects of a picture are taken from; None takes what the split has.
        weights: (D, N) draws that other metrics share; None draws with ``seed``, which gives the same ones.

    Raises:
        CorpusError: The split has not what the truth is to be taken from.
    """
    by_id: Mapping[int, str] = {picture.id: text for picture, text in zip(split.pictures, captions, strict=True)}
    return score_objects(by_id, split_truths(split, lexicon, truth), lexicon, seed, weights)


def frequent_words(name: str, split: Split | None, lexicon: Lexicon, number: int = FREQUENT_WORDS) -> WordList:
    """Return a list of frequent object words: one of the paper's by its name, or "corpus" for that of a (training) split.

    Raises:
        ConfigError: There is no such list, or "corpus" was asked for without a split.
        CorpusError: No reference of the split names an object.
    """
    if name != CORPUS:
        return find_word_list(name)
    if split is None:
        raise ConfigError(
            "The frequent words were to be found in a corpus, but there is none. Expected a split with references. Name a corpus, "
            "or one of the paper's lists."
        )
    return most_frequent((text for picture in split.pictures for text in split.captions[picture.id]), lexicon, number)


def score_frequent_words(
    captions: Sequence[str], split: Split, words: WordList, seed: int = 0, weights: Weights | None = None
) -> FrequentReport:
    """Measure how well captions, one for each picture in the order of the split, predict frequent object words.

    Raises:
        CorpusError: A picture has no reference, or no word of the list is in any reference.
    """
    by_id = {picture.id: text for picture, text in zip(split.pictures, captions, strict=True)}
    references = {picture.id: split.captions[picture.id] for picture in split.pictures}
    return score_frequent(by_id, references, words, seed, weights)


def figures(report: ObjectReport, digits: int = 4) -> dict[str, float]:
    """Return the five figures by which models of this project are compared; shares in [0, 1]."""
    values = report.values()
    names: Iterable[tuple[str, str]] = (
        ("macro_f1", "f1"),
        ("chair_i", "chair_i"),
        ("chair_s", "chair_s"),
        ("recall", "recall"),
        ("objects_per_caption", "objects_per_caption"),
    )
    return {name: round(values[key], digits) for name, key in names}

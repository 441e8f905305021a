"""What fine-tuning changed: captions, the object words in them, whether these were true, and what the words were seen from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from capxai.data.annotations import Picture
from capxai.data.corpus import Split
from capxai.data.feature_store import FeatureStore
from capxai.errors import CapxaiError
from capxai.evaluate.lexicon import Lexicon, Mention, coco_lexicon
from capxai.evaluate.objects import PictureTruth, judge
from capxai.files import write_atomically, write_json_atomically
from capxai.models.captioner import Captioner
from capxai.models.decoding import DecodingOptions
from capxai.recipes.evaluation_captions import Captioning, caption_split
from capxai.recipes.finetune_relevance import FromFeatures, Look, WordRelevance, from_picture
from capxai.recipes.object_scores import split_truths
from capxai.recipes.training_validation import first_pictures
from capxai.train.processes import Processes
from capxai.types import SILENT, JsonObject, Reporter

JSON_FILE, PAGE_FILE = "changes.json", "changes.html"
SCHEMA = 1
WORDS_OF_A_PICTURE = 3
"""Object words of a picture that are explained at most."""

Kind = Literal["vanished", "appeared"]


@dataclass(frozen=True)
class ComparisonOptions:
    """How two models are compared.

    Attributes:
        pictures: At most so many pictures of the split, the first ones.
        explained: Pictures whose changed object words are explained, those with hallucinations first; 0 explains none.
        shown: Pictures with another caption that the page shows at most.
        beam: Width of the beam; 1 is greedy.
        batch_size: Pictures that are captioned at a time.
        features: Feature file of the pictures; None lets the models look at them.
        names: What the two models are called.
    """

    pictures: int = 500
    explained: int = 8
    shown: int = 100
    beam: int = 3
    batch_size: int = 64
    features: Path | None = None
    names: tuple[str, str] = ("before", "after")


@dataclass(frozen=True)
class WordChange:
    """An object that only one of the two captions names.

    Attributes:
        kind: Whether fine-tuning let it vanish or appear.
        category: The object.
        text: The word that names it.
        place: Index of its first word in the caption that has it.
        span: Its first character in this caption (of composed characters, NFC) and the one after its last.
        true: Whether it is in the picture.
        before: What the base model says for the word, in the caption that has it; None where it was not asked.
        after: The same of the fine-tuned model.
    """

    kind: Kind
    category: str
    text: str
    place: int
    span: tuple[int, int]
    true: bool
    before: WordRelevance | None = None
    after: WordRelevance | None = None

    def to_json(self) -> JsonObject:
        """Return the fields as a JSON object, relevance as its numbers."""
        found: JsonObject = {"kind": self.kind, "category": self.category, "word": self.text, "position": self.place}
        found["true"] = self.true
        for name, one in (("before", self.before), ("after", self.after)):
            if one is not None:
                found[name] = one.to_json()
        return found


@dataclass(frozen=True)
class PictureChange:
    """A picture whose caption changed.

    Attributes:
        picture: The picture.
        before: The caption of the base model.
        after: That of the fine-tuned one.
        words: Objects that one of them names, those that vanished first.
    """

    picture: Picture
    before: str
    after: str
    words: tuple[WordChange, ...]

    def caption_of(self, word: WordChange) -> str:
        """Return the caption that has the word."""
        return self.before if word.kind == "vanished" else self.after

    def to_json(self) -> JsonObject:
        """Return the fields as a JSON object."""
        captions = {"image_id": self.picture.id, "before": self.before, "after": self.after}
        return {**captions, "words": [word.to_json() for word in self.words]}


@dataclass(frozen=True)
class Comparison:
    """What changed between two models.

    Attributes:
        names: What they are called.
        split: Name of the split.
        pictures: Pictures that were captioned.
        changes: Those with another caption, in the order of the split.
        notes: What a reader must know.
    """

    names: tuple[str, str]
    split: str
    pictures: int
    changes: tuple[PictureChange, ...]
    notes: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Count pictures, changed captions, and words that vanished and appeared, true and hallucinated."""
        words = Counter((word.kind, word.true) for change in self.changes for word in change.words)
        return {
            "pictures": self.pictures,
            "changed_captions": len(self.changes),
            "vanished_hallucinations": words["vanished", False],
            "vanished_true": words["vanished", True],
            "appeared_hallucinations": words["appeared", False],
            "appeared_true": words["appeared", True],
        }

    def categories(self) -> dict[str, dict[str, int]]:
        """Count the same words by category, those with the most changes first."""
        found: dict[str, Counter[str]] = {}
        for change in self.changes:
            for word in change.words:
                found.setdefault(word.category, Counter())[_label(word)] += 1
        ordered = sorted(found, key=lambda name: (-found[name].total(), name))
        return {name: dict(found[name]) for name in ordered}

    def to_json(self) -> JsonObject:
        """Return the comparison as a JSON object; README.md lists its keys."""
        return {
            "schema": SCHEMA,
            "models": list(self.names),
            "split": self.split,
            "counts": self.counts(),
            "categories": self.categories(),
            "changes": [change.to_json() for change in self.changes],
            "notes": list(self.notes),
        }


def _label(word: WordChange) -> str:
    return f"{word.kind}_{'true' if word.true else 'hallucinations'}"


def compare_models(
    before: Captioner,
    after: Captioner,
    split: Split,
    options: ComparisonOptions | None = None,
    reporter: Reporter = SILENT,
) -> Comparison:
    """Caption the same pictures by two models, and explain object words that only one of them says.

    A word is explained in the caption that has it, by both models: what spoke for it before, and what still does.

    Args:
        before: The base model.
        after: The fine-tuned model.
        split: The pictures; without objects, references tell what is true.
        options: How.
        reporter: Where progress is shown.

    Raises:
        ModelError: A model has no encoder and there are no features.
        CorpusError: The features are not those of the pictures.
        ImageError: A picture cannot be read.
    """
    options = options or ComparisonOptions()
    split = first_pictures(split, options.pictures)
    captions = [_captions(model, split, options, reporter) for model in (before, after)]
    changes = changed_pictures(split, captions[0], captions[1], coco_lexicon())
    explained, notes = _explained(changes, (before, after), options, reporter)
    return Comparison(options.names, split.name, len(split), tuple(explained), tuple(notes))


def _captions(model: Captioner, split: Split, options: ComparisonOptions, reporter: Reporter) -> dict[int, str]:
    decoding = (
        DecodingOptions(strategy="beam", beam=options.beam) if options.beam > 1 else DecodingOptions(strategy="greedy")
    )
    how = Captioning(decoding, options.batch_size, options.features)
    return caption_split(model, split, how, Processes(0, 1, model.device), reporter)


def changed_pictures(
    split: Split, before: Mapping[int, str], after: Mapping[int, str], lexicon: Lexicon
) -> list[PictureChange]:
    """List the pictures with another caption and the objects that only one of the two captions names."""
    truths = split_truths(split, lexicon) if split.pictures else []
    changes = []
    for picture, truth in zip(split.pictures, truths, strict=True):
        one, other = before[picture.id], after[picture.id]
        if one != other:
            changes.append(PictureChange(picture, one, other, _changed_words(one, other, truth, lexicon)))
    return changes


def _changed_words(one: str, other: str, truth: PictureTruth, lexicon: Lexicon) -> tuple[WordChange, ...]:
    named = [_first_mentions(judge(text, truth, lexicon).mentions) for text in (one, other)]
    sides: tuple[tuple[Kind, dict[str, Mention], dict[str, Mention]], ...] = (
        ("vanished", named[0], named[1]),
        ("appeared", named[1], named[0]),
    )
    return tuple(
        WordChange(
            kind,
            category,
            mention.text,
            mention.position,
            (mention.start, mention.end),
            category in truth.objects,
        )
        for kind, there, elsewhere in sides
        for category, mention in there.items()
        if category not in elsewhere
    )


def _first_mentions(mentions: tuple[Mention, ...]) -> dict[str, Mention]:
    found: dict[str, Mention] = {}
    for mention in mentions:
        found.setdefault(mention.category, mention)
    return found


def _explained(
    changes: list[PictureChange],
    models: tuple[Captioner, Captioner],
    options: ComparisonOptions,
    reporter: Reporter,
) -> tuple[list[PictureChange], list[str]]:
    """Explain the words of the most telling pictures, and say of which it could not be done."""
    wanted = sorted((change for change in changes if change.words), key=_most_telling)[: options.explained]
    features = None if options.features is None else FeatureStore.open(options.features)
    look: Look = from_picture
    if features is not None and any(model.encoder is None for model in models):
        look = FromFeatures(features)
    found, notes = {change.picture.id: change for change in changes}, []
    with reporter.track("Explaining changed words", len(wanted)) as advance:
        for change in wanted:
            try:
                found[change.picture.id] = _with_relevance(change, models, look)
            except CapxaiError as error:
                notes.append(f"The words of picture {change.picture.id} are not explained: {error}")
            advance(1)
    return list(found.values()), notes


def _most_telling(change: PictureChange) -> tuple[int, int]:
    """Sort hallucinations that vanished first, then those that appeared, then the rest by the number of words."""
    false = [word for word in change.words if not word.true]
    rank = 0 if any(word.kind == "vanished" for word in false) else 1 if false else 2
    return rank, -len(change.words)


def _with_relevance(change: PictureChange, models: tuple[Captioner, Captioner], look: Look) -> PictureChange:
    chosen, rest = change.words[:WORDS_OF_A_PICTURE], change.words[WORDS_OF_A_PICTURE:]
    captions = {change.caption_of(word) for word in chosen}
    seen = {caption: [look(model, change.picture, caption) for model in models] for caption in captions}
    words = []
    for word in chosen:
        before, after = (of_word(word.place) for of_word in seen[change.caption_of(word)])
        words.append(replace(word, before=before, after=after))
    return replace(change, words=(*words, *rest))


def write_comparison(comparison: Comparison, folder: Path, shown: int = ComparisonOptions.shown) -> None:
    """Write ``changes.json`` and the page ``changes.html``.

    Args:
        comparison: What changed.
        folder: Where to; existing files are replaced.
        shown: Pictures that the page shows at most.

    Raises:
        CapxaiError: They cannot be written.
    """
    from capxai.recipes.finetune_changes_page import render_changes

    write_json_atomically(folder / JSON_FILE, comparison.to_json())
    write_atomically(folder / PAGE_FILE, render_changes(comparison, shown))

"""Captions of any system, fitted to the pictures that they are measured on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from capxai.data.corpus import Split
from capxai.errors import CorpusError
from capxai.evaluate.predictions import read_predictions
from capxai.recipes.evaluation_truth import named, restricted


@dataclass(frozen=True)
class Choice:
    """Which pictures of a split are measured.

    Attributes:
        images: Only these image ids; None for all.
        limit: Only the first so many; None for all.
        partial: Only those that have a caption.
        allow_empty: Take captions without a word for what they are, instead of refusing them.
    """

    images: Collection[int] | None = None
    limit: int | None = None
    partial: bool = False
    allow_empty: bool = False

    @property
    def chosen(self) -> bool:
        """Whether the user has left out pictures by name or number."""
        return self.images is not None or self.limit is not None


def given_captions(path: Path, split: Split, choice: Choice) -> tuple[Split, dict[int, str]]:
    """Read predictions and choose the pictures.

    Returns:
        The split with the chosen pictures, and one caption for each of them in their order. Captions of pictures that the user has left
        out are left out too.

    Raises:
        CorpusError: The file cannot be used, names a picture that the split does not have, or lacks a chosen one.
    """
    known = {picture.id for picture in split.pictures}
    remedy = f"The pictures are the {len(known):,} of '{split.name}'; others are named with --corpus and --split, or --captions."
    captions = read_predictions(path, known, remedy, choice.allow_empty).captions
    pictures = restricted(split, choice.images, choice.limit)
    if choice.partial:
        pictures = replace(pictures, pictures=tuple(item for item in pictures.pictures if item.id in captions))
    missing = [picture.id for picture in pictures.pictures if picture.id not in captions]
    if missing:
        raise CorpusError(
            f"'{path}' has no caption for {len(missing):,} of {len(pictures):,} pictures ({named(missing)}). Expected one for "
            "each. Caption them too, or measure only those that have one with --partial."
        )
    return pictures, {picture.id: captions[picture.id] for picture in pictures.pictures}


def captions_to_compare(path: Path, split: Split, pictures: Split, choice: Choice) -> dict[int, str]:
    """Read the other system's captions of the same pictures.

    Args:
        path: Its predictions.
        split: All pictures.
        pictures: Those that are measured.
        choice: How they were chosen.

    Raises:
        CorpusError: The file cannot be used, or is about other pictures.
    """
    known = {picture.id for picture in split.pictures}
    captions = read_predictions(path, known, "Compare predictions for the same pictures.", choice.allow_empty).captions
    wanted = [picture.id for picture in pictures.pictures]
    missing = [number for number in wanted if number not in captions]
    further = [] if choice.chosen else sorted(set(captions) - set(wanted))
    if missing or further:
        parts = [f"lacks {len(missing):,} pictures ({named(missing)})"] if missing else []
        parts += [f"has {len(further):,} further pictures ({named(further)})"] if further else []
        raise CorpusError(
            f"'{path}' {' and '.join(parts)}. Expected captions of the same {len(wanted):,} pictures, for a paired comparison. "
            "Caption the same pictures with both, or name those to compare with --images."
        )
    return {number: captions[number] for number in wanted}

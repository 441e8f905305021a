"""Finds the words of a model's caption that name an object of the picture, and where that object is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from capxai.data.annotations import Picture
from capxai.data.corpus import Split
from capxai.data.images import read_image
from capxai.errors import CorpusError, VocabularyError
from capxai.evaluate.correctness import box_area, resize_nearest
from capxai.evaluate.lexicon import Lexicon, coco_lexicon
from capxai.explain.attribution import Reading
from capxai.explain.explainer import read
from capxai.models.captioner import Captioner


@dataclass(frozen=True)
class ObjectWord:
    """A word of a caption that names an object of the picture.

    Attributes:
        image_id: The picture.
        caption: The caption.
        position: Place of the word in the caption, from 0. Of a name of several words it is the last one, with which the name is whole:
            "traffic" alone could still become a traffic jam.
        word: The word.
        category: The category that it names.
    """

    image_id: int
    caption: str
    position: int
    word: str
    category: str


class ObjectArea(NamedTuple):
    """Where the objects of a category are on the model's input, (S, S) bool each: their visible parts, and their boxes."""

    mask: NDArray[np.bool_]
    boxes: NDArray[np.bool_]


def read_own_caption(model: Captioner, picture: Picture, beam: int) -> Reading | None:
    """Let a model look at a picture and read its own caption; None where it has nothing to say."""
    image = model.preprocessing.resize(read_image(picture.path))
    try:
        return read(model, image, None, beam)
    except VocabularyError:
        return None


def true_object_words(
    reading: Reading, split: Split, picture: Picture, lexicon: Lexicon | None = None
) -> list[ObjectWord]:
    """Return the words that name a category of which the picture has an instance, in the order of the caption.

    Being named in a reference is not enough: without an instance nobody knows where the object is. Repeated mentions count each.
    """
    words = reading.model.vocabulary.words
    spoken = [words[token] for token in reading.tokens.tolist()]
    caption = " ".join(spoken)
    there = {item.category for item in split.objects[picture.id]}
    return [
        ObjectWord(picture.id, caption, last, spoken[last], mention.category)
        for mention in (lexicon or coco_lexicon()).mentions(caption)
        if mention.category in there and (last := mention.position + mention.length - 1) < len(spoken)
    ]


def object_area(split: Split, picture: Picture, category: str, size: int) -> ObjectArea | None:
    """Draw all objects of a category at the model's size; None where they vanish in resizing.

    Raises:
        CorpusError: The picture has no object of the category, or a mask is missing or damaged.
    """
    objects = [item for item in split.objects[picture.id] if item.category == category]
    if not objects:
        raise CorpusError(
            f"Picture {picture.id} has no instance of '{category}'. Expected at least one. Ask for a category that is there."
        )
    mask = np.logical_or.reduce([split.mask(item) for item in objects])  # (H, W)
    boxes = box_area([item.bbox for item in objects], picture.height, picture.width)
    area = ObjectArea(resize_nearest(mask, size, size), resize_nearest(boxes, size, size))
    return area if area.mask.any() and area.boxes.any() else None

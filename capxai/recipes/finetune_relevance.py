"""What speaks for one word of a caption: in the base model and in the fine-tuned one, of the same caption.

Axes: T words, K regions, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from capxai.data.annotations import Picture
from capxai.data.feature_store import FeatureStore
from capxai.data.images import read_image
from capxai.explain.attribution import Reading
from capxai.explain.colors import display_maps
from capxai.explain.explainer import explain
from capxai.explain.methods import Request, find_method
from capxai.models.captioner import Captioner
from capxai.types import FloatArray, ImageArray, JsonObject

METHOD = "lrp"


@dataclass(frozen=True)
class WordRelevance:
    """What speaks for a word.

    Attributes:
        probability: Of the word after the words before it, in [0, 1].
        logit: Its raw logit.
        picture: Share of the logit that comes from the picture; shares may be negative or above 1. None for a logit of 0.
        words: Share that comes from the preceding words.
        heat: (h, w) relevance of the picture for display, in logit units; None where regions are no grid.
        image: (H, W, 3) the picture as the model saw it, or None where only its features are at hand.
    """

    probability: float
    logit: float
    picture: float | None
    words: float | None
    heat: FloatArray | None
    image: ImageArray | None

    def to_json(self) -> JsonObject:
        """Return the numbers as a JSON object."""
        numbers = {"probability": self.probability, "logit": self.logit}
        return {**numbers, "picture_share": self.picture, "words_share": self.words}


OfWord = Callable[[int], WordRelevance]
"""``of_word(place)``: the word at a place of the caption, counted from 0."""
Look = Callable[[Captioner, Picture, str], OfWord]
"""``look(model, picture, caption)`` explains a caption."""


def from_picture(model: Captioner, picture: Picture, caption: str) -> OfWord:
    """Explain a caption down to the pixels.

    Raises:
        ImageError: The picture cannot be read.
        VocabularyError: The model does not know a word of the caption.
    """
    found = explain(model, picture.path, METHOD, caption)
    heat = display_maps(found.pixel_relevance, found.region_relevance, found.grid, found.image.shape[:2])

    def of_word(place: int) -> WordRelevance:
        shares = found.shares(place)
        return WordRelevance(
            probability=float(found.probability[place]),
            logit=float(found.logits[place]),
            picture=shares.picture,
            words=shares.words,
            heat=None if heat is None else heat[place],
            image=found.image,
        )

    return of_word


@dataclass(frozen=True)
class FromFeatures:
    """Explains words down to the stored features of pictures.

    Attributes:
        store: The features.
    """

    store: FeatureStore

    def __call__(self, model: Captioner, picture: Picture, caption: str) -> OfWord:
        """Explain a caption down to the regions, which are drawn where they are a grid.

        Raises:
            VocabularyError: The model does not know a word of the caption.
        """
        rows = self.store.rows_of([picture.id])
        features = torch.from_numpy(self.store.read(rows)).to(model.device, model.dtype)
        tokens = torch.tensor(model.vocabulary.encode(caption), device=model.device)
        reading = Reading(model.eval(), None, features, tokens)
        maps = find_method(METHOD)(Request.of(reading))
        with torch.no_grad():
            logits = torch.stack([step.logits[0] for step in reading.unroll()])  # (T, V)
        image = read_image(picture.path) if picture.path.is_file() else None

        def of_word(place: int) -> WordRelevance:
            word = int(tokens[place])
            logit = float(logits[place, word])
            return WordRelevance(
                probability=float(logits[place].softmax(-1)[word]),
                logit=logit,
                picture=_share(maps.regions, place, logit),
                words=_share(maps.words, place, logit),
                heat=self._heat(maps.regions, place, picture),
                image=image,
            )

        return of_word

    def _heat(self, regions: Tensor | None, place: int, picture: Picture) -> FloatArray | None:
        if regions is None:
            return None
        shown = regions[place : place + 1].detach().to("cpu", torch.float32).numpy()
        found = display_maps(None, shown, self.store.description.grid, (picture.height, picture.width))
        return None if found is None else found[0]


def _share(relevance: Tensor | None, place: int, logit: float) -> float | None:
    return None if relevance is None or logit == 0 else float(relevance[place].double().sum()) / logit

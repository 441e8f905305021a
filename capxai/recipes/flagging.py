"""Marks the object words of captions that are probably not in their pictures, by the detector beside a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capxai.types import JsonObject

if TYPE_CHECKING:
    from torch import Tensor

    from capxai.evaluate.lexicon import Lexicon
    from capxai.models.captioner import Captioner
    from capxai.recipes.analysis.detector_file import Detector


@dataclass(frozen=True)
class Flag:
    """An object word of a caption.

    Attributes:
        word: The name as it stands there.
        category: The category that it names.
        position: Place of its first word, from 0.
        last: Place of its last word.
        hallucinated: Probability that the picture has none.
        doubtful: Whether that reaches the threshold of the detector.
    """

    word: str
    category: str
    position: int
    last: int
    hallucinated: float
    doubtful: bool

    def to_json(self) -> JsonObject:
        """Return the word as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Flagger:
    """What flags words.

    Attributes:
        model: In evaluation mode.
        detector: Of its weights.
        lexicon: Names of objects.
    """

    model: Captioner
    detector: Detector
    lexicon: Lexicon

    def flags(self, features: Tensor, captions: Sequence[Sequence[int]]) -> list[tuple[Flag, ...]]:
        """Return the object words of every caption, in order.

        Args:
            features: (B, K, C) of the pictures.
            captions: B captions, word ids without specials; an empty one has no word.
        """
        from capxai.data.annotations import Picture
        from capxai.explain.attribution import Readings
        from capxai.explain.methods import Options
        from capxai.recipes.analysis.detector_words import DetectorWords, measure_words
        from capxai.recipes.analysis.stream import Look, padded

        spoken = [row for row, caption in enumerate(captions) if caption]
        found: list[tuple[Flag, ...]] = [()] * len(captions)
        if not spoken:
            return found
        model, said = self.model, [captions[row] for row in spoken]
        # Cloned: what was computed in inference mode can have no gradient, and relevance goes back by gradients.
        readings = Readings(model, None, features[spoken].clone(), *padded(said, model))
        pictures = tuple(Picture(row, Path(), 0, 0) for row in spoken)
        look = Look(pictures, tuple(model.vocabulary.decode(one) for one in said), readings)
        # Nobody knows what is there: the truth of the words is not read below.
        unknown: dict[int, frozenset[str]] = dict.fromkeys(spoken, frozenset())
        measured = measure_words(look, self.lexicon, unknown, Options(eps=self.detector.eps))
        records = [{"image_id": row, "caption": "", **one} for row, one in zip(spoken, measured, strict=True)]
        words = DetectorWords.of(records)
        chances = iter(self.detector.probabilities(words).tolist() if len(words) else [])
        for row, record in zip(spoken, records, strict=True):
            found[row] = tuple(self._flag(mention, next(chances)) for mention in record["mentions"])
        return found

    def _flag(self, mention: JsonObject, chance: float) -> Flag:
        places = (mention["position"], mention["last"])
        return Flag(mention["word"], mention["category"], *places, chance, chance >= self.detector.threshold)


def open_flagger(model: Captioner, folder: Path | None, name: str, file: Path | None = None) -> Flagger:
    """Read the detector of a model.

    Args:
        model: The model.
        folder: Its folder; None for the bundled model.
        name: The model, as messages call it.
        file: A detector elsewhere; None for the one beside the model.

    Raises:
        ModelError: There is none, or it belongs to other weights.
    """
    from capxai.evaluate.lexicon import coco_lexicon
    from capxai.models.folder import bundled_folder
    from capxai.recipes.analysis.detector_file import DETECTOR_FILE, read_detector

    place = file or (bundled_folder() if folder is None else folder) / DETECTOR_FILE
    lexicon = coco_lexicon()
    weights = str(model.lineage.get("weights_sha256", ""))
    return Flagger(model, read_detector(place, weights, lexicon.sha256, name), lexicon)


def marked(caption: str, flags: Sequence[Flag]) -> str:
    """Put doubtful words into brackets with their probability: "a car next to a [traffic light? 83 %]"."""
    words = caption.split()
    for flag in reversed([flag for flag in flags if flag.doubtful]):
        name = " ".join(words[flag.position : flag.last + 1])
        words[flag.position : flag.last + 1] = [f"[{name}? {100 * flag.hallucinated:.0f} %]"]
    return " ".join(words)

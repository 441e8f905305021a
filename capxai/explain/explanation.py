"""The result of explaining one caption: its arrays, and what picture, words, biases and eps contribute to each word."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capxai.errors import RelevanceError
from capxai.explain.colors import checked_scale
from capxai.types import FloatArray, ImageArray

_SPECIALS = ("<pad>", "<start>", "<end>")
_DTYPES = {"token_ids": np.int64, "image": np.uint8}


KEPT = ("bias", "eps", "other_heads")
"""Parts that reach neither the picture nor a word."""

PARTS = ("picture", "words", *KEPT)


@dataclass(frozen=True)
class Parts:
    """What the picture, the preceding words, the biases, eps and attention heads left out contribute to one word.

    Each is a signed number, or None where the method has no such part.
    """

    picture: float | None
    words: float | None
    bias: float | None
    eps: float | None
    other_heads: float | None = None

    def present(self) -> dict[str, float]:
        """Return the parts that there are, by name, in reading order."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def to_json(self) -> dict[str, float | None]:
        """Return the parts that every explanation has, None where the method has no such part, and heads left out if there are any."""
        return {name: value for name, value in asdict(self).items() if name != "other_heads" or value is not None}


@dataclass(frozen=True)
class Contrast:
    """The word that an explained word is set against, at the same step: "why a knife rather than a fork".

    Attributes:
        token: The word.
        token_id: Its vocabulary id.
        logit: Its raw logit there.
        probability: Its probability there, in [0, 1].
    """

    token: str
    token_id: int
    logit: float
    probability: float

    def to_json(self) -> dict[str, str | int | float]:
        """Return the word as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """Say for every word of a caption, or for one of them, what spoke for it and against it.

    Axes: T explained words, P words before them, H x W pixels, K regions, N attention heads. Relevance is raw: signed, in logit units, not
    normalized. Of a contrast it is the relevance of the explained word's logit minus that of the other word's, both at the same step.

    Attributes:
        tokens: The explained words.
        token_ids: (T,) int64, their vocabulary ids.
        logits: (T,) float32, the raw logit of each word.
        probability: (T,) float32 in [0, 1].
        method: Name of the method ("lrp").
        model: Name or description of the model.
        image: (H, W, 3) uint8 RGB in [0, 255], the picture as the model saw it.
        pixel_relevance: (T, H, W) float32.
        region_relevance: (T, K) float32.
        word_relevance: (T, P + T) float32; row t, column i is input word i (0 is ``<start>``), zero for i > P + t.
        attention: (T, K) or (T, N, K) float32 attention weights.
        sentinel: (T,) float32 in [0, 1], the weight of the sentinel, where the model has one.
        bias_relevance: (T,) float32, what biases keep.
        eps_relevance: (T,) float32, what the stabilizer eps keeps.
        other_heads_relevance: (T,) float32, what was left out because one attention head alone was asked for.
        grid: (rows, columns) of the regions, None where they are no grid.
        source: File name of the picture.
        notes: What a reader must know, for instance that the picture is outside of what the model was trained on.
        before: The P words of the caption before the explained ones; none where the whole caption is explained.
        after: The words of the caption after them.
        contrast: What the one explained word is set against; None explains words as they are.

    Raises:
        RelevanceError: If an array has the wrong shape or holds a value that is not finite, or a contrast has not one word.
    """

    tokens: tuple[str, ...]
    token_ids: NDArray[np.int64]
    logits: FloatArray
    probability: FloatArray
    method: str
    model: str
    image: ImageArray
    pixel_relevance: FloatArray | None = None
    region_relevance: FloatArray | None = None
    word_relevance: FloatArray | None = None
    attention: FloatArray | None = None
    sentinel: FloatArray | None = None
    bias_relevance: FloatArray | None = None
    eps_relevance: FloatArray | None = None
    other_heads_relevance: FloatArray | None = None
    grid: tuple[int, int] | None = None
    source: str = ""
    notes: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    contrast: Contrast | None = None

    def __post_init__(self) -> None:
        """Bring the arrays to their types and check their shapes."""
        for name in ("tokens", "notes", "before", "after"):
            object.__setattr__(self, name, tuple(str(text) for text in getattr(self, name)))
        if not self.tokens:
            raise RelevanceError(
                "An explanation of no words was found; expected at least one. Give a caption with a word in it."
            )
        if self.contrast is not None and len(self.tokens) != 1:
            raise RelevanceError(
                f"A contrast with {len(self.tokens)} explained words was found; expected one, at whose step the other word could stand. "
                "Explain one word."
            )
        for name, shapes in self._expected_shapes().items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _checked(name, value, shapes))
        self._check_values()

    def _expected_shapes(self) -> dict[str, tuple[tuple[int | None, ...], ...]]:
        """Return the shapes that each array may have; None stands for any size above zero."""
        words = len(self.tokens)
        height, width = (*np.shape(self.image), 0, 0)[:2]
        regions = self._region_count()
        per_word = ((words,),)
        return {
            "image": ((None, None, 3),),
            **dict.fromkeys(
                ("token_ids", "logits", "probability", "sentinel", *(f"{part}_relevance" for part in KEPT)), per_word
            ),
            "pixel_relevance": ((words, height, width),),
            "region_relevance": ((words, regions),),
            "word_relevance": ((words, len(self.before) + words),),
            "attention": ((words, regions), (words, None, regions)),
        }

    def _region_count(self) -> int | None:
        """Return K as the grid or the region relevance has it, None where neither says."""
        if self.grid is not None:
            return self.grid[0] * self.grid[1]
        return None if self.region_relevance is None else np.shape(self.region_relevance)[-1]

    def _check_values(self) -> None:
        """Refuse probabilities outside [0, 1] and relevance of words that were not read yet."""
        if self.probability.min() < 0 or self.probability.max() > 1 + 1e-6:
            raise RelevanceError(
                f"probability lies in [{self.probability.min():.3g}, {self.probability.max():.3g}]; expected [0, 1]. "
                "Give softmax probabilities, not logits."
            )
        later = None if self.word_relevance is None else np.triu(self.word_relevance, 1 + len(self.before))
        if later is not None and later.any():
            row, column = (int(place[0]) for place in np.nonzero(later))
            raise RelevanceError(
                f"word_relevance[{row}, {column}] is not zero; expected zero above the diagonal, because word {row} "
                "cannot depend on a later input word. Explain each word with the words before it alone."
            )

    @property
    def caption(self) -> str:
        """Return the whole caption as one text, without ``<start>``, ``<end>`` and ``<pad>``."""
        return " ".join(token for token in (*self.before, *self.tokens, *self.after) if token not in _SPECIALS)

    @property
    def conserved(self) -> bool:
        """Return whether picture, words, bias and eps add up to `explained`: the method accounts for biases and eps."""
        return self.bias_relevance is not None and self.eps_relevance is not None

    def explained(self, word: int) -> float:
        """Return what is explained: the logit of the word, or of a contrast its logit minus the other word's."""
        return float(self.logits[word]) - (0.0 if self.contrast is None else self.contrast.logit)

    def title(self, word: int) -> str:
        """Return what is explained in words: "knife", or of a contrast "knife rather than fork"."""
        token = self.tokens[word]
        return token if self.contrast is None else f"{token} rather than {self.contrast.token}"

    def inputs(self, word: int) -> tuple[str, ...]:
        """Return the input words that a word was predicted from, ``<start>`` first: columns 0 to P + t of its row."""
        return ("<start>", *self.before, *self.tokens[:word])

    def totals(self, word: int) -> Parts:
        """Sum the relevance of one word over each part, in logit units (float64 sums).

        The picture's is the sum over pixels, or over regions where a method has no pixels.
        """
        picture = self.region_relevance if self.pixel_relevance is None else self.pixel_relevance
        arrays = (picture, self.word_relevance, *(getattr(self, f"{part}_relevance") for part in KEPT))
        return Parts(*(None if array is None else float(array[word].sum(dtype=np.float64)) for array in arrays))

    def shares(self, word: int) -> Parts:
        """Divide the totals of one word by what they are shares of.

        Where the method conserves the logit (``conserved``), share = signed total / logit, or / difference of logits of a contrast: the
        shares add up to 1, and a share is negative or above 1 where parts oppose each other. For other methods (gradient, attention, ...)
        bias and eps are None and share = signed total / (|picture| + |words|). Shares of a whole of zero are None.
        """
        totals = self.totals(word)
        present = totals.present()
        if self.conserved:
            whole = self.explained(word)
        else:
            present = {name: value for name, value in present.items() if name in ("picture", "words")}
            whole = sum(abs(value) for value in present.values())
        values = {name: value / whole for name, value in present.items() if whole != 0}
        return Parts(*(values.get(name) for name in PARTS))

    def save(self, folder: str | Path, scale: str = "caption", force: bool = False) -> Path:
        """Write ``explanation.npz``, ``.json``, ``.png`` (sheet) and ``.html`` (page) into a folder, all or none.

        Args:
            folder: Made if missing. Other files in it are left alone.
            scale: ``"caption"`` colors all words on one scale, ``"word"`` each on its own.
            force: Replace an explanation that is already there.

        Returns:
            The folder.

        Raises:
            CapxaiError: If an explanation is there already, or the folder cannot be written.
        """
        from capxai.explain.files import write_folder  # here, because it imports this module

        return write_folder(self, Path(folder), checked_scale(scale), force)

    @classmethod
    def load(cls, folder: str | Path) -> Explanation:
        """Read an explanation back from ``explanation.npz`` and ``explanation.json``.

        Raises:
            CapxaiError: If one of them is missing, torn, of another schema version, or they contradict each other.
        """
        from capxai.explain.files import read_folder

        return read_folder(Path(folder))

    def show(self, scale: str = "caption") -> Path | None:
        """Show the sheet in a notebook, or else open the page in a browser.

        Returns:
            The page that was opened (a temporary file), None in a notebook.

        Raises:
            CapxaiError: If there is neither a notebook nor a display.
        """
        from capxai.explain.files import show_explanation

        return show_explanation(self, checked_scale(scale))


def _checked(name: str, value: Any, shapes: tuple[tuple[int | None, ...], ...]) -> NDArray[Any]:
    """Return the array in its type, or raise ``RelevanceError`` for a wrong shape or a value that is not finite."""
    array = np.asarray(value)
    if not any(_fits(array.shape, shape) for shape in shapes):
        wanted = " or ".join(
            f"({', '.join('any' if size is None else str(size) for size in shape)})" for shape in shapes
        )
        raise RelevanceError(
            f"{name} has shape {array.shape}; expected {wanted}. Give one entry for each word of the caption."
        )
    if not np.isfinite(array).all():
        raise RelevanceError(
            f"{name} holds {int((~np.isfinite(array)).sum())} values that are not finite; expected numbers. "
            "Raise eps, or use float64, where relevance is divided by sums close to zero."
        )
    return np.ascontiguousarray(array, dtype=_DTYPES.get(name, np.float32))


def _fits(found: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Return whether a shape is the expected one, where None stands for any size above zero."""
    return len(found) == len(expected) and all(
        have > 0 and want in (None, have) for have, want in zip(found, expected, strict=True)
    )

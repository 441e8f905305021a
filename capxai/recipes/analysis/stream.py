"""Pictures of a split, a batch at a time, each with the caption that the model gives it, ready to be explained.

Axes: B pictures of a batch, T words of their longest caption, K regions, N heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from capxai.data.annotations import Picture
from capxai.data.picture_blocks import picture_blocks
from capxai.errors import ImageError
from capxai.explain.attribution import Readings, Words, record
from capxai.explain.methods import Maps, Options, Request, encoder_composite, find_method
from capxai.lrp.composites import Composite
from capxai.models.captioner import Captioner
from capxai.models.decoding import DecodingOptions, decode
from capxai.models.state import HeadInputs

RANDOM = "random"
_PIXELS_AT_ONCE = 8 * 112 * 112
"""Pixels of a batch of pictures. What an encoder keeps for the way back grows with it: VGG16 at 224 pixels takes two pictures at a time."""


@dataclass(frozen=True)
class Facts:
    """What a plain pass over the captions says.

    Attributes:
        logits: (B, T, V).
        attention: (B, T, K) or (B, T, N, K).
        sentinel: (B, T) beta, the weight of the sentinel, or None.
        head_inputs: What the word head adds up at each step, (B, T, H) each.
    """

    logits: Tensor
    attention: Tensor
    sentinel: Tensor | None
    head_inputs: HeadInputs

    @classmethod
    def of(cls, readings: Readings) -> Facts:
        """Read the captions once, without a graph."""
        with torch.no_grad():
            steps = readings.unroll()
            betas = [step.sentinel for step in steps if step.sentinel is not None]
            return cls(
                torch.stack([step.logits for step in steps], 1),
                torch.stack([step.attention for step in steps], 1),
                torch.stack(betas, 1) if betas else None,
                HeadInputs(
                    torch.stack([step.head_inputs.context for step in steps], 1),
                    torch.stack([step.head_inputs.hidden for step in steps], 1),
                ),
            )


@dataclass(frozen=True)
class Look:
    """A batch of pictures and what the model says about each; pictures about which it says nothing are not among them.

    Attributes:
        pictures: B pictures.
        captions: Their captions.
        readings: The model reading them.
    """

    pictures: tuple[Picture, ...]
    captions: tuple[str, ...]
    readings: Readings

    @cached_property
    def facts(self) -> Facts:
        """What a plain pass over the captions says."""
        return Facts.of(self.readings)

    def words(self, rows: Sequence[int], places: Sequence[int]) -> Words:
        """Choose words by picture and place; what is explained is the word that stands there."""
        device = self.readings.tokens.device
        chosen = (
            torch.tensor(rows, dtype=torch.int64, device=device),
            torch.tensor(places, dtype=torch.int64, device=device),
        )
        return Words(*chosen, self.readings.tokens[chosen])

    def maps(self, words: Words, methods: Sequence[str], options: Options) -> Iterator[tuple[str, Maps]]:
        """Explain words with every method, one at a time. Methods that share a way back share its pass.

        The control "random" draws other noise for every picture: its seed is the sum of the seed and the image id.
        """
        seeds = tuple(options.seed + picture.id for picture in self.pictures)
        request = Request(self.readings, words, options, seeds)
        for name in methods:
            plain = request if name == "lrp" else replace(request, options=Options(seed=options.seed))
            yield name, find_method(name)(plain)


@dataclass(frozen=True)
class Looking:
    """How pictures are looked at.

    Attributes:
        model: In evaluation mode.
        beam: Width of the search for captions.
        methods: Methods that will be asked: the pass of the encoder is recorded for the first that goes back through it.
        options: Their options.
        workers: Processes that decode pictures.
    """

    model: Captioner
    beam: int
    methods: tuple[str, ...]
    options: Options
    workers: int = 0

    def batch_size(self, wanted: int | None = None) -> int:
        """Return how many pictures are looked at together; None goes by their size."""
        return wanted or max(1, _PIXELS_AT_ONCE // self.model.preprocessing.image_size**2)

    def blocks(self, blocks: Sequence[tuple[int, Sequence[Picture]]]) -> Iterator[tuple[int, Look | None]]:
        """Look at blocks of pictures, given by number; None stands for a block about which the model says nothing at all.

        Raises:
            ImageError: A picture cannot be read.
        """
        paths = [(number, [picture.path for picture in pictures]) for number, pictures in blocks]
        arriving = picture_blocks(paths, self.model.preprocessing.resize, self.workers)
        for (number, pictures), found in zip(blocks, arriving, strict=True):
            if found.unreadable:
                raise ImageError("\n".join(message for _, message in found.unreadable))
            assert isinstance(found.images, Tensor)
            yield number, self.look(pictures, found.images)

    def look(self, pictures: Sequence[Picture], pixels: Tensor) -> Look | None:
        """Caption pictures (B, S, S, 3) uint8; None where the model says nothing about any of them."""
        model, composite = self.model, self._composite()
        with torch.no_grad():
            images = model.preprocessing.normalize(pixels.to(model.device)).to(model.dtype)
            tape = None if composite is None or model.encoder is None else record(model, images, composite)
            features = model.features(images) if tape is None else tape.features.detach()
            found = decode(model, model.remember(features), DecodingOptions(strategy="beam", beam=self.beam))
        spoken = [place for place, one in enumerate(found) if one.token_ids]
        if not spoken:
            return None
        if len(spoken) < len(pictures):  # the tape is of all pictures
            images, features, tape = images[spoken], features[spoken], None
        captions = [found[place].token_ids for place in spoken]
        readings = Readings(model, images, features, *padded(captions, model), tape)
        return Look(
            tuple(pictures[place] for place in spoken),
            tuple(model.vocabulary.decode(one) for one in captions),
            readings,
        )

    def _composite(self) -> Composite | None:
        for name in self.methods:
            found = encoder_composite(name, self.model, self.options if name == "lrp" else Options())
            if found is not None:
                return found
        return None


def padded(captions: Sequence[Sequence[int]], model: Captioner) -> tuple[Tensor, Tensor]:
    """Put captions of different lengths into one table: tokens (B, T) int64, ``<pad>`` at the ends, and lengths (B,)."""
    lengths = torch.tensor([len(caption) for caption in captions], device=model.device)
    tokens = torch.full((len(captions), int(lengths.max())), model.vocabulary.pad, device=model.device)
    for row, caption in enumerate(captions):
        tokens[row, : len(caption)] = torch.tensor(list(caption), device=model.device)
    return tokens, lengths

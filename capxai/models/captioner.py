"""The captioner: one encoder, one decoder, one forward pass for every use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from capxai.data.images import picture_array
from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.models.decoders.base import Decoder
from capxai.models.encoders.base import Encoder
from capxai.models.specification import Specification
from capxai.models.state import Glance, HeadInputs, Memory, State, Step
from capxai.types import ImageArray

Feed = Callable[[int, Tensor | None], Tensor]
"""``feed(t, last_logits) -> word_vector``: the input of step t, (B, E); ``last_logits`` is None at t = 0."""


class Captioner(nn.Module):
    """A captioning model with attention.

    Scheduled sampling and greedy decoding are feeds of `unroll`; teacher forcing is `read`, which leaves the word head to one `speak` for
    all steps; beam search calls `step`; an explanation unrolls a given caption with its word vectors as leaves. There is no second way
    through the model.

    Attributes:
        encoder: Picture to feature map, or `None` for a model of stored features.
        decoder: Features and words to logits.
        vocabulary: Words and their ids.
        preprocessing: How a picture becomes the encoder's input; stored with the weights because they belong together.
        specification: The architecture as plain data.
        lineage: How the weights came to be; free-form JSON.
    """

    def __init__(
        self,
        encoder: Encoder | None,
        decoder: Decoder,
        vocabulary: Vocabulary,
        preprocessing: Preprocessing,
        specification: Specification,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.vocabulary = vocabulary
        self.preprocessing = preprocessing
        self.specification = specification
        self.lineage: dict[str, object] = {}

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the weights, which pictures must have too."""
        return next(self.parameters()).dtype

    def features(self, images: Tensor) -> Tensor:
        """Encode pictures to regions.

        Args:
            images: (B, 3, H, W) float, normalized by `preprocessing`.

        Returns:
            (B, K, C), regions in row-major order.

        Raises:
            ModelError: The model was trained on stored features and has no encoder.
        """
        if self.encoder is None:
            from capxai.errors import ModelError

            raise ModelError(
                "This model works on stored features and has no encoder, so it cannot see a picture. "
                "Give it features, or use a model that was trained with its encoder."
            )
        grid: Tensor = self.encoder(images)
        return grid.flatten(2).transpose(1, 2)

    def encode(self, images: Tensor) -> Memory:
        """Encode pictures, (B, 3, H, W) normalized, and prepare what every step reads."""
        return self.remember(self.features(images))

    def remember(self, features: Tensor) -> Memory:
        """Prepare what every step reads from features (B, K, C)."""
        return self.decoder.remember(features)

    def embed(self, tokens: Tensor) -> Tensor:
        """Look up word vectors: (..., ) int64 ids to (..., E). They are the leaves of a linguistic explanation."""
        vectors: Tensor = self.decoder.embedding(tokens)
        return vectors

    def start(self, memory: Memory) -> State:
        """Return the all-zero state before the first word."""
        return self.decoder.start(memory)

    def step(self, memory: Memory, word_vector: Tensor, state: State) -> Step:
        """Advance by one word.

        Args:
            memory: From `encode` or `remember`, batch B.
            word_vector: (B, E) embedding of the input word.
            state: The state so far.
        """
        glance = self.decoder.advance(memory, word_vector, state)
        return Step(**vars(glance), logits=self.speak(glance.head_inputs))

    def speak(self, inputs: HeadInputs) -> Tensor:
        """Map what the word head sees, of one step (B, H) or of all (B, T, H), to logits with V in the place of H."""
        return self.decoder.speak(inputs)

    def unroll(self, memory: Memory, feed: Feed, length: int) -> list[Step]:
        """Run ``length`` steps, asking ``feed`` for the input of each."""
        steps: list[Step] = []

        def next_input(t: int) -> Tensor:
            return feed(t, steps[-1].logits if steps else None)

        for glance in self._walk(memory, next_input, length):
            step = Step(**vars(glance), logits=self.speak(glance.head_inputs))
            steps.append(step)
        return steps

    def read(self, memory: Memory, word_vectors: Tensor) -> HeadInputs:
        """Read given words and stop before the word head, so that all steps can share one vocabulary projection.

        ``speak(read(memory, embed(words)))`` equals the stacked logits of `unroll` on the same words.

        Args:
            memory: From `encode` or `remember`, batch B.
            word_vectors: (B, T, E), the inputs of all steps.

        Returns:
            What the word head sees at every step, (B, T, H) each.
        """
        glances = self._walk(memory, lambda t: word_vectors[:, t], word_vectors.shape[1])
        inputs = [glance.head_inputs for glance in glances]
        context = torch.stack([found.context for found in inputs], dim=1)
        return HeadInputs(context, torch.stack([found.hidden for found in inputs], dim=1))

    def _walk(self, memory: Memory, next_input: Callable[[int], Tensor], length: int) -> Iterator[Glance]:
        """Advance ``length`` times from the start. The only time loop of the package; each input is asked for when it is needed."""
        state = self.start(memory)
        for t in range(length):
            glance = self.decoder.advance(memory, next_input(t), state)
            yield glance
            state = glance.state

    def caption(self, image: str | Path | ImageArray, beam: int = 3) -> str:
        """Caption one picture by beam search, in evaluation mode whatever the mode was.

        Args:
            image: A picture file, or (H, W, 3) uint8 RGB in [0, 255].
            beam: Width of the search; 1 is greedy.

        Raises:
            ImageError: The picture cannot be read.
            ModelError: The model has no encoder.
            ConfigError: The width is not 1 or more.
        """
        from capxai.models.decoding import DecodingOptions, decode  # which itself needs this module

        options = DecodingOptions(beam=beam)
        pixels = self.preprocessing.resize(picture_array(image))
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            with torch.inference_mode():
                batch = torch.from_numpy(np.array(pixels, order="C")).unsqueeze(0)  # a copy: the array may be read-only
                images = self.preprocessing.normalize(batch.to(self.device)).to(self.dtype)
                return self.vocabulary.decode(decode(self, self.encode(images), options)[0].token_ids)
        finally:
            for module in training:
                module.training = True

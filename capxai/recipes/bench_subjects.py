"""What `capxai bench explain` times: one whole explanation, and the two things it is compared with, on the same trunk and picture.

The weights are random. They change no time, as every method computes the same sums whatever the numbers are.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import END, PAD, START, UNKNOWN, Vocabulary
from capxai.explain.explainer import explain
from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner
from capxai.models.specification import Specification
from capxai.types import ImageArray

EXPLANATION = "explanation"
FORWARD = "forward"
CHANNELS_LAST = "forward, channels-last"
ZENNIT = "zennit"
ZENNIT_BATCH = "zennit, one batch"

Subject = Callable[[], object]
"""Does the work once."""


@dataclass(frozen=True)
class Size:
    """How large the model is.

    Attributes:
        encoder: Name of the encoder.
        image_size: Side of the picture, in pixels.
        units: E = H.
        vocabulary: V, the specials included.
        words: Words of the caption, and pictures and targets of what it is compared with.
    """

    encoder: str
    image_size: int
    units: int
    vocabulary: int
    words: int


SIZES = {
    "full": Size("vgg16", 224, 512, 9586, 10),
    "small": Size("compact", 32, 16, 64, 2),
    "bundled": Size("compact", 112, 128, 71, 10),
}
"""The model that the figures are stated for, a tiny one to try the benchmark itself, and one of the bundled model's kind."""


@dataclass(frozen=True)
class Workload:
    """A model with something to explain.

    Attributes:
        model: With random weights, in evaluation mode.
        picture: (S, S, 3) uint8 RGB, noise.
        caption: A caption of as many different words as the size says.
        method: Name of the method.
        size: Sizes.
    """

    model: Captioner
    picture: ImageArray
    caption: str
    method: str
    size: Size

    @property
    def trunk(self) -> nn.Module:
        """The encoder's layers; of VGG16 torchvision's ``features[:-1]``."""
        assert self.model.encoder is not None
        return self.model.encoder.trunk

    def images(self) -> Tensor:
        """Return the picture as the encoder wants it, as often as there are words: (T, 3, S, S)."""
        one = self.model.preprocessing.normalize(torch.from_numpy(self.picture)[None])
        return one.repeat(self.size.words, 1, 1, 1)

    def subject(self, name: str) -> Subject:
        """Return one of the subjects, ready to run."""
        return _SUBJECTS[name](self)


def build_workload(size: Size, method: str = "lrp", seed: int = 0) -> Workload:
    """Build a model with random weights, a picture and a caption."""
    words = [f"word{number}" for number in range(size.words)]
    model = random_captioner(size, words, seed)
    side = size.image_size
    picture = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Workload(model, picture, " ".join(words), method, size)


def random_captioner(size: Size, words: Sequence[str], seed: int = 0) -> Captioner:
    """Build an ada-lstm with random weights, in evaluation mode, whose vocabulary begins with some words and is filled up with others."""
    stride, channels = {"vgg16": (16, 512), "compact": (8, 112)}[size.encoder]
    specials = (PAD, START, END, UNKNOWN)
    filling = [f"word{number}" for number in range(len(words), size.vocabulary - len(specials))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        specification = Specification(
            encoder=size.encoder,
            decoder="ada-lstm",
            channels=channels,
            regions=(size.image_size // stride) ** 2,
            hidden_size=size.units,
            embedding_size=size.units,
            vocabulary_size=size.vocabulary,
        )
        vocabulary = Vocabulary([*specials, *words, *filling])
        return build_captioner(specification, vocabulary, Preprocessing(size.image_size)).eval()


def has_zennit() -> bool:
    """Tell whether zennit is installed."""
    return importlib.util.find_spec("zennit") is not None


def _explanation(work: Workload) -> Subject:
    """Go from a picture and a caption to all arrays: what the forward pass says, relevance of pixels, regions and words."""
    return lambda: explain(work.model, work.picture, work.method, work.caption)


def _forward(work: Workload) -> Subject:
    """Run the bare trunk on as many pictures as there are words, in torch's default layout, without a graph."""
    trunk, images = work.trunk, work.images()

    def run() -> Tensor:
        with torch.no_grad():
            found: Tensor = trunk(images)
            return found

    return run


def _channels_last(work: Workload) -> Subject:
    """Run it with weights and pictures in channels-last layout."""
    trunk = copy.deepcopy(work.trunk).to(memory_format=torch.channels_last)
    images = work.images().contiguous(memory_format=torch.channels_last)

    def run() -> Tensor:
        with torch.no_grad():
            found: Tensor = trunk(images)
            return found

    return run


def _zennit(work: Workload) -> Subject:
    """Run zennit's alpha-1 beta-0 through the trunk, a forward and a backward pass for each target, as its attributors do."""
    composite, image = _zennit_composite(), work.images()[:1]
    targets = _targets(work)

    def run() -> list[Tensor]:
        with composite.context(work.trunk) as trunk:
            return [_zennit_pass(trunk, image, target[None]) for target in targets]

    return run


def _zennit_batch(work: Workload) -> Subject:
    """Run it with all targets as one batch, which needs as many copies of every activation."""
    composite, images = _zennit_composite(), work.images()
    targets = _targets(work)

    def run() -> Tensor:
        with composite.context(work.trunk) as trunk:
            return _zennit_pass(trunk, images, targets)

    return run


def _zennit_pass(trunk: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_()
    return torch.autograd.grad(trunk(leaf), leaf, targets)[0]


def _zennit_composite() -> Any:
    """Say the rules of capxai's encoder in zennit's words. The package is optional, so it is imported here alone."""
    rules, types = importlib.import_module("zennit.rules"), importlib.import_module("zennit.types")
    composites, canonizers = importlib.import_module("zennit.composites"), importlib.import_module("zennit.canonizers")
    return composites.LayerMapComposite(
        [(types.Convolution, rules.AlphaBeta(alpha=1, beta=0, zero_params="bias")), (types.Activation, rules.Pass())],
        canonizers=[canonizers.SequentialMergeBatchNorm()],
    )


def _targets(work: Workload) -> Tensor:
    """Return positive numbers to start from, (T, C, H', W')."""
    with torch.no_grad():
        shape = work.trunk(work.images()[:1]).shape[1:]
    return torch.rand(work.size.words, *shape, generator=torch.Generator().manual_seed(0))


_SUBJECTS: dict[str, Callable[[Workload], Subject]] = {
    EXPLANATION: _explanation,
    FORWARD: _forward,
    CHANNELS_LAST: _channels_last,
    ZENNIT: _zennit,
    ZENNIT_BATCH: _zennit_batch,
}


def counted_limit(work: Workload) -> float:
    """Return the multiplications of an explanation's encoder over those of as many forward passes: what no program can beat.

    Counted are one forward pass, the denominators (one more convolution of each layer; two where inputs have both signs, as the picture
    has), and for every word one transposed convolution of each layer (likewise two). The decoder, the sums and the divisions are left out:
    they are below a hundredth at full size.
    """
    once = _convolution_products(work)
    total = sum(once)
    signed = total + once[0]
    return (total + signed + work.size.words * signed) / (work.size.words * total)


def _convolution_products(work: Workload) -> list[int]:
    """Count the multiplications of each convolution for one picture, in the order of the trunk."""
    counts: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        counts.append(output[0].numel() * layer.weight[0].numel())

    hooks = [layer.register_forward_hook(count) for layer in work.trunk.modules() if isinstance(layer, nn.Conv2d)]
    try:
        with torch.no_grad():
            work.trunk(work.images()[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return counts

"""The methods of explanation, by name. All of them explain the same caption of the same model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from capxai.errors import RelevanceError, unknown_choice
from capxai.explain.attribution import Attribution, Reading, Readings, Words, attribute_words
from capxai.lrp.composites import GRADIENT, GUIDED_BACKPROP, Composite, lrp
from capxai.lrp.rules import AlphaBeta, Gamma, Rule, ZBox
from capxai.models.captioner import Captioner


@dataclass(frozen=True)
class Options:
    """Settings of the methods.

    Attributes:
        head: Attention head whose relevance to keep (`lrp` on a model with heads); None keeps all.
        eps: Stabilizer of the epsilon rule.
        alpha: Weight of positive contributions in the encoder.
        beta: Weight of negative contributions in the encoder; alpha - beta = 1.
        gamma: Use the gamma rule in the encoder instead of alpha-beta.
        z_box: Use the z-box rule for the encoder's first convolution.
        seed: Seed of `random`.
    """

    head: int | None = None
    eps: float = 0.01
    alpha: float = 1.0
    beta: float = 0.0
    gamma: float | None = None
    z_box: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Maps:
    """What a method found, for W words of captions of at most T words.

    Attributes:
        pixels: (W, H, W), or None.
        regions: (W, K), or None.
        words: (W, T), or None.
        kept: (W, 3) float64 as in `Attribution`, or None for methods that conserve nothing.
        spread: Whether the pixels are nothing but the regions, upsampled.
    """

    pixels: Tensor | None = None
    regions: Tensor | None = None
    words: Tensor | None = None
    kept: Tensor | None = None
    spread: bool = False


@dataclass(frozen=True)
class Request:
    """Words of captions to explain.

    Attributes:
        readings: The model, B pictures and their captions.
        words: Which of their words.
        options: Settings of the method.
        seeds: A seed for each picture, for `random`; None gives all of them the seed of the options.
        passes: What `attribute` has found so far, for methods that go back the same way.
    """

    readings: Readings
    words: Words
    options: Options = field(default_factory=Options)
    seeds: tuple[int, ...] | None = None
    passes: dict[tuple[Composite, bool], Attribution] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, reading: Reading, options: Options | None = None) -> Request:
        """Ask for every word of one caption."""
        readings = reading.together()
        return cls(readings, readings.all_words(), options or Options())

    def attribute(self, composite: Composite, pixels: bool = True) -> Attribution:
        """Carry the words back to the leaves, unless another method has done so."""
        for known in ((composite, True), (composite, pixels)):
            if known in self.passes:
                return self.passes[known]
        found = attribute_words(self.readings, self.words, composite, pixels)
        self.passes[composite, pixels] = found
        return found

    @property
    def features(self) -> Tensor:
        """(W, K, C), those of each word's picture."""
        return self.readings.features[self.words.rows]


Method = Callable[[Request], Maps]

RULE_OPTIONS = ("head", "eps", "alpha", "beta", "gamma", "z_box")
"""Options that only relevance rules read."""


def lrp_composite(model: Captioner, options: Options) -> Composite:
    """Build the composite that the options ask for.

    Raises:
        RelevanceError: A head that the model does not have, or options that do not fit together.
    """
    specification = model.specification
    if options.head is not None and not 0 <= options.head < specification.heads:
        raise RelevanceError(
            f"Head {options.head} was asked for, but the model has {specification.heads} attention head"
            f"{'s' if specification.heads != 1 else ''} (numbered from 0). Choose one of them, or 'all'."
        )
    _refuse_unfit(options)
    convolution: Rule = AlphaBeta(options.alpha, options.beta) if options.gamma is None else Gamma(options.gamma)
    composite = lrp(options.eps, convolution, options.head if specification.heads > 1 else None)
    if not options.z_box:
        return composite
    low, high = model.preprocessing.bounds()
    return composite.preceded_by((first_convolution(model), ZBox(low, high)))


def _refuse_unfit(options: Options) -> None:
    if not 0 <= options.eps < math.inf:
        raise RelevanceError(
            f"eps is {options.eps:g}, but it must be finite and not negative. The usual value is 0.01."
        )
    if options.gamma is None:
        return
    if not 0 <= options.gamma < math.inf:
        raise RelevanceError(
            f"gamma is {options.gamma:g}, but it must be finite and not negative. A usual value is 0.25."
        )
    if (options.alpha, options.beta) != (1, 0):
        raise RelevanceError(
            f"Both gamma {options.gamma:g} and alpha {options.alpha:g} beta {options.beta:g} were asked for, but a convolution has "
            "one rule. Leave out gamma, or alpha and beta."
        )


def refuse_unused(method: str, options: Options) -> None:
    """Refuse options that a method would ignore: a result that looks asked for and is not is worse than none.

    Raises:
        RelevanceError: An option of `lrp` was set for another method; the message names it.
    """
    default = Options()
    unused = [name for name in RULE_OPTIONS if getattr(options, name) != getattr(default, name)]
    if method in METHODS and METHODS[method] is not layerwise_relevance and unused:
        raise RelevanceError(
            f"The method '{method}' has no {', '.join(unused)}. These are options of 'lrp'. Leave them out, or choose --method lrp."
        )


def first_convolution(model: Captioner) -> str:
    """Return the dotted name of the encoder's first convolution."""
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)]
    if not names:
        raise RelevanceError("z-box is a rule for the first convolution, but the model has none. Leave it out.")
    return names[0]


def layerwise_relevance(request: Request) -> Maps:
    """Layer-wise relevance propagation (Bach et al. 2015; Sun et al. 2022); rules in method.md, section 2. Logit units."""
    found = request.attribute(lrp_composite(request.readings.model, request.options))
    return Maps(_over_channels(found.pixels), found.features.sum(2), found.words.sum(2), found.kept)


def gradient(request: Request) -> Maps:
    """Derivative of the logit, summed over color channels, encoder channels or the embedding (Simonyan et al. 2014)."""
    found = request.attribute(GRADIENT)
    return Maps(_over_channels(found.pixels), found.features.sum(2), found.words.sum(2))


def gradient_times_input(request: Request) -> Maps:
    """Derivative times input, summed like `gradient`; the inputs are the normalized picture and the word vectors."""
    readings, rows = request.readings, request.words.rows
    found = request.attribute(GRADIENT)
    pixels = None if found.pixels is None or readings.images is None else found.pixels * readings.images[rows]
    vectors = readings.model.embed(readings.inputs).detach()  # (B, T, E)
    return Maps(
        _over_channels(pixels), (found.features * request.features).sum(2), (found.words * vectors[rows]).sum(2)
    )


def guided_backpropagation(request: Request) -> Maps:
    """Derivative with the guided ReLU (Springenberg et al. 2015), summed like `gradient`."""
    found = request.attribute(GUIDED_BACKPROP)
    return Maps(_over_channels(found.pixels), found.features.sum(2), found.words.sum(2))


def _cam(request: Request) -> Tensor:
    """Return relu(sum_c mean_k(dlogit / dI)_c I_c), (W, K) (Selvaraju et al. 2017, equations 1 and 2)."""
    found = request.attribute(GRADIENT, pixels=False)
    weights = found.features.mean(1, keepdim=True)  # (W, 1, C)
    return torch.relu((weights * request.features).sum(2))


def grad_cam(request: Request) -> Maps:
    """Grad-CAM at the encoder's output, upsampled. It says nothing about preceding words."""
    cam = _cam(request)
    return Maps(upsample(request.readings, cam), cam, spread=True)


def guided_grad_cam(request: Request) -> Maps:
    """Product of upsampled Grad-CAM and guided backpropagation at the pixels (Selvaraju et al. 2017)."""
    cam = upsample(request.readings, _cam(request))
    guided = guided_backpropagation(request).pixels
    if cam is None or guided is None:
        raise RelevanceError(
            "guided-grad-cam is a product at the pixels, but the model works on stored features. Use grad-cam."
        )
    return Maps(cam * guided)


def attention(request: Request) -> Maps:
    """Attention weights, the mean over heads, upsampled. They are no relevance and have no sign."""
    words = request.words
    weights = torch.stack([step.attention for step in request.readings.unroll()], 1).detach()[words.rows, words.places]
    regions = weights if weights.dim() == 2 else weights.mean(1)
    return Maps(upsample(request.readings, regions), regions, spread=True)


def random(request: Request) -> Maps:
    """Standard normal noise: the control that any method must beat. It is drawn for whole captions, whichever words are asked for."""
    readings, words = request.readings, request.words
    seeds = request.seeds or (request.options.seed,) * len(readings.features)
    longest = readings.tokens.shape[1]
    drawn = [_noise(readings, seed, int(length), longest) for seed, length in zip(seeds, readings.lengths, strict=True)]
    each = [(drawn[row], place) for row, place in zip(words.rows.tolist(), words.places.tolist(), strict=True)]
    pixels = [one.pixels[place] for one, place in each if one.pixels is not None]
    return Maps(
        torch.stack(pixels) if pixels else None,
        torch.stack([one.regions[place] for one, place in each if one.regions is not None]),
        torch.stack([one.words[place] for one, place in each if one.words is not None]),
    )


def _noise(readings: Readings, seed: int, count: int, longest: int) -> Maps:
    """Draw noise for a caption of ``count`` words, its preceding words padded to the longest caption."""
    generator = torch.Generator().manual_seed(seed)
    size = None if readings.images is None else (count, *readings.images.shape[2:])
    pixels = None if size is None else torch.randn(size, generator=generator)
    regions = torch.randn(count, readings.features.shape[1], generator=generator)
    words = torch.randn(count, count, generator=generator).tril()
    return Maps(pixels, regions, functional.pad(words, (0, longest - count)))


def upsample(reading: Reading | Readings, regions: Tensor) -> Tensor | None:
    """Spread regions (W, K) over the pixels (W, H, W) bilinearly; None where there is no picture."""
    if reading.images is None:
        return None
    height, width = reading.images.shape[2:]
    rows, columns = region_grid(reading)
    grid = regions.unflatten(1, (rows, columns))[:, None]
    return functional.interpolate(grid, (height, width), mode="bilinear", align_corners=False)[:, 0]


def region_grid(reading: Reading | Readings) -> tuple[int, int]:
    """Return the rows and columns of the regions of a picture.

    Where the stride does not divide the picture, VGG drops the rest and a ResNet rounds up; the number of regions tells.
    """
    assert reading.images is not None and reading.model.encoder is not None
    stride = reading.model.encoder.stride
    height, width = reading.images.shape[2:]
    rows, columns = height // stride, width // stride
    if rows * columns == reading.features.shape[1]:
        return rows, columns
    return -(-height // stride), -(-width // stride)


def _over_channels(pixels: Tensor | None) -> Tensor | None:
    return None if pixels is None else pixels.sum(1)


METHODS: dict[str, Method] = {
    "lrp": layerwise_relevance,
    "gradient": gradient,
    "gradient-x-input": gradient_times_input,
    "guided-backprop": guided_backpropagation,
    "grad-cam": grad_cam,
    "guided-grad-cam": guided_grad_cam,
    "attention": attention,
    "random": random,
}


def encoder_composite(method: str, model: Captioner, options: Options) -> Composite | None:
    """Return the rules with which a method goes through the encoder; None for methods that do not, or that are not known here.

    Raises:
        RelevanceError: The options do not fit the model or each other.
    """
    if method == "lrp":
        return lrp_composite(model, options)
    plain = {
        "gradient": GRADIENT,
        "gradient-x-input": GRADIENT,
        "guided-backprop": GUIDED_BACKPROP,
        "guided-grad-cam": GUIDED_BACKPROP,
    }
    return plain.get(method)


def find_method(name: str) -> Method:
    """Look up a method.

    Raises:
        RelevanceError: There is no such method.
    """
    if name not in METHODS:
        raise RelevanceError(unknown_choice("method", name, METHODS))
    return METHODS[name]


def register_method(name: str, method: Method) -> None:
    """Add a method.

    Raises:
        RelevanceError: The name is taken.
    """
    if name in METHODS:
        raise RelevanceError(f"A method named '{name}' is registered already; choose another name.")
    METHODS[name] = method

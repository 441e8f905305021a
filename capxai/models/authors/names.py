"""What the authors call the weights, which model they make, and its sizes (method.md, section 1)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from capxai.errors import ModelError
from capxai.models.specification import Specification

PUBLISHED_HEADS = 8
"""Number of heads of the paper's `mh-fc`; checkpoints do not store it."""

_SHARED = {
    "img_projector": "decoder.region_projection.linear",
    "embedding": "decoder.embedding",
    "fc": "decoder.word_head.fc",
}
_ADAPTIVE = _SHARED | {
    "global_img_feature_proj": "decoder.global_projection.linear",
    "AdaLSTM.lstm_cell": "decoder.lstm",
    "AdaLSTM.x_gate": "decoder.sentinel.x_gate",
    "AdaLSTM.h_gate": "decoder.sentinel.h_gate",
    "AdaAttention.W_v_proj": "decoder.attention.value_projection",
    "AdaAttention.W_s_proj": "decoder.attention.sentinel_projection",
    "AdaAttention.W_g_proj": "decoder.attention.query_projection",
    "AdaAttention.w_h": "decoder.attention.score",
}
MODULES: dict[str, dict[str, str]] = {
    "ada-lstm": _ADAPTIVE | {"LanguageLSTM": "decoder.language_lstm"},
    "adaptive": _ADAPTIVE,
    "mh-fc": _SHARED
    | {
        "LanguageLSTM": "decoder.lstm",
        "decoder_k_proj": "decoder.key_projection",
        "decoder_v_proj": "decoder.value_projection",
        "decoder_multihead_attention.q_proj": "decoder.attention.query_projection",
        "decoder_aoa_linear": "decoder.context_projection",
        "decoder_aoa_linear_gate": "decoder.context_gate",
    },
}
"""For each decoder, the authors' module and ours. The LSTM inputs are concatenated in the same order in both."""

_ENCODER, _OURS = "img_encoder.encoder.", "encoder.trunk."
_UNUSED = (f"{_ENCODER}fc.",)
"""The authors' ResNet keeps its classifier, which no forward pass reads."""

_VGG16_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_RESNETS = {6: "resnet50", 23: "resnet101"}  # by the number of blocks of the third stage
_STRIDES = {"vgg16": 16, "resnet50": 32, "resnet101": 32}
_IMAGE_SIZE = 224
_REGION_BOXES = 36


@dataclass(frozen=True)
class Layout:
    """How a checkpoint's model is built.

    Attributes:
        specification: Its architecture.
        image_size: Side of the encoder's input in pixels.
        notes: What was assumed or left aside.
    """

    specification: Specification
    image_size: int
    notes: tuple[str, ...]


def recognize(weights: Mapping[str, Tensor], heads: int | None) -> Layout:
    """Tell decoder, encoder and sizes from names and shapes.

    Args:
        weights: The authors' state dict.
        heads: N of `mh-fc`, or None for the published number.

    Raises:
        ModelError: It is none of the authors' models, or one that capxai cannot represent.
    """
    decoder, encoder = _decoder(weights), _encoder(weights)
    if encoder == "features" and decoder != "mh-fc":
        raise ModelError(
            f"The checkpoint is an {decoder} on region features, whose g is made of the projected regions; capxai's "
            f"{decoder} makes it "
            "of the features themselves, so the logits would differ. Expected one with its image encoder, or an mh-fc "
            "on region features."
        )
    hidden, channels = _shape(weights, "img_projector.weight", 2)
    vocabulary_size, embedding = _shape(weights, "embedding.weight", 2)
    notes = []
    regions = (_IMAGE_SIZE // _STRIDES[encoder]) ** 2 if encoder in _STRIDES else _REGION_BOXES
    if decoder == "mh-fc":
        heads, note = _heads(heads, hidden)
        notes.append(note)
    else:
        if heads is not None:
            notes.append(f"--heads {heads} is left aside: {decoder} has no heads.")
        heads = 1
        regions = _shape(weights, "AdaAttention.W_v_proj.weight", 2)[0]
        notes.append(
            "The released code adds W_q h1 across the regions; the imported model does the same, so that its logits "
            "are theirs."
        )
    if any(name.startswith(_UNUSED) for name in weights):
        notes.append("The encoder's ImageNet classifier (fc) is left aside: nothing reads it.")
    specification = Specification(
        encoder,
        decoder,
        channels,
        regions,
        hidden,
        embedding,
        vocabulary_size,
        heads,
        published_query_axis=decoder != "mh-fc",
    )
    return Layout(specification, _image_size(encoder, regions), tuple(notes))


def translate(weights: Mapping[str, Tensor], decoder: str, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the authors' tensors our names and shapes.

    Args:
        weights: The authors' state dict.
        decoder: A key of `MODULES`.
        ours: The state dict of the model to fill, for its names and shapes.

    Returns:
        One tensor for every name in ``ours``, every tensor of the authors (but their unused classifier) used once.

    Raises:
        ModelError: Tensors are missing, unknown or of another shape; all of them are named together.
    """
    expected = {_authors_name(name, MODULES[decoder]): name for name in ours}
    missing = [name for name in expected if name not in weights]
    unknown = [name for name in weights if name not in expected and not name.startswith(_UNUSED)]
    translated = {expected[name]: _as_linear(name, tensor) for name, tensor in weights.items() if name in expected}
    wrong = [
        f"{name} {tuple(weights[name].shape)} for {tuple(ours[expected[name]].shape)}"
        for name in weights
        if name in expected and translated[expected[name]].shape != ours[expected[name]].shape
    ]
    found = [
        f"{kind}: {_listed(names)}"
        for kind, names in (("missing", missing), ("unknown", unknown), ("of another shape", wrong))
        if names
    ]
    if found:
        raise ModelError(
            f"The checkpoint's weights do not make up an {decoder} of the authors; {'; '.join(found)}. Expected every "
            "weight of their "
            "model once and nothing else. Import the checkpoint as their code saved it."
        )
    return translated


def _as_linear(name: str, tensor: Tensor) -> Tensor:
    """Turn the 1x1 convolution (H, C, 1, 1) into a linear map (H, C)."""
    if name == "img_projector.weight" and tensor.dim() == 4 and tensor.shape[2:] == (1, 1):
        return tensor.flatten(1)
    return tensor


def _authors_name(ours: str, modules: Mapping[str, str]) -> str:
    if ours.startswith(_OURS):
        return _ENCODER + ours.removeprefix(_OURS)
    module, _, parameter = ours.rpartition(".")
    theirs = {our_module: their_module for their_module, our_module in modules.items()}
    return f"{theirs[module]}.{parameter}"


def _decoder(weights: Mapping[str, Tensor]) -> str:
    modules = {name.partition(".")[0] for name in weights}
    if "decoder_multihead_attention" in modules:
        return "mh-fc"
    if "AdaLSTM" in modules:
        return "ada-lstm" if "LanguageLSTM" in modules else "adaptive"
    raise ModelError(
        f"The checkpoint's modules are {_listed(sorted(modules)) or 'none'}. Expected one of the authors' models: "
        "with AdaLSTM and "
        "LanguageLSTM (ada-lstm), AdaLSTM alone (adaptive), or decoder_multihead_attention (mh-fc). Other models "
        "cannot be imported."
    )


def _encoder(weights: Mapping[str, Tensor]) -> str:
    names = [name.removeprefix(_ENCODER) for name in weights if name.startswith(_ENCODER)]
    if not names:
        return "features"
    blocks = len({name.split(".")[1] for name in names if name.startswith("layer3.")})
    if blocks in _RESNETS and "layer1.0.conv3.weight" in names:
        return _RESNETS[blocks]
    convolutions = sorted(int(name.split(".")[0]) for name in names if name[0].isdigit() and name.endswith(".weight"))
    if tuple(convolutions) == _VGG16_CONVOLUTIONS:
        return "vgg16"
    raise ModelError(
        f"The checkpoint's image encoder has the weights {_listed(names)}, which is none that capxai knows. "
        f"Expected one of: {', '.join(_STRIDES)}."
    )


def _shape(weights: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    """Return the first sizes of a tensor from which the model's sizes are read."""
    if name not in weights or weights[name].dim() < dimensions:
        found = f"has the shape {tuple(weights[name].shape)}" if name in weights else "is missing"
        raise ModelError(
            f"'{name}' {found}, so the model's sizes cannot be told. Expected a whole checkpoint of the authors."
        )
    return tuple(weights[name].shape[:dimensions])


def _heads(heads: int | None, hidden: int) -> tuple[int, str]:
    number = PUBLISHED_HEADS if heads is None else heads
    if number < 1 or hidden % number:
        divisors = [str(n) for n in range(1, min(hidden, 64) + 1) if hidden % n == 0]
        raise ModelError(
            f"{number} heads do not divide a hidden size of {hidden}. Checkpoints do not store the number of heads. "
            f"Give the one that the model was trained with by --heads, one of: {', '.join(divisors)}."
        )
    origin = (
        "as in the paper; give --heads if the model was trained with another number" if heads is None else "as given"
    )
    return number, f"Checkpoints do not store the number of heads: {number} is used, {origin}."


def _image_size(encoder: str, regions: int) -> int:
    if encoder not in _STRIDES:
        return _IMAGE_SIZE
    side = math.isqrt(regions)
    if side * side != regions:
        raise ModelError(
            f"The attention is made for {regions} regions, which are no square grid. Expected a square number such as "
            "196, from a "
            "square picture. Such a model cannot be imported with its encoder."
        )
    return side * _STRIDES[encoder]


def _listed(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

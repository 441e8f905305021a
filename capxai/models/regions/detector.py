"""The detector behind region features: torchvision's Faster R-CNN (ResNet-50, FPN), built, filled and identified."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor
from torchvision.models.detection import FasterRCNN, FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from capxai.errors import DependencyError, ModelError
from capxai.models.encoders.imagenet import read_local_weights

Weights = Path | Literal["random"] | None
"""A state dict in a file, fresh seeded weights, or None for those that torchvision publishes."""

PUBLISHED = FasterRCNN_ResNet50_FPN_Weights.COCO_V1
_CLASSES = len(PUBLISHED.meta["categories"])  # 91, the background included
_CLASS_SCORES = "roi_heads.box_predictor.cls_score.weight"
_RESIDUAL_GAIN = 0.25


def build_detector(weights: Weights, seed: int) -> tuple[FasterRCNN, str]:
    """Build the detector in evaluation mode on the CPU.

    Args:
        weights: See `Weights`. A file may be of any number of classes (torchvision's own has 91): a detector of the
            Visual Genome classes, trained with torchvision, comes closer to the original.
        seed: Of the fresh weights; without effect on others.

    Returns:
        The detector and where its weights came from.

    Raises:
        DependencyError: The published weights are not at hand and cannot be downloaded.
        ModelError: The file is missing, is no state dict or does not fit.
    """
    if weights == "random":
        return _random_detector(seed), f"random (seed {seed})"
    if weights is None:
        state, origin = _published_weights(), str(PUBLISHED)
    else:
        state, origin = read_local_weights(Path(weights)), str(weights)
    detector = _empty_detector(state[_CLASS_SCORES].shape[0] if _CLASS_SCORES in state else _CLASSES)
    try:
        detector.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ModelError(
            f"The weights from '{origin}' do not fit the detector: {first} Expected a state dict of torchvision's "
            f"fasterrcnn_resnet50_fpn. Use the file from {PUBLISHED.url}, or one that torchvision trained for this architecture."
        ) from error
    return detector.eval().requires_grad_(False), origin


def hash_of_weights(weights: Mapping[str, Tensor]) -> str:
    """Compute the SHA-256 of a state dict as a safetensors file."""
    return hashlib.sha256(
        save({name: values.detach().cpu().contiguous() for name, values in weights.items()})
    ).hexdigest()


def _empty_detector(classes: int) -> FasterRCNN:
    """Build the architecture of the published weights: frozen batch norms, whose eps torchvision sets to 0 for them."""
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d)
    detector = FasterRCNN(backbone, num_classes=classes)
    for module in detector.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
    return detector


def _random_detector(seed: int) -> FasterRCNN:
    """Build a detector with fresh weights and leave the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = _empty_detector(_CLASSES)
    # Without statistics to normalize with, each of the 16 residual sums would double the variance: features beyond float16.
    for name, values in detector.state_dict().items():
        if name.endswith("bn3.weight"):
            values.fill_(_RESIDUAL_GAIN)
    return detector.eval().requires_grad_(False)


def _published_weights() -> dict[str, Tensor]:
    try:
        return dict(PUBLISHED.get_state_dict(progress=False, check_hash=True))
    except Exception as error:
        raise DependencyError(
            f"The weights of the region detector are not on this machine and cannot be downloaded ({type(error).__name__}). "
            f"Download\n  {PUBLISHED.url}\nwhere there is internet, copy the file here and pass --encoder-weights FILE (or put "
            f"it into {torch.hub.get_dir()}/checkpoints). '--encoder-weights random' runs without, for trying things out."
        ) from error

"""Pictures to region features and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import clip_boxes_to_image

from capxai.errors import ConfigError
from capxai.models.regions.detector import Weights, build_detector, hash_of_weights
from capxai.models.regions.preparation import STRIDE, Size, groups_of_equal_size, padded_size, prepare, scaled_size
from capxai.models.regions.selection import complete, mean_inside, select_regions
from capxai.types import FloatArray, ImageArray, JsonObject

CHANNELS = 2048
DIFFERENCES = (
    "The detector is trained on the 80 object classes of COCO, not on 1,600 classes and 400 attributes of Visual Genome: its "
    "features know less of attributes, materials and scenery.",
    "ResNet-50 with a feature pyramid in place of ResNet-101 cut at C4.",
    "A region's feature is the mean of the last stage (C5) of the whole picture inside its box; the original runs that stage anew "
    "on each region's own crop of C4. Small regions that lie close together therefore get features that are nearly alike.",
    "Boxes are those that the best class made of the proposal, as in the paper's features; those published by Anderson et al. "
    "are the proposals themselves.",
)
"""What sets these features apart from the published bottom-up features."""


@dataclass(frozen=True)
class RegionSettings:
    """How regions are found.

    Attributes:
        regions: K, how many a picture has.
        short_side: Pixels to which the short side is scaled; torchvision's detectors are trained with 800.
        long_side: Pixels that the long side may have after that.
        proposals: How many proposals a picture is searched with (300 in the original).
        overlap: Intersection over union above which a box suppresses a weaker one of its class.
        minimum_score: Class scores up to this count as none.
        batch: Pictures that go through the network together at most; without effect on the result, up to rounding. Two photographs take
            about 2 GB.
    """

    regions: int = 36
    short_side: int = 800
    long_side: int = 1333
    proposals: int = 300
    overlap: float = 0.5
    minimum_score: float = 0.02
    batch: int = 2

    def __post_init__(self) -> None:
        if min(self.regions, self.short_side, self.long_side, self.proposals, self.batch) < 1:
            raise ConfigError(
                f"Region settings of {self} were given. Expected at least 1 for regions, sides, proposals and batch. Mend the numbers."
            )


@dataclass(frozen=True)
class _Group:
    """Pictures that share a batch: (B, 3, H, W) pixels and their sizes within it."""

    pixels: Tensor
    sizes: list[Size]


class RegionExtractor:
    """Region features from a torchvision Faster R-CNN, in the role of the network of bottom-up attention.

    Like the original (Anderson et al. 2018), it proposes regions, scores them by class, keeps the 36 most confident and gives each
    2,048 numbers and a box. It is not that network, and its features are no substitute in a model that was trained on the published
    ones (import those instead): see `DIFFERENCES`, which each feature file repeats.

    Every picture has exactly K rows, most confident first, ties in the order of the proposals. A picture that yields fewer regions
    (a few pixels wide, or with few proposals) is completed with rows of the whole picture, never with zeros: attention would
    look at a zero row like at any other.

    Args:
        detector: In evaluation mode, on its device.
        origin: Where its weights came from.
        settings: How regions are found.

    Attributes:
        name: "regions".
        origin: Where the weights came from.
        weights_sha256: Hash of the detector's state dict.
        device: Where it computes.
    """

    name: Literal["regions"] = "regions"

    def __init__(self, detector: FasterRCNN, origin: str, settings: RegionSettings | None = None) -> None:
        self.settings = settings or RegionSettings()
        self.origin = origin
        self.weights_sha256 = hash_of_weights(detector.state_dict())
        self._detector = detector
        self.device: torch.device = next(detector.parameters()).device
        detector.rpn._post_nms_top_n = {"training": self.settings.proposals, "testing": self.settings.proposals}
        self._mean = torch.tensor(detector.transform.image_mean, device=self.device)[:, None, None]
        self._std = torch.tensor(detector.transform.image_std, device=self.device)[:, None, None]

    @property
    def regions(self) -> int:
        """K."""
        return self.settings.regions

    @property
    def channels(self) -> int:
        """C."""
        return CHANNELS

    @property
    def description(self) -> JsonObject:
        """What made the features, for the feature store."""
        return {
            "detector": "torchvision fasterrcnn_resnet50_fpn",
            "weights": self.origin,
            "feature": "mean of C5 inside the box (RoIAlign, 7 x 7 bins of 2 x 2 samples)",
            "order": "score descending, ties by proposal; completed with the whole picture where regions are too few",
            "boxes": "left, top, right, bottom in pixels of the picture",
            "settings": asdict(self.settings),
            "differences_from_bottom_up": list(DIFFERENCES),
        }

    @torch.inference_mode()
    def extract(self, images: Sequence[ImageArray]) -> tuple[FloatArray, FloatArray]:
        """Find the regions of pictures and describe them.

        Args:
            images: (H, W, 3) uint8 RGB in [0, 255] each, of any sizes; the result for a picture does not depend on the others,
                up to rounding.

        Returns:
            (B, K, 2048) float32 features, nonnegative; (B, K, 4) float32 boxes: left, top, right, bottom in pixels of the picture.
        """
        sizes = [scaled_size(image.shape[:2], self.settings.short_side, self.settings.long_side) for image in images]
        features = np.empty((len(images), self.regions, CHANNELS), np.float32)
        boxes = np.empty((len(images), self.regions, 4), np.float32)
        for places in groups_of_equal_size(sizes, self.settings.batch):
            pixels = torch.stack([prepare(images[place], sizes[place], self._mean, self._std) for place in places])
            found, inside = self._extract_group(_Group(pixels, [sizes[place] for place in places]))
            features[places] = inside.cpu().numpy()
            scales = np.array([_back_to_picture(images[place].shape[:2], sizes[place]) for place in places], np.float32)
            boxes[places] = found.cpu().numpy() * scales[:, None, :]
        return features, self._within(boxes, images)

    def _extract_group(self, group: _Group) -> tuple[Tensor, Tensor]:
        """Return (B, K, 4) boxes in pixels of the network's input and (B, K, C) features."""
        stages = self._detector.backbone.body(group.pixels)
        pyramid = self._detector.backbone.fpn(stages)
        proposals, _ = self._detector.rpn(ImageList(group.pixels, group.sizes), pyramid)
        refined, scores = self._classify(pyramid, proposals, group)
        rows = []
        for place, (height, width) in enumerate(group.sizes):
            chosen = select_regions(
                proposals[place],
                scores[place],
                clip_boxes_to_image(refined[place], (height, width)),
                self.regions,
                overlap=self.settings.overlap,
                minimum=self.settings.minimum_score,
            )
            rows.append(complete(chosen, self.regions, height, width))
        boxes = torch.stack(rows)
        return boxes, mean_inside(list(stages.values())[-1], boxes, STRIDE)

    def _classify(
        self, pyramid: dict[str, Tensor], proposals: list[Tensor], group: _Group
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return for each picture (P, M, 4) boxes and (P, M) scores by class, without the background."""
        heads = self._detector.roi_heads
        # torchvision derives the scales of its pooling from the first sizes it sees and keeps them: the padded ones are exact.
        padded = [padded_size(size) for size in group.sizes]
        logits, changes = heads.box_predictor(heads.box_head(heads.box_roi_pool(pyramid, proposals, padded)))
        counts = [len(boxes) for boxes in proposals]
        scores = torch.softmax(logits, dim=-1)
        refined = heads.box_coder.decode(changes, proposals).reshape(
            *scores.shape, 4
        )  # also where there are no proposals
        return refined[:, 1:].split(counts), scores[:, 1:].split(counts)

    def _within(self, boxes: FloatArray, images: Sequence[ImageArray]) -> FloatArray:
        """Take back what rounding put outside of a picture."""
        edges = np.array([[image.shape[1], image.shape[0]] * 2 for image in images], np.float32).reshape(-1, 1, 4)
        within: FloatArray = np.clip(boxes, 0, edges)
        return within


def build_region_extractor(
    weights: Weights, seed: int, device: torch.device, settings: RegionSettings | None = None
) -> RegionExtractor:
    """Build the extractor of region features.

    Args:
        weights: A state dict of torchvision's fasterrcnn_resnet50_fpn (``.pth`` or ``.safetensors``; nothing in it is executed),
            "random" for fresh seeded weights (for trying things out: the regions mean nothing), or None for the weights of
            torchvision, from its cache or the internet.
        seed: Of the fresh weights.
        device: Where to compute.
        settings: How regions are found; the defaults are those of the literature.

    Raises:
        DependencyError: The published weights are not at hand and cannot be downloaded.
        ModelError: The file is missing, is no state dict or does not fit.
    """
    detector, origin = build_detector(weights, seed)
    return RegionExtractor(detector.to(device), origin, settings)


def _back_to_picture(size: Size, scaled: Size) -> tuple[float, float, float, float]:
    """Return what to multiply a box of the scaled picture with."""
    down, across = size[0] / scaled[0], size[1] / scaled[1]
    return across, down, across, down

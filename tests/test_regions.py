"""The region extractor: its selection and pooling against slow replicas, and what it promises for any picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from capxai.errors import DependencyError, ModelError
from capxai.models.regions import RegionExtractor, build_region_extractor
from capxai.models.regions.detector import PUBLISHED
from capxai.models.regions.extractor import DIFFERENCES, RegionSettings
from capxai.models.regions.preparation import groups_of_equal_size, padded_size, prepare, scaled_size
from capxai.models.regions.selection import complete, mean_inside, select_regions

CPU = torch.device("cpu")
SMALL = RegionSettings(short_side=64, long_side=128)
SIZES = ((60, 80), (80, 60), (61, 80), (40, 90))


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blocks of random colors with noise: structure of several sizes."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 10 + 1, width // 10 + 1, 3))
    fine = np.kron(coarse, np.ones((10, 10, 1)))[:height, :width]
    return np.clip(fine + generator.normal(0, 20, fine.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def extractor() -> RegionExtractor:
    return build_region_extractor("random", 0, CPU, SMALL)


@pytest.fixture(scope="module")
def extracted(extractor: RegionExtractor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return extractor.extract([picture(*size, seed=number) for number, size in enumerate(SIZES)])


def bilinear(plane: NDArray[np.float64], y: float, x: float) -> float:
    """Read a plane between its cells; the border counts on beyond the outermost centers."""
    y, x = min(max(y, 0), plane.shape[0] - 1), min(max(x, 0), plane.shape[1] - 1)
    top, left = int(y), int(x)
    below, right = min(top + 1, plane.shape[0] - 1), min(left + 1, plane.shape[1] - 1)
    down, across = y - top, x - left
    upper = plane[top, left] * (1 - across) + plane[top, right] * across
    lower = plane[below, left] * (1 - across) + plane[below, right] * across
    return float(upper * (1 - down) + lower * down)


def slow_mean(plane: NDArray[np.float64], box: NDArray[np.float64], stride: int) -> float:
    """Average over 7 x 7 bins, each the average of 2 x 2 samples at its quarter points."""
    x1, y1, x2, y2 = box / stride - 0.5  # the center of cell 0 lies half a cell inside
    bins = []
    for row in range(7):
        for column in range(7):
            samples = [
                bilinear(plane, y1 + (row + down) / 7 * (y2 - y1), x1 + (column + across) / 7 * (x2 - x1))
                for down in (0.25, 0.75)
                for across in (0.25, 0.75)
            ]
            bins.append(sum(samples) / 4)
    return sum(bins) / 49


def test_the_mean_inside_a_box_on_a_ramp() -> None:
    # Values 0, 1, 2, ... along x: the center of cell n lies at pixel 4 n + 2, so pixel x has the value x / 4 - 0.5.
    ramp = torch.arange(8.0).expand(1, 1, 6, 8)
    boxes = torch.tensor([[[4.0, 4.0, 12.0, 20.0], [10.0, 8.0, 10.0, 9.0]]])
    found = mean_inside(ramp, boxes, 4)
    assert found.shape == (1, 2, 1)
    assert found[0, 0, 0].item() == pytest.approx(1.5)  # center 8 -> 8 / 4 - 0.5
    assert found[0, 1, 0].item() == pytest.approx(2.0)  # a box without width: 10 / 4 - 0.5


def test_the_mean_inside_boxes_equals_a_slow_one() -> None:
    generator = np.random.default_rng(1)
    planes = generator.normal(size=(2, 3, 5, 7))
    corners = np.sort(generator.uniform(0, [7 * 32, 5 * 32], (2, 4, 2, 2)), axis=2)  # (B, K, corner, x and y)
    boxes = corners.reshape(2, 4, 4)
    found = mean_inside(torch.tensor(planes), torch.tensor(boxes), 32).numpy()
    for image in range(2):
        for region in range(4):
            for channel in range(3):
                expected = slow_mean(planes[image, channel], boxes[image, region], 32)
                assert found[image, region, channel] == pytest.approx(expected, abs=1e-9)


def overlap_of(one: list[float], other: list[float]) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def slow_selection(
    proposals: list[list[float]], scores: list[list[float]], refined: list[list[list[float]]]
) -> list[list[float]]:
    """Apply the rule of bottom-up attention class by class and proposal by proposal (overlap 0.5, minimum 0.05)."""
    best: dict[int, tuple[float, int]] = {}
    for label in range(len(scores[0])):
        order = sorted(
            (index for index in range(len(scores)) if scores[index][label] > 0.05), key=lambda i: -scores[i][label]
        )
        kept: list[int] = []
        for index in order:
            if all(overlap_of(refined[index][label], refined[other][label]) <= 0.5 for other in kept):
                kept.append(index)
                if index not in best or scores[index][label] > best[index][0]:
                    best[index] = scores[index][label], label
    detected = sorted(best, key=lambda index: (-best[index][0], index))
    rest = [index for index in range(len(scores)) if index not in best]
    return [refined[index][best[index][1]] for index in detected] + [proposals[index] for index in rest]


@pytest.mark.parametrize("seed", range(20))
def test_the_selection_equals_a_slow_one(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(12, 2, generator=generator) * 10
    proposals = torch.cat([corners, corners + 2 + torch.rand(12, 2, generator=generator) * 10], dim=1)
    refined = proposals[:, None] + torch.rand(12, 4, 4, generator=generator)
    scores = torch.rand(12, 4, generator=generator).pow(4).round(decimals=1)  # with ties, and some below the minimum
    expected = slow_selection(proposals.tolist(), scores.tolist(), refined.tolist())
    found = select_regions(proposals, scores, refined, 9, overlap=0.5, minimum=0.05)
    assert found.tolist() == expected[:9]


def test_selection_without_any_proposal_or_score() -> None:
    none = select_regions(torch.zeros(0, 4), torch.zeros(0, 3), torch.zeros(0, 3, 4), 5, overlap=0.5, minimum=0.1)
    assert none.shape == (0, 4)
    proposals = torch.tensor([[0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 3.0, 3.0]])
    kept = select_regions(proposals, torch.zeros(2, 3), torch.ones(2, 3, 4), 5, overlap=0.5, minimum=0.1)
    assert kept.tolist() == proposals.tolist()


def test_too_few_regions_are_completed_with_the_whole_picture() -> None:
    found = complete(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 3, 6.0, 8.0)
    assert found.tolist() == [[1, 2, 3, 4], [0, 0, 8, 6], [0, 0, 8, 6]]
    assert complete(torch.arange(20.0).reshape(5, 4), 2, 6.0, 8.0).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1066)), ((500, 2000), (333, 1333)), ((1, 5000), (1, 1333)), ((1, 1), (800, 800))],
)
def test_scaled_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    # The shorter side becomes 800 unless the longer one would pass 1,333: 500 x 2000 is scaled by 1333 / 2000.
    assert scaled_size(size, 800, 1333) == expected


def test_prepared_pictures_equal_those_of_torchvision() -> None:
    detector = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=64, max_size=128).eval()
    image = picture(45, 77)
    theirs = detector.transform([torch.from_numpy(image).permute(2, 0, 1) / 255])[0]
    size = scaled_size((45, 77), 64, 128)
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (detector.transform.image_mean, detector.transform.image_std)
    )
    ours = prepare(image, size, mean, std)
    assert theirs.image_sizes == [size]
    torch.testing.assert_close(ours, theirs.tensors[0], rtol=0, atol=1e-6)


def test_only_pictures_that_are_padded_alike_share_a_batch() -> None:
    sizes = [(64, 80), (80, 64), (50, 90), (64, 97)]
    assert [padded_size(size) for size in sizes] == [(64, 96), (96, 64), (64, 96), (64, 128)]
    assert groups_of_equal_size(sizes, 8) == [[0, 2], [1], [3]]
    assert groups_of_equal_size([(32, 32)] * 5, 2) == [[0, 1], [2, 3], [4]]


def test_shapes_ranges_and_boxes_within_the_picture(
    extracted: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    features, boxes = extracted
    assert features.shape == (4, 36, 2048) and features.dtype == np.float32
    assert boxes.shape == (4, 36, 4) and boxes.dtype == np.float32
    assert np.isfinite(features).all() and features.min() >= 0
    assert 0.01 < features.max() < 1000  # neither dead nor beyond half precision
    assert (boxes >= 0).all() and (boxes[..., 2:] > boxes[..., :2]).all()
    for (height, width), found in zip(SIZES, boxes, strict=True):
        assert found[:, 2].max() <= width and found[:, 3].max() <= height
        assert len(np.unique(found, axis=0)) == 36


def test_features_differ_between_regions_and_pictures(
    extracted: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    features, _ = extracted
    assert len(np.unique(features.reshape(-1, 2048), axis=0)) == 4 * 36


def test_features_are_the_mean_of_the_last_stage_inside_their_boxes(extractor: RegionExtractor) -> None:
    image = picture(64, 96, seed=9)  # neither scaled nor padded
    features, boxes = extractor.extract([image])
    detector = extractor._detector
    pixels = prepare(image, (64, 96), extractor._mean, extractor._std)
    with torch.no_grad():
        last = detector.backbone.body(pixels[None])["3"][0].double().numpy()  # C5, (2048, 2, 3)
    assert last.shape == (2048, 2, 3)
    for region in (0, 17, 35):
        for channel in (0, 1000, 2047):
            expected = slow_mean(last[channel], boxes[0, region].astype(np.float64), 32)
            assert features[0, region, channel] == pytest.approx(expected, abs=1e-5)


def test_a_batch_equals_one_by_one(
    extractor: RegionExtractor, extracted: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> None:
    for number, size in enumerate(SIZES):
        features, boxes = extractor.extract([picture(*size, seed=number)])
        np.testing.assert_allclose(features[0], extracted[0][number], rtol=0, atol=1e-5)
        np.testing.assert_allclose(boxes[0], extracted[1][number], rtol=0, atol=1e-3)


def test_seeds_decide_and_the_global_random_state_stays(
    extracted: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    same, other = build_region_extractor("random", 0, CPU, SMALL), build_region_extractor("random", 1, CPU, SMALL)
    assert torch.equal(torch.get_rng_state(), before)
    images = [picture(*size, seed=number) for number, size in enumerate(SIZES)]
    again = same.extract(images)
    assert np.array_equal(again[0], extracted[0]) and np.array_equal(again[1], extracted[1])
    assert not np.allclose(other.extract(images[:1])[0], extracted[0][:1])
    assert same.weights_sha256 != other.weights_sha256


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (2, 3), (300, 7)])
def test_pictures_of_any_size_give_36_regions(extractor: RegionExtractor, size: tuple[int, int]) -> None:
    features, boxes = extractor.extract([picture(*size)])
    assert features.shape == (1, 36, 2048) and np.isfinite(features).all()
    assert (boxes >= 0).all() and (boxes <= np.array([size[1], size[0]] * 2, np.float32)).all()


def test_with_fewer_proposals_than_regions_the_whole_picture_stands_in() -> None:
    few = build_region_extractor("random", 0, CPU, RegionSettings(short_side=64, long_side=128, proposals=4))
    image = picture(60, 80)
    features, boxes = few.extract([image])
    assert boxes[0, 4:].tolist() == [[0, 0, 80, 60]] * 32
    assert (np.ptp(features[0, 4:], axis=0) == 0).all()
    assert boxes[0, 3].tolist() != [0, 0, 80, 60]


@pytest.mark.parametrize("counts", [(0,), (0, 2), (2, 0)])
def test_pictures_in_which_nothing_is_proposed(
    extractor: RegionExtractor, monkeypatch: pytest.MonkeyPatch, counts: tuple[int, ...]
) -> None:
    network = extractor._detector.rpn
    propose = network.forward

    def few(images: object, pyramid: object) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        proposals, losses = propose(images, pyramid)
        return [boxes[:count] for boxes, count in zip(proposals, counts, strict=True)], losses

    monkeypatch.setattr(network, "forward", few)
    features, boxes = extractor.extract([picture(60, 80)] * len(counts))
    assert np.isfinite(features).all()
    for found, count in zip(boxes, counts, strict=True):
        assert found[count:].tolist() == [[0, 0, 80, 60]] * (36 - count)


def test_the_description_tells_what_differs(extractor: RegionExtractor) -> None:
    assert extractor.name == "regions"
    assert len(extractor.weights_sha256) == 64
    assert extractor.description["weights"] == "random (seed 0)"
    assert extractor.description["settings"]["short_side"] == 64
    assert extractor.description["differences_from_bottom_up"] == list(DIFFERENCES)


def test_weights_of_a_file_with_other_classes(tmp_path: Path) -> None:
    torch.manual_seed(3)
    theirs = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=5
    )  # with batch norms that count batches
    path = tmp_path / "detector.safetensors"
    save_file(theirs.state_dict(), path)
    loaded = build_region_extractor(path, 0, CPU, SMALL)
    assert loaded.origin == str(path)
    assert torch.equal(
        loaded._detector.state_dict()["rpn.head.cls_logits.weight"], theirs.state_dict()["rpn.head.cls_logits.weight"]
    )
    assert loaded._detector.roi_heads.box_predictor.cls_score.out_features == 5


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"layer.weight": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match=r"do not fit the detector.*fasterrcnn_resnet50_fpn"):
        build_region_extractor(path, 0, CPU, SMALL)
    with pytest.raises(ModelError, match="No weights at"):
        build_region_extractor(tmp_path / "absent.pth", 0, CPU, SMALL)


def test_published_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(DependencyError, match="cannot be downloaded") as caught:
        build_region_extractor(None, 0, CPU)
    assert PUBLISHED.url in str(caught.value) and "--encoder-weights" in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_gives_the_regions_of_the_cpu(
    extracted: tuple[NDArray[np.float32], NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    on_device = build_region_extractor("random", 0, torch.device("cuda:0"), SMALL)
    features, boxes = on_device.extract([picture(*size, seed=number) for number, size in enumerate(SIZES)])
    # Near ties may fall the other way; of 144 regions at most a handful.
    same = np.isclose(boxes, extracted[1], rtol=0, atol=1e-2).all(axis=2)
    assert same.mean() > 0.9
    np.testing.assert_allclose(features[same], extracted[0][same], rtol=0, atol=1e-3)

"""From picture to encoder input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from capxai.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from capxai.errors import ModelError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def test_normalize_by_hand() -> None:
    preprocessing = Preprocessing(1, (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))
    # (1 - 0.5) / 0.5 = 1; (0 - 0.25) / 0.25 = -1; (51 / 255 - 0) / 2 = 0.1
    result = preprocessing.normalize(torch.tensor([[[[255, 0, 51]]]], dtype=torch.uint8))
    assert result.shape == (1, 3, 1, 1) and result.dtype == torch.float32
    torch.testing.assert_close(result.flatten(), torch.tensor([1.0, -1.0, 0.1]))


def test_normalize_equals_torchvision() -> None:
    transforms = pytest.importorskip("torchvision.transforms.functional")
    pictures = noise(2, 8, 8, 3)
    result = Preprocessing(8).normalize(torch.from_numpy(pictures))
    assert result.is_contiguous()
    for picture, planes in zip(pictures, result, strict=True):
        expected = transforms.normalize(transforms.to_tensor(picture), IMAGENET_MEAN, IMAGENET_STD)
        assert torch.equal(planes, expected)


def test_normalize_keeps_its_input() -> None:
    pictures = torch.from_numpy(noise(1, 4, 4, 3))
    before = pictures.clone()
    Preprocessing(4).normalize(pictures)
    assert torch.equal(pictures, before)


@pytest.mark.parametrize("pictures", [torch.zeros(1, 4, 4, 3), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)])
def test_normalize_refuses_other_layouts(pictures: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected .B, H, W, 3. uint8"):
        Preprocessing(4).normalize(pictures)


def test_resize_averages_instead_of_skipping() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    small = Preprocessing(8).resize(stripes)
    assert small.shape == (8, 8, 3) and small.dtype == np.uint8
    assert np.abs(small.astype(int) - 100).max() <= 8  # without antialiasing: all 0 or all 200


def test_resize_keeps_every_side() -> None:
    wide = np.zeros((10, 100, 3), dtype=np.uint8)
    wide[:, :10], wide[:, -10:] = (255, 0, 0), (0, 255, 0)
    small = Preprocessing(20).resize(wide)
    assert (small[:, 0] == (255, 0, 0)).all() and (small[:, -1] == (0, 255, 0)).all()


def test_resize_of_the_right_size_changes_nothing() -> None:
    image = noise(16, 16, 3)
    np.testing.assert_array_equal(Preprocessing(16).resize(image), image)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (300, 1, 3)])
def test_resize_of_thin_pictures(shape: tuple[int, int, int]) -> None:
    assert Preprocessing(16).resize(np.full(shape, 9, dtype=np.uint8)).tolist() == np.full((16, 16, 3), 9).tolist()


def test_json_round_trip() -> None:
    preprocessing = Preprocessing(112, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json()))) == preprocessing


@pytest.mark.parametrize(
    "change", [{"image_size": None}, {"image_size": True}, {"mean": [0.5]}, {"std": [1, 1, "1"]}, {"std": None}]
)
def test_torn_json_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=f"stored preprocessing has {next(iter(change))}"):
        Preprocessing.from_json({**Preprocessing(8).to_json(), **change})


@pytest.mark.parametrize(
    ("size", "mean", "std"),
    [(0, (0, 0, 0), (1, 1, 1)), (8, (0, 0, float("nan")), (1, 1, 1)), (8, (0, 0, 0), (1, 0, 1))],
)
def test_senseless_numbers_are_refused(size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(ModelError, match="cannot be used"):
        Preprocessing(size, mean, std)  # type: ignore[arg-type]

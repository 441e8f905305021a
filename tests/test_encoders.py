"""Encoders: torchvision's bit for bit, their sums addressable, their weights from a file or with a clear word where they are not."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
import torchvision
from small_models import OUTPUT_CHANNELS, STRIDES, picture, randomize
from torch import Tensor, nn

from capxai.errors import DependencyError, ModelError
from capxai.layers.structure import Add
from capxai.lrp.attach import attached
from capxai.lrp.composites import lrp
from capxai.models.encoders import ENCODERS, STORED_FEATURES, build_encoder, load_pretrained
from capxai.models.encoders.base import Encoder
from capxai.models.encoders.imagenet import WEIGHTS, load_imagenet_weights

BUILDERS = {"vgg16": torchvision.models.vgg16, "resnet50": torchvision.models.resnet50}


def build(name: str) -> Encoder:
    encoder = build_encoder(name)
    assert encoder is not None
    return encoder.eval()


@pytest.fixture(scope="module", params=list(BUILDERS))
def pair(request: pytest.FixtureRequest) -> tuple[str, nn.Module, Encoder]:
    """torchvision's network with random weights, biases and statistics, and our encoder with the same."""
    torch.manual_seed(0)
    network = BUILDERS[request.param](weights=None).eval()
    randomize(network)
    encoder = build(request.param)
    encoder.load_torchvision(network.state_dict())
    return request.param, network, encoder


def trunk_of(name: str, network: nn.Module) -> nn.Module:
    if name == "vgg16":
        return network.features[:-1]
    return nn.Sequential(*list(network.children())[:-2])


@torch.no_grad()
def test_the_plain_forward_is_torchvisions_bit_for_bit(pair: tuple[str, nn.Module, Encoder]) -> None:
    name, network, encoder = pair
    images = picture(64)
    ours, theirs = encoder(images), trunk_of(name, network)(images)
    assert torch.equal(ours, theirs)
    assert ours.shape == (1, encoder.channels, 64 // encoder.stride, 64 // encoder.stride)
    assert (encoder.channels, encoder.stride) == (OUTPUT_CHANNELS[name], STRIDES[name])
    assert ours.abs().max() > 0.01


def test_the_trunk_keeps_torchvisions_names(pair: tuple[str, nn.Module, Encoder]) -> None:
    name, network, encoder = pair
    prefix, left_out = ("features.", "classifier.") if name == "vgg16" else ("", "fc.")
    theirs = {key.removeprefix(prefix) for key in network.state_dict() if not key.startswith(left_out)}
    assert {key.removeprefix("trunk.") for key in encoder.state_dict()} == theirs


@pytest.mark.parametrize(("name", "blocks"), [("resnet50", (3, 4, 6, 3)), ("resnet101", (3, 4, 23, 3))])
def test_every_residual_sum_is_a_module_found_by_name(name: str, blocks: tuple[int, ...]) -> None:
    encoder = build(name)
    found = {key for key, module in encoder.named_modules() if isinstance(module, Add)}
    expected = {
        f"trunk.layer{stage}.{block}.residual_add" for stage, count in enumerate(blocks, 1) for block in range(count)
    }
    assert found == expected
    relus = [module for module in encoder.modules() if isinstance(module, nn.ReLU)]
    assert len(relus) == len(set(relus)) == 3 * sum(blocks) + 1  # none is used twice


def test_every_residual_sum_runs_once_in_a_forward_pass() -> None:
    encoder, calls = build("resnet50"), []
    for name, module in encoder.named_modules():
        if isinstance(module, Add | nn.ReLU):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    with torch.no_grad():
        encoder(picture(32))
    assert len(calls) == len(set(calls)) == 16 + 49


def test_the_compact_encoder_gives_a_grid_of_an_eighth() -> None:
    encoder = build("compact")
    with torch.no_grad():
        assert encoder(picture(112)).shape == (1, 112, 14, 14)
    assert (encoder.channels, encoder.stride) == (112, 8)
    with attached(encoder, lrp()):  # every layer that computes has a rule
        ruled = {type(module) for module in encoder.modules() if "forward" in module.__dict__}
    assert ruled == {nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d}


def test_an_unknown_encoder_is_refused_with_a_suggestion() -> None:
    with pytest.raises(
        ModelError, match=f"Unknown encoder 'resnet5'. Choose one of: {', '.join(ENCODERS)}.*Did you mean"
    ):
        build_encoder("resnet5")
    assert build_encoder(STORED_FEATURES) is None


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_load_from_a_local_file(suffix: str, pair: tuple[str, nn.Module, Encoder], tmp_path: Path) -> None:
    name, network, encoder = pair
    path = tmp_path / f"weights{suffix}"
    weights = {key: value for key, value in network.state_dict().items() if not key.startswith("classifier.")}
    (torch.save if suffix == ".pth" else safetensors.torch.save_file)(weights, path)
    filled = build(name)
    assert load_pretrained(filled, name, path) == str(path)
    assert_same(filled, encoder)


def assert_same(one: nn.Module, other: nn.Module) -> None:
    theirs = other.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "resnet101"])
def test_without_internet_the_message_names_the_address_and_the_option(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> dict[str, Tensor]:
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", unreachable)
    with pytest.raises(DependencyError) as caught:
        load_imagenet_weights(build(name), name, None)
    message = str(caught.value)
    assert WEIGHTS[name].url in message and "--encoder-weights FILE" in message and "URLError" in message


def test_downloaded_weights_are_named_in_the_lineage(
    pair: tuple[str, nn.Module, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, network, encoder = pair
    asked: list[str] = []

    def published(url: str, *_: object, **__: object) -> dict[str, Tensor]:
        asked.append(url)
        return network.state_dict()

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", published)
    filled = build(name)
    assert load_pretrained(filled, name, None) == str(WEIGHTS[name])
    assert asked == [WEIGHTS[name].url]
    assert_same(filled, encoder)


def test_files_that_are_no_weights_of_the_encoder_are_refused(tmp_path: Path) -> None:
    encoder, path = build("vgg16"), tmp_path / "weights.pth"
    with pytest.raises(ModelError, match=r"No weights at '.*missing.pth'.*--encoder-weights"):
        load_pretrained(encoder, "vgg16", tmp_path / "missing.pth")
    path.write_bytes(b"no weights at all")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        load_pretrained(encoder, "vgg16", path)
    torch.save([torch.ones(2)], path)
    with pytest.raises(ModelError, match="holds no state dict"):
        load_pretrained(encoder, "vgg16", path)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    torch.save({f"layer1.0.{key}": value for key, value in before.items()}, path)
    with pytest.raises(ModelError, match=r"do not fit vgg16: .*Use the file of the same architecture"):
        load_pretrained(encoder, "vgg16", path)
    wrong_size = {key.replace("trunk", "features"): value for key, value in before.items()}
    torch.save(wrong_size | {"features.0.weight": torch.ones(64, 1, 3, 3)}, path)
    with pytest.raises(ModelError, match=r"do not fit vgg16: size mismatch for 0.weight"):
        load_pretrained(encoder, "vgg16", path)
    with pytest.raises(
        ModelError, match="no published weights for the encoder 'compact'. Encoders with weights: vgg16, resnet50"
    ):
        load_pretrained(build("compact"), "compact", None)


class Evil:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('it ran')",)


def test_weights_whose_pickle_would_run_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"features.0.weight": Evil()}, path)
    with pytest.raises(ModelError, match="cannot be read as weights"):
        load_pretrained(build("vgg16"), "vgg16", path)

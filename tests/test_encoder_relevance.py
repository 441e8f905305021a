"""Relevance through whole encoders: against gradients, against zennit, and the account of every word."""

from __future__ import annotations

import copy

import pytest
import torch
from small_models import DECODERS, picture, picture_model, picture_reading, randomize
from torch import Tensor, nn

from capxai.explain.attribution import Attribution, Reading, attribute
from capxai.explain.methods import Options, lrp_composite
from capxai.lrp.attach import attached
from capxai.lrp.audit import audit
from capxai.lrp.canonize import batch_norm_pairs, fold_batch_norm
from capxai.lrp.composites import Composite, lrp
from capxai.lrp.propagation import Ledger
from capxai.lrp.rules import Epsilon
from capxai.models.encoders import build_encoder

SIZES = {"compact": 32, "vgg16": 32, "resnet50": 64}


def fresh(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = build_encoder(name)
        assert encoder is not None
        return encoder.to(dtype).eval()


def carry(encoder: nn.Module, images: Tensor, weights: Tensor, composite: Composite) -> tuple[Tensor, Tensor, Tensor]:
    """Explain sum(weights * features) by the pixels; return relevance, account (bias, eps, heads) and the starting values."""
    leaf, ledger = images.clone().requires_grad_(), Ledger(len(images), images.device)
    with attached(encoder, composite, ledger):
        features = encoder(leaf)
    audit(features)
    start = (features * weights).detach()
    return *torch.autograd.grad(features, (leaf, ledger.account), start), start


@pytest.mark.parametrize("name", ["compact", "vgg16", "resnet50"])
def test_without_biases_and_eps_relevance_is_gradient_times_input(name: str) -> None:
    encoder = fresh(name)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d):  # a fresh one has no shift
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, -0.9, 0.9)
    leaf = picture(SIZES[name], torch.float64).requires_grad_()
    features = encoder(leaf)
    weights = torch.randn_like(features)
    (gradient,) = torch.autograd.grad(features, leaf, weights)
    expected = gradient * leaf.detach()
    relevance, account, _ = carry(encoder, leaf.detach(), weights, lrp(0.0, Epsilon(0.0)))
    assert (relevance - expected).abs().max() < 1e-8 * expected.abs().max()
    assert (account / expected.abs().max()).abs().max() < 1e-8


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_alpha_one_beta_zero_agrees_with_zennit_on_vgg16(dtype: torch.dtype, tolerance: float) -> None:
    composites = pytest.importorskip("zennit.composites", reason="zennit is not installed")
    rules, types = pytest.importorskip("zennit.rules"), pytest.importorskip("zennit.types")
    encoder = fresh("vgg16", dtype)
    randomize(encoder)
    images = picture(64, dtype)
    with torch.no_grad():
        weights = torch.randn_like(encoder(images))
    ours, account, start = carry(encoder, images, weights, lrp())
    peer = copy.deepcopy(encoder)
    for module in peer.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    stabilizer = 1e-6 if dtype is torch.float32 else 1e-12
    rule = rules.AlphaBeta(1, 0, stabilizer=stabilizer, zero_params="bias")
    composite = composites.LayerMapComposite([(types.Convolution, rule), (types.Activation, rules.Pass())])
    leaf = images.clone().requires_grad_()
    with composite.context(peer) as modified:
        (theirs,) = torch.autograd.grad(modified(leaf), leaf, start)
    assert (ours - theirs).abs().max() < tolerance * theirs.abs().max()
    assert (ours.sum() + account.sum() - start.sum()).abs() < 1e-4 * start.abs().sum()


def close_account(read: Reading, found: Attribution) -> Tensor:
    """Return how much of each word's logit is missing, as a share of it."""
    assert found.pixels is not None
    logits = torch.stack([step.logits[0, token] for step, token in zip(read.unroll(), read.tokens, strict=True)])
    total = found.pixels.double().sum((1, 2, 3)) + found.words.double().sum((1, 2)) + found.kept.sum(1)
    return ((total - logits.double()) / logits.double()).abs()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [*((encoder, decoder) for encoder in ("compact", "vgg16") for decoder in DECODERS), ("resnet50", "mh-fc")],
)
def test_pixels_words_biases_and_eps_add_up_to_the_logit(
    encoder: str, decoder: str, dtype: torch.dtype, tolerance: float
) -> None:
    read = picture_reading(picture_model(encoder, decoder, SIZES[encoder], dtype))
    found = attribute(read, lrp())
    assert close_account(read, found).max() < tolerance
    assert found.kept.dtype is torch.float64 and found.pixels is not None and read.images is not None
    assert found.pixels.shape == (len(read.tokens), *read.images.shape[1:])
    assert (found.kept[:, :2].abs() > 1e-6).all()  # biases and eps do keep something, and it is booked
    in_encoder = found.kept - attribute(read, lrp(), pixels=False).kept
    arrived = found.features.double()
    missing = found.pixels.double().sum((1, 2, 3)) + in_encoder.sum(1) - arrived.sum((1, 2))
    assert (missing.abs() < tolerance * arrived.abs().sum((1, 2))).all()
    logits = torch.stack([step.logits[0] for step in read.unroll()])[range(len(read.tokens)), read.tokens]
    assert (arrived.abs().sum((1, 2)) > 0.1 * logits.abs()).all()


OPTIONS = {
    "alpha 2 beta 1": Options(alpha=2, beta=1),
    "alpha 1.5 beta 0.5 and z-box": Options(alpha=1.5, beta=0.5, z_box=True),
    "gamma": Options(gamma=0.25),
    "gamma and z-box": Options(gamma=0.25, z_box=True),
    "z-box": Options(z_box=True),
    "larger eps": Options(eps=0.5),
    "no eps": Options(eps=0.0),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_closes_the_account(name: str) -> None:
    model = picture_model("compact", "ada-lstm", 32, torch.float64)
    read = picture_reading(model)
    found = attribute(read, lrp_composite(read.model, OPTIONS[name]))
    assert close_account(read, found).max() < 1e-9
    plainly = attribute(read, lrp())
    assert found.pixels is not None and plainly.pixels is not None
    assert (found.pixels - plainly.pixels).abs().max() > 1e-3 * plainly.pixels.abs().max()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
@pytest.mark.parametrize("name", ["compact", "resnet50"])
def test_folded_batch_norms_change_nothing(name: str, dtype: torch.dtype, tolerance: float) -> None:
    encoder = fresh(name, dtype)
    randomize(encoder)
    images = picture(64, dtype)
    with torch.no_grad():
        plainly = encoder(images)
        pairs = batch_norm_pairs(encoder)
        assert {norm for _, norm in pairs} == {m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)}
        for conv, norm in pairs:
            weight, bias = fold_batch_norm(conv, norm)
            conv.weight.data, conv.bias = weight, nn.Parameter(bias)
            norm.reset_parameters()
            norm.eps = 0.0
        folded = encoder(images)
    assert (folded - plainly).norm() < tolerance * plainly.norm()
    assert plainly.norm() > 1


def test_a_batch_norm_without_weights_and_a_convolution_with_bias_fold_too() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(2, 3, 3).double(), nn.BatchNorm2d(3, affine=False).double().eval()
    norm.running_mean, norm.running_var = torch.randn(3).double(), torch.rand(3).double() + 0.5
    x = torch.randn(1, 2, 5, 5).double()
    folded = nn.functional.conv2d(x, *fold_batch_norm(conv, norm))
    assert (folded - norm(conv(x))).abs().max() < 1e-14


def test_relevance_uses_the_folded_weights() -> None:
    # One pixel, x = 2, w = 3, gamma 4, mean 1, variance 4, beta 5: folded w' = 3 * 4 / 2 = 6, b' = -1 * 4 / 2 + 5 = 3, z = 15.
    # R = 15 gives x w' / z * R = 12 to the pixel and 3 to the bias.
    layers = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0)).double().eval()
    layers[0].weight.data.fill_(3.0)
    for tensor, value in zip((layers[1].weight, layers[1].bias), (4.0, 5.0), strict=True):
        tensor.data.fill_(value)
    layers[1].running_mean.fill_(1.0)
    layers[1].running_var.fill_(4.0)
    x = torch.full((1, 1, 1, 1), 2.0, dtype=torch.float64)
    relevance, account, start = carry(layers, x, torch.ones_like(x), lrp(0.0, Epsilon(0.0)))
    assert start.item() == 15
    assert relevance.item() == pytest.approx(12, abs=1e-12)
    assert account[0].tolist() == pytest.approx([3, 0, 0], abs=1e-12)


def test_relevance_stays_in_the_receptive_field() -> None:
    encoder = fresh("compact", torch.float32)
    images = picture(96)
    with torch.no_grad():
        weights = torch.zeros_like(encoder(images))
    weights[:, :, 0, 0] = 1
    relevance, _, _ = carry(encoder, images, weights, lrp())
    # Rows that cell 0 sees, from the top: 2 more by two convolutions, so 0 to 2; before the pooling 0 to 5; 0 to 7; 0 to 15;
    # 0 to 16; 0 to 33; in the picture 0 to 34.
    assert relevance[:, :, :35, :35].abs().max() > 0
    assert relevance[:, :, 35:].abs().max() == relevance[:, :, :, 35:].abs().max() == 0

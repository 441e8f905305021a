"""Every relevance rule against its slow replica, in float64 to 1e-10."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import slow_rules as slow
import torch
from slow_rules import Array, Grid
from torch import Tensor, nn

from capxai.errors import RelevanceError
from capxai.layers.lstm import GateAffine, LSTMCell
from capxai.layers.structure import Add, Gate, Mean, MergeHeads, WeightedSum
from capxai.lrp.attach import attached
from capxai.lrp.composites import Composite
from capxai.lrp.propagation import Ledger
from capxai.lrp.rules import (
    AlphaBeta,
    Epsilon,
    Gamma,
    GuidedReLU,
    PassThrough,
    Rule,
    SelectHead,
    SignalTakesAll,
    WinnerTakesAll,
    ZBox,
)

TOLERANCE = 1e-10

GEOMETRIES = {
    "plain": (Grid(), (2, 2)),
    "padded": (Grid(padding=(1, 1)), (3, 3)),
    "wide padding": (Grid(padding=(2, 2)), (2, 2)),
    "stride leaves rows out": (Grid(stride=(2, 3), padding=(1, 0)), (2, 2)),
    "1x1 with stride": (Grid(stride=(2, 2)), (1, 1)),
    "holes": (Grid(padding=(1, 2), dilation=(2, 2)), (2, 3)),
    "groups": (Grid(padding=(1, 1), groups=2), (3, 3)),
    "rectangular": (Grid(stride=(1, 2), padding=(0, 1)), (1, 3)),
}
LOW, HIGH = (-1.0, -1.5, -2.0, -1.0), (1.0, 2.0, 1.5, 3.0)
AFFINE_RULES: dict[str, Rule] = {
    "epsilon": Epsilon(0.01),
    "alpha 1 beta 0": AlphaBeta(1, 0),
    "alpha 2 beta 1": AlphaBeta(2, 1),
    "gamma": Gamma(0.25, 1e-3),
    "z-box": ZBox(LOW, HIGH, 1e-3),
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def carry(
    layer: nn.Module,
    rule: Rule,
    signals: Sequence[Tensor],
    relevance: Tensor,
    arguments: Callable[..., tuple[object, ...]] = lambda *signals: signals,
) -> tuple[list[Array], list[float]]:
    """Give a layer a rule, call it, and return the relevance of each signal and the account (bias, eps, other heads)."""
    leaves = [signal.clone().requires_grad_() for signal in signals]
    ledger = Ledger(relevance.shape[0], torch.device("cpu"))
    with attached(layer, Composite("test", ((type(layer), rule),)), ledger):
        output = layer(*arguments(*leaves))
    found = torch.autograd.grad(output, (*leaves, ledger.account), relevance)
    return [part.numpy() for part in found[:-1]], found[-1].sum(0).tolist()


def close(found: object, expected: object) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def replica(rule: Rule, x: Array, layer: slow.Connections, bias: Array, relevance: Array) -> slow.Result:
    match rule:
        case Epsilon(eps):
            return slow.epsilon(x, layer, bias, relevance, eps)
        case AlphaBeta(alpha, beta):
            return slow.alpha_beta(x, layer, relevance, alpha, beta)
        case Gamma(factor, eps):
            return slow.gamma(x, layer, bias, relevance, factor, eps)
        case ZBox(low, high, eps):
            return slow.z_box(x, layer, (np.array(low), np.array(high)), relevance, eps)
    raise AssertionError(rule)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("name", AFFINE_RULES)
def test_dense(name: str, biased: bool) -> None:
    rule, layer, x, relevance = AFFINE_RULES[name], nn.Linear(4, 5, bias=biased).double(), random(2, 4), random(2, 5)
    bias = layer.bias.detach().numpy() if biased else np.zeros(5)
    (found,), kept = carry(layer, rule, [x], relevance)
    connections = slow.dense(layer.weight.detach().numpy())
    expected = [replica(rule, x[i].numpy(), connections, bias, relevance[i].numpy()) for i in range(2)]
    close(found, [item.relevance for item in expected])
    close(kept, [sum(item.bias for item in expected), sum(item.eps for item in expected), 0])


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", AFFINE_RULES)
def test_convolution_with_signed_inputs(name: str, geometry: str) -> None:
    rule, (grid, kernel) = AFFINE_RULES[name], GEOMETRIES[geometry]
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 4, kernel, grid.stride, grid.padding, grid.dilation, grid.groups).double()
    x = random(1, 4, 5, 6)
    with torch.no_grad():
        relevance = random(*layer(x).shape, seed=1)
    (found,), kept = carry(layer, rule, [x], relevance)
    connections = slow.convolution(layer.weight.detach().numpy(), (4, 5, 6), grid)
    expected = replica(rule, x[0].numpy(), connections, layer.bias.detach().numpy(), relevance[0].numpy())
    close(found[0], expected.relevance)
    close(kept, [expected.bias, expected.eps, 0])


def test_alpha_beta_keeps_what_arrives_where_there_is_nothing_to_share() -> None:
    layer, x, relevance = nn.Conv2d(1, 2, 1, bias=False).double(), torch.zeros(1, 1, 1, 3).double(), random(1, 2, 1, 3)
    layer.weight.data = torch.tensor([2.0, -1.0]).double().reshape(2, 1, 1, 1)
    x[0, 0, 0] = torch.tensor([0.0, 3.0, -1.0])
    for alpha, beta in ((1, 0), (2, 1), (1.5, 0.5)):
        (found,), kept = carry(layer, AlphaBeta(alpha, beta), [x], relevance)
        connections = slow.convolution(layer.weight.detach().numpy(), (1, 1, 3), Grid())
        expected = slow.alpha_beta(x[0].numpy(), connections, relevance[0].numpy(), alpha, beta)
        close(found[0], expected.relevance)
        close(kept, [0, expected.eps, 0])
        assert expected.eps != 0


def test_epsilon_of_zero_loses_nothing_at_an_output_of_zero() -> None:
    layer, x = nn.Linear(2, 2, bias=False).double(), torch.ones(1, 2).double()
    layer.weight.data = torch.tensor([[1.0, -1.0], [1.0, 3.0]]).double()  # z = (0, 4)
    (found,), kept = carry(layer, Epsilon(0.0), [x], torch.tensor([[5.0, 8.0]]).double())
    close(found, [[2, 6]])
    close(kept, [0, 5, 0])


def test_add_and_mean_are_proportional() -> None:
    first, second, relevance = random(2, 3), random(2, 3, seed=1), random(2, 3, seed=2)
    second[0, 0] = -first[0, 0]  # a sum of zero
    found, kept = carry(Add(), Epsilon(0.01), [first, second], relevance)
    expected = slow.sum_terms(torch.stack([first, second]).numpy(), relevance.numpy(), 0.01)
    close(found, expected.relevance)
    close(kept, [0, expected.eps, 0])
    regions = random(1, 4, 3)
    (spread,), kept = carry(Mean(), Epsilon(0.01), [regions], relevance[:1])
    expected = slow.sum_terms((regions[0] / 4).numpy(), relevance[0].numpy(), 0.01)
    close(spread[0], expected.relevance)
    close(kept, [0, expected.eps, 0])


@pytest.mark.parametrize("heads", [None, 2])
def test_weighted_sum_shares_among_regions_with_constant_weights(heads: int | None) -> None:
    leading = (1,) if heads is None else (1, heads)
    values, relevance = random(*leading, 4, 3), random(*leading, 3, seed=1)
    weights = torch.softmax(random(*leading, 4, seed=2), -1).requires_grad_()
    (found,), kept = carry(WeightedSum(), Epsilon(0.01), [values], relevance, lambda signal: (weights, signal))
    terms = (weights.detach().unsqueeze(-1) * values).movedim(-2, 0).numpy()
    expected = slow.sum_terms(terms, relevance.numpy(), 0.01)
    close(found, np.moveaxis(expected.relevance, 0, -2))
    close(kept, [0, expected.eps, 0])


def test_lstm_affine_map_shares_between_input_and_hidden_with_both_biases() -> None:
    torch.manual_seed(0)
    cell, x, hidden, relevance = LSTMCell(4, 3).double(), random(1, 4), random(1, 3, seed=1), random(1, 12, seed=2)
    relevance[:, :6] = relevance[:, 9:] = 0  # the gates get nothing
    (to_x, to_hidden), kept = carry(GateAffine(), Epsilon(0.01), [x, hidden], relevance, lambda *both: (*both, cell))
    weight = torch.cat([cell.weight_ih, cell.weight_hh], 1)[6:9].detach().numpy()
    bias = (cell.bias_ih + cell.bias_hh)[6:9].detach().numpy()
    both = torch.cat([x, hidden], 1)[0].numpy()
    expected = slow.epsilon(both, slow.dense(weight), bias, relevance[0, 6:9].numpy(), 0.01)
    close(np.concatenate([to_x[0], to_hidden[0]]), expected.relevance)
    close(kept, [expected.bias, expected.eps, 0])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("layer", "pool"),
    [
        (nn.MaxPool2d(2), ((2, 2), Grid((2, 2)))),
        (nn.MaxPool2d(3), ((3, 3), Grid((3, 3)))),
        (nn.MaxPool2d(3, 2, 1), ((3, 3), Grid((2, 2), (1, 1)))),
        (nn.MaxPool2d(3, 1), ((3, 3), Grid())),
        (nn.MaxPool2d((2, 3), (2, 1), (0, 1)), ((2, 3), Grid((2, 1), (0, 1)))),
        (nn.MaxPool2d(2, 2, 0, 2), ((2, 2), Grid((2, 2), dilation=(2, 2)))),
        (nn.MaxPool2d(2, ceil_mode=True), ((2, 2), Grid((2, 2)))),
    ],
    ids=["tiles", "tiles that leave rows out", "overlapping, padded", "stride 1", "rectangular", "holes", "ceil"],
)
def test_winner_takes_all(layer: nn.MaxPool2d, pool: tuple[tuple[int, int], Grid], ties: bool) -> None:
    for height, width in ((6, 6), (7, 8)):
        x = random(1, 3, height, width)
        x = (x * 1.5).round() if ties else x
        relevance = random(*layer(x).shape, seed=1)
        for entered in (x, x.contiguous(memory_format=torch.channels_last)):
            (found,), kept = carry(layer, WinnerTakesAll(), [entered], relevance)
            close(found[0], slow.winner_takes_all(x[0].numpy(), pool, relevance[0].numpy()))
            assert kept == [0, 0, 0]


def test_gates_get_nothing_and_signals_all() -> None:
    gate = random(2, 1).sigmoid().requires_grad_()
    signal, relevance = random(2, 3).requires_grad_(), random(2, 3, seed=1)
    layer = Gate()
    with attached(layer, Composite("test", ((Gate, SignalTakesAll()),))):
        output = layer(gate, signal)
    assert torch.equal(output, gate * signal)
    to_gate, to_signal = torch.autograd.grad(output, (gate, signal), relevance, allow_unused=True)
    assert to_gate is None and torch.equal(to_signal, relevance)


@pytest.mark.parametrize("inplace", [False, True])
def test_relu_passes_through_or_guides(inplace: bool) -> None:
    x, relevance = random(2, 5), random(2, 5, seed=1)
    for rule, expected in (
        (PassThrough(), relevance.tolist()),
        (GuidedReLU(), [[r if r > 0 and v > 0 else 0 for r, v in zip(*rows, strict=True)]
                        for rows in zip(relevance.tolist(), x.tolist(), strict=True)]),
    ):  # fmt: skip
        layer = nn.Sequential(nn.Identity(), nn.ReLU(inplace=inplace))
        leaf = x.clone().requires_grad_()
        with attached(layer, Composite("test", ((nn.ReLU, rule),))):
            output = layer(leaf * 1)  # an in-place ReLU may not change a leaf
        assert torch.equal(output, x.clamp(min=0))
        assert torch.autograd.grad(output, leaf, relevance)[0].tolist() == expected


def test_a_head_keeps_its_slice_and_the_rest_is_accounted_for() -> None:
    heads, relevance = random(1, 3, 2), random(1, 6, seed=1)
    for head in range(3):
        (found,), kept = carry(MergeHeads(), SelectHead(head), [heads], relevance)
        expected = np.zeros((3, 2))
        expected[head] = relevance[0, 2 * head : 2 * head + 2].numpy()
        close(found[0], expected)
        close(kept, [0, 0, relevance.sum().item() - expected.sum()])


@pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (2, 0), (0, -1), (0.5, 0)])
def test_alpha_and_beta_that_do_not_conserve_are_refused(alpha: float, beta: float) -> None:
    with pytest.raises(RelevanceError, match="Expected alpha - beta = 1"):
        AlphaBeta(alpha, beta)


@pytest.mark.parametrize(
    ("rule", "layer"),
    [(SignalTakesAll(), Add()), (SelectHead(0), Gate()), (WinnerTakesAll(), nn.ReLU()), (AlphaBeta(), nn.Tanh()),
     (Epsilon(), nn.Bilinear(2, 2, 2)), (Epsilon(), nn.Conv2d(1, 1, 1, padding_mode="reflect")),
     (Gamma(), nn.Conv2d(1, 1, 1, padding="same"))],
)  # fmt: skip
def test_a_rule_for_another_layer_is_refused_by_name(rule: Rule, layer: nn.Module) -> None:
    with attached(layer, Composite("test", ((nn.Module, rule),))), pytest.raises(RelevanceError, match="rule"):
        layer(torch.ones(1, 1, 2, 2))

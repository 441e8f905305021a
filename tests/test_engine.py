"""The relevance engine: it changes nothing, refuses what it cannot do, and keeps every call's state with the call."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from small_models import CAPTION, DECODERS, picture_model, picture_reading, reading, small_model
from tiny_captioner import tiny_captioner
from torch import Tensor, nn

from capxai.errors import RelevanceError
from capxai.explain.attribution import attribute
from capxai.layers.structure import Add
from capxai.lrp.attach import attached
from capxai.lrp.audit import audit
from capxai.lrp.composites import GRADIENT, GUIDED_BACKPROP, Composite, lrp
from capxai.lrp.propagation import Kept, Ledger, Node
from capxai.lrp.rules import Call, Epsilon, PassThrough, Rule, SelectHead
from capxai.models.captioner import Captioner

COMPOSITES = {"lrp": lrp(), "gradient": GRADIENT, "guided-backprop": GUIDED_BACKPROP}


@dataclass(frozen=True)
class Snapshot:
    """All of a model that an explanation could change."""

    weights: dict[str, Tensor]
    flags: list[bool]
    modes: list[bool]
    attributes: list[set[str]]

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        modules = list(model.modules())
        return cls(
            {name: tensor.clone() for name, tensor in model.state_dict().items()},
            [parameter.requires_grad for parameter in model.parameters()],
            [module.training for module in modules],
            [set(module.__dict__) for module in modules],
        )

    def assert_still(self, model: nn.Module) -> None:
        now = Snapshot.of(model)
        assert list(now.weights) == list(self.weights)
        assert all(torch.equal(now.weights[name], tensor) for name, tensor in self.weights.items())
        assert (now.flags, now.modes, now.attributes) == (self.flags, self.modes, self.attributes)
        assert all(module.forward.__func__ is type(module).forward for module in model.modules())
        assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("encoder", ["compact", "vgg16", "resnet50"])
def test_the_forward_pass_under_rules_is_the_plain_one_bit_for_bit(encoder: str, composite: str) -> None:
    model = picture_model(encoder, "ada-lstm", 32, torch.float32)
    images = picture_reading(model).images
    assert images is not None
    with torch.no_grad():
        plainly = model.features(images)
    with attached(model, COMPOSITES[composite], Ledger(1, images.device)):
        ruled = model.features(images.clone().requires_grad_() * 1)
    assert torch.equal(ruled, plainly) and ruled.grad_fn is not None


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_decoder_under_rules_is_the_plain_one_bit_for_bit(decoder: str) -> None:
    read = picture_reading(tiny_captioner(decoder))
    plainly = read.unroll()
    with attached(read.model, lrp(), Ledger(1, read.features.device)):
        for ours, theirs in zip(read.unroll(), plainly, strict=True):
            assert torch.equal(ours.logits, theirs.logits) and torch.equal(ours.attention, theirs.attention)
            assert all(torch.equal(a, b) for a, b in zip(ours.state.cell, theirs.state.cell, strict=True))


@pytest.mark.parametrize("composite", COMPOSITES)
def test_an_explanation_leaves_the_model_as_it_was(composite: str) -> None:
    model = tiny_captioner("mh-fc")
    model.decoder.word_head.fc.weight.requires_grad_(False)  # what was frozen before stays frozen
    model.decoder.tanh_like = nn.Tanh().train()  # what is in training mode without effect stays so
    read, before = picture_reading(model), Snapshot.of(model)
    features = read.features.clone()
    attribute(read, COMPOSITES[composite])
    before.assert_still(model)
    assert torch.equal(read.features, features) and not read.features.requires_grad


def fail(*_: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("name", ["encoder.trunk.4", "decoder.lstm.affine", "decoder.word_head.fc"])
def test_an_exception_on_the_way_leaves_the_model_as_it_was(name: str) -> None:
    model = tiny_captioner()
    read, before = picture_reading(model), Snapshot.of(model)
    hook = model.get_submodule(name).register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        attribute(read, lrp())
    hook.remove()
    before.assert_still(model)
    attribute(read, lrp())


def test_an_exception_of_the_caller_or_of_a_composite_leaves_the_model_as_it_was() -> None:
    model = tiny_captioner()
    before = Snapshot.of(model)
    with pytest.raises(ZeroDivisionError), attached(model, lrp()):
        fail()
    before.assert_still(model)
    with pytest.raises(RelevanceError, match="SelectHead is a rule for merged heads"):
        attribute(picture_reading(model), lrp().preceded_by((Add, SelectHead(0))))
    before.assert_still(model)


def test_rules_are_attached_once() -> None:
    model = tiny_captioner()
    before = Snapshot.of(model)
    with attached(model, lrp()):
        for part in (model, model.decoder.lstm):
            with pytest.raises(RelevanceError, match="has rules attached already"), attached(part, lrp()):
                pass
        assert "forward" in model.decoder.word_head.fc.__dict__  # the refusal took nothing away
    before.assert_still(model)


def test_training_mode_is_refused() -> None:
    for part in (lambda m: m, lambda m: m.decoder.word_head.dropout, lambda m: m.encoder.trunk[1]):
        model = tiny_captioner()
        part(model).train()
        with pytest.raises(RelevanceError, match=r"in training mode.*Call model.eval\(\) first"):
            attribute(picture_reading(model), lrp())


class Planted(nn.Module):
    """Puts an operation that no rule knows before a layer."""

    def __init__(self, layer: nn.Module, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.operation(x))


FOREIGN: dict[str, Callable[[Tensor], Tensor]] = {
    "Softmax": lambda x: torch.softmax(x, -1),
    "Gelu": nn.functional.gelu,
    "Exp": torch.exp,
    "Mul": lambda x: x * 2,
    "Add": lambda x: x + 1,
    "Sigmoid": torch.sigmoid,
}


@pytest.mark.parametrize("operation", FOREIGN)
def test_a_foreign_operation_is_found_by_name_with_the_layer_it_feeds(operation: str) -> None:
    model = tiny_captioner()
    model.decoder.word_head.fc = Planted(model.decoder.word_head.fc, FOREIGN[operation])
    with pytest.raises(RelevanceError) as caught:
        attribute(picture_reading(model), lrp())
    assert f"{operation} (on the way to 'decoder.word_head.fc.layer')" in str(caught.value)
    assert "Write the operation as a module of capxai.layers and give it a rule" in str(caught.value)
    attribute(picture_reading(model), GRADIENT)  # a derivative passes everything


def test_foreign_operations_in_the_encoder_and_at_the_end_are_found() -> None:
    model = tiny_captioner()
    assert model.encoder is not None
    model.encoder.trunk[3] = Planted(nn.MaxPool2d(2), nn.functional.silu)
    with pytest.raises(RelevanceError, match=r"Silu \(on the way to 'encoder.trunk.3.layer'\)"):
        attribute(picture_reading(model), lrp())
    output = torch.ones(1, 2, requires_grad=True).cumsum(1)
    with pytest.raises(RelevanceError, match=r"Cumsum \(on the way to the logits\)"):
        audit(output)


def test_a_batch_norm_without_its_convolution_has_no_rule() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.BatchNorm2d(1)).eval()
    with attached(layers, lrp()):
        output = layers(torch.ones(1, 1, 2, 2, requires_grad=True))
    with pytest.raises(RelevanceError, match="BatchNorm"):
        audit(output)


class StateOnModule(Rule):
    """The epsilon rule as hook-based packages write it: the input of the latest call, kept on the module."""

    def bind(self, call: Call) -> tuple[tuple[Tensor, ...], Node]:
        layer = call.layer

        def node(x: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[tuple[Tensor, ...], Kept]]]:
            layer.seen = x
            return call.forward(x), lambda r: ((layer.seen * ((r / layer(layer.seen)) @ layer.weight),), Kept())

        return call.inputs, node


class Twice(nn.Module):
    """One dense layer, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(self.relu(self.shared(x)))


def test_a_module_used_twice_keeps_both_activations() -> None:
    torch.manual_seed(0)
    model, x, weights = Twice().double(), torch.randn(1, 4).double().requires_grad_(), torch.randn(1, 4).double()
    plainly = model(x)
    (gradient,) = torch.autograd.grad(plainly, x, weights)
    found = {}
    for name, rule in (("call", Epsilon(0.0)), ("module", StateOnModule())):
        with attached(model, Composite("test", ((nn.Linear, rule), (nn.ReLU, PassThrough())), audited=True)):
            output = model(x)
        audit(output)
        with torch.no_grad():
            (found[name],) = torch.autograd.grad(output, x, plainly.detach() * weights)
    assert (found["call"] - gradient * x).abs().max() < 1e-12
    assert (found["module"] - gradient * x).abs().max() > 0.01  # wrong, though the sum is right
    for relevance in found.values():
        assert (relevance.sum() - (plainly * weights).sum()).abs() < 1e-12


def test_the_first_entry_that_matches_wins() -> None:
    composite = lrp().preceded_by(("decoder.*.fc", Epsilon(7.0)), (nn.Tanh, Epsilon(8.0)))
    assert composite.rule_for("decoder.word_head.fc", nn.Linear(1, 1)) == Epsilon(7.0)
    assert composite.rule_for("decoder.lstm", nn.Linear(1, 1)) == Epsilon(0.01)
    assert composite.rule_for("any", nn.Tanh()) == Epsilon(8.0)
    assert composite.rule_for("any", nn.GELU()) is None


def live_tensors() -> int:
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("composite", COMPOSITES)
def test_explanations_leave_nothing_in_memory(composite: str) -> None:
    readings = reading(small_model("ada-lstm"), CAPTION[:2]), picture_reading(tiny_captioner("mh-fc"), CAPTION[:2])
    counts = {}
    gc.collect()
    gc.disable()  # nothing may need the collector: between its runs a graph in a cycle would cost as much as a leak
    try:
        for run in range(1, 21):
            for read in readings:
                attribute(read, COMPOSITES[composite])
            if run in (5, 20):
                counts[run] = live_tensors()
    finally:
        gc.enable()
    assert counts[20] == counts[5] > 0


def test_the_ledger_books_nothing_without_being_asked() -> None:
    model: Captioner = small_model("adaptive")
    read = reading(model)
    vectors = model.embed(read.inputs).detach()[None].requires_grad_()
    with attached(model, lrp()):
        steps = model.unroll(model.remember(read.features), lambda t, _: vectors[:, t], 3)
    start = torch.zeros_like(steps[2].logits)
    start[0, CAPTION[2]] = steps[2].logits[0, CAPTION[2]].detach()
    (words,) = torch.autograd.grad(steps[2].logits, vectors, start)
    assert torch.allclose(words[0, :3], attribute(read, lrp()).words[2, :3], rtol=0, atol=1e-14)

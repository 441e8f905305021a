"""Randomizes the layers of a copy of a model from the top down, each in addition to those before (Adebayo et al. 2018, section 3.1).

A layer's learned numbers are its parameters and the running statistics of its batch norms. Two ways to draw new ones:

- "permute" shuffles the entries of every tensor. Their distribution stays, so signals keep about their size; only what was learned about
  which entry stands where is lost.
- "fresh" takes those of a newly built model, by the layers' own rules of initialization, as Adebayo et al. do.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from capxai.models.build import build_captioner
from capxai.models.captioner import Captioner

Draw = Literal["permute", "fresh"]

_DECODER = (
    ("word head", ("word_head",)),
    ("language LSTM", ("language_lstm",)),
    (
        "attention",
        ("attention", "sentinel", "key_projection", "value_projection", "context_projection", "context_gate"),
    ),
    ("LSTM", ("lstm",)),
    ("embedding", ("embedding",)),
    ("projections", ("region_projection", "global_projection")),
)
"""Stages of the decoders from the top down, and the modules of each; a decoder has some of them."""
_OTHER = "other layers"


@dataclass(frozen=True)
class Stage:
    """Layers that are randomized together.

    Attributes:
        name: What they are.
        tensors: Names of their tensors in the model's state.
        encoder: Whether they change what the encoder sees.
    """

    name: str
    tensors: tuple[str, ...]
    encoder: bool


def stages_of(model: Captioner) -> tuple[Stage, ...]:
    """Return the stages of a model, from the word head down to the pixels; every learned tensor is in exactly one."""
    names = learned_tensors(model)
    chosen = [
        (title, _within(names, [f"decoder.{module}" for module in modules]), False) for title, modules in _DECODER
    ]
    groups = [] if model.encoder is None else _encoder_groups(model.encoder.trunk)
    of_encoder = [
        (f"encoder {number}", _within(names, [f"encoder.trunk.{module}" for module in group]), True)
        for number, group in reversed(list(enumerate(groups, 1)))
    ]
    known = {name for _, found, _ in (*chosen, *of_encoder) for name in found}
    rest = tuple(name for name in names if name not in known)
    chosen.append((_OTHER, rest, any(name.startswith("encoder.") for name in rest)))
    return tuple(Stage(*one) for one in (*chosen, *of_encoder) if one[1])


def learned_tensors(model: nn.Module) -> tuple[str, ...]:
    """Return the names of all parameters and of all running statistics, which have floating-point numbers."""
    return tuple(name for name, tensor in model.state_dict().items() if tensor.is_floating_point())


def _within(names: Sequence[str], modules: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if any(name.startswith(f"{module}.") for module in modules))


def _encoder_groups(trunk: nn.Sequential) -> list[list[str]]:
    """Return the names of layers between two poolings; a stage of a ResNet is a group of its own."""
    groups: list[list[str]] = [[]]
    for name, layer in trunk.named_children():
        if isinstance(layer, nn.Sequential):
            groups += [[name], []]
        elif isinstance(layer, nn.MaxPool2d):
            groups.append([])
        else:
            groups[-1].append(name)
    return [group for group in groups if group]


def permuted(model: nn.Module, stages: Sequence[Stage], seed: int) -> dict[str, Tensor]:
    """Return every learned tensor with its entries shuffled."""
    generator = torch.Generator().manual_seed(seed)
    state, found = model.state_dict(), {}
    for stage in stages:
        for name in stage.tensors:
            order = torch.randperm(state[name].numel(), generator=generator).to(state[name].device)
            found[name] = state[name].reshape(-1)[order].reshape(state[name].shape)
    return found


def fresh(model: Captioner, seed: int) -> dict[str, Tensor]:
    """Return the learned tensors of a model of the same architecture that has learned nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = build_captioner(model.specification, model.vocabulary, model.preprocessing)
    return {name: tensor.to(model.device, model.dtype) for name, tensor in new.state_dict().items()}


class Cascade:
    """A model that loses its layers one stage after the other, while the original stays as it is.

    Args:
        model: The original, in evaluation mode.
        draw: How new numbers are drawn.
        seed: Seed of the draw.
    """

    def __init__(self, model: Captioner, draw: Draw, seed: int) -> None:
        self.stages = stages_of(model)
        self._original = model
        self._copy = copy.deepcopy(model)
        self._drawn: Mapping[str, Tensor] = (
            permuted(model, self.stages, seed) if draw == "permute" else fresh(model, seed)
        )

    @torch.no_grad()
    def _put(self, names: Sequence[str], source: Mapping[str, Tensor]) -> None:
        own = self._copy.state_dict()
        for name in names:
            own[name].copy_(source[name])

    def models(self) -> Iterator[tuple[Stage, Captioner]]:
        """Yield the model after each stage. It is the same object all along, so it is of use only until the next one is asked for."""
        self._put(learned_tensors(self._original), self._original.state_dict())
        for stage in self.stages:
            self._put(stage.tensors, self._drawn)
            yield stage, self._copy

"""How likely a model finds a word after a beginning of a caption: many beginnings of different length at once.

Axes: B pictures, R beginnings, T inputs of the longest, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from capxai.models.captioner import Captioner
from capxai.models.state import HeadInputs, Memory

_NUMBERS_AT_ONCE = 24_000_000
"""Numbers of pictures that are copied for beginnings read together: 96 MB in single precision."""


@dataclass(frozen=True)
class Prefix:
    """A beginning of a caption and the word after it.

    Attributes:
        row: The picture's place in its batch.
        inputs: Ids of ``<start>`` and of the words that the model reads.
        word: Id of the word whose probability is asked for.
    """

    row: int
    inputs: tuple[int, ...]
    word: int


@torch.no_grad()
def probabilities(model: Captioner, memory: Memory, prefixes: Sequence[Prefix]) -> list[float]:
    """Return the probability, over the whole vocabulary, of the word after each beginning.

    Beginnings are padded at their ends, which no step before sees, and the word head reads each at its own last step. Those of like length
    are read together, in parts of bounded memory.

    Args:
        model: In evaluation mode.
        memory: Of the B pictures.
        prefixes: R beginnings.
    """
    found = [0.0] * len(prefixes)
    order = sorted(range(len(prefixes)), key=lambda number: len(prefixes[number].inputs))
    size = max(1, _NUMBERS_AT_ONCE // _numbers(memory))
    for start in range(0, len(order), size):
        part = order[start : start + size]
        spoken = _read(model, memory, [prefixes[number] for number in part])
        for number, probability in zip(part, spoken.tolist(), strict=True):
            found[number] = probability
    return found


def _numbers(memory: Memory) -> int:
    """Count the numbers that belong to one picture."""
    return sum(getattr(memory, field.name)[0].numel() for field in fields(memory))


def _read(model: Captioner, memory: Memory, prefixes: Sequence[Prefix]) -> Tensor:
    """Return the probability of each word, (R,)."""
    device = model.device
    lengths = torch.tensor([len(prefix.inputs) for prefix in prefixes], device=device)
    longest = int(lengths.max())
    padding = model.vocabulary.pad
    inputs = torch.tensor(
        [[*prefix.inputs, *(padding,) * (longest - len(prefix.inputs))] for prefix in prefixes], device=device
    )
    rows = torch.tensor([prefix.row for prefix in prefixes], device=device)
    seen = model.read(memory.select(rows), model.embed(inputs))  # (R, T, H) each
    each = torch.arange(len(prefixes), device=device)
    logits = model.speak(HeadInputs(seen.context[each, lengths - 1], seen.hidden[each, lengths - 1]))  # (R, V)
    words = torch.tensor([prefix.word for prefix in prefixes], device=device)
    return torch.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), 1)[each, words]

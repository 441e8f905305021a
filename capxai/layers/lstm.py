"""An LSTM cell whose sums and products can be addressed by relevance rules."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from capxai.layers.structure import Add, Gate


class GateAffine(nn.Module):
    """The affine map that all four gates of an LSTM share: x W_ih' + b_ih + h W_hh' + b_hh.

    The weights are arguments because they belong to the cell, whose parameter names are those of `torch.nn.LSTMCell`.
    """

    def forward(self, x: Tensor, hidden: Tensor, cell: nn.LSTMCell) -> Tensor:
        """Return the four pre-activations (B, 4H) in PyTorch's order: input, forget, candidate, output.

        Args:
            x: (B, I).
            hidden: (B, H), the hidden state before the step.
            cell: The cell whose weights to use.
        """
        return functional.linear(x, cell.weight_ih, cell.bias_ih) + functional.linear(
            hidden, cell.weight_hh, cell.bias_hh
        )


class LSTMCell(nn.LSTMCell):
    """`torch.nn.LSTMCell`, written out: the same parameters, the same numbers to rounding.

    m = f * m_prev + i * tanh(g), h = o * tanh(m); i, f, o are sigmoids (Hochreiter and Schmidhuber 1997, with forget gates).
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.affine = GateAffine()
        self.keep = Gate()
        self.write = Gate()
        self.read = Gate()
        self.add = Add()
        self.tanh = nn.Tanh()

    def forward(  # type: ignore[override]
        self, x: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Advance by one step.

        Args:
            x: (B, I).
            state: Hidden and cell vectors before the step, (B, H) each.

        Returns:
            Hidden and cell vectors after the step.
        """
        hidden, memory = state
        write, keep, candidate, read = self.affine(x, hidden, self).chunk(4, dim=-1)
        memory = self.add(
            self.keep(torch.sigmoid(keep), memory),
            self.write(torch.sigmoid(write), self.tanh(candidate)),
        )
        return self.read(torch.sigmoid(read), self.tanh(memory)), memory

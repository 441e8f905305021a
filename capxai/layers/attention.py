"""Attention over regions: the weights only. What they weigh is summed by `WeightedSum`, where relevance passes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from capxai.layers.dropout import Dropout
from capxai.layers.structure import Gate


class Sentinel(nn.Module):
    """The language model's own proposal, s = sigmoid(W_x x + W_h h_prev) * tanh(m) (Lu et al. 2017)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.x_gate = nn.Linear(input_size, hidden_size)
        self.h_gate = nn.Linear(hidden_size, hidden_size)
        self.tanh = nn.Tanh()
        self.gate = Gate()

    def forward(self, x: Tensor, previous_hidden: Tensor, memory: Tensor) -> Tensor:
        """Return the sentinel (B, H).

        Args:
            x: (B, I), the input of the LSTM at this step.
            previous_hidden: (B, H), the hidden state BEFORE this step.
            memory: (B, H), the cell vector after this step.
        """
        openness = torch.sigmoid(self.x_gate(x) + self.h_gate(previous_hidden))
        sentinel: Tensor = self.gate(openness, self.tanh(memory))
        return sentinel


class AdaptiveAttention(nn.Module):
    """Additive attention with a sentinel: z_k = w' tanh(W_v V_k + W_q h), alpha = softmax(z) (method.md, section 1).

    The width of the attention is K, the number of regions, as in the paper.
    """

    def __init__(self, hidden_size: int, regions: int, published_query_axis: bool = False) -> None:
        super().__init__()
        self.published_query_axis = published_query_axis
        self.value_projection = nn.Linear(hidden_size, regions)
        self.sentinel_projection = nn.Linear(hidden_size, regions)
        self.query_projection = nn.Linear(hidden_size, regions, bias=False)
        self.score = nn.Linear(regions, 1, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        """Return W_v V_k for every region, (B, K, H) to (B, K, K). It depends on the picture alone."""
        keys: Tensor = self.value_projection(values)
        return keys

    def forward(self, keys: Tensor, sentinel: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the regions and the sentinel.

        Args:
            keys: (B, K, K) from `keys`.
            sentinel: (B, H).
            hidden: (B, H), the query.

        Returns:
            alpha (B, K), which sums to 1, and beta (B, 1), the last entry of the softmax over regions and sentinel.

        Differs from the published code: it adds the k-th entry of W_q h to every unit of region k. With ``published_query_axis``
        this module does the same, because weights that were trained so need it.
        """
        query = self.query_projection(hidden)  # (B, K)
        spread = query.unsqueeze(2) if self.published_query_axis else query.unsqueeze(1)
        scores = self.score(torch.tanh(keys + spread)).squeeze(2)  # (B, K)
        sentinel_score = self.score(torch.tanh(self.sentinel_projection(sentinel) + query))  # (B, 1)
        beta = torch.softmax(torch.cat([scores, sentinel_score], dim=1), dim=1)[:, -1:]
        return torch.softmax(scores, dim=1), beta


class MultiHeadWeights(nn.Module):
    """Scaled dot-product weights for N heads, softmax(q Key' / sqrt(H / N)) (Vaswani et al. 2017), with dropout on the weights."""

    def __init__(self, hidden_size: int, heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads = heads
        self.query_projection = nn.Linear(hidden_size, hidden_size)
        self.dropout = Dropout(dropout)

    def split(self, vectors: Tensor) -> Tensor:
        """Cut (B, K, H) into heads: (B, N, K, H / N)."""
        heads: Tensor = vectors.unflatten(-1, (self.heads, -1))
        return heads.transpose(1, 2)

    def forward(self, keys: Tensor, hidden: Tensor) -> Tensor:
        """Return the weights (B, N, K).

        Args:
            keys: (B, N, K, H / N).
            hidden: (B, H), the query before its projection.
        """
        query = self.query_projection(hidden).unflatten(-1, (self.heads, -1))  # (B, N, H / N)
        scores = torch.matmul(keys, query.unsqueeze(-1)).squeeze(-1) / math.sqrt(keys.shape[-1])
        weights: Tensor = self.dropout(torch.softmax(scores, dim=-1))
        return weights

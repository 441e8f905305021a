"""The decoder `mh-fc`: multi-head attention with a gated context (method.md, section 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capxai.layers.attention import MultiHeadWeights
from capxai.layers.lstm import LSTMCell
from capxai.layers.projection import RegionProjection
from capxai.layers.structure import Gate, Mean, MergeHeads, WeightedSum
from capxai.models.decoders.base import Decoder
from capxai.models.specification import Specification
from capxai.models.state import Glance, HeadInputs, Memory, State


class MultiHeadDecoder(Decoder):
    """h = LSTM([Emb(word); mean_k V_k]), c = sigmoid(W_gate h) * (W_lin a), logits = fc(dropout(c + h))."""

    head_dropout = 0.3

    def __init__(self, specification: Specification) -> None:
        super().__init__(specification)
        hidden = specification.hidden_size
        self.region_projection = RegionProjection(specification.channels, hidden)
        self.mean = Mean()
        self.lstm = LSTMCell(specification.embedding_size + hidden, hidden)
        self.key_projection = nn.Linear(hidden, hidden)
        self.value_projection = nn.Linear(hidden, hidden)
        self.attention = MultiHeadWeights(hidden, specification.heads)
        self.weighted_sum = WeightedSum()
        self.merge_heads = MergeHeads()
        self.context_projection = nn.Linear(hidden, hidden)
        self.context_gate = nn.Linear(hidden, hidden)
        self.gate = Gate()

    def remember(self, features: Tensor) -> Memory:
        """Prepare what every step reads from the picture: features (B, K, C)."""
        regions = self.region_projection(features)
        keys = self.attention.split(self.key_projection(regions))
        values = self.attention.split(self.value_projection(regions))
        return Memory(features, values, keys, self.mean(regions))

    def advance(self, memory: Memory, word_vector: Tensor, state: State) -> Glance:
        """Advance by one word up to the word head: word_vector (B, E)."""
        x = torch.cat([word_vector, memory.summary], dim=1)
        hidden, cell = self.lstm(x, (state.hidden[0], state.cell[0]))
        weights = self.attention(memory.keys, hidden)
        heads = self.weighted_sum(weights, memory.values)  # (B, N, H / N)
        context = self.gate(torch.sigmoid(self.context_gate(hidden)), self.context_projection(self.merge_heads(heads)))
        return Glance(State((hidden,), (cell,)), weights, None, HeadInputs(context, hidden))

"""Decoders with adaptive attention: `ada-lstm` with two LSTMs, `adaptive` with one (method.md, section 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capxai.layers.attention import AdaptiveAttention, Sentinel
from capxai.layers.lstm import LSTMCell
from capxai.layers.projection import GlobalProjection, RegionProjection
from capxai.layers.structure import Add, Gate, WeightedSum
from capxai.models.decoders.base import Decoder
from capxai.models.specification import Specification
from capxai.models.state import Glance, HeadInputs, Memory, State


class SentinelMixture(nn.Module):
    """chat = beta s + (1 - beta) c: the share of language and the share of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.language = Gate()
        self.picture = Gate()
        self.add = Add()

    def forward(self, beta: Tensor, sentinel: Tensor, context: Tensor) -> Tensor:
        """Mix sentinel and context, (B, H) each, by beta (B, 1)."""
        mixed: Tensor = self.add(self.language(beta, sentinel), self.picture(1 - beta, context))
        return mixed


class AdaptiveDecoder(Decoder):
    """`adaptive`: x = [Emb(word); g], one LSTM, logits = fc(dropout(chat + h)) (Lu et al. 2017)."""

    def __init__(self, specification: Specification) -> None:
        super().__init__(specification)
        hidden, embedding = specification.hidden_size, specification.embedding_size
        self.region_projection = RegionProjection(specification.channels, hidden)
        self.global_projection = GlobalProjection(specification.channels, embedding)
        self.lstm = LSTMCell(self.input_size(specification), hidden)
        self.sentinel = Sentinel(self.input_size(specification), hidden)
        self.attention = AdaptiveAttention(hidden, specification.regions, specification.published_query_axis)
        self.weighted_sum = WeightedSum()
        self.mixture = SentinelMixture()

    @staticmethod
    def input_size(specification: Specification) -> int:
        """Return the width of x, the input of the first LSTM."""
        return 2 * specification.embedding_size

    def remember(self, features: Tensor) -> Memory:
        """Prepare what every step reads from the picture: features (B, K, C)."""
        values = self.region_projection(features)
        return Memory(features, values, self.attention.keys(values), self.global_projection(features))

    def attend(self, memory: Memory, x: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Run the first LSTM and look at the picture.

        Returns:
            chat (B, H), alpha (B, K), beta (B, 1), and the first LSTM's new (hidden, cell).
        """
        previous = state.hidden[0]
        hidden, cell = self.lstm(x, (previous, state.cell[0]))
        sentinel = self.sentinel(x, previous, cell)
        alpha, beta = self.attention(memory.keys, sentinel, hidden)
        context = self.weighted_sum(alpha, memory.values)
        return self.mixture(beta, sentinel, context), alpha, beta, (hidden, cell)

    def advance(self, memory: Memory, word_vector: Tensor, state: State) -> Glance:
        """Advance by one word up to the word head: word_vector (B, E)."""
        x = torch.cat([word_vector, memory.summary], dim=1)
        mixed, alpha, beta, (hidden, cell) = self.attend(memory, x, state)
        return Glance(State((hidden,), (cell,)), alpha, beta.squeeze(1), HeadInputs(mixed, hidden))


class AdaLSTMDecoder(AdaptiveDecoder):
    """`ada-lstm`: grid top-down attention; a second LSTM reads [chat; h1] and speaks, logits = fc(dropout(chat + h2)).

    Differs from the published code: it feeds the sentinel gate the new hidden state when fine-tuning; here it is the old one, always.
    """

    lstm_count = 2

    def __init__(self, specification: Specification) -> None:
        super().__init__(specification)
        self.language_lstm = LSTMCell(2 * specification.hidden_size, specification.hidden_size)

    @staticmethod
    def input_size(specification: Specification) -> int:
        """Return the width of x1 = [h2_prev; g; Emb(word)]."""
        return specification.hidden_size + 2 * specification.embedding_size

    def advance(self, memory: Memory, word_vector: Tensor, state: State) -> Glance:
        """Advance by one word up to the word head: word_vector (B, E)."""
        x = torch.cat([state.hidden[1], memory.summary, word_vector], dim=1)
        mixed, alpha, beta, (hidden1, cell1) = self.attend(memory, x, state)
        hidden2, cell2 = self.language_lstm(torch.cat([mixed, hidden1], dim=1), (state.hidden[1], state.cell[1]))
        state = State((hidden1, hidden2), (cell1, cell2))
        return Glance(state, alpha, beta.squeeze(1), HeadInputs(mixed, hidden2))

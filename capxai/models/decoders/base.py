"""What every decoder offers. See `capxai.models.captioner` for how the calls fit together."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from capxai.layers.dropout import Dropout
from capxai.layers.structure import Add
from capxai.models.specification import Specification
from capxai.models.state import Glance, HeadInputs, Memory, State


class WordHead(nn.Module):
    """logits = fc(dropout(context + hidden)); ``forward`` takes two (..., H) summands and returns (..., V)."""

    def __init__(self, hidden_size: int, vocabulary_size: int, dropout: float) -> None:
        super().__init__()
        self.add = Add()
        self.dropout = Dropout(dropout)
        self.fc = nn.Linear(hidden_size, vocabulary_size)

    def forward(self, context: Tensor, hidden: Tensor) -> Tensor:
        """Return the logits (..., V)."""
        logits: Tensor = self.fc(self.dropout(self.add(context, hidden)))
        return logits


class Decoder(nn.Module):
    """A language model that looks at regions.

    Attributes:
        embedding: Word ids to vectors, (V, E).
        word_head: Context and hidden state to logits.
        lstm_count: How many LSTM states there are.
    """

    lstm_count = 1
    head_dropout = 0.5

    def __init__(self, specification: Specification) -> None:
        super().__init__()
        self.hidden_size = specification.hidden_size
        self.embedding = nn.Embedding(specification.vocabulary_size, specification.embedding_size)
        self.word_head = WordHead(specification.hidden_size, specification.vocabulary_size, self.head_dropout)

    @abstractmethod
    def remember(self, features: Tensor) -> Memory:
        """Prepare what every step reads from the picture: features (B, K, C)."""

    @abstractmethod
    def advance(self, memory: Memory, word_vector: Tensor, state: State) -> Glance:
        """Advance by one word up to the word head: word_vector (B, E)."""

    def start(self, memory: Memory) -> State:
        """Return the all-zero state."""
        zeros = memory.features.new_zeros(memory.features.shape[0], self.hidden_size)
        return State((zeros,) * self.lstm_count, (zeros,) * self.lstm_count)

    def speak(self, inputs: HeadInputs) -> Tensor:
        """Map what the word head sees to logits, (..., V)."""
        logits: Tensor = self.word_head(inputs.context, inputs.hidden)
        return logits


def initialize(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw the weights of embeddings uniformly from [-0.1, 0.1], the choice of most LSTM captioners; other layers keep PyTorch's."""
    for child in module.modules():
        if isinstance(child, nn.Embedding):
            nn.init.uniform_(child.weight, -0.1, 0.1, generator=generator)

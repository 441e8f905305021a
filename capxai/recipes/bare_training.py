"""The training step written bare, for `capxai bench train`: the same arithmetic as the decoders', with nothing of the library around it.

One module for each decoder, as a straight time loop over ``nn.LSTMCell``, ``nn.Linear`` and tensor operations (method.md, section 1), and
one step of Adam. Nothing here is used to train or to explain.

Axes: B batch, T words, K regions, C channels, H hidden, E embedding, V vocabulary, N heads.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from capxai.models.captioner import Captioner
from capxai.models.specification import Specification
from capxai.train.optimization import BETAS, CLIP_VALUE


class BareDecoder(nn.Module):
    """A decoder without a library.

    Attributes:
        names: Where each of its layers is in capxai's decoder.
        projection_in_loop: Map every step to the vocabulary by itself, as the published code does, and not all steps at once.
    """

    names: ClassVar[Mapping[str, str]]
    head_dropout: float

    def __init__(self, specification: Specification, projection_in_loop: bool = False) -> None:
        super().__init__()
        self.projection_in_loop = projection_in_loop
        self.hidden_size = specification.hidden_size
        self.embedding = nn.Embedding(specification.vocabulary_size, specification.embedding_size)
        self.region = nn.Linear(specification.channels, specification.hidden_size)
        self.fc = nn.Linear(specification.hidden_size, specification.vocabulary_size)
        self.dropout = nn.Dropout(self.head_dropout)

    @abstractmethod
    def sums(self, features: Tensor, vectors: Tensor) -> list[Tensor]:
        """Return context + hidden state of every step, T times (B, H), from features (B, K, C) and word vectors (B, T, E)."""

    def forward(self, features: Tensor, inputs: Tensor) -> Tensor:
        """Return the logits (B, T, V) for stored features (B, K, C) of any floating-point type and words (B, T)."""
        sums = self.sums(features.float(), self.embedding(inputs))
        if self.projection_in_loop:
            return torch.stack([self.fc(self.dropout(one)) for one in sums], dim=1)
        logits: Tensor = self.fc(self.dropout(torch.stack(sums, dim=1)))
        return logits

    def take_weights(self, model: Captioner) -> None:
        """Copy the weights of capxai's decoder."""
        theirs = model.decoder.state_dict()
        own = {}
        for name in self.state_dict():
            layer, _, weight = name.rpartition(".")
            own[name] = theirs.pop(f"{self.names.get(layer, layer)}.{weight}")
        if theirs:
            raise ValueError(f"the bare decoder lacks {', '.join(theirs)}")
        self.load_state_dict(own)


class BareAdaLSTM(BareDecoder):
    """`ada-lstm`."""

    head_dropout = 0.5
    names: ClassVar[Mapping[str, str]] = {
        "region": "region_projection.linear",
        "summary": "global_projection.linear",
        "first": "lstm",
        "second": "language_lstm",
        "x_gate": "sentinel.x_gate",
        "h_gate": "sentinel.h_gate",
        "key": "attention.value_projection",
        "sentinel_key": "attention.sentinel_projection",
        "query": "attention.query_projection",
        "score": "attention.score",
        "fc": "word_head.fc",
    }

    def __init__(self, specification: Specification, projection_in_loop: bool = False) -> None:
        super().__init__(specification, projection_in_loop)
        hidden, regions = specification.hidden_size, specification.regions
        x_size = hidden + 2 * specification.embedding_size
        self.summary = nn.Linear(specification.channels, specification.embedding_size)
        self.first = nn.LSTMCell(x_size, hidden)
        self.second = nn.LSTMCell(2 * hidden, hidden)
        self.x_gate = nn.Linear(x_size, hidden)
        self.h_gate = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, regions)
        self.sentinel_key = nn.Linear(hidden, regions)
        self.query = nn.Linear(hidden, regions, bias=False)
        self.score = nn.Linear(regions, 1, bias=False)

    def sums(self, features: Tensor, vectors: Tensor) -> list[Tensor]:
        """Return chat + h2 of every step."""
        values = torch.relu(self.region(features))  # (B, K, H)
        keys = self.key(values)  # (B, K, K)
        summary = torch.relu(self.summary(features.mean(1)))
        h1 = m1 = h2 = m2 = features.new_zeros(len(features), self.hidden_size)
        found = []
        for t in range(vectors.shape[1]):
            x = torch.cat([h2, summary, vectors[:, t]], dim=1)
            openness = torch.sigmoid(self.x_gate(x) + self.h_gate(h1))
            h1, m1 = self.first(x, (h1, m1))
            sentinel = openness * torch.tanh(m1)
            query = self.query(h1)
            scores = self.score(torch.tanh(keys + query.unsqueeze(1))).squeeze(2)  # (B, K)
            own = self.score(torch.tanh(self.sentinel_key(sentinel) + query))  # (B, 1)
            beta = torch.softmax(torch.cat([scores, own], dim=1), dim=1)[:, -1:]
            context = torch.bmm(torch.softmax(scores, dim=1).unsqueeze(1), values).squeeze(1)
            mixed = beta * sentinel + (1 - beta) * context
            h2, m2 = self.second(torch.cat([mixed, h1], dim=1), (h2, m2))
            found.append(mixed + h2)
        return found


class BareMultiHead(BareDecoder):
    """`mh-fc`."""

    head_dropout = 0.3
    names: ClassVar[Mapping[str, str]] = {
        "region": "region_projection.linear",
        "first": "lstm",
        "key": "key_projection",
        "value": "value_projection",
        "query": "attention.query_projection",
        "context": "context_projection",
        "context_gate": "context_gate",
        "fc": "word_head.fc",
    }

    def __init__(self, specification: Specification, projection_in_loop: bool = False) -> None:
        super().__init__(specification, projection_in_loop)
        hidden = specification.hidden_size
        self.heads = specification.heads
        self.first = nn.LSTMCell(specification.embedding_size + hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.query = nn.Linear(hidden, hidden)
        self.context = nn.Linear(hidden, hidden)
        self.context_gate = nn.Linear(hidden, hidden)
        self.attention_dropout = nn.Dropout(0.1)

    def sums(self, features: Tensor, vectors: Tensor) -> list[Tensor]:
        """Return c + h of every step."""
        regions = torch.relu(self.region(features))  # (B, K, H)
        width = self.hidden_size // self.heads
        keys = self.key(regions).unflatten(2, (self.heads, width)).transpose(1, 2)  # (B, N, K, H / N)
        values = self.value(regions).unflatten(2, (self.heads, width)).transpose(1, 2)
        mean = regions.mean(1)
        h = m = features.new_zeros(len(features), self.hidden_size)
        found = []
        for t in range(vectors.shape[1]):
            h, m = self.first(torch.cat([vectors[:, t], mean], dim=1), (h, m))
            query = self.query(h).unflatten(1, (self.heads, width)).unsqueeze(3)
            scores = (keys @ query).squeeze(3) / width**0.5  # (B, N, K)
            weights = self.attention_dropout(torch.softmax(scores, dim=2))
            heads = (weights.unsqueeze(2) @ values).flatten(1)  # (B, H)
            found.append(torch.sigmoid(self.context_gate(h)) * self.context(heads) + h)
        return found


BARE: dict[str, type[BareDecoder]] = {"ada-lstm": BareAdaLSTM, "mh-fc": BareMultiHead}


class BareTraining:
    """Steps of Adam on the mean cross-entropy of a batch, gradients clipped by value, as training does it."""

    def __init__(self, decoder: BareDecoder, learning_rate: float, pad: int) -> None:
        self.decoder = decoder.train()
        self._adam = torch.optim.Adam(decoder.parameters(), learning_rate, betas=BETAS)
        self._pad = pad

    def step(self, features: Tensor, inputs: Tensor, targets: Tensor) -> float:
        """Take a step and return the loss before it: features (B, K, C), words (B, T)."""
        loss = self.loss(features, inputs, targets)
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_value_(self.decoder.parameters(), CLIP_VALUE)
        self._adam.step()
        return float(loss.detach())

    def loss(self, features: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy a word in nats."""
        logits = self.decoder(features, inputs)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=self._pad)

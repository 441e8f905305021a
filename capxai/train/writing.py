"""What a captioner is worth while it learns: its loss on references, and the captions that it writes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from capxai.models.captioner import Captioner
from capxai.models.decoding import DecodingOptions, decode
from capxai.models.state import Memory
from capxai.train.cross_entropy import teacher_forcing, word_losses
from capxai.train.examples import References, caption_batch
from capxai.train.optimization import Numerics
from capxai.train.processes import Processes
from capxai.train.sources import Reader, Source
from capxai.types import Advance


class Examiner:
    """Looks at the pictures of a split with a captioner in evaluation mode, in shares of all processes."""

    def __init__(self, model: Captioner, source: Source, numerics: Numerics, group: Processes, batch_size: int) -> None:
        """Remember what to look at.

        Args:
            model: The captioner; it is put into evaluation mode whenever it is asked.
            source: Where the pictures come from.
            numerics: Where the model is, and how exactly it computes.
            group: The processes among which the batches are dealt out.
            batch_size: Pictures at once.
        """
        self._model, self._source, self._numerics, self._group = model, source, numerics, group
        self._batch_size = batch_size

    def _memories(self, count: int, advance: Advance) -> Iterator[tuple[Tensor, Memory]]:
        """Yield the rows and the memory of this process's batches of the first ``count`` pictures."""
        self._model.eval()
        plan = list(torch.arange(count).split(self._batch_size))[self._group.rank :: self._group.world]
        reader = Reader(self._source.read, self._source.workers)
        for rows, found in zip(plan, reader.batches(plan), strict=True):
            with self._numerics.autocast():
                memory = self._source.remember(self._model, found.to(self._numerics.device))
            yield rows, memory
            advance(len(rows))

    @torch.no_grad()
    def loss(self, references: References, count: int, advance: Advance) -> float:
        """Return the mean cross-entropy a word in nats, without dropout, over the first reference of ``count`` pictures."""
        sums = torch.zeros(2, dtype=torch.float64)
        for rows, memory in self._memories(count, advance):
            batch = caption_batch(rows, references.targets(references.first[rows]), self._model.vocabulary)
            batch = batch.to(self._numerics.device)
            with self._numerics.autocast():
                logits = teacher_forcing(self._model, memory, batch.inputs)
            loss, words = word_losses(logits, batch.targets, self._model.vocabulary.pad)
            sums += torch.tensor([float(loss), words], dtype=torch.float64)
        sums = self._group.sum(sums)
        return float(sums[0] / sums[1])

    @torch.no_grad()
    def captions(self, count: int, options: DecodingOptions, advance: Advance) -> list[str]:
        """Caption the first ``count`` pictures; every process gets all captions."""
        found: list[tuple[int, str]] = []
        for rows, memory in self._memories(count, advance):
            with self._numerics.autocast():
                decoded = decode(self._model, memory, options)
            texts = [self._model.vocabulary.decode(caption.token_ids) for caption in decoded]
            found += zip(rows.tolist(), texts, strict=True)
        return [text for _, text in sorted(item for share in self._group.gather(found) for item in share)]

"""Where references name objects, and which references of the same picture do not.

Axes: B pictures of a batch, T words, R references of a picture, M captions, Q categories, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from capxai.finetune.batches import CaptionTable, Drawn


@dataclass(frozen=True)
class ObjectMentions:
    """Where the references of the training pictures name objects.

    Attributes:
        references: The words of M captions, ``<end>``, then ``<pad>``.
        begins: Of the same captions, the category's number from 1 at the first word of each mention, 0 elsewhere.
        forms: (Q + 1, V) bool, the words with which a name of the category begins; row 0 is empty.
    """

    references: CaptionTable
    begins: CaptionTable
    forms: Tensor

    def of(self, batch: Drawn) -> Tensor:
        """Return the categories that the captions of a batch name and where, (B, T)."""
        return self.begins.targets(batch.captions)

    def reference_without(self, pictures: Tensor, categories: Tensor) -> tuple[Tensor, Tensor]:
        """Draw for each picture a reference that does not name a category, all of these equally likely.

        Args:
            pictures: (B,) int64.
            categories: (B,) int64.

        Returns:
            (B,) int64, the caption, and (B,) bool, whether there is one.
        """
        first, end = self.references.first[pictures], self.references.first[pictures + 1]
        captions = first[:, None] + torch.arange(int((end - first).max()))  # (B, R)
        there = captions < end[:, None]
        captions = torch.where(there, captions, first[:, None])
        named = self.begins.targets(captions.flatten()).view(*captions.shape, -1)  # (B, R, T)
        usable = there & ~(named == categories[:, None, None]).any(2)
        chosen = torch.rand(captions.shape).masked_fill(~usable, -1).argmax(1, keepdim=True)
        return captions.gather(1, chosen)[:, 0], usable.any(1)


@dataclass(frozen=True)
class Scene:
    """One object that each caption of a whole batch names, and a reference that does not name it.

    Attributes:
        names: (B,) bool, whether the caption names an object at all; where not, the other entries of its row mean nothing.
        places: (B,) int64, the step that begins to name it.
        categories: (B,) int64, its number.
        exists: (B,) bool, whether there is a reference that does not name it.
        others: (B, L) int64, that reference: words, ``<end>``, then ``<pad>``.
        steps: How many steps it takes to begin to name all of them, in the whole batch.
    """

    names: Tensor
    places: Tensor
    categories: Tensor
    exists: Tensor
    others: Tensor
    steps: int

    @classmethod
    def draw(cls, mentions: ObjectMentions, batch: Drawn) -> Scene:
        """Draw from PyTorch's global random state, each mention of a caption equally likely."""
        begins = mentions.of(batch)
        names = begins.bool().any(1)
        places = torch.rand(begins.shape).masked_fill(begins == 0, -1).argmax(1)
        categories = begins.gather(1, places[:, None])[:, 0]
        captions, exists = mentions.reference_without(batch.rows, categories)
        exists = exists & names
        others = mentions.references.targets(captions)
        longest = int(mentions.references.targets(captions[exists]).shape[1]) if bool(exists.any()) else 1
        return cls(names, places, categories, exists, others[:, :longest], int(places.max()) + 1)

    def share(self, first: int, count: int) -> Scene:
        """Take ``count`` rows from ``first`` on."""
        part = slice(first, first + count)
        return Scene(
            self.names[part], self.places[part], self.categories[part], self.exists[part], self.others[part], self.steps
        )

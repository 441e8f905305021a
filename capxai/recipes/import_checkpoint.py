"""Turn a checkpoint of the paper's authors into a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from capxai.models.authors.importing import import_captioner
from capxai.models.folder import save_model
from capxai.types import SILENT, JsonObject, Reporter


@dataclass(frozen=True)
class ImportCheckpointConfig:
    """What to import.

    Attributes:
        checkpoint: The authors' ``.pth`` file; it is read without running what it contains.
        wordmap: Their JSON word map.
        out: The model folder to write.
        heads: Number of heads of an `mh-fc`, which checkpoints do not store; None for the paper's.
        force: Replace a model that is in ``out``.
    """

    checkpoint: Path
    wordmap: Path
    out: Path
    heads: int | None = None
    force: bool = False


@dataclass(frozen=True)
class ImportCheckpointReport:
    """What was imported.

    Attributes:
        out: The model folder.
        architecture: The model's specification as JSON.
        lineage: Where the weights came from, with the notes that were reported.
    """

    out: Path
    architecture: JsonObject
    lineage: JsonObject

    def to_json(self) -> JsonObject:
        """Return the fields as a JSON object."""
        return {"out": str(self.out), "architecture": self.architecture, "lineage": self.lineage}


def run(config: ImportCheckpointConfig, reporter: Reporter = SILENT) -> ImportCheckpointReport:
    """Import a checkpoint and write its model folder.

    Raises:
        UnsafeCheckpointError: The checkpoint's pickle names something that could run code.
        ModelError: The checkpoint cannot be used, or a model is in the folder already.
        VocabularyError: The word map cannot be used.
    """
    captioner = import_captioner(config.checkpoint, config.wordmap, config.heads)
    sizes = captioner.specification
    reporter.note(
        f"{sizes.decoder} with {sizes.encoder}: E {sizes.embedding_size}, H {sizes.hidden_size}, V "
        f"{sizes.vocabulary_size}, "
        f"K {sizes.regions}, C {sizes.channels}."
    )
    notes = captioner.lineage["notes"]
    for note in notes if isinstance(notes, list) else []:
        reporter.note(str(note))
    save_model(captioner, config.out, config.force)
    return ImportCheckpointReport(config.out, sizes.to_json(), dict(captioner.lineage))

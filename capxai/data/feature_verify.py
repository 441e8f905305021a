"""Checking a finished feature file: every number, every block, and the weights beside it."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from capxai.data.feature_format import Header, Layout, block_bytes, read_file
from capxai.data.feature_names import find_parts, weights_path
from capxai.data.feature_numbers import finite_and_zero_rows
from capxai.data.feature_store import FeatureStore
from capxai.types import JsonObject

WEIGHTS_SOUND = "as described"
WEIGHTS_ABSENT = "not beside the file"
_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        files: The files that were checked.
        pictures: Rows in all of them.
        blocks: Blocks whose checksums were computed.
        damaged_blocks: (file name, block) of each whose bytes are not those that were written.
        not_finite: Image ids whose features or boxes hold NaN or infinity.
        all_zero: Image ids whose features are all zero.
        weights: What was found of the encoder's weights: "as described", "not beside the file" or what is wrong.
    """

    files: tuple[str, ...]
    pictures: int
    blocks: int
    damaged_blocks: tuple[tuple[str, int], ...]
    not_finite: tuple[int, ...]
    all_zero: tuple[int, ...]
    weights: str

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence for each kind of problem; empty for a sound file."""
        found = []
        if self.damaged_blocks:
            named = ", ".join(f"{number} of {name}" for name, number in self.damaged_blocks[:_NAMED_AT_MOST])
            found.append(
                f"{len(self.damaged_blocks)} of {self.blocks} blocks are not as they were written (block {named})."
            )
        if self.not_finite:
            found.append(
                f"{len(self.not_finite)} pictures have features or boxes that are not finite ({_some(self.not_finite)})."
            )
        if self.all_zero:
            found.append(f"{len(self.all_zero)} pictures have features that are all zero ({_some(self.all_zero)}).")
        if self.weights not in (WEIGHTS_SOUND, WEIGHTS_ABSENT):
            found.append(self.weights)
        return tuple(found)

    def to_json(self) -> JsonObject:
        """Return the findings as JSON."""
        return {**asdict(self), "sound": not self.problems, "problems": list(self.problems)}


def verify_features(path: str | Path, advance: Callable[[int], None] = lambda amount: None) -> Verification:
    """Read a whole feature file, all its parts, and check it.

    Args:
        path: As for `FeatureStore.open`.
        advance: Called with the number of pictures that were checked since the last call.

    Raises:
        CorpusError: The structure is wrong already: a file is missing, torn, cut off, of another format, its counts contradict each
            other, or parts are missing.
    """
    paths = find_parts(Path(path))
    with FeatureStore.open(paths) as store:
        pictures, description = len(store), store.description
    findings = _Findings()
    blocks = 0
    for item in paths:
        header, layout = read_file(item)
        blocks += header.blocks
        with item.open("rb", buffering=0) as file:
            table = os.pread(file.fileno(), 4 * header.blocks, layout.checksums)
            expected = np.frombuffer(table, "<u4").tolist()
            for block in range(header.blocks):
                if _check_block(file.fileno(), header, layout, block, findings) != expected[block]:
                    findings.damaged.append((item.name, block))
                advance(len(header.rows(block)))
    return Verification(
        files=tuple(map(str, paths)),
        pictures=pictures,
        blocks=blocks,
        damaged_blocks=tuple(findings.damaged),
        not_finite=tuple(findings.not_finite),
        all_zero=tuple(findings.all_zero),
        weights=_check_weights(weights_path(paths[0]), description.weights_sha256),
    )


@dataclass
class _Findings:
    """What has been found so far."""

    damaged: list[tuple[str, int]] = field(default_factory=list)
    not_finite: list[int] = field(default_factory=list)
    all_zero: list[int] = field(default_factory=list)


def _check_block(descriptor: int, header: Header, layout: Layout, block: int, findings: _Findings) -> int:
    """Note odd pictures of a block and return its checksum."""
    ids = header.image_ids[slice(header.rows(block).start, header.rows(block).stop)]
    features, boxes = block_bytes(descriptor, header, layout, block)
    values = np.frombuffer(features, header.description.numpy_dtype).reshape(len(ids), -1)
    finite, zero = finite_and_zero_rows(values)
    if boxes:
        finite &= finite_and_zero_rows(np.frombuffer(boxes, "<f4").reshape(len(ids), -1))[0]
    findings.not_finite += ids[~finite].tolist()
    findings.all_zero += ids[zero].tolist()
    return zlib.crc32(boxes, zlib.crc32(features))


def _check_weights(path: Path, expected: str) -> str:
    if not path.exists():
        return WEIGHTS_ABSENT
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == expected:
        return WEIGHTS_SOUND
    return f"The weights '{path}' have SHA-256 {found}; expected {expected}, those that made the features."


def _some(image_ids: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, image_ids[:_NAMED_AT_MOST]))
    return f"image ids {shown}{', ...' if len(image_ids) > _NAMED_AT_MOST else ''}"

"""Turn published bottom-up features into a feature file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from capxai.data.feature_format import FeatureDescription
from capxai.data.feature_writer import FeatureWriter
from capxai.data.published_features import Format, PublishedFeatures, PublishedPicture, RegionArrays, open_published
from capxai.data.published_features.source import CHANNELS, DAMAGE_REMEDY
from capxai.errors import ConfigError, CorpusError
from capxai.recipes.import_matching import Matched, match_pictures
from capxai.types import SILENT, Advance, FloatArray, JsonObject, Reporter

ENCODER = "bottom-up"
"""Name under which a feature file says that its features were imported."""

BLOCK = 32
"""Pictures that are in memory at a time; also the unit of resuming."""

_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class ImportFeaturesConfig:
    """What to import.

    Attributes:
        source: A ``.tsv`` file or a folder of published features.
        out: The feature file to write.
        format: "tsv", "npz" or "hdf5"; "auto" goes by the names of the files.
        corpus: A corpus folder: only its pictures are imported, and those without features are reported. None imports all.
        dtype: Type of the stored features. Half precision rounds to 11 significant bits.
        regions: K. None takes the number that all pictures have, and refuses if it varies; with a number, pictures with more keep
            their first K, and pictures with fewer are filled with zero rows.
        channels: C that the features must have.
        force: Replace a finished file, or throw away an unfinished one of other settings. Without, the same command goes on with
            what was interrupted.
    """

    source: Path
    out: Path = Path("features.h5")
    format: Format = "auto"
    corpus: Path | None = None
    dtype: Literal["float16", "float32"] = "float16"
    regions: int | None = None
    channels: int = CHANNELS
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be.

        Raises:
            ConfigError: ``regions`` or ``channels`` is below 1.
        """
        if min(1 if self.regions is None else self.regions, self.channels) < 1:
            raise ConfigError(
                f"{self.regions} regions of {self.channels} channels were asked for. Expected at least 1 each. The published features "
                f"have 36 regions (or 10 to 100) of {CHANNELS}."
            )


class Fit(NamedTuple):
    """How pictures of various numbers of regions become rows of K: how many pictures are filled with zero rows, and how many cut."""

    regions: int
    filled: int
    cut: int


@dataclass(frozen=True)
class ImportFeaturesReport:
    """What was imported.

    Attributes:
        out: The feature file.
        format: The format that was read.
        pictures: N.
        description: What the file says of itself.
        fit: K, and the pictures that were filled or cut to it.
        missing: Ids of the corpus without features.
        unknown: Names of the source that are not in the corpus, and were left out.
        without_size: How many pictures have no known size (0 x 0 in the file).
        other_sizes: Ids of pictures whose size differs from the corpus.
        resumed: How many blocks were there already, from an interrupted run.
    """

    out: Path
    format: str
    pictures: int
    description: FeatureDescription
    fit: Fit
    missing: tuple[int, ...]
    unknown: tuple[str, ...]
    without_size: int
    other_sizes: tuple[int, ...]
    resumed: int

    def to_json(self) -> JsonObject:
        """Return counts, the first few of what is missing or left over, and the description."""
        return {
            "out": str(self.out),
            "format": self.format,
            "pictures": self.pictures,
            "regions": self.fit.regions,
            "channels": self.description.channels,
            "dtype": self.description.dtype,
            "filled_pictures": self.fit.filled,
            "cut_pictures": self.fit.cut,
            "missing": {"count": len(self.missing), "first": list(self.missing[:_NAMED_AT_MOST])},
            "unknown": {"count": len(self.unknown), "first": list(self.unknown[:_NAMED_AT_MOST])},
            "pictures_without_size": self.without_size,
            "other_sizes": {"count": len(self.other_sizes), "first": list(self.other_sizes[:_NAMED_AT_MOST])},
            "resumed_blocks": self.resumed,
            "description": self.description.to_json(),
        }


def run(config: ImportFeaturesConfig, reporter: Reporter = SILENT) -> ImportFeaturesReport:
    """Import published region features.

    The source is gone through twice: once for ids, sizes and shapes, once for the numbers, `BLOCK` pictures at a time. What was
    written survives an interruption; the same command goes on with it.

    Raises:
        CorpusError: Files are damaged, pictures are there twice, numbers of regions vary, or the output exists; all damaged
            pictures are found before the error is raised, and the sound ones need not be imported again.
        CapxaiError: The disk is full, or the place cannot be written to.
    """
    if config.out.exists() and not config.force:  # said before the first pass, which takes minutes on a large source
        raise CorpusError(
            f"'{config.out}' is already there, and it was kept. Choose another --out, or replace it with --force."
        )
    source = open_published(config.source, config.format, config.channels)
    reporter.note(f"{len(source):,} pictures in '{config.source}' ({source.format}).")
    try:
        matched = match_pictures(source, config.corpus)
        fit = _fit(source.path, matched.pictures, config.regions)
        _say(matched, fit, reporter)
        description = _describe(config, source, matched, fit)
        resumed = _write(config, source, matched, description, reporter)
    finally:
        source.close()
    return ImportFeaturesReport(
        config.out,
        source.format,
        len(matched.pictures),
        description,
        fit,
        matched.missing,
        matched.unknown,
        int((matched.sizes == 0).any(axis=1).sum()),
        matched.other_sizes,
        resumed,
    )


def _fit(path: Path, pictures: Sequence[PublishedPicture], regions: int | None) -> Fit:
    """Decide on K.

    Raises:
        CorpusError: The number of regions varies and none was asked for, or some pictures have boxes and some have none.
    """
    counts = Counter(picture.regions for picture in pictures)
    if len({picture.has_boxes for picture in pictures}) > 1:
        bare = next(picture for picture in pictures if not picture.has_boxes)
        raise CorpusError(
            f"{sum(not picture.has_boxes for picture in pictures)} of {len(pictures)} pictures of '{path}' have no boxes (such as "
            f"{bare.where}). Expected boxes for all or for none. Add the missing ones."
        )
    if regions is None and len(counts) > 1:
        below = sum(count for number, count in counts.items() if number < 36)
        raise CorpusError(
            f"The pictures of '{path}' have {min(counts)} to {max(counts)} regions. Expected one number for all, because models read "
            f"a fixed one and know no mask. Choose it, such as --set regions=36: with that, {below:,} pictures would be filled with "
            f"zero rows, and {sum(counts.values()) - below - counts[36]:,} would keep their first 36."
        )
    number = regions or next(iter(counts))
    return Fit(
        number,
        sum(count for found, count in counts.items() if found < number),
        sum(count for found, count in counts.items() if found > number),
    )


def _say(matched: Matched, fit: Fit, reporter: Reporter) -> None:
    """Report what the user should know before the long pass begins."""
    if matched.missing:
        reporter.warn(f"{len(matched.missing):,} pictures of the corpus have no features ({_first(matched.missing)}).")
    if matched.unknown:
        reporter.note(
            f"{len(matched.unknown):,} pictures are not in the corpus and are left out ({_first(matched.unknown)})."
        )
    if matched.other_sizes:
        reporter.warn(
            f"{len(matched.other_sizes):,} pictures have another size than in the corpus ({_first(matched.other_sizes)}): see that "
            "both speak of the same pictures."
        )
    if fit.filled:
        reporter.warn(
            f"{fit.filled:,} pictures have fewer than {fit.regions} regions and are filled with zero rows. Models have no mask: attention "
            "gives zero rows a share like any other, and the mean over regions counts them."
        )
    if fit.cut:
        reporter.note(
            f"{fit.cut:,} pictures have more than {fit.regions} regions and keep the first, in the order of the file."
        )
    if not matched.pictures[0].has_boxes:
        reporter.warn(
            "The source has no boxes: all boxes are stored as 0, and explanations cannot be drawn on the pictures."
        )


def _describe(
    config: ImportFeaturesConfig, source: PublishedFeatures, matched: Matched, fit: Fit
) -> FeatureDescription:
    details: JsonObject = {
        "imported_from": config.source.name,
        "format": source.format,
        "boxes": "pixels" if matched.pictures[0].has_boxes else "unknown",
        "filled_pictures": fit.filled,
        "cut_pictures": fit.cut,
    }
    if fit.filled:
        details["filling"] = "rows whose features and box are all zero stand for no region"
    return FeatureDescription(
        "region", ENCODER, "", None, fit.regions, source.channels, config.dtype, None, matched.corpus, details
    )


def _write(
    config: ImportFeaturesConfig,
    source: PublishedFeatures,
    matched: Matched,
    description: FeatureDescription,
    reporter: Reporter,
) -> int:
    """Write what is not written yet and return how many blocks were there already."""
    with FeatureWriter.create_or_resume(
        config.out, description, matched.image_ids, matched.sizes, block=BLOCK, force=config.force
    ) as writer:
        missing = writer.missing_blocks()
        damaged: list[str] = []
        with reporter.track("Importing features", sum(len(writer.header.rows(block)) for block in missing)) as advance:
            for block in missing:
                pictures = [matched.pictures[row] for row in writer.header.rows(block)]
                arrays = _read_block(source, pictures, description, damaged, advance)
                if arrays is not None:
                    writer.write(block, *arrays)
        _refuse_damaged(config.source, damaged)
        resumed = writer.header.blocks - len(missing)
        writer.finish()
    return resumed


def _read_block(
    source: PublishedFeatures,
    pictures: Sequence[PublishedPicture],
    description: FeatureDescription,
    damaged: list[str],
    advance: Advance,
) -> tuple[FloatArray, FloatArray] | None:
    """Return (n, K, C) features and (n, K, 4) boxes, or None if a picture is damaged, which is noted."""
    features = np.zeros((len(pictures), *description.row_shape), np.float32)
    boxes = np.zeros((len(pictures), description.regions, 4), np.float32)
    sound = True
    for row, picture in enumerate(pictures):
        try:
            arrays = source.read(picture)
            _refuse_too_large(arrays, picture, description)
        except CorpusError as error:
            damaged.append(str(error))
            sound = False
        else:
            kept = min(len(arrays.features), description.regions)
            features[row, :kept] = arrays.features[:kept]
            if arrays.boxes is not None:
                boxes[row, :kept] = arrays.boxes[:kept]
        advance(1)
    return (features, boxes) if sound else None


def _refuse_too_large(arrays: RegionArrays, picture: PublishedPicture, description: FeatureDescription) -> None:
    largest, limit = float(np.abs(arrays.features).max()), float(np.finfo(description.numpy_dtype).max)
    if largest > limit:
        raise CorpusError(
            f"{picture.where} (picture {picture.name}): features up to {largest:g}, beyond {limit:g}, the largest {description.dtype} "
            "(use --dtype float32)"
        )


def _refuse_damaged(source: Path, damaged: Sequence[str]) -> None:
    """Raise if pictures are damaged; all of them are counted, the first few named."""
    if not damaged:
        return
    shown = "\n".join(f"- {text}" for text in damaged[:_NAMED_AT_MOST])
    more = f"\n- and {len(damaged) - _NAMED_AT_MOST:,} more" if len(damaged) > _NAMED_AT_MOST else ""
    raise CorpusError(
        f"{len(damaged):,} pictures of '{source}' cannot be used:\n{shown}{more}\nExpected finite numbers of the stated shapes. "
        f"{DAMAGE_REMEDY} Then run the same command again: what is sound has been kept."
    )


def _first(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:_NAMED_AT_MOST])) + (", ..." if len(items) > _NAMED_AT_MOST else "")

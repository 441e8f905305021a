"""Which picture of a corpus each picture of published features is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capxai.data.annotations import Picture, Problems
from capxai.data.corpus import Corpus
from capxai.data.published_features import PublishedFeatures, PublishedPicture
from capxai.data.published_features.source import stem_of
from capxai.errors import CorpusError

_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True)
class Matched:
    """The pictures to import.

    Attributes:
        corpus: Name of the corpus; "" without one.
        pictures: As the source lists them; files of one picture each are sorted by id.
        image_ids: (N,) int64, each once.
        sizes: (N, 2) int32, height and width in pixels as the source says, else the corpus; 0 where nobody does.
        missing: Ids of the corpus that the source does not have, ascending.
        unknown: Names of the source that the corpus does not have.
        other_sizes: Ids of pictures whose size differs between source and corpus.
    """

    corpus: str
    pictures: tuple[PublishedPicture, ...]
    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int32]
    missing: tuple[int, ...] = ()
    unknown: tuple[str, ...] = ()
    other_sizes: tuple[int, ...] = ()


def match_pictures(source: PublishedFeatures, corpus_folder: Path | None) -> Matched:
    """Find the id of every picture of a source.

    With a corpus, a picture is the one whose file has its name ("1000092795" of a .tsv, "000000000009.jpg" of an HDF5 file), else the one
    whose id is the number at the end of its name; pictures that the corpus does not have are left out. Without, that number is the id.

    Raises:
        CorpusError: Two pictures have the same id, names have no number, or corpus and source have no picture in common.
    """
    corpus = None if corpus_folder is None else Corpus.open(corpus_folder)
    known = {} if corpus is None else _pictures_of(corpus)
    stems = {stem_of(picture.path.name): picture.id for picture in known.values()}
    found: dict[int, PublishedPicture] = {}
    unknown: list[str] = []
    problems = Problems(source.path)
    for picture in source.pictures:
        number = _id_of(picture, stems, known if corpus else None)
        if number is None and corpus:
            unknown.append(picture.name)
        elif number is None:
            problems.add("pictures whose name ends in no number", f"{picture.name} in {picture.where}")
        elif number in found:
            problems.add("pictures that are there twice", f"{number} in {found[number].where} and {picture.where}")
        else:
            found[number] = picture
    problems.raise_if_any(
        "each picture once, called by its id", "Take the others out, or name the corpus with --corpus."
    )
    if not found:
        raise CorpusError(
            f"None of the {len(source):,} pictures of '{source.path}' (such as {source.pictures[0].name}) is in the corpus "
            f"'{corpus_folder}'. Expected features of its pictures. Check that both belong together."
        )
    return _matched("" if corpus is None else corpus.name, source, found, known, unknown)


def _matched(
    corpus: str,
    source: PublishedFeatures,
    found: dict[int, PublishedPicture],
    known: Mapping[int, Picture],
    unknown: list[str],
) -> Matched:
    # Lines of a file are read in their order; a folder's order (10 before 9) means nothing.
    numbers = list(found) if source.format == "tsv" else sorted(found)
    annotated = {number: (known[number].height, known[number].width) for number in numbers if number in known}
    sizes = [found[number].size or annotated.get(number, (0, 0)) for number in numbers]
    other = [number for number, size in zip(numbers, sizes, strict=True) if annotated.get(number, size) != size]
    return Matched(
        corpus,
        tuple(found[number] for number in numbers),
        np.array(numbers, np.int64),
        np.array(sizes, np.int32),
        tuple(sorted(known.keys() - found.keys())),
        tuple(unknown),
        tuple(other),
    )


def _pictures_of(corpus: Corpus) -> dict[int, Picture]:
    """Return the pictures of all splits by id."""
    return {picture.id: picture for name in corpus.splits for picture in corpus.split(name).pictures}


def _id_of(picture: PublishedPicture, stems: Mapping[str, int], known: Mapping[int, Picture] | None) -> int | None:
    if known is None:
        return picture.number if picture.number is not None and picture.number <= _LARGEST_ID else None
    stem = stem_of(picture.name)
    if stem in stems:
        return stems[stem]
    return picture.number if picture.number in known else None

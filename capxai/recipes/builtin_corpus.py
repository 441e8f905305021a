"""The built-in corpus in the user's cache: rendered once, used by every recipe that is given no corpus."""

from __future__ import annotations

import os
from pathlib import Path

from capxai.data.corpus import Corpus
from capxai.data.scenes import P_BIAS, PAIRS, write_corpus
from capxai.data.scenes.categories import P_HAZE
from capxai.types import Reporter

CACHE_VARIABLE = "XDG_CACHE_HOME"


def cache_folder() -> Path:
    """Return capxai's folder in the cache of the user."""
    root = os.environ.get(CACHE_VARIABLE)
    return (Path(root) if root else Path.home() / ".cache") / "capxai"


def open_corpus(folder: Path | None, size: int, seed: int, reporter: Reporter) -> Corpus:
    """Open a corpus folder, or the built-in corpus where none is given, and say which.

    Args:
        folder: The corpus folder, or None.
        size: Training pictures of the built-in corpus.
        seed: Its seed.
        reporter: Where progress and the choice are shown.

    Raises:
        CorpusError: The corpus cannot be read or written.
    """
    if folder is not None:
        reporter.note(f"Corpus: {folder}.")
        return Corpus.open(folder)
    folder = cache_folder() / f"scenes-{size}-{seed}"
    if not _is_current(folder):
        write_corpus(folder, size, seed, force=folder.exists(), reporter=reporter)
    reporter.note(f"Corpus: built-in scenes, {size} training pictures, seed {seed}, in {folder}.")
    return Corpus.open(folder)


def _is_current(folder: Path) -> bool:
    """Tell whether the folder holds the corpus as this version renders it; a planted bias may have changed since."""
    if not (folder / "corpus.json").is_file():
        return False
    manifest = Corpus.open(folder).manifest
    planted = {"p_bias": P_BIAS, "p_haze": P_HAZE, "pairs": [list(pair) for pair in PAIRS]}
    return all(manifest.get(name) == value for name, value in planted.items())

"""The models of SPICE, which no package brings along."""

from __future__ import annotations

from pathlib import Path

from capxai.errors import DependencyError
from capxai.evaluate.java_process import pycocoevalcap_file

MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
SOURCE = "http://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"


def find_models(folder: Path) -> tuple[Path, ...]:
    """Return the two files that SPICE needs besides pycocoevalcap: from ``folder``, or where pycocoevalcap has put them.

    Raises:
        DependencyError: They are in neither place; the message says where to get them.
    """
    places = (folder, pycocoevalcap_file("spice/lib"))
    for place in places:
        paths = tuple(place / name for name in MODELS)
        if all(path.is_file() for path in paths):
            return paths
    raise DependencyError(
        f"The models of SPICE were not found in '{folder}'. Expected {' and '.join(MODELS)}. capxai downloads nothing by itself: fetch "
        f"{SOURCE}, and put these two files out of it into that folder."
    )

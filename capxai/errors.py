"""Errors that capxai raises on purpose.

Every message has three parts: what was found, what was expected, what to do. The command line prints the message alone and exits
with 1; a traceback appears only with ``--debug``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CapxaiError(Exception):
    """Base of every error that a user can cause and mend."""


class ConfigError(CapxaiError):
    """A setting is unknown or has a value that cannot be used."""


class ImageError(CapxaiError):
    """A picture cannot be read."""


class CorpusError(CapxaiError):
    """A corpus folder or an annotation file is missing, torn or contradicts itself."""


class VocabularyError(CapxaiError):
    """A word is not in the vocabulary, or the vocabulary itself is not usable."""


class ModelError(CapxaiError):
    """A model folder, a checkpoint or weights cannot be used."""


class UnsafeCheckpointError(ModelError):
    """A checkpoint's pickle asks for something that could run code."""


class RelevanceError(CapxaiError):
    """Relevance cannot be propagated: an operation on the path has no rule, or the request makes no sense for the model."""


class DependencyError(CapxaiError):
    """Something outside capxai (a package, Java, weights on the internet) is missing or broken."""


def unknown_choice(kind: str, given: str, choices: Iterable[str]) -> str:
    """Word the message for a name that is not among the known ones.

    Args:
        kind: What the name stands for, as it should read after "Unknown" ("method", "decoder").
        given: The name that was found.
        choices: The names that exist, in the order in which to list them.

    Returns:
        One sentence each for what was found and what exists, and a suggestion where one is close.
    """
    names = list(choices)
    message = f"Unknown {kind} '{given}'. Choose one of: {', '.join(names)}."
    close = difflib.get_close_matches(given, names, n=1)
    return f"{message} Did you mean '{close[0]}'?" if close else message

"""What becomes of a picture that cannot be worked on while others can."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from capxai.errors import CapxaiError, ConfigError, DependencyError, ModelError
from capxai.types import JsonObject

WHOLE_RUN = (ConfigError, DependencyError, ModelError)
"""Errors that every picture would meet: they end the run at once."""


@dataclass(frozen=True)
class Failure:
    """A picture that was left out, and why.

    Attributes:
        image: Its path as it was given.
        message: The message of the error.
    """

    image: str
    message: str

    def to_json(self) -> JsonObject:
        """Return the failure as JSON."""
        return asdict(self)


def failure_of(image: object, error: CapxaiError) -> Failure:
    """Return what to report of one picture at the end of the run, or raise the error if it concerns every picture."""
    if isinstance(error, WHOLE_RUN):
        raise error
    return Failure(str(image), str(error))

"""The architecture of a captioner as plain data: what ``model.json`` stores and what builds the modules again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from capxai.errors import ModelError
from capxai.types import JsonObject


@dataclass(frozen=True)
class Specification:
    """Sizes and choices that, with the vocabulary size, determine every module and every weight's shape.

    Attributes:
        encoder: Name in `capxai.models.encoders.ENCODERS`, or "features" where features are stored.
        decoder: Name in `capxai.models.decoders.DECODERS`.
        channels: C, the encoder's output channels.
        regions: K, the number of regions.
        hidden_size: H.
        embedding_size: E.
        vocabulary_size: V.
        heads: N of `mh-fc`; 1 for the others.
        published_query_axis: Add W_q h1 across the regions as the authors' released code does (method.md, section 1). Only for
            weights that were trained that way.
    """

    encoder: str
    decoder: str
    channels: int
    regions: int
    hidden_size: int
    embedding_size: int
    vocabulary_size: int
    heads: int = 1
    published_query_axis: bool = False

    def to_json(self) -> JsonObject:
        """Return the fields as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: JsonObject) -> Specification:
        """Build a specification from a JSON object.

        Raises:
            ModelError: A field is missing or unknown.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(value) - known)
        try:
            if unknown:
                raise TypeError(f"unknown fields: {', '.join(unknown)}")
            return cls(**value)
        except TypeError as error:
            raise ModelError(
                f"The architecture in model.json does not fit this version of capxai ({error}). "
                "Use the version named in model.json, or train or import the model again."
            ) from error

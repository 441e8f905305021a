"""Decoders by name."""

from __future__ import annotations

from capxai.errors import ModelError, unknown_choice
from capxai.models.decoders.ada_lstm import AdaLSTMDecoder, AdaptiveDecoder
from capxai.models.decoders.base import Decoder
from capxai.models.decoders.mh_fc import MultiHeadDecoder
from capxai.models.specification import Specification

DECODERS: dict[str, type[Decoder]] = {
    "ada-lstm": AdaLSTMDecoder,
    "mh-fc": MultiHeadDecoder,
    "adaptive": AdaptiveDecoder,
}


def register_decoder(name: str, decoder: type[Decoder]) -> None:
    """Make a decoder known under a name that ``model.json`` can store.

    Raises:
        ModelError: The name is taken.
    """
    if name in DECODERS:
        raise ModelError(f"A decoder named '{name}' is registered already; choose another name.")
    DECODERS[name] = decoder


def build_decoder(specification: Specification) -> Decoder:
    """Build the decoder that a specification names, with fresh weights.

    Raises:
        ModelError: Unknown name, or a size that the heads do not divide.
    """
    if specification.decoder not in DECODERS:
        raise ModelError(unknown_choice("decoder", specification.decoder, DECODERS))
    if specification.hidden_size % specification.heads:
        raise ModelError(
            f"{specification.heads} heads do not divide a hidden size of {specification.hidden_size}. "
            "Choose a number of heads that does."
        )
    return DECODERS[specification.decoder](specification)

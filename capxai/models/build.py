"""Build a captioner from its specification."""

from __future__ import annotations

from capxai.data.preprocessing import Preprocessing
from capxai.data.vocabulary import Vocabulary
from capxai.models.captioner import Captioner
from capxai.models.decoders import build_decoder
from capxai.models.decoders.base import initialize
from capxai.models.encoders import build_encoder
from capxai.models.specification import Specification


def build_captioner(specification: Specification, vocabulary: Vocabulary, preprocessing: Preprocessing) -> Captioner:
    """Build a captioner with fresh weights, drawn from PyTorch's global random state.

    Raises:
        ModelError: An unknown encoder or decoder, or sizes that do not fit together.
    """
    captioner = Captioner(
        build_encoder(specification.encoder), build_decoder(specification), vocabulary, preprocessing, specification
    )
    initialize(captioner.decoder)
    return captioner

"""What `capxai.explain` refuses, by name."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_captioner import tiny_captioner

import capxai
from capxai.errors import ImageError, RelevanceError
from capxai.explain.methods import METHODS, RULE_OPTIONS, Options

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
SET = Options(head=0, eps=0.1, alpha=2.0, beta=1.0, gamma=0.25, z_box=True)


@pytest.mark.parametrize(
    "picture", [NOISE / 255, NOISE[..., 0], np.dstack([NOISE, NOISE[..., 0]]), NOISE[:0], "missing.jpg"]
)
def test_what_is_no_picture_is_refused(picture: object) -> None:
    with pytest.raises(ImageError):
        capxai.explain(tiny_captioner(), picture, method="attention")


@pytest.mark.parametrize("method", [name for name in METHODS if name != "lrp"])
@pytest.mark.parametrize("option", RULE_OPTIONS)
def test_an_option_that_a_method_would_ignore_is_refused(method: str, option: str) -> None:
    options = Options(**{option: getattr(SET, option)})
    with pytest.raises(RelevanceError, match=f"'{method}' has no {option}"):
        capxai.explain(tiny_captioner(), NOISE, method=method, options=options)

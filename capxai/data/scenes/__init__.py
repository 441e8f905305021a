"""The built-in corpus ``scenes``: rendered pictures of everyday objects with a planted bias, in COCO format."""

from __future__ import annotations

from capxai.data.scenes.categories import CATEGORIES, P_BIAS, PAIRS, SPLITS, Category
from capxai.data.scenes.corpus import write_corpus
from capxai.data.scenes.layout import Layout, Placement, sample_layout
from capxai.data.scenes.picture import PlacedObject, Scene, render_picture

__all__ = [
    "CATEGORIES",
    "PAIRS",
    "P_BIAS",
    "SPLITS",
    "Category",
    "Layout",
    "PlacedObject",
    "Placement",
    "Scene",
    "render_picture",
    "sample_layout",
    "write_corpus",
]

"""Published bottom-up features in the formats in which people pass them on, read one picture at a time."""

from __future__ import annotations

from capxai.data.published_features.opening import FORMATS, Format, open_published
from capxai.data.published_features.source import PublishedFeatures, PublishedPicture, RegionArrays

__all__ = ["FORMATS", "Format", "PublishedFeatures", "PublishedPicture", "RegionArrays", "open_published"]

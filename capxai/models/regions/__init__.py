"""Region features: a torchvision detector in the role of the bottom-up network."""

from __future__ import annotations

from capxai.models.regions.extractor import RegionExtractor, build_region_extractor

__all__ = ["RegionExtractor", "build_region_extractor"]

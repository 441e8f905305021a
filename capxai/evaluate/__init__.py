"""Measuring captions. Nothing here knows models, files or terminals."""

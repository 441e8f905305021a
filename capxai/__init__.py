"""Explain image captions word by word, and improve captioners with what the explanation shows.

    import capxai
    model = capxai.load()                                  # the bundled model; a folder for your own
    explanation = capxai.explain(model, "image.jpg")
    explanation.save("explanations/image")

Importing the package is cheap: torch is imported by the first call that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capxai.explain.explainer import explain
    from capxai.models.folder import load

__version__ = "0.3.0"

__all__ = ["__version__", "explain", "load"]


def __getattr__(name: str) -> Any:
    """Import ``load`` or ``explain`` on first use (PEP 562).

    ``explain`` is the subpackage, which can be called: importing it sets the attribute, so both uses see one object.

    Raises:
        AttributeError: There is no such name.
    """
    if name == "explain":
        return importlib.import_module("capxai.explain")
    if name == "load":
        return importlib.import_module("capxai.models.folder").load
    raise AttributeError(f"module 'capxai' has no attribute '{name}'")


def __dir__() -> list[str]:
    """List what the package offers, imported or not."""
    return sorted({*globals(), *__all__})

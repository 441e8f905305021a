"""Explanations of captions: methods, the result they share, and the files it is written to.

The package itself can be called: ``capxai.explain(model, "image.jpg")`` is `capxai.explain.explainer.explain`. A package and a
function of one name would otherwise replace each other, depending on which submodule was imported first.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capxai.explain.explanation import Explanation


class _CallableModule(ModuleType):
    """A module that stands for its main function."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Explanation:
        """Explain one caption; see `capxai.explain.explainer.explain`."""
        from capxai.explain.explainer import explain

        return explain(*arguments, **keywords)


sys.modules[__name__].__class__ = _CallableModule

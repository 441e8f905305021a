"""Settings of the whole suite, and what several files of tests share because it takes long to make."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from learned_photographs import Photographs

# Before torch is imported: the tests' networks are so small that threads cost more than they bring, above all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    """Photographs and a model that knows their captions by heart."""
    from learned_photographs import learn_photographs

    return learn_photographs(tmp_path_factory.mktemp("photographs"))

"""Settings of the whole suite."""

from __future__ import annotations

import os

# Before torch is imported: the tests' networks are so small that threads cost more than they bring, above all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

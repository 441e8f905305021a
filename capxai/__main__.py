"""Run the command line with ``python -m capxai``."""

from __future__ import annotations

from capxai.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())

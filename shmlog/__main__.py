"""``python -m shmlog`` is ``shmlog``."""

from __future__ import annotations

import sys

from shmlog.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

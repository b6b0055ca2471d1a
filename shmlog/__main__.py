"""The command line as a program of its own: ``shmlog``, or ``python -m shmlog``."""

from __future__ import annotations

import sys

from shmlog.base.extras import do_without_pandas
from shmlog.cli.main import main


def run() -> int:
    """Run the command line; return its exit code."""
    do_without_pandas()
    return main()


if __name__ == "__main__":
    sys.exit(run())

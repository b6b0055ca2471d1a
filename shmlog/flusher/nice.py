"""Who of this process goes first on a machine that is busy."""

from __future__ import annotations

import os
import sys

NICE = 10


def be_nice() -> None:
    """Let the draining thread, and the trainer, go before the thread that calls this, and before what it starts."""
    if sys.platform.startswith("linux"):  # elsewhere it would be the whole process
        os.nice(NICE)

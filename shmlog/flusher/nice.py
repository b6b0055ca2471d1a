"""The priority of this process's threads on a busy machine."""

from __future__ import annotations

import os
import sys

NICE = 10


def be_nice() -> None:
    """Give the calling thread, and what it starts, a lower priority than the draining thread and the trainer."""
    if sys.platform.startswith("linux"):  # elsewhere it would change the whole process
        os.nice(NICE)

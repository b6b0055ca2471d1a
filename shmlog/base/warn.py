"""Warnings that name the user's own line."""

from __future__ import annotations

import sys
import warnings

from shmlog.errors import ShmlogWarning


def warn_caller(problem: str) -> None:
    """Warn at the first line outside shmlog: the one that called into it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and str(frame.f_globals.get("__package__")).partition(".")[0] == "shmlog":
        frame, level = frame.f_back, level + 1
    warnings.warn(problem, ShmlogWarning, stacklevel=level)

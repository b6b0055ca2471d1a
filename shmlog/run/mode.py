"""Whether runs are enabled at all: `init`'s ``mode``, else ``$SHMLOG_MODE``."""

from __future__ import annotations

import os

VARIABLE = "SHMLOG_MODE"
STRICT = "strict"  # as enabled, and a call that names no run raises where there is none
_MODES = ("enabled", "disabled", STRICT)


def is_disabled(mode: str | None) -> bool:
    """Whether runs are disabled; raises ValueError if there is no such mode."""
    return _mode(mode) == "disabled"


def is_strict() -> bool:
    """Whether a call that names no run raises where there is none."""
    return _mode(None) == STRICT


def _mode(mode: str | None) -> str:
    mode = mode or os.environ.get(VARIABLE) or "enabled"
    if mode not in _MODES:
        raise ValueError(f"mode must be 'enabled', 'disabled' or 'strict', not {mode!r}")
    return mode

"""Whether runs are enabled at all: `init`'s ``mode``, else ``$SHMLOG_MODE``."""

from __future__ import annotations

from shmlog import _core

VARIABLE = "SHMLOG_MODE"
STRICT = "strict"  # as enabled, but a call without a run raises if there is none
_MODES = ("enabled", "disabled")


def is_disabled(mode: str | None) -> bool:
    """Whether runs are disabled; raises ValueError if the mode is unknown."""
    if mode and mode not in _MODES:
        raise ValueError(f"mode must be 'enabled' or 'disabled', not {mode!r}")
    return (mode or _from_environment()) == "disabled"


def is_strict() -> bool:
    """Whether a call without a run raises if there is none."""
    return _from_environment() == STRICT


def _from_environment() -> str:
    mode = _core.variable(VARIABLE) or "enabled"
    if mode not in (*_MODES, STRICT):
        raise ValueError(f"${VARIABLE} must be 'enabled', 'disabled' or 'strict', not {mode!r}")
    return mode

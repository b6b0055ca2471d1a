"""The clock that stamps the records of a run."""

from __future__ import annotations

from pathlib import Path

from shmlog import _core

_SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")


def clock_number(clock: str) -> int:
    """Return the number of a clock: ``auto``, ``monotonic`` or ``tsc``.

    ``auto`` chooses the time-stamp counter where the kernel itself keeps time
    with it, which shows that its rate is constant and the same on all cores.

    Raises
    ------
    ValueError
        If ``clock`` is not one of these, or this machine has no time-stamp counter.
    """
    if clock == "monotonic":
        return _core.CLOCK_MONOTONIC
    if clock == "tsc":
        if not _core.HAS_TSC:
            raise ValueError("clock='tsc': this machine has no time-stamp counter; use 'auto'")
        return _core.CLOCK_TSC
    if clock != "auto":
        raise ValueError(f"clock must be 'auto', 'monotonic' or 'tsc', not {clock!r}")
    return _core.CLOCK_TSC if _core.HAS_TSC and _kernel_uses_tsc() else _core.CLOCK_MONOTONIC


def _kernel_uses_tsc() -> bool:
    try:
        return _SOURCE.read_text().strip() == "tsc"
    except OSError:
        return False

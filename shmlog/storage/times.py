"""Times as text: RFC 3339 in UTC with microseconds, wherever a file of ours tells one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

_SECONDS = range(-62_135_596_800, 253_402_300_800)  # of the years 1 to 9999


def rfc3339(when: datetime) -> str:
    """Return a time as text."""
    from datetime import UTC  # slow to import, and not needed at `init`

    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def utc_now() -> str:
    """Return the time that it is."""
    return timestamp(time.time_ns() // 1000)


def timestamp(ts_us: int) -> str:
    """Return microseconds since 1970 as text."""
    seconds, rest = divmod(ts_us, 1_000_000)
    return f"{_second(seconds)}{rest:06d}Z"


def _second(seconds: int) -> str:
    if seconds not in _SECONDS:
        return "1970-01-01T00:00:00."  # a clock that was nowhere near
    year, *others = time.gmtime(seconds)[:6]
    return "{:04d}-{:02d}-{:02d}T{:02d}:{:02d}:{:02d}.".format(year, *others)

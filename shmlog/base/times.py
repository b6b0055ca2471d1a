"""Times as text, which is RFC 3339 in UTC with microseconds in all files of ours, and text as times."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

# `datetime` is slow to import, and not needed at `init`: what needs it imports it when called.

_SECONDS = range(-62_135_596_800, 253_402_300_800)  # of the years 1 to 9999


def rfc3339(when: datetime) -> str:
    """Return a time as text."""
    from datetime import UTC

    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def utc_now() -> str:
    """Return the current time as text."""
    return timestamp(utc_us())


def utc_us() -> int:
    """Return the current time in microseconds since 1970."""
    return time.time_ns() // 1000


def timestamp(ts_us: int) -> str:
    """Return microseconds since 1970 as text; outside the years 1 to 9999, the first second of 1970."""
    seconds, rest = divmod(ts_us, 1_000_000)
    year, *others = time.gmtime(seconds if seconds in _SECONDS else 0)[:6]
    return "{:04d}-{:02d}-{:02d}T{:02d}:{:02d}:{:02d}.".format(year, *others) + f"{rest:06d}Z"


def duration(seconds: float) -> str:
    """Return a time span for people, such as ``12.3 s`` or ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def time_in_range(ts_us: int) -> bool:
    """Whether microseconds since 1970 can be written as text."""
    return ts_us // 1_000_000 in _SECONDS


def moment(value: str | datetime) -> datetime:
    """Return a time in UTC; one without a time zone is in UTC already, as YAML has it.

    Raises
    ------
    TypeError, ValueError
        If it is not a time of the years 1 to 9999.
    """
    from datetime import UTC, datetime

    when = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    try:
        return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError(f"{value} is before the year 1 or after 9999 in UTC") from error


def read_time(value: object, *, needs_zone: bool = False) -> datetime | None:
    """Return what `moment` does for any value of a file; None if it is not a time, or lacks a needed zone."""
    from datetime import datetime

    try:
        when = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment(when) if isinstance(when, datetime) and (when.tzinfo or not needs_zone) else None
    except ValueError:
        return None


def parse_us(value: object) -> int | None:
    """Return a time, as text or as datetime, as microseconds since 1970; None if it is not a time."""
    when = read_time(value)
    return None if when is None else since_1970_us(when)


def since_1970_us(when: datetime) -> int:
    """Return a time, which has a zone, as microseconds since 1970."""
    from datetime import UTC, datetime, timedelta

    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

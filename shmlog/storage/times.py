"""Times as text: RFC 3339 in UTC with microseconds, wherever a file of ours tells one."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(when: datetime) -> str:
    """Return a time as text."""
    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def utc_now() -> str:
    """Return the time that it is."""
    return rfc3339(datetime.now(UTC))


def timestamp(ts_us: int) -> str:
    """Return microseconds since 1970 as text."""
    seconds, rest = divmod(ts_us, 1_000_000)
    return f"{_second(seconds)}{rest:06d}Z"


def _second(seconds: int) -> str:
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return "1970-01-01T00:00:00."  # a clock that was nowhere near
    return f"{moment:%Y-%m-%dT%H:%M:%S}."

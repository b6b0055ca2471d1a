"""Steps and times in the lines and tables of other loggers: under which names, and in which forms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shmlog.base.times import parse_us, time_in_range

STEPS = ("step", "global_step", "_step", "iteration", "iter", "epoch")
"""Names of steps, the most certain first: ``epoch`` is a metric beside any other."""

TIMES = ("ts", "timestamp", "time", "wall_time", "wall time", "_timestamp", "datetime")
"""Names of times."""

_SECONDS = (1e8, 1e11)  # since 1970: below are times that have elapsed, above are milliseconds
_MILLISECONDS_MAX = 1e14


def first_of(words: Iterable[str], names: Iterable[str]) -> str | None:
    """Return the name that is the first of some words, in any case of its letters; None if none is."""
    by_word = {name.lower(): name for name in reversed(list(names))}
    return next((by_word[word] for word in words if word in by_word), None)


def step_of(value: Any) -> int | None:
    """Return a step: of ``3`` and ``3.0`` 3; None of anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def time_us(value: Any) -> int | None:
    """Return a time as microseconds since 1970; None if it is not a time.

    It is a text or datetime, or a number: of seconds since 1970 or, as in JavaScript, of milliseconds.
    """
    ts_us = parse_us(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and _SECONDS[0] <= value < _MILLISECONDS_MAX:
        ts_us = round(value * (1e6 if value < _SECONDS[1] else 1e3))
    return ts_us if ts_us is not None and time_in_range(ts_us) else None


def is_elapsed(value: Any) -> bool:
    """Whether a value is a number too small for a time: seconds since a program began."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _SECONDS[0]


def lacks_zone(value: Any) -> bool:
    """Whether a time, for which `time_us` holds, is a text without a time zone."""
    return isinstance(value, str) and not {"Z", "z", "+", "-"} & set(value[10:])


def is_plain(line: dict[str, Any]) -> bool:
    """Whether a line of JSON is one of metrics by name: ``{"step": 1, "loss": 0.5}``."""
    numbers = (value for value in line.values() if isinstance(value, (int, float)) and not isinstance(value, bool))
    return not isinstance(line.get("event_type"), str) and next(numbers, None) is not None

"""Times that calls give for their records: from what people have to whole microseconds since 1970, which files keep."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from datetime import datetime
from fractions import Fraction
from operator import index
from typing import Any

from shmlog.base.times import since_1970_us, time_in_range

_US = 1_000_000


def time_us(timestamp: Any) -> int:
    """Return a time as microseconds since 1970.

    Parameters
    ----------
    timestamp : datetime with a zone, int, float, Decimal or numpy.datetime64
        Numbers are seconds since 1970. What is finer than a microsecond is rounded.

    Raises
    ------
    TypeError
        If it is of another type.
    ValueError
        If it has no zone, or is not in the years 1 to 9999.
    """
    if isinstance(timestamp, datetime):
        if timestamp.utcoffset() is None:
            raise ValueError(
                f"timestamp {timestamp} has no zone: local time is .astimezone(), UTC .replace(tzinfo=UTC)"
            )
        return since_1970_us(timestamp)
    if _is_datetime64(timestamp):
        us = int(timestamp.astype("datetime64[us]").astype("int64"))
    else:
        us = _of_seconds(timestamp)
    if not time_in_range(us):
        raise ValueError(
            f"timestamp {repr(timestamp)[:40]} is not of the years 1 to 9999: it counts in seconds since 1970"
        )
    return us


def times_us(timestamps: Any) -> Any:
    """Return many times as a buffer of int64.

    Parameters
    ----------
    timestamps : array or sequence
        Of what `time_us` takes; or an array, Series or Index of datetime64.

    Raises
    ------
    TypeError, ValueError
        As `time_us` does.
    """
    if hasattr(timestamps, "to_numpy"):  # of pandas, pyarrow, polars
        timestamps = timestamps.to_numpy()
    if _is_datetime64(timestamps):
        whole = timestamps.astype("datetime64[us]").astype("int64")
        if whole.size == 0 or (time_in_range(int(whole.min())) and time_in_range(int(whole.max()))):
            return whole
    elif isinstance(timestamps, (str, bytes)) or not isinstance(timestamps, Iterable):
        raise TypeError(f"ts must be an array or sequence of times, not {type(timestamps).__name__}")
    return array("q", [_element(i, timestamp) for i, timestamp in enumerate(timestamps)])


def _element(i: int, timestamp: Any) -> int:
    try:
        return time_us(timestamp)
    except (TypeError, ValueError) as error:
        raise type(error)(f"ts[{i}]: {error}") from None


def _is_datetime64(value: Any) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", "") == "M"


def _of_seconds(timestamp: Any) -> int:
    if isinstance(timestamp, (str, bytes, bool)) or not hasattr(type(timestamp), "__float__"):
        raise TypeError(f"a timestamp must be a datetime or seconds since 1970, not {type(timestamp).__name__}")
    try:
        return index(timestamp) * _US
    except TypeError:  # not whole seconds
        pass
    try:
        exact = timestamp if hasattr(type(timestamp), "as_integer_ratio") else float(timestamp)
        over, under = exact.as_integer_ratio()
    except (ValueError, OverflowError):  # NaN, an infinity
        raise ValueError(f"timestamp {timestamp!r} is not a time") from None
    return round(Fraction(over * _US, under))

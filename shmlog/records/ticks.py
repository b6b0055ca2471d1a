"""Convert the ticks of a run's frames to UTC, even if the counter has begun anew.

A time-stamp counter begins anew when the machine wakes up from hibernation, and on many machines also from sleep.
A frame has two anchors of it: one of the beginning of the run, and one of the time when the frame was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shmlog.records.wal import Frame

_MONOTONIC = 0
_LIKE = 1.1  # factor by which two measurements of one speed may differ
_SHORT_NS = 50_000_000  # a speed measured over a shorter time proves nothing
_SURE_NS = 1_000_000_000  # a speed measured over so long a time replaces an earlier one


class _Anchor(NamedTuple):
    ticks: int
    mono_ns: int
    utc_ns: int


_NEVER = _Anchor(0, 0, 0)


class FrameClock(NamedTuple):
    """The conversion of ticks in a frame to UTC.

    Attributes
    ----------
    ticks, utc_ns : int
        The time when the frame was written.
    rate : float
        Nanoseconds per tick.
    shift_ns : float
        Added where the result is later than the frame: such a record was logged before the counter began anew.
        0: it has not begun anew.
    """

    ticks: int
    utc_ns: int
    rate: float
    shift_ns: float = 0.0


class TickClock:
    """The clocks of consecutive frames."""

    def __init__(self) -> None:
        self._first: _Anchor | None = None  # of the beginning of the attempt
        self._begin = _NEVER  # the oldest since the counter began
        self._last = _NEVER
        self._before: _Anchor | None = None  # the last one before the counter began anew
        self._rate: float | None = None

    def clocks(self, frames: Sequence[Frame]) -> list[FrameClock]:
        """Return the clocks of the frames after those of the last call."""
        pairs = [_anchors(frame) for frame in frames]
        clocks = []
        for i, (first, now) in enumerate(pairs):
            if first != self._first:
                self._start(first, now, _newest(pairs[i:]))
            clocks.append(self._clock(now, frames[i].clock))
        return clocks

    def _start(self, first: _Anchor, now: _Anchor, newest: _Anchor) -> None:
        """Begin with the frames of an attempt: ``now`` is the anchor of the first one, ``newest`` of a later one.

        The anchor of the attempt's begin counts, unless the speed since then shows that the counter has begun anew.
        """
        self._first, self._begin, self._last, self._before, self._rate = first, first, first, None, None
        own, since_first = _rate(now, newest), _rate(first, now)
        if own is None or newest.mono_ns - now.mono_ns < _SHORT_NS:
            return
        if since_first is None or not own / _LIKE <= since_first <= own * _LIKE:
            self._begin, self._last, self._before, self._rate = now, now, first, own

    def _clock(self, now: _Anchor, clock: int) -> FrameClock:
        if clock == _MONOTONIC:
            return FrameClock(now.ticks, now.utc_ns, 1.0)
        if now.ticks < self._last.ticks:
            self._begin, self._before = now, self._last
        self._last = now
        measured = _rate(self._begin, now)
        is_sure = self._before is None or now.mono_ns - self._begin.mono_ns >= _SURE_NS
        if measured is not None and (is_sure or self._rate is None):
            self._rate = measured
        rate = self._rate or 1.0
        before = self._before
        shift = 0.0 if before is None else before.utc_ns - now.utc_ns + (now.ticks - before.ticks) * rate
        return FrameClock(now.ticks, now.utc_ns, rate, shift)


def _anchors(frame: Frame) -> tuple[_Anchor, _Anchor]:
    first, now = frame.anchors.tolist()
    return _Anchor(*first), _Anchor(*now)


def _newest(pairs: Sequence[tuple[_Anchor, _Anchor]]) -> _Anchor:
    """Return the anchor of the last frame, within the first one's attempt, up to which the counter only grew."""
    first, newest = pairs[0]
    for begin, now in pairs:
        if begin != first or now.ticks < newest.ticks:
            break
        newest = now
    return newest


def _rate(begin: _Anchor, end: _Anchor) -> float | None:
    """Return the nanoseconds per tick between two anchors; None if the counter did not grow."""
    ticks, spent_ns = end.ticks - begin.ticks, end.mono_ns - begin.mono_ns
    return spent_ns / ticks if ticks > 0 and spent_ns > 0 else None

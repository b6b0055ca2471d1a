"""What the flusher tells those who wait for it of its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shmlog import _core


class Progress:
    """Tells that something gets done: not while what has failed is only tried again, so that who waits gives up.

    Parameters
    ----------
    segment : Segment
        Where it is told.
    drain : Drain
        Runs in a thread of its own, and looks at those that are at work.
    sealed : callable
        Returns below which number all logs are sealed, as far as is known.
    """

    def __init__(self, segment: _core.Segment, drain: _core.Drain, sealed: Callable[[], int]) -> None:
        self._segment = segment
        self._drain = drain
        self._sealed = sealed
        self._stuck_at = -1  # what was sealed at the last failure

    def add(self) -> None:
        """Tell that something was done."""
        if not self._is_stuck():
            self._segment.add_progress()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Have it be told as long as this thread takes processor time, though it gets nothing done for seconds."""
        place = -1 if self._is_stuck() else self._drain.begin_work()
        try:
            yield
        finally:
            self._drain.end_work(place)

    def note_failure(self) -> None:
        """Tell nothing more until another log is sealed."""
        self._stuck_at = self._sealed()

    def _is_stuck(self) -> bool:
        return self._sealed() <= self._stuck_at

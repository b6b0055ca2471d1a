"""Shows the flusher's progress to processes that wait for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shmlog import _core


class Progress:
    """Shows progress in the segment, but not for mere repetitions of a failed try, so that waiting processes give up.

    Parameters
    ----------
    segment : Segment
        Holds the progress.
    drain : Drain
        Runs in its own thread, and watches the threads that are at work.
    sealed : callable
        Returns the number below which all logs are known to be sealed.
    """

    def __init__(self, segment: _core.Segment, drain: _core.Drain, sealed: Callable[[], int]) -> None:
        self._segment = segment
        self._drain = drain
        self._sealed = sealed
        self._failed_at = -1  # the value of ``sealed`` at the last failure
        self._stuck_at = -1  # the same, once the second try there has failed, too

    def add(self) -> None:
        """Show that something was done."""
        if not self._is_stuck():
            self._segment.add_progress()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Show progress as long as this thread takes processor time, even if it completes nothing for seconds."""
        place = -1 if self._is_stuck() else self._drain.begin_work()
        try:
            yield
        finally:
            self._drain.end_work(place)

    def note_failure(self) -> None:
        """From the second failure on, show no more progress until another log is sealed.

        The second try may take seconds on a busy machine, and succeeds where a disk has failed but once.
        """
        sealed = self._sealed()
        if sealed <= self._failed_at:
            self._stuck_at = self._failed_at
        else:
            self._failed_at = sealed

    def _is_stuck(self) -> bool:
        return self._sealed() <= self._stuck_at

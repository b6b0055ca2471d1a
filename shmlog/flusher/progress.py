"""Shows the flusher's progress to processes that wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shmlog import _core

_LOOK_EVERY_S = 0.1
_COUNTED_S = 0.001  # of processor time: where all cores are busy, a nice process may get no more in a second


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

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Show progress as long as this process takes processor time: the drain, which watches threads, has stopped."""
        is_over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(is_over,), name="closing", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            is_over.set()
            watcher.join()

    def _watch(self, is_over: threading.Event) -> None:
        seen_s = time.process_time()
        while not is_over.wait(_LOOK_EVERY_S):
            now_s = time.process_time()
            if now_s - seen_s >= _COUNTED_S:
                self.add()
                seen_s = now_s

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

"""Wait for the flusher, with a limit, and start another one if it has died."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from shmlog.errors import ShmlogError, log_warning

if TYPE_CHECKING:
    from shmlog import _core
    from shmlog.folder.layout import RunLayout

PATIENCE_S = 2.0  # without any progress of the flusher
STARTS_MAX = 3  # in succession that get no further than the first
_LOOK_AFTER_S = 0.2
_NAP_MAX_S = 0.01


class Flushers:
    """Starts another flusher when the run's has died, but not for ever if each dies at the same place.

    Attributes
    ----------
    has_warned : bool
        Whether it has given up, and said so.
    """

    def __init__(self, layout: RunLayout) -> None:
        self._layout = layout
        self._place: object = None
        self._starts = 0  # by all processes, when that place was reached
        self.has_warned = False

    def replace(self, segment: _core.Segment, drained: object, *, is_over: bool = False) -> bool:
        """Start a flusher, unless it would be in vain.

        ``drained`` shows how far the caller's records have got; ``is_over``: the run is to be closed.
        """
        if segment.closed and not is_over:
            return False
        place = drained, self._books()
        if place != self._place:
            self._place, self._starts = place, segment.starts
        if segment.starts - self._starts >= STARTS_MAX:
            self._warn()
            return False
        from shmlog.flusher.process import start_flusher

        try:
            if segment.flusher_lives:
                return True  # another process has started one meanwhile
            start_flusher(self._layout, segment)
        except (OSError, ShmlogError):
            return False
        return True

    def _books(self) -> bytes:
        """Return the bytes of the books, which change with each sealed log."""
        try:
            return self._layout.sealed_json.read_bytes()
        except OSError:
            return b""

    def _warn(self) -> None:
        if self.has_warned:
            return
        self.has_warned = True
        log_warning(
            "the flusher of run %s has died %d times at the same place, see %s; logged records are kept, "
            "'shmlog recover %s' seals them",
            self._layout.run_id,
            STARTS_MAX,
            self._layout.flusher_log,
            self._layout.dir,
        )


class Patience:
    """The patience of one call, for all its successive waits.

    Parameters
    ----------
    segment : Segment
        Shows the flusher's progress.
    ring : callable
        Wakes the flusher.
    lives : callable
        Returns whether a flusher lives or is starting.
    replace : callable
        Starts another flusher; returns whether to wait for it.
    """

    def __init__(
        self, segment: _core.Segment, ring: Callable[[], None], lives: Callable[[], bool], replace: Callable[[], bool]
    ) -> None:
        self._segment = segment
        self._ring = ring
        self._lives = lives
        self._replace = replace
        self._since_s = time.monotonic()  # when the flusher last made progress

    def wait(self, is_done: Callable[[], bool], progress: Callable[[], object], timeout: float = float("inf")) -> bool:
        """Wait until ``is_done``; False after the timeout, or if ``progress`` has not changed for too long."""
        deadline = time.monotonic() + timeout
        state, nap = progress(), 0.0002
        while not is_done():
            self._ring()
            now, new_state = time.monotonic(), progress()
            if new_state != state:
                state, self._since_s = new_state, now
            if now >= deadline or not self._is_worth_it(now - self._since_s):
                break
            time.sleep(nap)
            nap = min(nap * 1.5, _NAP_MAX_S)
        if not is_done():
            return False
        self._since_s = time.monotonic()  # that it has come is progress, which nobody may have looked at before
        return True

    def _is_worth_it(self, stalled_s: float) -> bool:
        if stalled_s > _LOOK_AFTER_S and not self._lives():
            return self._replace()
        return stalled_s <= PATIENCE_S or self._is_starting()

    def _is_starting(self) -> bool:
        try:
            return self._segment.flusher_is_starting
        except OSError:
            return False  # no descriptor is left for the check

    # ---- kinds of progress ----

    def anything(self) -> object:
        """Return a state that changes while the flusher makes any progress, or starts."""
        return self._segment.progress, self._segment.flusher_state

    def finishing(self, request: int) -> object:
        """Return a state that changes with progress on a request to finish, but not with later records."""
        if self._segment.finish_noted >= request:
            return self._segment.sealing
        return self.anything()

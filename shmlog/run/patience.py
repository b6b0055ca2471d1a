"""Waiting for the flusher: how long, and for another one when it has died."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from shmlog.errors import ShmlogError, log_warning

if TYPE_CHECKING:
    from shmlog import _core
    from shmlog.folder.layout import RunLayout

PATIENCE_S = 2.0  # without any progress of the flusher
STARTS_MAX = 3  # one after the other that come no further than the first
_LOOK_AFTER_S = 0.2
_NAP_MAX_S = 0.01


class Flushers:
    """Starts another flusher when that of a run has died, but not for ever if each dies at the same place."""

    def __init__(self, layout: RunLayout) -> None:
        self._layout = layout
        self._place: object = None
        self._starts = 0  # of all processes, when the last one had come so far
        self._is_told = False

    def replace(self, segment: _core.Segment, drained: object) -> bool:
        """Start one, unless that is in vain; ``drained`` tells how far the caller's records have got."""
        if segment.closed:
            return False
        place = drained, self._books()
        if place != self._place:
            self._place, self._starts = place, segment.starts
        if segment.starts - self._starts >= STARTS_MAX:
            self._tell()
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
        """Return what says how far the run is sealed."""
        try:
            return self._layout.sealed_json.read_bytes()
        except OSError:
            return b""

    def _tell(self) -> None:
        if self._is_told:
            return
        self._is_told = True
        log_warning(
            "the flusher of run %s has died %d times at the same place, see %s; what was logged is kept, "
            "'shmlog recover %s' goes on from there",
            self._layout.run_id,
            STARTS_MAX,
            self._layout.flusher_log,
            self._layout.dir,
        )


class Patience:
    """Of one call, for all that it waits for one after the other.

    Parameters
    ----------
    segment : Segment
        Where the flusher tells how it gets on.
    ring : callable
        Wakes the flusher.
    lives : callable
        Returns whether there is a flusher, or one that starts.
    replace : callable
        Starts another one; returns whether that is worth waiting for.
    """

    def __init__(
        self, segment: _core.Segment, ring: Callable[[], None], lives: Callable[[], bool], replace: Callable[[], bool]
    ) -> None:
        self._segment = segment
        self._ring = ring
        self._lives = lives
        self._replace = replace
        self._since_s = time.monotonic()  # when the flusher was last seen to get on

    def wait(self, is_done: Callable[[], bool], progress: Callable[[], object], timeout: float = float("inf")) -> bool:
        """Wait until it is done; False if the timeout is over, or ``progress`` has not changed for too long."""
        deadline = time.monotonic() + timeout
        seen, nap = progress(), 0.0002
        while not is_done():
            self._ring()
            now, told = time.monotonic(), progress()
            if told != seen:
                seen, self._since_s = told, now
            if now >= deadline or not self._is_worth_it(now - self._since_s):
                return is_done()
            time.sleep(nap)
            nap = min(nap * 1.5, _NAP_MAX_S)
        return True

    def _is_worth_it(self, stalled_s: float) -> bool:
        if stalled_s > _LOOK_AFTER_S and not self._lives():
            return self._replace()
        return stalled_s <= PATIENCE_S or self._is_starting()

    def _is_starting(self) -> bool:
        try:
            return self._segment.flusher_is_starting
        except OSError:
            return False  # no descriptor is left to look

    # ---- what counts as progress ----

    def anything(self) -> object:
        """Return what changes while the flusher gets anything done, or comes up."""
        return self._segment.progress, self._segment.flusher_state

    def finishing(self, request: int) -> object:
        """Return what changes while it gets on with a request to finish: not by what is logged afterwards."""
        if self._segment.finish_noted >= request:
            return self._segment.sealing
        return self.anything()

"""The flusher's main loop: a thread drains, this thread does all the rest."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shmlog import _core
from shmlog.flusher import final
from shmlog.segment.doorbell import Doorbell
from shmlog.storage.layout import RunLayout
from shmlog.storage.segmentref import SegmentRef

if TYPE_CHECKING:
    from shmlog.flusher.sealer import Sealer

LOG_BYTES_MAX = 16 << 20  # half a million records
LOG_AGE_MAX_S = 60.0
TICK_S = 0.03
BUSY_TICK_S = 0.002
MEMBERS_EVERY_S = 0.2
RETRY_S = 1.0
NICE = 10
FAILURES_MAX = 5  # of our own, one after the other, when the run is over


def report(message: str) -> None:
    """Write a line into the flusher's log, which is its standard error."""
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), message, file=sys.stderr, flush=True)


def be_nice() -> None:
    """Let the draining thread, and the trainer, go before all other threads of this process."""
    if sys.platform.startswith("linux"):  # elsewhere it would be the whole process
        os.nice(NICE)


class Keeper:
    """Keeps one run: the caller holds the flusher's lock of its segment."""

    def __init__(self, layout: RunLayout, segment: _core.Segment, ref: SegmentRef) -> None:
        self._layout = layout
        self._segment = segment
        self._ref = ref
        self._bell = Doorbell.open(ref.name)
        self._sealer: Sealer | None = None
        self._finished = segment.finish_done
        self._rotated_s = time.monotonic()
        self._rotated_slots = 0
        self._taken_frames = 0
        self._taken_s = 0.0
        self._probed_s = 0.0
        self._target: tuple[int, int] | None = None  # finish request, and the log it needs sealed
        logs = layout.logs()
        folder = os.open(layout.wal, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._drain = _core.Drain(segment, folder, logs[-1] + 1 if logs else 0, ref.name)
        if logs:
            final.restore_cursors(self._drain, segment, layout)

    # ---- while anybody is attached ----

    def run(self) -> None:
        """Drain and seal until the last process has gone, then close the run."""
        thread = threading.Thread(target=self._drain.run, args=(LOG_BYTES_MAX,), name="drain", daemon=True)
        thread.start()
        while not self._segment.flusher_state:
            time.sleep(0.0005)  # it needs the GIL once, which an import here would hold for long
        be_nice()
        while not self._is_over():
            self._guarded(self._tick)
            time.sleep(BUSY_TICK_S if self._target is not None or self._is_sealing() else TICK_S)
        self._drain.request(_core.STOP)
        self._bell.ring()
        thread.join()
        self.close()

    def _is_sealing(self) -> bool:
        return self._sealer is not None and self._sealer.is_busy

    def _is_over(self) -> bool:
        """Whether nobody is attached any more; from then on nobody can be."""
        now = time.monotonic()
        if now - self._probed_s < MEMBERS_EVERY_S:
            return False
        self._probed_s = now
        return not self._segment.probe(_core.LOCK_MEMBER) and self._segment.lock(_core.LOCK_MEMBER)

    def _guarded(self, work: Callable[[], Any]) -> bool:
        """Do something that a full disk, or a mistake of ours, must not make the end of draining."""
        try:
            work()
        except OSError as error:
            report(f"{error}; tried again in {RETRY_S:g} s")
            time.sleep(RETRY_S)
        except Exception:
            report(traceback.format_exc())
            time.sleep(RETRY_S)
        else:
            return True
        return False

    def _tick(self) -> None:
        sealer = self._get_sealer()
        now, frames, closed_below = time.monotonic(), self._drain.frames, self._drain.closed_below
        if closed_below > sealer.reading or (frames != self._taken_frames and now - self._taken_s >= TICK_S):
            sealer.catch_up(closed_below)
            self._taken_frames, self._taken_s = frames, now
        else:
            sealer.commit_done()
        self._look_for_finish()
        if self._target is not None and sealer.next_log >= self._target[1]:
            request, _ = self._target
            final.write_finished(self._layout, self._segment, sealer.ledger)
            self._segment.mark_finished(request)
            self._finished, self._target = request, None
        self._rotate_old_log()

    def _get_sealer(self) -> Sealer:
        """Import pyarrow (a second on a busy machine) when draining is under way."""
        if self._sealer is None:
            from shmlog.flusher.sealer import Sealer

            described = final.describe(self._layout)
            os.chdir(self._layout.dir)  # keep no file system of the trainer's busy
            self._sealer = Sealer(self._layout, described["sinks"], self._segment.add_progress, report)
        return self._sealer

    def _look_for_finish(self) -> None:
        request = self._segment.finish_request
        if self._target is None and request != self._finished:
            self._target = request, self._drain.closed_below + 1
            self._rotate()

    def _rotate_old_log(self) -> None:
        """Close a log in which records have lain for long, so that they get into a part."""
        if time.monotonic() - self._rotated_s > LOG_AGE_MAX_S and self._drain.slots > self._rotated_slots:
            self._rotate()

    def _rotate(self) -> None:
        self._rotated_s = time.monotonic()
        self._rotated_slots = self._drain.slots
        self._drain.request(_core.ROTATE)
        self._bell.ring()

    # ---- when the last has gone ----

    def close(self) -> None:
        """Drain what is left, seal it, write the final state, remove the segment.

        The caller holds the member lock alone.
        """
        self._segment.mark_closed()
        failures = 0
        while not self._guarded(self._close_once):
            failures += 1
            if failures >= FAILURES_MAX and not self._drain.error:
                report("giving up; 'shmlog recover' goes on from here")
                return

    def _close_once(self) -> None:
        self._drain_rest()
        if self._drain.settle():
            self._drain_rest()
        sealer = self._get_sealer()
        sealer.catch_up(max(self._layout.logs(), default=-1) + 1, wait=True)
        final.write_complete(self._layout, self._segment, sealer.ledger)
        final.clean_up(self._layout, self._ref, report)

    def _drain_rest(self) -> None:
        slots = 1
        while slots:
            error, slots = self._drain.drain_pass()
            if error:
                error = self._drain.next_log()
                slots = 1
            if error:
                raise OSError(error, os.strerror(error), str(self._layout.wal))


def keep(run_dir: Path, segment: _core.Segment, ref: SegmentRef) -> None:
    """Keep the run in ``run_dir``; the caller holds the flusher's lock."""
    Keeper(RunLayout(run_dir), segment, ref).run()

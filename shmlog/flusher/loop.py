"""The flusher's main loop: one thread drains, the main thread does everything else."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shmlog import _core
from shmlog.base.times import utc_us
from shmlog.errors import StorageError
from shmlog.flusher import closing
from shmlog.flusher.appendfile import RedoError
from shmlog.flusher.merger import Merger
from shmlog.flusher.nice import be_nice
from shmlog.flusher.place import Place
from shmlog.flusher.progress import Progress
from shmlog.flusher.provenance import Provenance
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.folder.logsettings import settings_of
from shmlog.folder.segmentref import SegmentRef
from shmlog.records.ledger import Ledger
from shmlog.segment.doorbell import Doorbell

if TYPE_CHECKING:
    from shmlog.flusher.sealer import Sealer

LOG_BYTES_MAX = 16 << 20  # half a million records
UNSEALED_SHARE = 1 / 8  # of the free disk: parts take as much again, and events.jsonl up to four times as much
UNSEALED_LOGS_MIN = 4
LOG_AGE_MAX_S = 60.0
TICK_S = 0.03
BUSY_TICK_S = 0.002
IDLE_TICK_S = 0.2
IDLE_AFTER_S = 5.0  # without a record
MEMBERS_EVERY_S = 0.2
LEAVES_WITHIN_S = 0.3  # after the answer to its finish; the last owner then waits for the close
GOES_ON_S = 1.0  # after such an answer: who is attached then, and has not asked to finish, goes on
LOST_AFTER_S = 3.0  # as an editor or a synchronization may put a file back
SPARE_LANES = min(4, os.cpu_count() or 1)  # for processes that start to log together
PROVENANCE_S = 5.0  # how long a finish waits for git
FAILURES_MAX = 5  # in succession, when the run is over
REPORT_AGAIN_S = 60.0
# A limit; a link, pipe or folder; a file that somebody has removed.
_STAYS = (errno.EFBIG, errno.EMFILE, errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENOENT)


def report(message: str) -> None:
    """Write a line into the flusher's log, which is its standard error; ignore errors of the disk."""
    try:
        print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), message, file=sys.stderr, flush=True)
    except OSError:
        pass


def unsealed_logs_max(free_bytes: int) -> int:
    """Return how many logs may wait to be sealed on a disk with ``free_bytes``."""
    return max(UNSEALED_LOGS_MIN, int(free_bytes * UNSEALED_SHARE) // LOG_BYTES_MAX)


@dataclass
class _Finish:
    """A request to finish that is not yet answered."""

    request: int
    below: int  # the logs below this number are to be sealed
    since_s: float


class Keeper:
    """Keeps one run; the caller holds the flusher's lock of its segment."""

    def __init__(self, layout: RunLayout, segment: _core.Segment, ref: SegmentRef) -> None:
        self._layout = layout
        self._segment = segment
        self._ref = ref
        self._bell = Doorbell.open(ref.name)
        self._sealer: Sealer | None = None
        self._merger = Merger(layout, report)
        self._provenance = Provenance(layout, report)
        self._finished = segment.finish_done
        self._rotated_s = time.monotonic()
        self._rotated_slots = 0
        self._taken_frames = 0
        self._taken_s = 0.0
        self._probed_s = 0.0
        self._finish: _Finish | None = None
        self._answered_s = -GOES_ON_S
        self._goes_on = False  # whether an owner is attached that has not asked to finish, though others may have
        self._lost_since_s: float | None = None
        self._reported: tuple[str, float] = "", 0.0  # last failure, and when it was reported
        self._spare_lanes = SPARE_LANES
        layout.refuse_links()
        self._place = Place(layout)
        logs = layout.logs()
        number = logs[-1] + 1 if logs else closing.first_log(layout, segment)
        self._drain = _core.Drain(segment, self._place.open_logs(), number, ref.name)
        keeper = weakref.proxy(self)  # a cycle would keep files open, and the segment mapped, after a recovery
        self._progress = Progress(segment, self._drain, lambda: keeper._sealer.next_log if keeper._sealer else 0)
        if logs:
            closing.restore_cursors(self._drain, segment, layout)
        self._limit_logs(logs[0] if logs else number)

    # ---- while processes are attached ----

    def run(self) -> None:
        """Drain and seal until the last process has gone, then close the run; or until its folder is gone."""
        thread = threading.Thread(target=self._drain.run, args=(LOG_BYTES_MAX,), name="drain", daemon=True)
        thread.start()
        while not self._segment.flusher_state:
            time.sleep(0.0005)  # the drain needs the GIL once, which an import here would hold for long
        self._keep_spares()
        self._provenance.start()
        # Only after pyarrow is imported: if all cores are busy, a nice import would take so long
        # that a process that finishes a short run gives up.
        self._guarded(self._get_sealer)
        with suppress(OSError):  # the folder is gone
            os.chdir(self._layout.dir)  # so that the trainer's file system can be unmounted
        be_nice()
        while not (is_lost := self._is_lost()) and not self._is_over():
            self._guarded(self._tick)
            time.sleep(self._pause())
        self._drain.stop()
        self._bell.ring()
        thread.join()
        if is_lost:
            self._give_up()
            return
        try:
            with self._progress.closing():
                self.close(patient=True)
        except StorageError as error:
            report(str(error))

    def _pause(self) -> float:
        """Return the seconds to the next tick: few if a process waits for a finish, many if the run is idle."""
        if self._sealer is not None and self._drain.closed_below > self._sealer.reading:
            return 0.0
        if self._finish is not None or (self._sealer is not None and self._sealer.is_busy):
            return BUSY_TICK_S
        if time.monotonic() - self._answered_s < LEAVES_WITHIN_S:
            return BUSY_TICK_S
        since_s = time.monotonic() - self._taken_s
        if self._drain.frames != self._taken_frames:
            return max(BUSY_TICK_S, TICK_S - since_s)  # more frames have come meanwhile
        return IDLE_TICK_S if since_s > IDLE_AFTER_S else TICK_S

    def _is_over(self) -> bool:
        """Whether no process is attached any more; if so, no process can attach from now on."""
        now = time.monotonic()
        if now - self._probed_s < MEMBERS_EVERY_S and now - self._answered_s >= LEAVES_WITHIN_S:
            return False
        self._probed_s = now
        if not self._segment.probe(_core.LOCK_MEMBER) and self._segment.lock(_core.LOCK_MEMBER):
            return True
        self._goes_on = now - self._answered_s >= GOES_ON_S and not self._is_ending()
        return False

    def _is_ending(self) -> bool:
        """Whether an owner is ending its part."""
        segment = self._segment
        return segment.finish_request != segment.finish_done or segment.exiting > 0

    def _is_lost(self) -> bool:
        """Whether run.yaml, or one of the folders, has been gone so long that nobody will bring it back."""
        now = time.monotonic()
        if now - self._probed_s < MEMBERS_EVERY_S and self._lost_since_s is None:
            return False
        if not self._place.is_lost():
            self._lost_since_s = None
            return False
        self._lost_since_s = now if self._lost_since_s is None else self._lost_since_s
        return now - self._lost_since_s >= LOST_AFTER_S

    def _give_up(self) -> None:
        """End without closing the run: what is not in its files stays in the segment."""
        report(f"{self._layout.dir} or its run.yaml is gone: the flusher ends")
        self._merger.close()
        self._discard_sealer()
        self._drain.give_up(errno.ENOENT)

    def _guarded(self, work: Callable[[], Any]) -> Exception | None:
        """Do ``work``; a full disk, or a mistake of ours, must not end the draining. Return the error, or None."""
        try:
            work()
        except Exception as error:
            self._merger.stop()  # a merge takes space on a disk that may be full
            self._report_failure(str(error) if isinstance(error, OSError) else traceback.format_exc())
            self._progress.note_failure()
            if isinstance(error, RedoError) or not isinstance(error, OSError):
                self._discard_sealer()
            time.sleep(closing.RETRY_S)
            return error
        return None

    def _report_failure(self, failure: str) -> None:
        """Report a failure, but not after each new try."""
        reported, since_s = self._reported
        if failure != reported or time.monotonic() - since_s > REPORT_AGAIN_S:
            report(f"{failure}; tried again every {closing.RETRY_S:g} s")
            self._reported = failure, time.monotonic()

    def _tick(self) -> None:
        if self._drain.error:
            self._report_failure(f"the log can't be written: {os.strerror(self._drain.error)}")
        if self._place.has_new_logs():
            self._move()
            self._drain.rotate()
        sealer = self._get_sealer()
        now, frames, closed_below = time.monotonic(), self._drain.frames, self._drain.closed_below
        if closed_below > sealer.reading or (frames != self._taken_frames and now - self._taken_s >= TICK_S):
            self._merger.hold()
            with self._progress.at_work():
                # One log at a time: a process that waits for a finish must not wait for later records of others.
                sealer.catch_up(min(closed_below, sealer.reading + 1))
            self._taken_frames, self._taken_s = frames, now
        else:
            sealer.commit_done()
        closing.note_lost(self._segment, sealer.ledger)
        self._keep_spares()
        if now - self._taken_s < IDLE_AFTER_S or sealer.next_log < closed_below:
            self._limit_logs(sealer.next_log)
        is_looking = self._provenance.keep()
        self._carry_out_finish(sealer, is_looking)
        self._rotate_old_log()
        if not sealer.is_busy and self._finish is None and self._drain.closed_below <= sealer.reading:
            self._merger.go_on(sealer.next_log)

    def _move(self) -> None:
        """Continue in the new folder of the logs."""
        self._layout.refuse_links()
        report(f"{self._layout.wal} is another folder than before: unsealed records in the first one are gone")
        self._drain.move(self._place.open_logs())

    def _keep_spares(self) -> None:
        """Have memory ready for processes that have not logged yet."""
        if self._spare_lanes:
            try:
                self._segment.keep_spares(self._spare_lanes)
            except OSError:
                self._spare_lanes = 0  # no room: a process that needs a lane tries by itself, and reports the error

    def _limit_logs(self, unsealed: int) -> None:
        """Stop the drain, and so its producers, when it is far ahead of ``unsealed``, the first unsealed log."""
        disk = os.statvfs(self._layout.dir)
        self._drain.limit(unsealed + unsealed_logs_max(disk.f_bavail * disk.f_frsize))

    def _get_sealer(self) -> Sealer:
        """Return the sealer; the first call imports pyarrow, which takes a second on a busy machine."""
        if self._sealer is None:
            with self._progress.at_work():
                self._sealer = self._make_sealer()
            self._taken_frames = -1
        return self._sealer

    def _make_sealer(self) -> Sealer:
        from shmlog.flusher.sealer import Sealer
        from shmlog.flusher.sinks import open_sinks

        description = Description.read(self._layout)
        ledger, progress = Ledger.load(self._layout), self._progress
        sinks = open_sinks(
            self._layout, ledger, description.sinks, progress=progress.add, report=report, at_work=progress.at_work,
            text_bytes_max=settings_of(description.structured_log).rotate_bytes,
            first_lanes=description.first_lanes(0),
        )  # fmt: skip
        return Sealer(self._layout, ledger, sinks, progress.add, report)

    def _discard_sealer(self) -> None:
        """Close the sealer; the next one does again what is not committed."""
        sealer, self._sealer = self._sealer, None
        if sealer is not None:
            with suppress(OSError):  # only what it has made durable counts
                sealer.close()

    def _carry_out_finish(self, sealer: Sealer, is_looking: bool) -> None:
        """Answer a request to finish when all records logged before it, as noted by the drain, are sealed."""
        request = self._drain.noted
        if self._finish is None and request != self._finished:
            self._finish = _Finish(request, self._drain.finish_below, time.monotonic())
        finish = self._finish
        if finish is None:
            return
        if is_looking and time.monotonic() - finish.since_s < PROVENANCE_S:
            self._segment.add_progress()
        elif sealer.next_log >= finish.below:
            closing.write_finished(self._layout, self._segment, sealer.ledger)
            self._segment.mark_finished(finish.request)
            self._finished, self._finish = finish.request, None
            self._answered_s, self._goes_on = time.monotonic(), False

    def _rotate_old_log(self) -> None:
        """Close a log with old records, so that they get into a part."""
        if time.monotonic() - self._rotated_s > LOG_AGE_MAX_S and self._drain.slots > self._rotated_slots:
            self._rotated_s = time.monotonic()
            self._rotated_slots = self._drain.slots
            self._drain.rotate()
            self._bell.ring()

    # ---- when the last process has gone ----

    def close(self, *, patient: bool) -> None:
        """Drain and seal the rest, write the final state, remove the segment.

        The caller holds the member lock alone. ``patient``: wait for a disk that
        fails, as long as run.yaml and the folder of the logs exist.

        Raises
        ------
        StorageError
            If all tries failed. Nothing is lost: `recover` continues from here.
        """
        if not self._segment.ended_us or (self._goes_on and not self._is_ending()):
            self._segment.note_end(utc_us())  # its last owner has not said when it ended
        self._segment.cut_all()
        self._merger.close()
        failures = 0
        try:
            while (error := self._guarded(self._close_once)) is not None:
                if not patient or not self._may_heal(error):
                    failures += 1
                if failures >= FAILURES_MAX:
                    raise StorageError(
                        f"{self._layout.dir}: can't be closed ({error}); 'shmlog recover' closes it later"
                    )
        finally:
            self._discard_sealer()

    def _may_heal(self, error: Exception) -> bool:
        """Whether the work that failed may succeed later, in this process and in this folder."""
        is_ours = not isinstance(error, OSError) or error.errno in _STAYS
        return not is_ours and not self._place.is_lost()

    def _close_once(self) -> None:
        if self._place.has_new_logs(at_once=True):
            self._move()
            self._next_log()
        self._drain_rest()
        if self._drain.finalize():
            self._drain_rest()
        while self._drain.settle():
            self._next_log()
        sealer = self._get_sealer()
        sealer.catch_up(max(self._layout.logs(), default=-1) + 1, wait=True, offered=self._drain.offered())
        self._provenance.finish()
        closing.write_complete(self._layout, self._segment, sealer.ledger)
        closing.clean_up(self._layout, self._ref, report)

    def _drain_rest(self) -> None:
        slots = 1
        while slots:
            error, slots = self._drain.drain_pass()
            if error:
                self._next_log()
                slots = 1

    def _next_log(self) -> None:
        """Continue in another log, since this one can't be written to."""
        error = self._drain.next_log()
        if error:
            raise OSError(error, os.strerror(error), str(self._layout.wal))


def keep(run_dir: Path, segment: _core.Segment, ref: SegmentRef) -> None:
    """Keep the run in ``run_dir``; the caller holds the flusher's lock."""
    Keeper(RunLayout(run_dir), segment, ref).run()

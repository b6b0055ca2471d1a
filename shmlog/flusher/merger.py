"""Merge the parts of a live run in the background, so that a reader has few files to open.

The logs of a run are divided into blocks of 16, of 16², of 16³ and so on, each beginning at a multiple of its
size. When all logs of a block are sealed, the parts within it become one, those of smaller blocks first. So
each record is written again once for each size, and after n logs there are at most 15 parts for each digit of n
in base 16, and one more for each part that lies across two blocks, such as that of an earlier attempt. At the end,
`shmlog.flusher.closing` merges the remaining parts into one.

It uses the names of the files alone and keeps no state. Killed anywhere, it leaves a temporary file that the next
merge of the same parts replaces, or parts that another covers, which no reader counts. The part of a log that is not
sealed in the books stays as it is: the log may be done again.

It has the lowest priority: it works only while the sealer has nothing to do, rests longer than it has worked, so that
readers finish, and leaves most of the free disk alone.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from shmlog.base.durable import fsync_dir
from shmlog.folder.description import run_id_of
from shmlog.folder.layout import Part, RunLayout

FAN_IN = 16
RESTS = 4  # it rests so many times as long as it has worked
RETRY_S = 60.0
DISK_SHARE = 1 / 4  # of the free disk: the merged part may take it while the other parts still exist


def due(parts: Sequence[Part], sealed_below: int) -> Iterator[list[Part]]:
    """Yield groups of parts to merge; ``parts`` are in order, and all logs below ``sealed_below`` are sealed."""
    size = FAN_IN
    while size <= sealed_below:
        for block, within in groupby((part for part in parts if part.first // size == part.last // size), _block(size)):
            group = list(within)
            if len(group) > 1 and (block + 1) * size <= sealed_below:
                yield group
        size *= FAN_IN


def _block(size: int) -> Callable[[Part], int]:
    return lambda part: part.first // size


class _StoppedError(Exception):
    """The present merge is given up."""


class Merger:
    """Merges due parts, one group at a time, in a thread with the nice value of the thread that starts it."""

    def __init__(self, layout: RunLayout, report: Callable[[str], None]) -> None:
        self._layout = layout
        self._report = report
        self._thread: threading.Thread | None = None
        self._may_work = threading.Event()
        self._is_stopped = False
        self._looked_below = 0  # nothing more is due until a later log is sealed
        self._next_s = 0.0  # when to look again
        self._given_up: set[tuple[Part, ...]] = set()

    def hold(self) -> None:
        """Pause the merge after its present chunk of rows, until `go_on`."""
        self._may_work.clear()

    def go_on(self, sealed_below: int) -> None:
        """Continue the present merge, or begin one that is due since all logs below ``sealed_below`` are sealed."""
        self._may_work.set()
        if sealed_below < FAN_IN or sealed_below == self._looked_below:
            return
        if self._is_at_work() or time.monotonic() < self._next_s:
            return
        self._is_stopped = False
        self._thread = threading.Thread(target=self._work, args=(sealed_below,), name="merge", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # a limit on threads: sealing goes on without the merge
            self._thread = None
            self._put_off(str(error))

    def stop(self) -> None:
        """Give up the present merge, and the file that it writes."""
        self._is_stopped = True
        self._may_work.set()

    def close(self) -> None:
        """Stop, and wait until the thread has ended."""
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _is_at_work(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _put_off(self, why: str) -> None:
        self._report(f"merging: {why}; tried again in {RETRY_S:g} s")
        self._next_s = time.monotonic() + RETRY_S

    def _work(self, sealed_below: int) -> None:
        """Merge the first group that is due, if any is."""
        begun_s = time.monotonic()
        try:
            groups = map(tuple, due(self._layout.parts(), sealed_below))
            group = next((group for group in groups if group not in self._given_up), None)
            if group is None:
                self._looked_below = sealed_below
                return
            self._merge(group)
        except _StoppedError:
            self._next_s = time.monotonic() + RETRY_S
        except OSError as error:
            self._put_off(str(error))
        else:
            self._next_s = time.monotonic() + RESTS * (time.monotonic() - begun_s)

    def _merge(self, group: tuple[Part, ...]) -> None:
        from shmlog.records.merge import merge

        disk = os.statvfs(self._layout.metrics)
        if sum(part.path.stat().st_size for part in group) > disk.f_bavail * disk.f_frsize * DISK_SHARE:
            raise OSError(errno.ENOSPC, "too little free space", str(self._layout.metrics))
        # If the name of the books is not durable, as after a kill, a power failure may bring back the earlier books; a
        # part that covers logs which these don't call sealed would hide the records of those logs.
        fsync_dir(self._layout.wal)
        try:
            run_id = run_id_of(self._layout)
            merge(self._layout, run_id=run_id, parts=list(group), progress=self._give_way)
        except (OSError, _StoppedError):
            raise
        except Exception:
            self._report(f"merging: {traceback.format_exc()}")
            self._given_up.add(group)

    def _give_way(self) -> None:
        self._may_work.wait()
        if self._is_stopped:
            raise _StoppedError

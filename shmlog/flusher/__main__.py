"""``python -m shmlog.flusher RUN_DIR``: the flusher process of one run, started by `shmlog.flusher.process`."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import struct
import sys
import threading
from pathlib import Path

from shmlog import _core
from shmlog.base.extras import do_without_pandas
from shmlog.flusher.loop import keep, report
from shmlog.flusher.nice import be_nice
from shmlog.flusher.process import START_LOCK
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import ref_in
from shmlog.segment import meeting, shm

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_SWITCH_INTERVAL_S = 0.001
_NEIGHBOURS_AFTER_S = 1.0
_LAUNCHER_S = 10.0  # how long a launcher may take to restart its ranks, or to end


def main(run_dir: Path) -> None:
    """Keep the run until its last process has gone; return at once if another flusher keeps it or has closed it."""
    do_without_pandas()
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)  # sent to the trainer's group, which the flusher has to outlive
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))  # the trainer's may be too low for us
    is_expected = _is_open(START_LOCK)
    os.closerange(START_LOCK + 1, min(os.sysconf("SC_OPEN_MAX"), 4096))
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    layout = RunLayout(run_dir)
    description = Description.read(layout)
    ref = ref_in(layout, description)
    # Handed down by who starts it, if that has the segment open: its name may have been removed meanwhile.
    segment = shm.open_segment(ref, description, inherited=START_LOCK)
    is_keeper = segment.lock(_core.LOCK_FLUSHER)
    if is_expected:
        _give_up_start_lock()
    now = Description.read(layout)
    # Of a run that was closed and resumed meanwhile, the segment is that of an earlier attempt: another flusher keeps
    # the run. Held by this lock, a run that is not complete can't be closed, and so not resumed.
    if is_keeper and not now.complete and now.segment == description.segment:
        is_over = threading.Event()
        helper = threading.Thread(target=_help_neighbours, args=(run_dir, is_over), name="neighbours", daemon=True)
        helper.start()
        keep(run_dir, segment, ref)
        is_over.set()
        helper.join()  # a run that it has half recovered would stay so
        meeting.see_off(layout, _LAUNCHER_S)


def _give_up_start_lock() -> None:
    """Release the start lock, since the flusher's own lock now shows that it lives.

    Unlock it, since a child of the process that started the flusher may also have its descriptor.
    """
    unlock = struct.pack("hhqqi4x", fcntl.F_UNLCK, os.SEEK_SET, _core.LOCK_START, 1, 0)  # struct flock
    fcntl.fcntl(START_LOCK, fcntl.F_OFD_SETLK, unlock)
    os.close(START_LOCK)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _help_neighbours(run_dir: Path, is_over: threading.Event) -> None:
    """Recover crashed runs in the same root, and remove what killed processes left, while our own run goes on."""
    if is_over.wait(_NEIGHBOURS_AFTER_S):
        return
    from shmlog.flusher.recover import recover_neighbours
    from shmlog.segment import gc

    be_nice()
    recover_neighbours(run_dir.parent.parent, run_dir, is_over.is_set)
    gc.sweep(report)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Drops without a lane: after a run's end, or of calls that could mean several runs."""

from __future__ import annotations

import os

from shmlog.errors import StorageError, log_warning
from shmlog.folder.layout import RunLayout
from shmlog.records.late import LateDrops
from shmlog.records.reasons import AMBIGUOUS

_KEPT = 16  # most runs in each of the next two
_warned: dict[str, None] = {}
_files: dict[str, LateDrops] = {}
_warned_of_several = False


def count(layout: RunLayout, reason: str, records: int) -> None:
    """Count drops in the run folder; if it is gone or can't be written to, only `Run.stats` has them."""
    key = str(layout.dir)
    try:
        file = _files.get(key)
        if file is None or file.pid != os.getpid():
            _files[key] = file = LateDrops(layout)
            if len(_files) > _KEPT:
                del _files[next(iter(_files))]
        file.add(reason, records)
    except (OSError, StorageError):
        pass


def is_first(layout: RunLayout) -> bool:
    """Whether this process has not warned of late drops of the run before."""
    key = f"{os.getpid()} {layout.dir}"
    is_new = key not in _warned
    _warned[key] = None
    if len(_warned) > _KEPT:
        del _warned[next(iter(_warned))]
    return is_new


def drop_ambiguous(newest: RunLayout, records: int) -> None:
    """Count drops of a call that could mean several runs with the newest of them, and warn once."""
    global _warned_of_several
    count(newest, AMBIGUOUS, records)
    if not _warned_of_several:
        _warned_of_several = True
        log_warning(
            "shmlog: process %d dropped a record: several runs are open and none of them was made in this thread or "
            "task (reason: ambiguous). What helps: call run.log() or a handle. Further drops are only counted, in run "
            "%s",
            os.getpid(),
            newest.run_id,
        )

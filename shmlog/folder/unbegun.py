"""What `init` has made of a run before there is a run.yaml: it is removed if nothing comes of it."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from shmlog.base.durable import temporary_of
from shmlog.folder.layout import RunLayout

_OLD_S = 3600  # of one that another host may be making, by another clock


def is_unbegun(layout: RunLayout) -> bool:
    """Whether a run folder is there, and nothing in it tells that the run ever began.

    Its flusher is started when run.yaml is there: one that has lost that has logs, or books, or what was sealed.
    """
    if layout.dir.is_symlink() or layout.linked_folders() or not layout.wal.is_dir():
        return False
    begun = (layout.run_yaml, layout.flusher_log, layout.sealed_json, layout.events)
    return not any(os.path.lexists(path) for path in begun) and not layout.logs() and not layout.parts()


def is_left(layout: RunLayout) -> bool:
    """Whether such a folder is this user's, and so old that nobody is making it any more."""
    if not is_unbegun(layout):
        return False
    status = layout.wal.stat()
    return status.st_uid == os.geteuid() and time.time() - status.st_mtime > _OLD_S


def remove_folder(layout: RunLayout) -> None:
    """Remove the folder of a run that never began; of another one nothing."""
    if is_unbegun(layout):
        remove(layout)


def remove(layout: RunLayout) -> None:
    """Remove what was made, by its names: perhaps no descriptor is left to list a folder, or to import shutil."""
    files = [layout.run_yaml, layout.config_yaml]
    files += [temporary_of(path) for path in files]
    for path in (*files, layout.segment, layout.flusher_log):
        with suppress(OSError):
            path.unlink(missing_ok=True)
    for folder in (layout.metrics, layout.metrics.parent, layout.wal, layout.dir):
        with suppress(OSError):
            folder.rmdir()

"""Run folders without a run.yaml, which an `init` that was killed has left: they are removed."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from shmlog.base.durable import is_there, temporary_of
from shmlog.folder.layout import RunLayout

_OLD_S = 3600  # another host, with another clock, may still be making a younger one


def is_unbegun(layout: RunLayout) -> bool:
    """Whether a run folder exists, and nothing in it shows that the run ever began.

    The flusher starts after run.yaml is written: a run that has lost it still has logs, books or sealed files. On a
    disk that fails it counts as begun.
    """
    try:
        if layout.dir.is_symlink() or layout.linked_folders() or not layout.wal.is_dir():
            return False
        begun = (layout.run_yaml, layout.flusher_log, layout.sealed_json, layout.events)
        return not any(is_there(path) for path in begun) and not layout.logs() and not layout.parts()
    except OSError:
        return False


def is_left(layout: RunLayout) -> bool:
    """Whether such a folder is this user's, and so old that no process is still making it."""
    if not is_unbegun(layout):
        return False
    status = layout.wal.stat()
    return status.st_uid == os.geteuid() and time.time() - status.st_mtime > _OLD_S


def remove_old_claim(layout: RunLayout) -> None:
    """Remove the empty folder of logs of a pending run, if a process was killed long ago that was to begin it."""
    with suppress(OSError):
        if time.time() - layout.wal.stat().st_mtime > _OLD_S:
            layout.wal.rmdir()


def remove_folder(layout: RunLayout) -> None:
    """Remove the folder of a run that never began; leave any other folder as it is."""
    if is_unbegun(layout):
        remove(layout)


def remove(layout: RunLayout) -> None:
    """Remove the files of `init` by their names: perhaps no descriptor is left to list a folder or import shutil."""
    files = [layout.run_yaml, layout.config_yaml]
    files += [temporary_of(path) for path in files]
    for path in (*files, layout.segment, layout.flusher_log):
        with suppress(OSError):
            path.unlink(missing_ok=True)
    for folder in (layout.metrics, layout.metrics.parent, layout.wal, layout.dir):
        with suppress(OSError):
            folder.rmdir()

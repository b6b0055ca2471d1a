"""Start a flusher: a process that is not a child of this one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from shmlog.base.durable import open_to_write
from shmlog.base.spawn import helper_command, helper_environment
from shmlog.errors import ShmlogError
from shmlog.folder.layout import RunLayout

if TYPE_CHECKING:
    from shmlog import _core

_SHELL = "/bin/sh"
START_LOCK = 3  # descriptor through which a starting flusher holds the start lock
# The shell starts it in the background and ends at once, so that the flusher is
# not a child that the trainer's wait() could reap.
_COMMAND = '"$@" &'
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def start_flusher(layout: RunLayout, segment: _core.Segment | None = None) -> None:
    """Start the flusher of a run, and do not wait for it.

    Starting two is harmless: the flusher's lock lets one of them work.

    Parameters
    ----------
    layout : RunLayout
        Of the run.
    segment : Segment, optional
        Its segment, which shows to waiting processes that a flusher is starting, as long as that lives.

    Raises
    ------
    OSError
        If no process can be started.
    ShmlogError
        If the path of the Python interpreter is not known.
    """
    if not sys.executable:
        raise ShmlogError("sys.executable is empty: the flusher can't be started; run 'shmlog recover' afterwards")
    arguments = [_SHELL, "-c", _COMMAND, "shmlog", *helper_command("shmlog.flusher", str(layout.dir))]
    layout.refuse_links()
    if segment is None:
        pid = _spawn(arguments, layout.flusher_log, None)
    else:
        lock = segment.mark_starting()
        try:
            pid = _spawn(arguments, layout.flusher_log, lock)
        finally:
            segment.mark_started(lock)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # SIGCHLD is ignored here: the kernel has reaped the shell


def _spawn(arguments: list[str], log: Path, lock: int | None) -> int:
    """Start a process in its own session, which writes only into ``log`` and holds ``lock``; return its pid."""
    fd = open_to_write(log, _APPEND)
    files = [
        (os.POSIX_SPAWN_DUP2, fd, 2),  # first: where fds 0 to 2 were closed, it is one of them
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]
    if lock is not None:
        files.append((os.POSIX_SPAWN_DUP2, lock, START_LOCK))
    try:
        return os.posix_spawn(_SHELL, arguments, helper_environment(), file_actions=files, setsid=True, setsigmask=[])
    finally:
        os.close(fd)

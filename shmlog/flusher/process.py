"""Start a flusher: a process of its own that is nobody's child."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from shmlog.errors import ShmlogError
from shmlog.flusher import launch
from shmlog.storage.layout import RunLayout
from shmlog.storage.regular import open_to_write

if TYPE_CHECKING:
    from shmlog import _core

_SHELL = "/bin/sh"
START_LOCK = 3  # descriptor by which a flusher holds the lock of one that starts
# The shell starts it in the background and ends at once, so that the flusher is
# no child that the trainer's wait() could reap.
_COMMAND = '"$@" &'
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND

# What must not reach it: libraries meant for the trainer, start-up hooks, and
# thread pools sized for the trainer's work.
# Sealing uses the same memory log after log: giving it back in between costs more
# than the work that is done in it.
_MEMORY = {
    "OMP_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
_DROPPED = ("LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONPROFILEIMPORTTIME", "PYTHONWARNINGS")


def helper_command(module: str, *arguments: str) -> list[str]:
    """Return the command of a process that runs one of our modules; it needs `helper_environment`."""
    flags = "-SP" + "E" * sys.flags.ignore_environment + "s" * sys.flags.no_user_site
    return [sys.executable, flags, os.path.abspath(launch.__file__), module, *arguments]


def helper_environment() -> dict[str, str]:
    """Return the environment of such a process: ours, importing what we can import."""
    environment = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    environment[launch.IMPORT_PATH] = "\n".join(_import_path())
    environment |= _MEMORY
    return environment


def _import_path() -> list[str]:
    """Return the folders that this process imports from, and that of shmlog, which may be the current one no more."""
    folders = [folder for folder in sys.path if isinstance(folder, str) and folder]
    with suppress(OSError):  # there may be no current folder: then relative ones lead nowhere, here and there
        folders = [os.path.abspath(folder) for folder in folders]
    return [*folders, str(Path(__file__).parents[2])]


def start_flusher(layout: RunLayout, segment: _core.Segment | None = None) -> None:
    """Start the flusher of a run, and do not wait for it.

    Starting two is harmless: the flusher's lock lets one of them work.

    Parameters
    ----------
    layout : RunLayout
        Of the run.
    segment : Segment, optional
        Its segment, which tells those who wait that a flusher starts, as long as that lives.

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
    lock = segment.mark_starting() if segment is not None else None
    try:
        pid = _spawn(arguments, layout.flusher_log, lock)
    finally:
        if lock is not None:
            os.close(lock)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # SIGCHLD is ignored here: the kernel has reaped the shell


def recover_apart(layout: RunLayout) -> str | None:
    """Recover a run in a process of its own: it takes numpy and pyarrow, and may take long. Returns why it failed."""
    import subprocess

    command = helper_command("shmlog", "recover", str(layout.dir))
    done = subprocess.run(command, env=helper_environment(), capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    errors = [line.removeprefix("shmlog: error: ") for line in done.stderr.splitlines() if "error: " in line]
    return "; ".join(errors) or done.stderr.strip()


def _spawn(arguments: list[str], log: Path, lock: int | None) -> int:
    """Start a process that says nothing but into ``log``, in a session of its own, and holds ``lock``."""
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

"""Limits of the process that reads a source: whatever the source does to it, it must do no harm to others."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shmlog.errors import RefusedError
from shmlog.transfer.importers.formats import place_of

UNLIMITED_BYTES_MAX = 64 << 20
"""Sources that hold more are refused where the system does not limit memory."""

_PR_SET_PDEATHSIG = 1
_PAGE = resource.getpagesize()
_PROBE_BYTES = 64 << 20


def reset_signals() -> None:
    """Leave Ctrl-C to the process that waits for this one; don't ignore other signals that it ignores."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)


def end_with(parent: int) -> None:
    """End when the process that waits for this one does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent has ended before that call
        os._exit(1)


def limit_files_and_time(max_bytes: int, seconds: int) -> None:
    """Limit the size of files and the seconds of processor time, and leave no core dump."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, max_bytes)
    _lower(resource.RLIMIT_CPU, seconds)


@contextmanager
def memory_limited(max_bytes: int) -> Iterator[bool]:
    """Limit memory to so many bytes more than now; yield whether the system keeps to the limit.

    The limit ends with the block, so that the code after the block can report a MemoryError.
    """
    with suppress(OSError):  # when memory is short for all, the system ends this process first
        Path("/proc/self/oom_score_adj").write_text("1000")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        is_limited = _limit_data(_PROBE_BYTES // 2) and not _can_take(_PROBE_BYTES)
        resource.setrlimit(resource.RLIMIT_DATA, before)
        yield is_limited and _limit_data(max_bytes)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def refuse_large(path: Path) -> None:
    """Raise CorruptDataError if the files of a source are too large to read without a limit."""
    path = place_of(path)
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    if size > UNLIMITED_BYTES_MAX:
        raise RefusedError(
            f"{path}: holds {size:,} bytes, more than the {UNLIMITED_BYTES_MAX:,} that an import takes where the "
            "system does not limit the memory of a process (RLIMIT_DATA); import it elsewhere, and copy the run"
        )


def _limit_data(size: int) -> bool:
    """Limit memory to so many bytes more than now; return False if the system does not say what is in use."""
    try:
        used = int(Path("/proc/self/statm").read_text().split()[5]) * _PAGE
    except (OSError, ValueError, IndexError):
        return False
    _lower(resource.RLIMIT_DATA, used + size)
    return True


def _can_take(size: int) -> bool:
    try:
        mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return False
    return True


def _lower(limit: int, value: int) -> None:
    """Lower a limit to a value; a lower one stays."""
    soft, hard = resource.getrlimit(limit)
    finite = [number for number in (soft, hard, value, sys.maxsize) if number != resource.RLIM_INFINITY]
    resource.setrlimit(limit, (min(finite), hard))

"""Ranks that one launcher started on one node share one run.

The first of them makes it and writes down where; the others attach. The place
is a small file in shared memory, named after the launcher: its job, its step,
its pid and when that started, and this boot, so that it can't be mistaken for
an earlier launch. (TORCHELASTIC_RUN_ID alone is often "none", and SLURM_JOB_ID
spans a whole allocation.)
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from shmlog.errors import RunNotFoundError, RunStateError, SegmentError
from shmlog.run.attach import attach
from shmlog.run.run import Run
from shmlog.segment.boot import boot_id
from shmlog.storage.segmentref import SHARED_MEMORY

_SIZES = ("LOCAL_WORLD_SIZE", "WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
_JOBS = (
    "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT",
    "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "OMPI_MCA_ess_base_jobid", "PMIX_NAMESPACE",
)  # fmt: skip


def _is_one_of_several() -> bool:
    sizes = [os.environ.get(name, "") for name in _SIZES]
    return any(name in os.environ for name in _RANKS) and any(s.isdecimal() and int(s) > 1 for s in sizes)


def _launcher() -> str:
    """Return the launcher's pid and start time, in clock ticks since boot."""
    parent = os.getppid()
    try:
        # Fields behind the command's name, which may hold spaces and parentheses.
        fields = Path(f"/proc/{parent}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return f"{parent}/{fields[19]}"
    except (OSError, IndexError):
        return str(parent)


def _meeting_place(root: Path, experiment: str) -> Path:
    import hashlib

    told = [f"{name}={os.environ.get(name, '')}" for name in _JOBS]
    key = "\n".join([*told, _launcher(), str(boot_id()), str(root), experiment])
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return SHARED_MEMORY / f"shmlog.meet-{os.geteuid()}-{digest}"


def once_per_launcher(root: Path, experiment: str, create: Callable[[Path | None], Run]) -> Run:
    """Return the run that another rank of this launch has made, or ``create(meeting place)``.

    The flusher removes the meeting place when the run is over.
    """
    if not _is_one_of_several() or not SHARED_MEMORY.is_dir():
        return create(None)
    path = _meeting_place(root, experiment)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "r+") as file:
        if os.fstat(fd).st_uid != os.geteuid():
            raise SegmentError(f"{path}: belongs to another user")
        fcntl.flock(fd, fcntl.LOCK_EX)
        run = _attach_to(file.read())
        if run is None:
            run = create(path)
            assert run._ref is not None
            file.seek(0)
            file.truncate()
            file.write(str(run.dir))
    return run


def _attach_to(told: str) -> Run | None:
    if not told:
        return None
    try:
        return attach(told)
    except (RunNotFoundError, RunStateError, SegmentError):
        return None

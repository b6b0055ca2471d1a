"""Join a run that another process made."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path
from typing import Any

from shmlog import _core
from shmlog.errors import RunNotFoundError, RunStateError, SegmentError
from shmlog.run import registry
from shmlog.run.identity import Identity
from shmlog.run.run import Run
from shmlog.segment import shm
from shmlog.storage.layout import RunLayout
from shmlog.storage.segmentref import SegmentRef, make_ref, read_ref

VARIABLE = "SHMLOG_RUN"
DISABLED = "disabled"
"""What is published instead of a run whose calls do nothing."""
_FILE = "file"  # in the variable, for a segment that is a file in the run folder
_CLOSING_S = 0.2  # how long a run that is being closed may hold the member lock


def publish(value: str) -> None:
    """Tell all children, by whatever means they are started, which run is theirs.

    The environment reaches every kind of child but that of a forkserver which
    was started earlier; that one is reached by the configuration which
    multiprocessing hands down to each process.
    """
    os.environ[VARIABLE] = value
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None:
        process.current_process()._config[VARIABLE] = value


def published() -> str | None:
    """Return what our parent has published, if anything."""
    process: Any = sys.modules.get("multiprocessing.process")
    handed_down = process.current_process()._config.get(VARIABLE) if process is not None else None
    return handed_down or os.environ.get(VARIABLE)


def variable_for(run_dir: Path, ref: SegmentRef) -> str:
    """Return the value of SHMLOG_RUN: segment name, colon, run folder."""
    return f"{ref.name or _FILE}:{run_dir}"


def parse_variable(value: str) -> tuple[RunLayout, SegmentRef]:
    """Return what SHMLOG_RUN says.

    Raises
    ------
    RunNotFoundError
        If it is not of the form ``segment:folder``.
    """
    name, colon, run_dir = value.partition(":")
    if not colon or not name or not run_dir or "\0" in value:
        raise RunNotFoundError(f"${VARIABLE} is {value!r}; expected 'segment:run folder', as shmlog.init sets it")
    layout = RunLayout(run_dir)
    return layout, make_ref(layout, None if name == _FILE else name)


def attach(
    run_dir: str | os.PathLike[str] | None = None,
    *,
    rank: int | None = None,
    local_rank: int | None = None,
    worker: int | None = None,
) -> Run:
    """Attach this process to a run that another made, and make it the current run.

    Children need not call it: a forked child goes on logging to its parent's
    `Run` and `Metric` objects, and elsewhere the first `shmlog.log` attaches.

    Parameters
    ----------
    run_dir : path, optional
        Folder of the run. Default: ``$SHMLOG_RUN``, which `init` sets for all
        children, or the run that is current in this process.
    rank, local_rank, worker : int, optional
        Who this process is, where it can't be told from its launcher. Take
        effect before the process's first record.

    Returns
    -------
    Run

    Raises
    ------
    RunNotFoundError
        If there is no such run, or ``run_dir`` and ``$SHMLOG_RUN`` are missing.
    RunStateError
        If the run has ended.
    SegmentError
        If its shared memory is not usable by this process.
    """
    if is_disabled(None) or (run_dir is None and _current_is_disabled()):
        return disabled_run(DISABLED)
    layout, ref = _locate(run_dir)
    run = registry.find(str(layout.dir))
    if run is None or not run._is_member:
        run = _join(layout, ref)
    run._identity_known = Identity(rank, local_rank, worker)
    registry.remember(run)
    return run


def is_disabled(mode: str | None) -> bool:
    """Whether runs are disabled; raises ValueError if there is no such mode."""
    mode = mode or os.environ.get("SHMLOG_MODE") or "enabled"
    if mode not in ("enabled", "disabled"):
        raise ValueError(f"mode must be 'enabled' or 'disabled', not {mode!r}")
    return mode == "disabled"


def disabled_run(experiment: str) -> Run:
    """Make a run whose calls do nothing the current one, here and in all children."""
    run = Run(RunLayout(Path(experiment) / "disabled"), None, owner=False)
    run._disable()
    publish(DISABLED)
    registry.remember(run)
    return run


def _current_is_disabled() -> bool:
    run = registry.current()
    return published() == DISABLED if run is None else run._disabled


def _locate(run_dir: str | os.PathLike[str] | None) -> tuple[RunLayout, SegmentRef]:
    if run_dir is not None:
        layout = RunLayout(run_dir)
        return layout, read_ref(layout)
    run = registry.current()
    if run is not None and run._ref is not None:
        return run._layout, run._ref
    value = published()
    if not value:
        raise RunNotFoundError(
            f"no run to attach to: ${VARIABLE} is not set (shmlog.init sets it for its children); "
            "pass the folder of the run"
        )
    return parse_variable(value)


def _join(layout: RunLayout, ref: SegmentRef) -> Run:
    try:
        segment = shm.open_segment(ref)
    except FileNotFoundError as error:
        if not layout.dir.is_dir():
            raise RunNotFoundError(f"there is no run folder {layout.dir}") from error
        raise RunStateError(f"run {layout.dir} has ended: its shared memory is gone") from error
    if segment.run_id != layout.run_id:
        raise SegmentError(f"{ref.path} belongs to run {segment.run_id!r}, not to {layout.run_id!r}")
    run = Run(layout, ref, owner=False)
    join_member(run, segment)
    return run


def join_member(run: Run, segment: _core.Segment) -> None:
    """Make ``run`` a member of its segment.

    Raises
    ------
    RunStateError
        If the run is being closed, or its segment was replaced.
    """
    deadline = time.monotonic() + _CLOSING_S
    while True:
        try:
            run._join(segment, str(segment.path))
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOENT, errno.ESTALE):
                raise
            # Held exclusively: by the flusher that closes the run, or by a probe of a moment.
            if segment.closed or error.errno != errno.EAGAIN or time.monotonic() > deadline:
                raise RunStateError(f"run {run.dir} has ended; start another with shmlog.init") from error
        time.sleep(0.001)


def reopen_or_closed(run_dir: str, name: str | None) -> Run:
    """Return the run in this process, for unpickling: attached, or closed if it has ended."""
    run = registry.find(run_dir)
    if run is not None:
        return run
    layout = RunLayout(run_dir)
    ref = make_ref(layout, name)
    try:
        run = _join(layout, ref)
    except (RunNotFoundError, RunStateError, SegmentError):
        return Run(layout, ref, owner=False)
    registry.remember(run)
    return run

"""`attach`: join a run from a process that did not make it."""

from __future__ import annotations

import os
from pathlib import Path

from shmlog.errors import RunNotFoundError, RunStateError
from shmlog.run import registry
from shmlog.run.current import find, is_off
from shmlog.run.handed import DISABLED, VARIABLE
from shmlog.run.identity import Identity
from shmlog.run.join import disabled_run, join_as_owner, make_current
from shmlog.run.mode import is_disabled
from shmlog.run.run import Run


def attach(
    run_dir: str | os.PathLike[str] | None = None,
    *,
    rank: int | None = None,
    local_rank: int | None = None,
    worker: int | None = None,
) -> Run:
    """Attach this process to a run that another made, and make it the current run.

    With ``run_dir`` the process becomes another owner of the run, which does not end before this process has
    finished or died. Without it, the process follows the process that started it: its part ends with its parent's,
    and then it logs to its parent's next run. Children need not call `attach`: a forked child goes on logging to its
    parent's `Run` and `Metric` objects, and in other children the first `shmlog.log` attaches.

    Parameters
    ----------
    run_dir : path, optional
        Folder of the run. Default: the run to which a call without a run would go, as a rule the run of the
        process that started this one.
    rank, local_rank, worker : int, optional
        The identity of this process, if its launcher does not show it. They take
        effect before the process's first record.

    Returns
    -------
    Run

    Raises
    ------
    RunNotFoundError
        If there is no such run, or, without ``run_dir``, the process that started this one has no run.
    RunStateError
        If the run has ended, the folder is a copy of another run folder, or any of several runs could be meant.
    SegmentError
        If this process can't use its shared memory.
    """
    if is_disabled(None) or (run_dir is None and is_off()):
        return disabled_run(DISABLED)
    if run_dir is not None:
        run = make_current(join_as_owner(Path(run_dir)))
    else:
        run = _parents_run()
        registry.remember(run, current=True)
    run._identity_given = Identity(rank, local_rank, worker)
    return run


def _parents_run() -> Run:
    meant = find()
    if meant.several is not None:
        raise RunStateError("several runs are open in the process that started this one; pass the folder of one")
    if meant.ended is not None and not meant.ended.dir.is_dir():
        raise RunNotFoundError(f"there is no run folder {meant.ended.dir}")
    if meant.ended is not None:
        raise RunStateError(f"run {meant.ended.dir} has ended; start another with shmlog.init")
    if meant.run is None:
        raise RunNotFoundError(
            f"no run to attach to: ${VARIABLE} is not set (shmlog.init sets it for its children); "
            "pass the folder of the run"
        )
    return meant.run

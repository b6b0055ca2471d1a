"""Ranks that one launcher started on one node share their runs.

The first rank makes a run and lists it in a small file in shared memory; the others attach to it. The file is
named after the launcher (its job, step, pid and start time) and this boot, so that it differs from that of an
earlier launch. (TORCHELASTIC_RUN_ID alone is often "none", and SLURM_JOB_ID spans a whole allocation.)

A rank is in a run once: another program of it, or another call of `init`, makes another run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from shmlog.base.boot import boot_id
from shmlog.errors import RunNotFoundError, RunStateError, SegmentError, ShmlogError, UnreadableError, log_warning
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.folder.names import folder_name
from shmlog.folder.segmentref import SHARED_MEMORY
from shmlog.run.attach import attach
from shmlog.run.handed import handed_down
from shmlog.run.identity import lone_local_rank, rank_among_several
from shmlog.run.run import Run
from shmlog.run.turns import Makers
from shmlog.segment.meeting import Meeting, MeetingEntry, meeting_place, open_meeting
from shmlog.segment.process import Process, pid_namespace, process_of

_JOBS = (
    "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "OMPI_MCA_ess_base_jobid",
    "PMIX_NAMESPACE",
)  # fmt: skip
_MASTER = ("MASTER_ADDR", "MASTER_PORT")  # torchrun may change them at a restart


class _Rank(NamedTuple):
    """A process and its place in its launch."""

    rank: str
    launcher: Process
    restart: int
    restarts_max: int


def meet(root: Path, experiment: str, turn: int, makers: Makers) -> Run:
    """Return the run that another rank of this launch has made in this turn, or make one."""
    me = _rank_of_this_process()
    return makers.make(turn) if me is None else _meet_others(me, root, experiment, turn, makers)


def _rank_of_this_process() -> _Rank | None:
    if not SHARED_MEMORY.is_dir():
        return None
    rank, launcher = rank_among_several(), os.getppid()
    if rank is None:
        local = lone_local_rank()
        if local is None:
            return None
        rank, launcher = str(local), launcher if local else os.getpid()
    counts = [os.environ.get(f"TORCHELASTIC_{name}", "") for name in ("RESTART_COUNT", "MAX_RESTARTS")]
    restart, restarts_max = (int(count) if count.isdecimal() else 0 for count in counts)
    return _Rank(rank, process_of(launcher), restart, restarts_max)


def _place(launcher: Process, root: Path, experiment: str) -> Path:
    jobs = _JOBS if "TORCHELASTIC_RUN_ID" in os.environ else _JOBS + _MASTER
    variables = [f"{name}={os.environ.get(name, '')}" for name in jobs]
    return meeting_place(
        "\n".join([*variables, str(launcher), str(pid_namespace()), str(boot_id()), str(root), experiment])
    )


def _meet_others(me: _Rank, root: Path, experiment: str, turn: int, makers: Makers) -> Run:
    path = _place(me.launcher, root, experiment)
    try:
        meeting = open_meeting(path)
    except OSError as error:
        log_warning("ranks can't meet, so that this one makes a run of its own: %s", error)
        return makers.make(turn)
    with meeting:
        try:
            _enter_launchers_run(meeting, me, root / folder_name(experiment))
            run = _join(meeting, me, turn) or _take_up(meeting, me, turn, makers) or _make(meeting, me, turn, makers)
        except BaseException:
            if not meeting.runs:
                meeting.remove()
            raise
        try:
            meeting.write(me.launcher)
        except OSError as error:
            log_warning("other ranks can't find the run of this one: %s: %s", path, error.strerror)
    return run


def _enter_launchers_run(meeting: Meeting, me: _Rank, folder: Path) -> None:
    """List the run of a launcher that is itself a rank, made before it set the variables of a rank."""
    if not lone_local_rank():
        return
    try:
        handed = handed_down()
        layout = handed.layout if handed is not None else None
        if layout is None:
            return
        description = Description.read(layout)
        maker = Process(description.pid, description.pid_start)
        was_rank = "LOCAL_RANK" in description.environment["variables"]
        turn = int(description.turn)
    except (RunNotFoundError, UnreadableError, OSError, KeyError, TypeError, ValueError):
        return  # no run to join: it is disabled, or gone
    is_launchers = maker == me.launcher and not was_rank and layout.dir.parent == folder
    if is_launchers and str(layout.dir) not in [run.dir for run in meeting.runs]:
        meeting.runs.append(MeetingEntry(str(layout.dir), turn, 0, 0, {"0": me.launcher}))


def _join(meeting: Meeting, me: _Rank, turn: int) -> Run | None:
    """Attach to the first run of this turn without this rank; None if there is no such run."""
    for entry in meeting.runs:
        is_mine = entry.turn == turn and entry.restart == me.restart and me.rank not in entry.ranks
        if is_mine and entry.has_live_ranks:
            try:
                run = attach(entry.dir)
            except (RunNotFoundError, RunStateError, SegmentError):
                continue  # the run has ended
            entry.ranks[me.rank] = process_of(os.getpid())
            return run
    return None


def _take_up(meeting: Meeting, me: _Rank, turn: int, makers: Makers) -> Run | None:
    """Make the next attempt of the run that this turn had made before the ranks were restarted."""
    before = [entry for entry in meeting.runs if entry.turn == turn and entry.restart < me.restart]
    if not before:
        return None
    entry = before[-1]
    try:
        run = makers.next_attempt(RunLayout(entry.dir), turn)
    except ShmlogError as error:
        log_warning("the restarted ranks make another run: %s", error)
        return None
    if run is not None:
        ranks = {me.rank: process_of(os.getpid())}
        meeting.runs[meeting.runs.index(entry)] = entry._replace(restart=me.restart, ranks=ranks)
    return run


def _make(meeting: Meeting, me: _Rank, turn: int, makers: Makers) -> Run:
    run = makers.make(turn)
    ranks = {me.rank: process_of(os.getpid())}
    meeting.runs.append(MeetingEntry(str(run.dir), turn, me.restart, me.restarts_max, ranks))
    return run

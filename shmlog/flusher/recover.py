"""Finish the job of a run whose processes are all dead."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from shmlog import _core
from shmlog.errors import RunNotFoundError, RunStateError, SegmentError, ShmlogError
from shmlog.flusher import final
from shmlog.flusher.keeper import Keeper, report
from shmlog.flusher.process import start_flusher
from shmlog.flusher.provenance import Provenance
from shmlog.segment import shm
from shmlog.segment.runlock import LockError, lock_path, locked
from shmlog.storage import liveness, runfile
from shmlog.storage.layout import RunLayout
from shmlog.storage.logsettings import settings_of
from shmlog.storage.segmentref import SegmentRef, read_ref

_AT_WORK = "its flusher is at work"
_GOING_S = 0.5
_RESUMED = "somebody has just resumed it"


class RecoverResult(NamedTuple):
    """What `recover` found and did."""

    run_dir: Path
    status: str
    records: int
    changed: bool
    message: str


def recover(run_dir: str | os.PathLike[str], *, force: bool = False) -> RecoverResult:
    """Drain, seal and close a run that nobody is attached to any more.

    Doing it again changes nothing. If processes are still attached but their
    flusher is dead, another flusher is started.

    Parameters
    ----------
    run_dir : path
        Folder of the run.
    force : bool
        Recover also where it can't be told whether its processes live, as for a
        run of another host. If they do, their flusher's work is spoilt.

    Raises
    ------
    RunNotFoundError
        If there is no run in ``run_dir``.
    RunStateError
        If its flusher does not give way, or it can't be told whether it lives.
    StorageError
        If the disk fails. Nothing is lost, it can be tried again.
    """
    layout = RunLayout(run_dir)
    try:
        described = runfile.read(layout.run_yaml)
    except FileNotFoundError as error:
        raise RunNotFoundError(f"no run in {layout.dir}: it has no run.yaml") from error
    if described.get("complete") and not layout.wal.is_dir():
        if lock_path(layout).exists():  # of a recovery that was killed
            with locked(layout):
                pass
        return _result(layout, changed=False, message="nothing to recover")
    ref = read_ref(layout)
    try:
        segment = shm.open_segment(ref)
    except (FileNotFoundError, SegmentError):
        if liveness.flusher_lives(described):
            return _result(layout, changed=False, message=_AT_WORK)
        _check_dead(layout, described, force)
        mine = ref if _is_described(ref, described) else None  # damaged: nobody else would remove it
        message = "its shared memory is gone; recovered from the log alone"
        return _recover_files(layout, described, mine, message, force)
    if segment.run_id != layout.run_id:
        _check_dead(layout, described, force)
        message = "shared memory belongs to another run; recovered from the log alone"
        return _recover_files(layout, described, None, message, force)
    return _recover_segment(layout, described, segment, ref)


def _is_described(ref: SegmentRef, described: dict[str, Any]) -> bool:
    """Whether what lies in the place of the segment is the file that run.yaml names."""
    try:
        status = os.lstat(ref.path)
        return bool((status.st_dev, status.st_ino) == (described["segment"]["device"], described["segment"]["inode"]))
    except (OSError, KeyError, TypeError):
        return False


def _check_dead(layout: RunLayout, described: dict[str, Any], force: bool) -> None:
    """Refuse a run without its shared memory unless its processes are known to be dead."""
    if force or liveness.members_live(described) is False:
        return
    raise RunStateError(
        f"{layout.dir}: whether its processes live can't be told from here; it was made on host "
        f"{described.get('host')!r}, recover it there, or use --force if you know that they are dead"
    )


def recover_neighbours(root: Path, own: Path, is_over: Callable[[], bool]) -> None:
    """Recover the runs below ``root`` that crashed and that nobody has recovered yet.

    Called by the flusher of a new run, until that ``is_over``. A run that can't be recovered is left
    alone: ``shmlog recover`` says why.
    """
    for wal in sorted(root.glob(f"*/*/{RunLayout(own).wal.name}")):
        if is_over():
            return
        if wal.parent == own:
            continue
        try:
            described = runfile.read(RunLayout(wal.parent).run_yaml)
            if liveness.members_live(described) is False and liveness.flusher_lives(described) is False:
                report(f"{wal.parent}: {recover(wal.parent).message}")
        except (ShmlogError, OSError) as error:
            report(str(error))


def _has_flusher(segment: _core.Segment) -> bool:
    """Whether a flusher is there to stay: one that was just killed holds its lock for some milliseconds more."""
    deadline = time.monotonic() + _GOING_S
    while segment.probe(_core.LOCK_FLUSHER):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.01)
    return False


def _recover_segment(
    layout: RunLayout, described: dict[str, Any], segment: _core.Segment, ref: SegmentRef
) -> RecoverResult:
    if _has_flusher(segment):
        return _result(layout, changed=False, message=_AT_WORK)
    if segment.probe(_core.LOCK_MEMBER):
        start_flusher(layout, segment)
        return _result(layout, changed=True, message="processes are attached; another flusher was started")
    try:
        return _recover_alone(layout, described, segment, ref)
    finally:  # if it was in vain, another try must find them free, whenever this segment is collected
        segment.unlock(_core.LOCK_MEMBER)
        segment.unlock(_core.LOCK_FLUSHER)


def _recover_alone(
    layout: RunLayout, described: dict[str, Any], segment: _core.Segment, ref: SegmentRef
) -> RecoverResult:
    if not segment.lock(_core.LOCK_FLUSHER) or not segment.lock(_core.LOCK_MEMBER):
        raise RunStateError(f"{layout.dir}: somebody else is recovering it, or has just attached")
    with locked(layout):
        now = runfile.read(layout.run_yaml)
        if _was_resumed(described, now):
            return _result(layout, changed=False, message=_RESUMED)
        if not now.get("complete"):
            layout.make_folders()
            Keeper(layout, segment, ref).close(patient=False)
            return _result(layout, changed=True, message="recovered")
    return _recover_files(layout, described, ref, "all was sealed; removed what was left over")


def _was_resumed(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether the run has got another segment since run.yaml was read: somebody has resumed it."""
    return bool(before.get("segment") != now.get("segment"))


@contextmanager
def _locked(layout: RunLayout, described: dict[str, Any], force: bool) -> Iterator[None]:
    """Keep others from recovering the run; those of other containers too if it may be theirs."""
    try:
        with locked(layout, everywhere=liveness.is_elsewhere(described) and not force):
            yield
    except LockError as error:
        raise RunStateError(
            f"{layout.dir}: its folder can't be locked ({error.strerror}), so that another container may be recovering "
            "it too; recover it on the host, or use --force if you know that nobody does"
        ) from error


def _recover_files(
    layout: RunLayout, described: dict[str, Any], ref: SegmentRef | None, message: str, force: bool = False
) -> RecoverResult:
    """Recover from the run folder alone, as after a reboot; one process at a time."""
    from shmlog.flusher.sealer import Sealer

    with _locked(layout, described, force):
        now = runfile.read(layout.run_yaml)
        if _was_resumed(described, now):
            return _result(layout, changed=False, message=_RESUMED)
        if not now.get("complete"):
            layout.make_folders()
            sealer = Sealer(layout, now["sinks"], lambda: None, report, settings_of(now).rotate_bytes)
            sealer.catch_up(max(layout.logs(), default=-1) + 1, wait=True)
            sealer.close()
            Provenance(layout, report).finish()
            final.write_complete(layout, None, sealer.ledger)
        final.clean_up(layout, ref, report)
    return _result(layout, changed=True, message=message)


def _result(layout: RunLayout, *, changed: bool, message: str) -> RecoverResult:
    described = runfile.read(layout.run_yaml)
    records = (described.get("counts") or {}).get("metrics", 0)
    return RecoverResult(layout.dir, described["status"], records, changed, message)

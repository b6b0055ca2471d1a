"""Finish the job of a run whose processes are all dead."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from shmlog import _core
from shmlog.errors import CorruptDataError, RunNotFoundError, RunStateError, SegmentError, ShmlogError, UnreadableError
from shmlog.flusher import closing
from shmlog.flusher.loop import Keeper, report
from shmlog.flusher.process import start_flusher
from shmlog.flusher.provenance import Provenance
from shmlog.folder import liveness, recovered, unbegun
from shmlog.folder.description import Description, run_id_of
from shmlog.folder.flock import LockError
from shmlog.folder.layout import RunLayout
from shmlog.folder.logsettings import settings_of
from shmlog.folder.segmentref import SegmentRef, read_ref
from shmlog.records.ledger import Ledger
from shmlog.segment import shm
from shmlog.segment.runlock import lock_path, locked

NOTHING = "nothing to recover"
"""The whole message for a run that is complete."""

_AT_WORK = "its flusher is at work"
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
        run of another host; if they do, their flusher's work is spoilt. And where its
        shared memory can't be used; what is in that alone is lost.

    Raises
    ------
    RunNotFoundError
        If there is no run in ``run_dir``.
    RunStateError
        If its flusher does not give way, it can't be told whether it lives, its shared memory can't be used, or
        this is a copy of another run, whose shared memory it is.
    StorageError
        If the disk fails, or a folder of it is a symlink. Nothing is lost, it can be tried again.
    CorruptDataError
        If run.yaml is damaged.
    """
    layout = RunLayout(run_dir)
    try:
        described = Description.read(layout)
    except FileNotFoundError as error:
        raise RunNotFoundError(f"no run in {layout.dir}: it has no run.yaml") from error
    if _is_closed(layout, described):
        if lock_path(layout).exists():  # of a recovery that was killed
            with locked(layout):
                pass
        return _result(layout, changed=False, message=NOTHING)
    ref = read_ref(layout)
    try:
        segment = shm.open_segment(ref)
    except FileNotFoundError:
        return _recover_without(layout, described, None, "its shared memory is gone", force)
    except SegmentError as error:
        left = _give_up(layout, described, ref, error, force)
        return _recover_without(layout, described, left, "its shared memory can't be used", force)
    if not _is_its(segment, layout, force):
        return _recover_without(layout, described, None, "shared memory belongs to another run", force)
    return _recover_segment(layout, described, segment, ref)


def is_complete(run_dir: Path) -> bool:
    """Whether nothing of a run is left to recover; not if that can't be read: `recover` says what is wrong with it."""
    layout = RunLayout(run_dir)
    try:
        return _is_closed(layout, Description.read(layout))
    except (UnreadableError, OSError):
        return False


def _is_closed(layout: RunLayout, described: Description) -> bool:
    return described.complete is True and not layout.wal.is_dir()


def _give_up(
    layout: RunLayout, described: Description, ref: SegmentRef, error: SegmentError, force: bool
) -> SegmentRef | None:
    """Return what to remove of a segment that can't be used, if it holds nothing, or that is given up."""
    if shm.may_hold_records(ref) and not force:
        raise RunStateError(
            f"{layout.dir}: its shared memory can't be used, and what it alone holds would be lost ({error}); recover "
            "it as the user and with the version of shmlog that made it, or use --force to give that up"
        ) from error
    return ref if shm.is_described(ref, described) else None


def _is_its(segment: _core.Segment, layout: RunLayout, force: bool) -> bool:
    """Whether the segment belongs to this run folder: not to another run, nor to one that this is a copy of."""
    if segment.run_id not in (layout.run_id, run_id_of(layout)):
        return False
    is_copy = shm.is_of_original(segment, layout.dir)
    if is_copy and not force:
        raise RunStateError(
            f"{layout.dir} is a copy of {segment.run_dir}, whose shared memory holds what is in no file yet: "
            "recover that one, or use --force to recover the copy from its log alone"
        )
    return not is_copy


def _recover_without(
    layout: RunLayout, described: Description, ref: SegmentRef | None, why: str, force: bool
) -> RecoverResult:
    """Recover a run without its shared memory, unless its processes may live."""
    if liveness.has_flusher(described):
        return _result(layout, changed=False, message=_AT_WORK)
    _check_dead(layout, described, force)
    return _recover_files(layout, described, ref, f"{why}; recovered from the log alone", force)


def _check_dead(layout: RunLayout, described: Description, force: bool) -> None:
    """Refuse a run whose processes live, or, without ``force``, may live."""
    if liveness.is_dead(layout, described):
        return
    if liveness.members_live(described):
        raise RunStateError(f"{layout.dir}: processes are attached to it; it can be recovered when they have ended")
    if not force:
        raise RunStateError(
            f"{layout.dir}: whether its processes live can't be told from here; it was made on host "
            f"{described.host!r}, recover it there, or use --force if you know that they are dead"
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
            _recover_neighbour(RunLayout(wal.parent), RunLayout(own))
        except (ShmlogError, OSError) as error:
            report(f"{wal.parent}: {error}")
        except Exception:  # one that nobody has foreseen: the others are not its fault
            report(f"{wal.parent}: {traceback.format_exc()}")


def _recover_neighbour(layout: RunLayout, own: RunLayout) -> None:
    """Recover a run that has crashed; remove one that never began, since its process was killed before."""
    if unbegun.is_left(layout) and not liveness.is_in_use(layout.segment):
        unbegun.remove(layout)
    elif liveness.is_abandoned(layout):
        result = recover(layout.dir)
        report(f"{layout.dir}: {result.message}")
        if result.changed:
            recovered.note(own, layout.dir)


def _recover_segment(
    layout: RunLayout, described: Description, segment: _core.Segment, ref: SegmentRef
) -> RecoverResult:
    if liveness.stays(lambda: segment.probe(_core.LOCK_FLUSHER)):
        return _result(layout, changed=False, message=_AT_WORK)
    if segment.probe(_core.LOCK_MEMBER):
        start_flusher(layout, segment)
        return _result(layout, changed=True, message="processes are attached; another flusher was started")
    try:
        return _recover_alone(layout, described, segment, ref)
    finally:  # if it was in vain, another try must find them free, whenever this segment is collected
        segment.unlock(_core.LOCK_MEMBER)
        segment.unlock(_core.LOCK_FLUSHER)


def _recover_alone(layout: RunLayout, described: Description, segment: _core.Segment, ref: SegmentRef) -> RecoverResult:
    if not segment.lock(_core.LOCK_FLUSHER) or not segment.lock(_core.LOCK_MEMBER):
        raise RunStateError(f"{layout.dir}: somebody else is recovering it, or has just attached")
    with locked(layout):
        now = Description.read(layout)
        if _was_resumed(described, now):
            return _result(layout, changed=False, message=_RESUMED)
        if not now.complete:
            layout.make_folders()
            Keeper(layout, segment, ref).close(patient=False)
            return _result(layout, changed=True, message="recovered")
    return _recover_files(layout, described, ref, "all was sealed; removed what was left over")


def _was_resumed(before: Description, now: Description) -> bool:
    """Whether the run has got another segment since run.yaml was read: somebody has resumed it."""
    return bool(before.segment != now.segment)


@contextmanager
def _locked(layout: RunLayout, described: Description, force: bool) -> Iterator[None]:
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
    layout: RunLayout, described: Description, ref: SegmentRef | None, message: str, force: bool = False
) -> RecoverResult:
    """Recover from the run folder alone, as after a reboot; one process at a time."""
    from shmlog.flusher.sealer import Sealer
    from shmlog.flusher.sinks import open_sinks

    with _locked(layout, described, force):
        now = Description.read(layout)
        if _was_resumed(described, now):
            return _result(layout, changed=False, message=_RESUMED)
        if not now.complete:
            layout.make_folders()
            ledger = Ledger.load(layout)
            sinks = open_sinks(
                layout, ledger, _sinks_of(layout, now), progress=lambda: None, report=report,
                events_bytes_max=settings_of(now.structured_log).rotate_bytes,
            )  # fmt: skip
            sealer = Sealer(layout, ledger, sinks, lambda: None, report)
            sealer.catch_up(max(layout.logs(), default=-1) + 1, wait=True)
            sealer.close()
            Provenance(layout, report).finish()
            closing.write_complete(layout, None, ledger)
        closing.clean_up(layout, ref, report)
    return _result(layout, changed=True, message=message)


def _sinks_of(layout: RunLayout, described: Description) -> list[str]:
    """Return where the metrics of a run go."""
    sinks = described.sinks
    if not isinstance(sinks, list) or not sinks:
        raise CorruptDataError(
            f"{layout.run_yaml} does not say where the metrics go (sinks); shmlog.Store(root).rebuild(run) writes it "
            "anew"
        )
    return sinks


def _result(layout: RunLayout, *, changed: bool, message: str) -> RecoverResult:
    described = Description.read(layout)
    records = (described.counts or {}).get("metrics", 0)
    return RecoverResult(layout.dir, str(described.status), records, changed, message)

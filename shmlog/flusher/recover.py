"""Close a run whose processes are all dead."""

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
_UNCOUNTED = "records that only it held, if there were any, are lost"
_RESUMED = "another process has just resumed it"


class RecoverResult(NamedTuple):
    """The state of a run after `recover`, and whether it has changed."""

    run_dir: Path
    status: str
    records: int
    changed: bool
    message: str


def recover(run_dir: str | os.PathLike[str], *, force: bool = False) -> RecoverResult:
    """Drain, seal and close a run to which no process is attached any more.

    A second call changes nothing. If processes are still attached but their
    flusher is dead, another flusher is started.

    Parameters
    ----------
    run_dir : path
        Folder of the run.
    force : bool
        Recover also if it is unknown whether its processes live, as for a run of
        another host; if they do, their flusher's work is destroyed. And also if its
        shared memory can't be used; records that are only there are lost.

    Raises
    ------
    RunNotFoundError
        If there is no run in ``run_dir``.
    RunStateError
        If its flusher does not end, it is unknown whether its processes live, its shared memory can't be used, or
        this is a copy of the run to which the shared memory belongs.
    StorageError
        If the disk fails, or a folder of the run is a symlink. Nothing is lost; try again.
    CorruptDataError
        If run.yaml is damaged.
    """
    layout = RunLayout(run_dir)
    try:
        description = Description.read(layout)
    except FileNotFoundError as error:
        raise RunNotFoundError(f"no run in {layout.dir}: it has no run.yaml") from error
    if _is_closed(layout, description):
        if lock_path(layout).exists():  # a killed recovery has left it
            with locked(layout):
                pass
        return _result(layout, changed=False, message=NOTHING)
    ref = read_ref(layout)
    try:
        segment = shm.open_segment(ref, description)
    except FileNotFoundError:
        return _recover_without(layout, description, None, "its shared memory is gone", force)
    except SegmentError as error:
        unusable = _give_up(layout, description, ref, error, force)
        return _recover_without(layout, description, unusable, "its shared memory can't be used", force)
    if not _is_its(segment, layout, force):
        return _recover_without(layout, description, None, "shared memory belongs to another run", force)
    return _recover_segment(layout, description, segment, ref)


def is_complete(run_dir: Path) -> bool:
    """Whether nothing of a run is left to recover; False if that can't be read: `recover` says what is wrong."""
    layout = RunLayout(run_dir)
    try:
        return _is_closed(layout, Description.read(layout))
    except (UnreadableError, OSError):
        return False


def _is_closed(layout: RunLayout, description: Description) -> bool:
    return description.complete is True and not layout.wal.is_dir()


def _give_up(
    layout: RunLayout, description: Description, ref: SegmentRef, error: SegmentError, force: bool
) -> SegmentRef | None:
    """Return an unusable segment for removal, if it is the run's; raise if it may hold records, without ``force``."""
    if shm.may_hold_records(ref) and not force:
        raise RunStateError(
            f"{layout.dir}: its shared memory can't be used, and records that only it holds would be lost ({error}); "
            "recover it as the user and with the version of shmlog that made it, or use --force to give them up"
        ) from error
    return ref if shm.is_described(ref, description) else None


def _is_its(segment: _core.Segment, layout: RunLayout, force: bool) -> bool:
    """Whether the segment belongs to this run folder, not to another run or to the original of this copy."""
    if segment.run_id not in (layout.run_id, run_id_of(layout)):
        return False
    is_copy = shm.is_of_original(segment, layout.dir)
    if is_copy and not force:
        raise RunStateError(
            f"{layout.dir} is a copy of {segment.run_dir}, whose shared memory holds records that are in no file yet: "
            "recover that one, or use --force to recover the copy from its log alone"
        )
    return not is_copy


def _recover_without(
    layout: RunLayout, description: Description, ref: SegmentRef | None, why: str, force: bool
) -> RecoverResult:
    """Recover a run without its shared memory, unless its processes may live."""
    if liveness.has_flusher(description):
        return _result(layout, changed=False, message=_AT_WORK)
    _check_dead(layout, description, force)
    return _recover_files(layout, description, ref, f"{why}; recovered from the log alone: {_UNCOUNTED}", force)


def _check_dead(layout: RunLayout, description: Description, force: bool) -> None:
    """Refuse a run whose processes live, or, without ``force``, may live."""
    if liveness.is_dead(layout, description):
        return
    if liveness.members_live(description):
        raise RunStateError(f"{layout.dir}: processes are attached to it; it can be recovered when they have ended")
    if not force:
        raise RunStateError(
            f"{layout.dir}: it is not known here whether its processes live; it was made on host "
            f"{description.host!r}, recover it there, or use --force if you know that they are dead"
        )


def recover_neighbours(root: Path, own: Path, is_over: Callable[[], bool]) -> None:
    """Recover the runs below ``root`` that have crashed and are not recovered yet.

    The flusher of a new run calls it; it returns early when ``is_over``. A run that can't be recovered is left
    as it is: ``shmlog recover`` says why.
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
        except Exception:  # an unforeseen error must not keep other runs from being recovered
            report(f"{wal.parent}: {traceback.format_exc()}")


def _recover_neighbour(layout: RunLayout, own: RunLayout) -> None:
    """Recover a run that has crashed; remove one that never began because its process was killed."""
    if unbegun.is_left(layout) and not liveness.is_in_use(layout.segment):
        unbegun.remove(layout)
    elif liveness.is_abandoned(layout):
        result = recover(layout.dir)
        report(f"{layout.dir}: {result.message}")
        if result.changed:
            recovered.note(own, layout.dir)


def _recover_segment(
    layout: RunLayout, description: Description, segment: _core.Segment, ref: SegmentRef
) -> RecoverResult:
    if liveness.stays(lambda: bool(segment.probe(_core.LOCK_FLUSHER))):
        return _result(layout, changed=False, message=_AT_WORK)
    if segment.probe(_core.LOCK_MEMBER):
        start_flusher(layout, segment)
        return _result(layout, changed=True, message="processes are attached; another flusher was started")
    try:
        return _recover_alone(layout, description, segment, ref)
    finally:  # after a failure, another try must find them free, even before this segment is collected
        segment.unlock(_core.LOCK_MEMBER)
        segment.unlock(_core.LOCK_FLUSHER)


def _recover_alone(
    layout: RunLayout, description: Description, segment: _core.Segment, ref: SegmentRef
) -> RecoverResult:
    if not segment.lock(_core.LOCK_FLUSHER) or not segment.lock(_core.LOCK_MEMBER):
        raise RunStateError(f"{layout.dir}: another process is recovering it, or has just attached")
    with locked(layout):
        now = Description.read(layout)
        if _was_resumed(description, now):
            return _result(layout, changed=False, message=_RESUMED)
        if not now.complete:
            layout.make_folders()
            Keeper(layout, segment, ref).close(patient=False)
            return _result(layout, changed=True, message="recovered")
    return _recover_files(layout, description, ref, "all was sealed; removed what was left over")


def _was_resumed(before: Description, now: Description) -> bool:
    """Whether run.yaml names another segment than before: another process has resumed the run."""
    return bool(before.segment != now.segment)


@contextmanager
def _locked(layout: RunLayout, description: Description, force: bool) -> Iterator[None]:
    """Keep other processes from recovering the run, also those of other containers if it may be theirs."""
    try:
        with locked(layout, everywhere=liveness.is_elsewhere(description) and not force):
            yield
    except LockError as error:
        raise RunStateError(
            f"{layout.dir}: its folder can't be locked ({error.strerror}), so that another container may be recovering "
            "it too; recover it on the host, or use --force if you know that no process recovers it"
        ) from error


def _recover_files(
    layout: RunLayout, description: Description, ref: SegmentRef | None, message: str, force: bool = False
) -> RecoverResult:
    """Recover from the run folder alone, as after a reboot; one process at a time."""
    from shmlog.flusher.sealer import Sealer
    from shmlog.flusher.sinks import open_sinks

    with _locked(layout, description, force):
        now = Description.read(layout)
        if _was_resumed(description, now):
            return _result(layout, changed=False, message=_RESUMED)
        if not now.complete:
            layout.make_folders()
            ledger = Ledger.load(layout)
            sinks = open_sinks(
                layout, ledger, _sinks_of(layout, now), progress=lambda: None, report=report,
                text_bytes_max=settings_of(now.structured_log).rotate_bytes, first_lanes=now.first_lanes(0),
            )  # fmt: skip
            sealer = Sealer(layout, ledger, sinks, lambda: None, report)
            try:
                sealer.catch_up(max(layout.logs(), default=-1) + 1, wait=True)
            finally:
                sealer.close()
            Provenance(layout, report).finish()
            closing.write_complete(layout, None, ledger)
        closing.clean_up(layout, ref, report)
    return _result(layout, changed=True, message=message)


def _sinks_of(layout: RunLayout, description: Description) -> list[str]:
    """Return the names of the sinks for the metrics of a run."""
    sinks = description.sinks
    if not isinstance(sinks, list) or not sinks:
        raise CorruptDataError(
            f"{layout.run_yaml} does not say where the metrics go (sinks); shmlog.Store(root).rebuild(run) writes it "
            "anew"
        )
    return sinks


def _result(layout: RunLayout, *, changed: bool, message: str) -> RecoverResult:
    description = Description.read(layout)
    records = description.counts.get("metrics", 0) if isinstance(description.counts, dict) else 0
    return RecoverResult(layout.dir, str(description.status), records, changed, message)

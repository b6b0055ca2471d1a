"""Join a run that another process made, as another owner or as a follower of an owner."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

from shmlog import _core
from shmlog.errors import RunNotFoundError, RunStateError, SegmentError, UnreadableError
from shmlog.folder.description import Description, run_id_of
from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import SegmentRef, make_ref, read_ref
from shmlog.run import exits, follow, registry
from shmlog.run.handed import DISABLED, Handed, hand_down
from shmlog.run.run import Run
from shmlog.segment import beacon, shm
from shmlog.segment.beacon import BeaconEntry

_CLOSING_S = 0.2  # how long the flusher of a run that is being closed may hold the member lock
_NOT_THERE = (RunNotFoundError, RunStateError, SegmentError, OSError)  # OSError: perhaps no descriptor is left

_KEPT = 16
_ended: dict[str, Run] = {}
_bound: dict[str, Run] = {}  # of pickled handles


# ---- owners ----


def own(run: Run, segment: _core.Segment) -> None:
    """Make this process an owner of ``run``, and prepare the beacon's entry for it.

    Raises
    ------
    RunStateError
        If the run is being closed, or its segment was replaced.
    """
    made = [(other, other._entry) for other in registry.made.get() if other.is_owner and other._entry is not None]
    under = tuple(entry.begun for other, entry in made if other.is_open)
    ended = [entry.chain for other, entry in made if not other.is_open]
    name = run._ref.name if run._ref is not None else None
    run._beacon, run._entry = beacon.new_entry(run.dir, name, ended[-1] if ended else None, under)
    join_segment(run, segment, is_owner=True)


def make_current(run: Run) -> Run:
    """Make an owned run the current one of its thread or task and of children; it is finished at exit."""
    assert run._entry is not None
    beacon.announce(run._entry, run._announced)
    registry.remember(run, current=True)
    hand_down()
    if run._is_maker:
        run._segment.watch_signals()
    exits.watch()
    return run


def join_as_owner(run_dir: Path) -> Run:
    """Return the run in that folder, with this process as an owner; raises as `shmlog.attach` does."""
    layout = RunLayout(run_dir)
    open_run = registry.find(str(layout.dir))
    if open_run is not None and open_run.is_owner and open_run.is_open:
        return open_run
    ref = read_ref(layout)
    run = Run(layout, ref, owner=True)
    own(run, _open_segment(layout, ref))
    return run


# ---- followers ----


def join_entry(name: str, entry: BeaconEntry) -> Run | None:
    """Return a run that the process of beacon ``name`` has open, as its follower; None if it has just ended."""
    open_run = registry.find(entry.run_dir)
    if open_run is not None and open_run.is_open:
        return open_run
    layout = RunLayout(entry.run_dir)
    try:
        return _join_as_follower(layout, make_ref(layout, entry.segment), name, entry)
    except _NOT_THERE:
        return None


def join_handed(handed: Handed) -> Run:
    """Return the run that was handed down, as a follower; if it has ended, as one that drops all records."""
    assert handed.layout is not None
    assert handed.ref is not None
    if handed.beacon is not None and beacon.path_of(handed.beacon).exists():
        return ended_run(handed.layout, handed.ref)  # its owner lives, and has closed it
    try:
        return _join_as_follower(handed.layout, handed.ref, None, None)
    except _NOT_THERE:
        return ended_run(handed.layout, handed.ref)


def reopen_or_closed(run_dir: str, segment: str | None, name: str | None) -> Run:
    """Return a pickled run in this process: joined, or ended.

    In a follower, the handle belongs to that run alone: a task that outlives the run for which it was sent must not
    log into the next one. Only the run for calls without a run follows the owner.
    """
    open_run = registry.find(run_dir)
    if open_run is not None and open_run.is_owner and open_run.is_open:
        return open_run
    layout = RunLayout(run_dir)
    ref = make_ref(layout, segment)
    shared = open_run if open_run is not None and open_run.is_open else _find_sent(layout, ref, name)
    if not shared.is_open:
        return shared
    bound = _bound.get(run_dir)
    if bound is None or not bound.is_open:
        try:
            bound = _join_as_follower(layout, ref, shared._beacon, shared._entry, follows=False)
        except _NOT_THERE:
            return ended_run(layout, ref)
        _keep(_bound, bound)
    return bound


def _find_sent(layout: RunLayout, ref: SegmentRef, name: str | None) -> Run:
    for entry in follow.entries_of(name) if name is not None else []:
        if entry.run_dir == str(layout.dir):
            return join_entry(name or "", entry) or ended_run(layout, ref)
    return join_handed(Handed(layout, ref, name))


def ended_run(layout: RunLayout, ref: SegmentRef | None) -> Run:
    """Return a run that has ended: records that are logged to it are dropped and counted."""
    run = _ended.get(str(layout.dir))
    if run is None:
        run = Run(layout, ref)
        _keep(_ended, run)
    return run


def _keep(runs: dict[str, Run], run: Run) -> None:
    """Cache a run, and forget the oldest one if there are too many."""
    runs[str(run.dir)] = run
    if len(runs) > _KEPT:
        del runs[next(iter(runs))]


def disabled_run(experiment: str, described: Description | None = None, config: dict[str, Any] | None = None) -> Run:
    """Make a run whose calls do nothing, and make it the current one, here and in all children."""
    run = Run(RunLayout(Path(experiment) / DISABLED), None, described=described, config=config)
    run._disable()
    registry.remember(run, current=True)
    hand_down()
    return run


def _join_as_follower(
    layout: RunLayout, ref: SegmentRef, name: str | None, entry: BeaconEntry | None, *, follows: bool = True
) -> Run:
    segment = _open_segment(layout, ref)
    run = Run(layout, ref)
    run._beacon, run._entry, run._follows = name, entry, follows
    join_segment(run, segment, is_owner=False)
    if follows:
        registry.forget_ended()
        registry.remember(run, current=False)
    return run


class _Kin:
    """The functions of this module for `Run`."""

    reopen = staticmethod(reopen_or_closed)

    @staticmethod
    def is_open(run: Run, if_unknown: bool, /) -> bool:
        return follow.is_open(run, if_unknown)

    @staticmethod
    def next_of(run: Run, /) -> Run | None:
        place = follow.successor(run)
        return join_entry(*place) if place else None

    @staticmethod
    def forget(run: Run, /) -> None:
        registry.forget(run)
        hand_down()


Run._kin = _Kin()


# ---- the segment ----


def _open_segment(layout: RunLayout, ref: SegmentRef) -> _core.Segment:
    try:
        segment = shm.open_segment(ref, _described(layout))
    except FileNotFoundError as error:
        if not layout.dir.is_dir():
            raise RunNotFoundError(f"there is no run folder {layout.dir}") from error
        raise RunStateError(f"run {layout.dir} has ended: its shared memory is gone") from error
    if segment.run_id != layout.run_id and segment.run_id != run_id_of(layout):
        raise SegmentError(f"{ref.path} belongs to run {segment.run_id!r}, not to {layout.run_id!r}")
    if shm.is_of_original(segment, layout.dir):
        raise RunStateError(
            f"{layout.dir} is a copy of {segment.run_dir}, into which all records would go; attach to that one"
        )
    return segment


def _described(layout: RunLayout) -> Description | None:
    """Return the content of run.yaml; None if it is damaged, which must not keep a process from logging."""
    try:
        return Description.read(layout)
    except (OSError, UnreadableError):
        return None


def join_segment(run: Run, segment: _core.Segment, *, is_owner: bool) -> None:
    """Let ``run`` log into a segment.

    Raises
    ------
    RunStateError
        If the run is being closed, or its segment was replaced.
    """
    deadline = time.monotonic() + _CLOSING_S
    token = run._entry.token if run._entry is not None else 0
    while True:
        try:
            run._join(segment, str(segment.path), is_owner, token)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOENT, errno.ESTALE):
                raise
            # The lock is held exclusively, by the flusher that closes the run, or for a moment by a probe.
            if segment.closed or error.errno != errno.EAGAIN or time.monotonic() > deadline:
                raise RunStateError(f"run {run.dir} has ended; start another with shmlog.init") from error
        time.sleep(0.001)

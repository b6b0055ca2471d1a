"""The common part of new and resumed runs: segment, first lane, flusher, and the process in run.yaml."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shmlog.base.boot import boot_id, machine_id
from shmlog.errors import SegmentError, ShmlogError, StorageError
from shmlog.flusher.process import start_flusher
from shmlog.folder.description import Description, run_id_of
from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import SegmentRef
from shmlog.records.reasons import REASONS
from shmlog.run import join
from shmlog.run.environment import environment_of_process
from shmlog.run.options import Options
from shmlog.run.redact import redact_argv
from shmlog.run.run import Run
from shmlog.segment import shm
from shmlog.segment.process import process_of

_EVENT_TYPES = (
    "experiment_start", "config", "progress", "result", "error", "log", "checkpoint", "experiment_end",
)  # fmt: skip

_TRACEPARENT = r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}.*"


def open_segment(
    layout: RunLayout, options: Options, *, first_lane: int = 0, unlaned: dict[str, int] | None = None
) -> tuple[Run, shm.Placed]:
    """Make a segment and join it; if that fails, no segment is left.

    Parameters
    ----------
    first_lane : int
        Number of the lanes of the run's earlier attempts.
    unlaned : dict, optional
        Drops, by reason, of processes without a lane in those attempts.

    Raises
    ------
    SegmentError
        If there is no room for it, or a limit of this process prevents it.
    """
    with _segment_errors(layout):
        placed = shm.create(
            run_id_of(layout), layout.dir, lanes=options.lanes, lane_records=options.lane_records,
            clock=options.clock, private=layout.segment, first_lane=first_lane,
            unlaned=tuple((unlaned or {}).get(reason, 0) for reason in REASONS), drop_policy=options.drop_policy,
        )  # fmt: skip
    try:
        run = Run(layout, SegmentRef(placed.name, placed.path), maker=True, log_settings=options.log_settings)
        run._is_quiet = options.quiet
        with _segment_errors(layout):
            join.own(run, placed.segment)
        for event_type in _EVENT_TYPES:  # they need room, however many names the user makes
            run._intern(event_type)
        _take_first_lane(run)
    except BaseException:
        close_segment(placed)
        raise
    return run, placed


def close_segment(placed: shm.Placed) -> None:
    """Remove a segment that no run.yaml names yet."""
    shm.unlink(SegmentRef(placed.name, placed.path))


@contextmanager
def _segment_errors(layout: RunLayout) -> Iterator[None]:
    """Turn an OSError into a SegmentError that names the limits of descriptors, memory and file sizes."""
    try:
        yield
    except ShmlogError:
        raise
    except OSError as error:
        raise SegmentError(
            f"the shared memory of {layout.dir} can't be made: {error.strerror or error}; "
            "see the limits of this process (ulimit -a)"
        ) from error


def _take_first_lane(run: Run) -> None:
    """Take a lane now, so that a lack of memory is an error here and does not cause drops."""
    try:
        run._allot()
    except OSError as error:
        raise SegmentError(
            f"no room for the first lane in {run._segment.path} ({error.strerror}); enlarge /dev/shm "
            "(docker run --shm-size=256m) or pass a smaller lane_records"
        ) from error


def describe_process(options: Options, placed: shm.Placed, turn: int) -> Description:
    """Return the fields of run.yaml for this process, its ``turn``-th call of init and its segment."""
    status = os.stat(placed.path)
    trace_id, span_id = _span()
    argv = [os.fsencode(a).decode("utf-8", "replace") for a in getattr(sys, "argv", [])]
    return Description(
        host=os.uname().nodename, machine=machine_id(), boot_id=boot_id(), node=0, pid=os.getpid(),
        pid_start=process_of(os.getpid()).start, turn=turn, argv=redact_argv(argv, options.log_settings.redact),
        user=_user(), trace_id=trace_id, span_id=span_id, python=".".join(str(part) for part in sys.version_info[:3]),
        clock=("monotonic", "tsc")[placed.segment.clock],
        segment={"name": placed.name, "path": str(placed.path), "device": status.st_dev, "inode": status.st_ino},
        structured_log=options.log_settings._asdict(), git_diff=bool(options.git_diff),
        environment=environment_of_process(),
    )  # fmt: skip


def _user() -> str:
    """Return what `getpass.getuser` returns, without the import, which takes longer than all of this module."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        name = os.environ.get(variable)
        if name:
            return name
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # no entry for this uid, as in containers
        return str(os.getuid())


def _span() -> tuple[str | None, ...]:
    """Return the span in which this process was started, from W3C trace context: version-trace-span-flags."""
    trace_parent = os.environ.get("TRACEPARENT")
    match = re.fullmatch(_TRACEPARENT, trace_parent) if trace_parent else None
    ids = match.groups() if match else ("0", "0")
    return ids if all(int(number, 16) for number in ids) else (None, None)


def start(run: Run, data: dict[str, Any], config: dict[str, Any]) -> None:
    """Log the start and the parameters, and start the flusher.

    Raises
    ------
    StorageError
        If no process can be started.
    """
    run.event("experiment_start", data)
    if config:
        run.event("config", config)
    try:
        start_flusher(run._layout, run._segment)
    except OSError as error:
        raise StorageError(
            f"the flusher of {run.dir} can't be started ({error.strerror}): check the limits of processes (ulimit -u) "
            "and of memory, and that /bin/sh exists"
        ) from error

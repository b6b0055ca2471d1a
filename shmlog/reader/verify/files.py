"""Checks of run.yaml, config.yaml, and of what should not be in a run folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from shmlog.errors import UnreadableError
from shmlog.folder import liveness
from shmlog.folder.description import SCHEMA
from shmlog.folder.large import read_large
from shmlog.folder.layout import RUN_LOG, RunLayout
from shmlog.folder.runfile import read_mapping
from shmlog.folder.status import PENDING, RUNNING, map_status
from shmlog.reader.snapshot import Snapshot
from shmlog.reader.verify.report import Report
from shmlog.records.late import read_late

_LARGE = re.compile(r"large/[A-Za-z0-9._-]+")


def check_extent(path: Path, layout: RunLayout, snapshot: Snapshot, report: Report) -> None:
    """Check a file without checksums of its own against what is known of it."""
    extent = snapshot.files.get(path.name)
    try:
        fault = extent.fault(path, layout.files) if extent else None
        state = layout.files.state(path) if extent and snapshot.complete and not fault else None
        grown = state.st_size - extent.bytes if extent and state else 0
    except OSError as error:
        fault, grown = f"can't be read ({error.strerror})", 0
    if fault:
        report.error(path, fault)
    elif grown:
        report.error(path, f"{grown} bytes were put behind what the run has written")


def check_large(data: dict[str, Any], layout: RunLayout, report: Report) -> None:
    """Check the file of an event that was too large for the ring."""
    path = data.get("file")
    if set(data) != {"file", "bytes"} or not isinstance(path, str) or not _LARGE.fullmatch(path):
        return
    try:
        size = len(read_large(layout.dir, path, layout.files))
    except OSError as error:
        report.error(layout.dir / path, f"an event's data can't be read ({error})")
        return
    if size != data["bytes"]:
        report.error(layout.dir / path, f"has {size} bytes; {data['bytes']} were written")


def check_description(layout: RunLayout, snapshot: Snapshot, report: Report) -> None:
    """Check what is said about the run, and run.log."""
    for path in (layout.run_log, *layout.text_files(RUN_LOG).values()):
        check_extent(path, layout, snapshot, report)
    check_extent(layout.config_yaml, layout, snapshot, report)
    try:
        read_mapping(layout.config_yaml, layout.files)
    except FileNotFoundError:
        pass  # a run needs no parameters
    except UnreadableError as error:
        report.error(layout.config_yaml, str(error).removeprefix(f"{layout.config_yaml}: "))
    except OSError as error:
        report.error(layout.config_yaml, f"can't be read ({error.strerror})")
    if not any(path == layout.run_yaml for path, _ in snapshot.problems):
        _check_run_yaml(layout, snapshot, report)


def _check_run_yaml(layout: RunLayout, snapshot: Snapshot, report: Report) -> None:
    described, path = snapshot.described, layout.run_yaml
    if described.schema != SCHEMA:
        report.warning(path, f"schema {described.schema!r}, this version of shmlog knows {SCHEMA}")
    if described.run_id != layout.run_id:
        report.warning(path, f"says run {described.run_id!r}: the folder was renamed or copied")
    if described.recovered_without_segment:
        lost = "records that only it held, if there were any, are lost; their number is unknown"
        report.error(path, f"its shared memory was gone when it was recovered: {lost}")
    if not isinstance(described.sinks, list):
        report.error(path, "does not say where the metrics are (sinks)")
    status = map_status(described.status)
    if status is None:
        report.error(path, f"unknown status {described.status!r}")
    elif snapshot.complete and status in (PENDING, RUNNING):
        report.error(path, f"status {status} of a run that is complete")
    fault = described.fault_of_attempts()
    if fault:
        report.error(path, fault)
    lanes = described.damaged_lanes
    for lane in lanes if isinstance(lanes, list) else []:
        report.error(path, f"lane {lane} was damaged in shared memory: what it held is lost")


def check_late(layout: RunLayout, report: Report) -> None:
    """Report counts of late drops that can't be read: what they counted is missing in the run's drops."""
    for problem in read_late(layout)[1]:
        report.error(layout.dir, problem)


def check_leftovers(layout: RunLayout, snapshot: Snapshot, report: Report) -> None:
    """Report files that only an interrupted step has left; a live run has some at any time."""
    live = not snapshot.complete and liveness.members_live(snapshot.described) is not False
    flusher = liveness.flusher_lives(snapshot.described) is True
    if live or flusher:
        return
    for path in layout.leftovers():
        report.warning(path, "a temporary file that was never completed; it can be deleted")
    if not snapshot.complete:
        report.warning(layout.wal, "nobody drains this run any more; 'shmlog recover' finishes it")
        return
    for path in (layout.wal, layout.segment):
        if layout.files.exists(path):
            report.warning(path, "left of a run that is complete; 'shmlog recover' removes it")
    for node in (layout, *layout.other_nodes()):
        for part in node.covered_parts():
            report.warning(part.path, "merged into another part; it can be deleted")

"""Write an imported run as the folder of a finished run: whole, or not at all."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shmlog.base.durable import fsync_dir
from shmlog.base.plain import plain
from shmlog.base.times import timestamp
from shmlog.errors import StorageError
from shmlog.folder import blobs, experiment, runfile
from shmlog.folder.content import ALGORITHM, content_at, copy_content
from shmlog.folder.description import Description
from shmlog.folder.extent import of_file
from shmlog.folder.layout import RunLayout
from shmlog.folder.manifest import write_manifest
from shmlog.folder.root import Root
from shmlog.folder.runfile import ANNOTATED
from shmlog.folder.status import CRASHED, SUCCESS, map_status
from shmlog.reader.event_lines import fault_of
from shmlog.reader.tally import Tally, gap_of
from shmlog.reader.verify.numbers import Numbers
from shmlog.records import parts
from shmlog.records.lanes import NODE, Lane, lane_keys
from shmlog.records.producers import sum_dropped
from shmlog.records.schema import METRICS, with_node
from shmlog.transfer.imported import ImportedRun, numbers_in, owner_of


def write_run(root: Root, layout: RunLayout, run: ImportedRun, source: dict[str, Any]) -> RunLayout:
    """Write the run; return its place, or that of the same run, which another process has written meanwhile."""
    with _temporary(root, layout) as new:
        _fill(new, layout, run, source)
        with root.locked():  # so that of several imports at once one writes the run, whatever their experiments are
            existing = find_run(root, layout.run_id, layout.experiment)
            if existing is None:
                experiment.note(layout.dir.parent, experiment.make(layout.dir.parent))
                os.rename(new.dir, layout.dir)
                fsync_dir(layout.dir.parent)
    return existing or layout


def find_run(root: Root, run_id: str, prefer: str) -> RunLayout | None:
    """Return the run with an id, in whichever experiment, that of a name before others; None if there is none."""
    if root.path.exists() and not root.path.is_dir():
        raise StorageError(f"{root.path} is not a folder")
    for name in sorted(root.experiments(), key=lambda name: name != prefer):
        layout = root.run(name, run_id)
        if layout.files.is_file(layout.run_yaml):
            return layout
    return None


@contextmanager
def _temporary(root: Root, layout: RunLayout) -> Iterator[RunLayout]:
    """Yield a temporary folder beside the experiments, which is removed afterwards."""
    try:
        with root.temporary("imports") as folder:
            yield RunLayout(folder / layout.run_id)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"cannot write the run {layout.dir}: {error.strerror or error}") from error


def _fill(new: RunLayout, layout: RunLayout, run: ImportedRun, source: dict[str, Any]) -> None:
    new.metrics.mkdir(parents=True)
    table, events = _numbered(run.table(), _lines(run), has_attempts=bool(run.attempts))
    tally = Tally()
    if table.num_rows:
        parts.write_part(new.part(0), table, run_id=layout.run_id, first=0, last=0, progress=lambda: None)
        tally.add_metrics(with_node(table, NODE))
    for event in events:
        tally.add_event(event)
    _write_lines(new.events, events)
    _copy(run, new.artifacts, layout.root)
    runfile.write(new.config_yaml, plain(run.params))
    annotations = {name: run.annotations[name] for name in ANNOTATED if name in run.annotations}
    if annotations:
        runfile.write(new.annotations_yaml, plain(annotations))
    producers = tally.producers()
    dropped = sum_dropped(producers)
    counts = {
        "metrics": table.num_rows, "events": sum(producer["events"] for producer in producers),
        "dropped": sum(dropped.values()),
    }  # fmt: skip
    attempts = {"attempts": run.attempts, "attempt": len(run.attempts)} if run.attempts else {}
    described = Description.imported(
        layout, run.described, final_status(run), producers=producers, counts=counts, dropped=dropped,
        complete=True, source=source, **attempts,
        files={path.name: of_file(path)._asdict() for path in (new.events, new.config_yaml)},
    )  # fmt: skip
    described.write(new)
    write_manifest(new)


def final_status(run: ImportedRun) -> str:
    """Return shmlog's word for the source's status; one that is unknown, or says that it runs, has crashed."""
    if run.status is None:
        return SUCCESS
    status = map_status(run.status)
    if status is None:
        run.problems.add("status", f"unknown status {run.status!r}; imported as {CRASHED}")
    elif status in ("pending", "running"):
        run.notes.add("status", f"status {run.status!r}, but an imported run has no process; imported as {CRASHED}")
        status = None
    return status or CRASHED


# ---- events ----


def _lines(run: ImportedRun) -> list[dict[str, Any]]:
    """Return the events as lines of events.jsonl; ``seq`` is -1 where the source has none."""
    lines = []
    for event in run.events:
        owner = {name: event.get(name) for name in ("rank", "local_rank", "worker", "pid")} | owner_of(event)
        lines.append(
            {
                "timestamp": timestamp(event["timestamp"]), "event_type": event["event_type"],
                "data": plain(event["data"]), **owner, "lane": event.get("lane", 0), "seq": event.get("seq", -1),
            }
        )  # fmt: skip
    return lines


def _write_lines(path: Path, events: list[dict[str, Any]]) -> None:
    with open(path, "x", encoding="utf-8") as file:
        file.writelines(json.dumps(event, separators=(",", ":"), allow_nan=False) + "\n" for event in events)
        file.flush()
        os.fsync(file.fileno())


def _copy(run: ImportedRun, folder: Path, root: Path) -> None:
    """Copy the artifacts; content that another run of the root has is stored once."""
    for name, source in run.artifacts.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, blobs.READ_ONLY)
        with open(copy, "r+b") as file:
            if isinstance(source, Path):
                with open(
                    os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb"
                ) as original:
                    content = copy_content(original.fileno(), copy, ALGORITHM)
            else:
                file.write(source)
                file.flush()
                content = content_at(copy, ALGORITHM)
            os.fsync(copy)
        blobs.offer(root, target, content)


# ---- numbers ----


def _numbered(
    table: pa.Table, events: list[dict[str, Any]], *, has_attempts: bool
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Return the records with ``seq`` 0 … n in each lane: with their own if it is so, else with new ones."""
    if all(fault_of(event) is None for event in events) and _are_whole(table, events):
        return table, events
    return _renumber(table, events, has_attempts=has_attempts)


def _are_whole(table: pa.Table, events: list[dict[str, Any]]) -> bool:
    numbers = Numbers()
    lanes, seqs = table["lane"].to_numpy(), table["seq"].to_numpy()
    if len(seqs) and (seqs.min() < 0 or lanes.min() < 0 or seqs.max() >= 1 << 60):
        return False
    numbers.add(lane_keys(with_node(table, NODE)), seqs)
    spans = [(Lane.of_line(event).key, event["seq"], _span(event)) for event in events]
    numbers.add(*np.array(spans, np.int64).reshape(-1, 3).T)
    return next(numbers.problems(), None) is None


def _span(event: dict[str, Any]) -> int:
    """Return how many values of ``seq`` an event takes."""
    gap = gap_of(event)
    return 1 if gap is None else sum(gap.values())


def _renumber(
    table: pa.Table, events: list[dict[str, Any]], *, has_attempts: bool
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Return the records with new numbers, the metrics of a lane before its events; one lane, or one an attempt."""
    lanes = table["lane"].to_numpy() if has_attempts else np.zeros(table.num_rows, np.int32)
    for name, values in (("lane", lanes), ("seq", numbers_in(lanes))):
        at = METRICS.get_field_index(name)
        table = table.set_column(at, METRICS.field(at), pa.array(values))
    following = Counter(dict(zip(*(part.tolist() for part in np.unique(lanes, return_counts=True)), strict=True)))
    for event in events:
        lane = event["lane"] if has_attempts else 0
        event |= {"lane": lane, "seq": following[lane]}
        following[lane] += _span(event)
    return table, events

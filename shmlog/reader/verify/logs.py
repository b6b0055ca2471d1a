"""Checks of the write-ahead logs that are not sealed."""

from __future__ import annotations

import json

import numpy as np

from shmlog.errors import UnreadableError
from shmlog.folder.files import LOG_BYTES_MAX
from shmlog.folder.layout import RunLayout
from shmlog.reader.snapshot import Snapshot, read_frames
from shmlog.reader.verify.files import check_large
from shmlog.reader.verify.numbers import Numbers
from shmlog.reader.verify.report import Report
from shmlog.records.decode import Batch, Decoder
from shmlog.records.lanes import NODE, Lane, lane_keys
from shmlog.records.schema import with_node
from shmlog.records.wal import FIRST, TORN_TAIL, Damage, Frame


def check(layout: RunLayout, snapshot: Snapshot, numbers: Numbers, report: Report) -> None:
    """Check the frames of the logs and the records in them; add their numbers."""
    decoder = Decoder(layout.dir, files=layout.files)
    due = snapshot.next_log or 0
    for number, data in sorted(snapshot.logs.items()):
        if number != due:
            report.error(layout.log(due), "this log is missing")
        due = number + 1
        frames, damage = read_frames(layout.log(number), number, data, snapshot.run_id)
        report.counts["logs"] += 1
        report.counts["frames"] += len(frames)
        _check_order(frames, report)
        batch = decoder.decode(frames)
        _report([*damage, *batch.damage], report)
        _count(layout, batch, numbers, report)


def check_kept(layout: RunLayout, snapshot: Snapshot, report: Report) -> None:
    """Report what lies in the logs that were put aside when they were sealed, and is in no file."""
    for number, path in layout.kept_logs():
        try:
            data = layout.files.read(path, LOG_BYTES_MAX)
        except UnreadableError as error:
            report.error(path, str(error).removeprefix(f"{path}: "))
            continue
        _report(read_frames(path, number, data, snapshot.run_id)[1], report)


def _check_order(frames: list[Frame], report: Report) -> None:
    for i, frame in enumerate(frames):
        if frame.index != i:
            report.error(frame.path, f"frame {frame.index} at byte {frame.offset}, where frame {i} is due")
            return
    if frames and not frames[0].flags & FIRST:
        report.error(frames[0].path, "the first frame does not repeat the full state")


def _report(damage: list[Damage], report: Report) -> None:
    for piece in damage:
        where = f"{piece.reason}, {piece.length} bytes at byte {piece.offset}"
        if piece.reason == TORN_TAIL:
            # A flusher killed in the middle of a write leaves one; what it held was written again.
            report.warning(piece.path, where)
        else:
            report.error(piece.path, where)


def _count(layout: RunLayout, batch: Batch, numbers: Numbers, report: Report) -> None:
    report.counts["rows"] += batch.metrics.num_rows
    report.counts["events"] += len(batch.events)
    numbers.add(lane_keys(with_node(batch.metrics, NODE)), batch.metrics["seq"].to_numpy())
    events = np.array([(Lane(NODE, e.lane).key, e.seq, 1) for e in batch.events], np.int64)
    gaps = np.array([(Lane(NODE, gap.lane).key, gap.seq, sum(gap.dropped.values())) for gap in batch.gaps], np.int64)
    for runs in (events, gaps):
        numbers.add(*runs.reshape(-1, 3).T)
    for event in batch.events:
        if event.data.startswith('{"file": '):
            check_large(json.loads(event.data), layout, report)

"""The beginning and the end of a flusher's life: where the last one stopped, and what this one writes into run.yaml."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from shmlog import _core
from shmlog.base.durable import sweep
from shmlog.base.times import timestamp, utc_now
from shmlog.errors import UnreadableError
from shmlog.folder.description import Description, run_id_of
from shmlog.folder.extent import of_file
from shmlog.folder.files import LOG_BYTES_MAX
from shmlog.folder.layout import RunLayout
from shmlog.folder.manifest import write_manifest
from shmlog.folder.segmentref import SegmentRef
from shmlog.folder.status import CRASHED, FINISH_STATUSES, PENDING, RUNNING, status_ended_by
from shmlog.records.ledger import Ledger, read_kept_logs
from shmlog.segment import beacon, meeting, shm

if TYPE_CHECKING:
    from shmlog.records.decode import Cursor

RETRY_S = 1.0
MERGE_TRIES = 5


def restore_cursors(drain: _core.Drain, segment: _core.Segment, layout: RunLayout) -> None:
    """Let the drain continue after the records in the logs of earlier flushers."""
    from shmlog.records.decode import Decoder
    from shmlog.records.wal import Frame, scan

    decoder = Decoder(layout.dir)
    for number in layout.logs():
        path = layout.log(number)
        pieces = scan(layout.files.read(path, LOG_BYTES_MAX), path=path, log=number, run_id=segment.run_id)
        frames = [piece for piece in pieces if isinstance(piece, Frame)]
        decoder.decode(frames)
    for number in range(segment.lanes):
        cursor, drained = decoder.cursors.get(segment.first_lane + number), segment.lane(number)
        if drained["tail"] > (cursor.position if cursor else 0):
            cursor = _behind_lost_frames(cursor or _sealed_end(layout, segment.first_lane + number), drained)
        if cursor is not None:
            gapped = tuple(cursor.gapped)
            drain.restore(number, cursor.position, cursor.seq, cursor.tenancy, gapped, cursor.owner_json)


def _sealed_end(layout: RunLayout, lane: int) -> Cursor:
    """Return the cursor, from the books, of a lane that is in no log; they don't have its position."""
    from shmlog.records.decode import Cursor

    seq, gapped = Ledger.load(layout).end_of(lane)
    return Cursor(position=0, seq=seq, tenancy=0, gapped=gapped, owner_json=b"")


def _behind_lost_frames(cursor: Cursor, drained: dict[str, int]) -> Cursor:
    """Return the cursor of a lane whose tail is ahead of the logs: frames that were written are gone.

    Their records are missing in the files, and the sequence numbers show how many. The next GAP reports again
    the drops of a GAP among them.
    """
    from shmlog.records.columns import COUNT_MAX

    seq = drained["seq"] - max(0, drained["gapped"] - sum(cursor.gapped))
    if not cursor.seq <= seq <= COUNT_MAX:
        seq = cursor.seq  # damaged, or of another version, which did not store it
    owner_json = cursor.owner_json if drained["tenancy"] == cursor.tenancy else b""
    return replace(
        cursor,
        position=drained["tail"],
        seq=seq,
        tenancy=max(cursor.tenancy, drained["tenancy"]),
        owner_json=owner_json,
    )


def first_log(layout: RunLayout, segment: _core.Segment) -> int:
    """Return the number of the first log to write if there is none.

    As long as nothing was drained, it is the first number that is not sealed, which is not 0 if the run was resumed.
    Otherwise all records of the segment are sealed, and a process that drains it once more has to write into a log
    that does not count.

    Raises
    ------
    CorruptDataError
        If the run is not complete, and its books are missing or damaged.
    """
    was_drained = any(segment.lane(number)["tail"] for number in range(segment.lanes))
    if was_drained and Description.read(layout).complete:
        return 0
    next_log = Ledger.load(layout).next_log
    return 0 if was_drained else next_log


def note_lost(segment: _core.Segment, ledger: Ledger) -> None:
    """Tell the attached processes how many records this attempt has lost."""
    if ledger.kept_logs:
        segment.note_lost(sum(abs(count) for lane, count in ledger.lost().items() if lane >= segment.first_lane))


def _write(layout: RunLayout, segment: _core.Segment | None, ledger: Ledger, *, complete: bool) -> None:
    description = Description.read(layout)
    status = FINISH_STATUSES.get(segment.finish_status) if segment is not None else None
    if status is None and complete and description.status in (None, PENDING, RUNNING):
        status = CRASHED if segment is None else status_ended_by(segment.ended_by)
    damaged_lanes = None
    if segment is not None:
        ledger.set_unlaned(segment.unlaned)
        note_lost(segment, ledger)
        damaged_lanes = _damaged_lanes(segment, description.damaged_lanes)
    ended_at = timestamp(segment.ended_us) if segment is not None and segment.ended_us else None
    description = description.finished(
        status, ended_at, damaged_lanes, producers=ledger.producers(), counts=ledger.counts(), dropped=ledger.dropped(),
        offered=ledger.offered(), lost={str(lane): count for lane, count in ledger.lost().items()},
        kept_logs=ledger.kept_logs, complete=complete, sealed_at=utc_now() if complete else None,
    )  # fmt: skip
    if complete:
        layout.manifest.unlink(missing_ok=True)  # of an earlier attempt, if a kill has kept it
        description.files = written_files(layout, ledger)
    description.write(layout)


def _damaged_lanes(segment: _core.Segment, listed: object) -> list[int]:
    """Return the damaged lanes of all attempts; ``listed`` are those in run.yaml."""
    first = segment.first_lane
    earlier = [lane for lane in listed if type(lane) is int and lane < first] if isinstance(listed, list) else []
    return earlier + [first + n for n in range(segment.lanes) if segment.lane(n)["damaged"]]


def written_files(layout: RunLayout, ledger: Ledger) -> dict[str, dict[str, int]]:
    """Return length and checksum of the files that hold no checksum and no longer change."""
    files = ledger.files()
    with suppress(FileNotFoundError, UnreadableError):  # missing, or not a file of ours
        files[layout.config_yaml.name] = of_file(layout.config_yaml)._asdict()
    return files


def write_finished(layout: RunLayout, segment: _core.Segment, ledger: Ledger) -> None:
    """Write status and counts of a run whose maker has finished it."""
    _write(layout, segment, ledger, complete=False)


def write_complete(layout: RunLayout, segment: _core.Segment | None, ledger: Ledger) -> None:
    """Write the final state of a drained run. If it was not finished, a signal has stopped it, or it has crashed."""
    _write(layout, segment, ledger, complete=True)


def clean_up(layout: RunLayout, ref: SegmentRef | None, report: Callable[[str], None]) -> None:
    """Merge the parts of a complete run, write its manifest, and remove files that it no longer needs.

    The folder of the logs is removed last: as long as it exists, a recovery does all of this again.
    """
    from shmlog.flusher.sealer import remove_wal

    layout.refuse_links()
    description = Description.read(layout)
    if ref is not None:
        shm.unlink(ref, description)
    meeting.sweep()
    beacon.sweep()
    _merge_parts(layout, report)
    _write_manifest(layout, report)
    for folder in (layout.dir, layout.metrics, layout.wal):  # temporary files of killed processes
        sweep(folder)
    remove_wal(layout, read_kept_logs(description.kept_logs))


def _merge_parts(layout: RunLayout, report: Callable[[str], None]) -> None:
    """Merge the parts. The run is complete without it: don't wait long for a disk that fails."""
    from shmlog.records.merge import merge, remove_covered

    for _ in range(MERGE_TRIES):
        try:
            parts, run_id = layout.parts(), run_id_of(layout)
            if parts:
                merge(layout, run_id=run_id, parts=parts, progress=lambda: None)
            remove_covered(layout, run_id)
        except OSError as error:
            report(f"merging: {error}")
            time.sleep(RETRY_S)
        except Exception:
            report(traceback.format_exc())
            return
        else:
            return


def _write_manifest(layout: RunLayout, report: Callable[[str], None]) -> None:
    """Write the manifest; the run is complete without it."""
    try:
        write_manifest(layout)
    except OSError as error:
        report(f"manifest: {error}")

"""Around a life of the flusher: where the last one stopped, and what run.yaml says of this one."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from shmlog import _core
from shmlog.errors import CorruptDataError
from shmlog.segment import beacon, meeting, shm
from shmlog.storage import runfile
from shmlog.storage.attempts import close_attempt
from shmlog.storage.extent import of_file
from shmlog.storage.layout import TEMPORARY_SUFFIX, RunLayout
from shmlog.storage.ledger import Ledger
from shmlog.storage.manifest import write_manifest
from shmlog.storage.regular import LOG_BYTES_MAX, read_regular
from shmlog.storage.segmentref import SegmentRef
from shmlog.storage.status import CRASHED, FINISH_STATUSES, status_ended_by
from shmlog.storage.times import utc_now

RETRY_S = 1.0
MERGE_TRIES = 5


def restore_cursors(drain: _core.Drain, segment: _core.Segment, layout: RunLayout) -> None:
    """Have the drain go on behind what the logs of earlier flushers hold."""
    from shmlog.storage.decode import Decoder
    from shmlog.storage.wal import Frame, scan

    decoder = Decoder(layout.dir)
    for number in layout.logs():
        path = layout.log(number)
        data = read_regular(path, LOG_BYTES_MAX)
        frames = [found for found in scan(data, path=path, log=number) if isinstance(found, Frame)]
        decoder.decode(frames)
    for lane, cursor in decoder.cursors.items():
        # Tail is ahead only if a frame was lost that had been written: what it held is gone.
        own = lane - segment.first_lane
        position = max(cursor.position, segment.lane(own)["tail"])
        drain.restore(own, position, cursor.seq, cursor.tenancy, tuple(cursor.gapped), cursor.owner_json)


def first_log(layout: RunLayout, segment: _core.Segment) -> int:
    """Return the number of the log to begin with where there is none.

    As long as nothing was drained that is the first which is not sealed, not 0 if the run was resumed.
    Else all that the segment has held is sealed, and who drains it once more shall do so into a log that
    does not count.
    """
    if any(segment.lane(number)["tail"] for number in range(segment.lanes)):
        return 0
    return Ledger.load(layout).next_log


def _write(layout: RunLayout, segment: _core.Segment | None, ledger: Ledger, *, complete: bool) -> None:
    described = runfile.read(layout.run_yaml)
    status = FINISH_STATUSES.get(segment.finish_status) if segment is not None else None
    if status is None and complete and described.get("status") in (None, "pending", "running"):
        status = CRASHED if segment is None else status_ended_by(segment.ended_by)
    if status is not None:
        described["status"] = status
        described["ended_at"] = described.get("ended_at") or utc_now()
    if segment is not None:
        ledger.set_unlaned(segment.unlaned)
        described["damaged_lanes"] = _damaged_lanes(segment, described.get("damaged_lanes"))
    described["producers"] = ledger.producers()
    described["counts"] = ledger.counts()
    described["dropped"] = ledger.dropped()
    described["complete"] = complete
    close_attempt(described)
    if complete:
        layout.manifest.unlink(missing_ok=True)  # of an earlier attempt, and kept by a kill
        described["files"] = written_files(layout, ledger)
    runfile.write_sealed(layout.run_yaml, described)


def _damaged_lanes(segment: _core.Segment, told: object) -> list[int]:
    """Return the lanes that were found damaged, in earlier attempts too."""
    first = segment.first_lane
    earlier = [lane for lane in told if type(lane) is int and lane < first] if isinstance(told, list) else []
    return earlier + [first + n for n in range(segment.lanes) if segment.lane(n)["damaged"]]


def written_files(layout: RunLayout, ledger: Ledger) -> dict[str, dict[str, int]]:
    """Return length and checksum of the files that have none of their own and change no more."""
    files = ledger.files()
    with suppress(FileNotFoundError, CorruptDataError):  # there is none of ours
        files[layout.config_yaml.name] = of_file(layout.config_yaml)._asdict()
    return files


def write_finished(layout: RunLayout, segment: _core.Segment, ledger: Ledger) -> None:
    """Write status and counts of a run whose maker has finished it."""
    _write(layout, segment, ledger, complete=False)


def write_complete(layout: RunLayout, segment: _core.Segment | None, ledger: Ledger) -> None:
    """Write the final state: nothing is left to drain. Without a finish a signal has stopped it, or it has crashed."""
    _write(layout, segment, ledger, complete=True)


def clean_up(layout: RunLayout, ref: SegmentRef | None, report: Callable[[str], None]) -> None:
    """Merge the parts of a run whose run.yaml says that it is complete, list its files, remove what it needs no more.

    The folder of the logs goes last: as long as it is there, a recovery does all of this again.
    """
    from shmlog.flusher.sealer import remove_wal

    if ref is not None:
        shm.unlink(ref)
    meeting.sweep()
    beacon.sweep()
    _merge_parts(layout, report)
    _write_manifest(layout, report)
    for folder in (layout.dir, layout.metrics, layout.wal):  # what was being written at a kill
        for temporary in folder.glob(f"*{TEMPORARY_SUFFIX}"):
            temporary.unlink(missing_ok=True)
    remove_wal(layout)


def _merge_parts(layout: RunLayout, report: Callable[[str], None]) -> None:
    """Merge the parts. The run is whole without it: no long wait for a disk that fails."""
    from shmlog.storage.merge import merge, remove_covered

    for _ in range(MERGE_TRIES):
        try:
            parts = layout.parts()
            if parts:
                merge(layout, run_id=layout.run_id, parts=parts, progress=lambda: None)
            remove_covered(layout)
        except OSError as error:
            report(f"merging: {error}")
            time.sleep(RETRY_S)
        except Exception:
            report(traceback.format_exc())
            return
        else:
            return


def _write_manifest(layout: RunLayout, report: Callable[[str], None]) -> None:
    """List the files with their digests; nobody waits for it, and the run is whole without it."""
    try:
        write_manifest(layout)
    except OSError as error:
        report(f"manifest: {error}")

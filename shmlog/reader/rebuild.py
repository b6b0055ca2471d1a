"""run.yaml once more, from what is left of it and from the rest of the run."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shmlog.base.times import rfc3339
from shmlog.errors import CorruptDataError
from shmlog.folder.description import Description, begun_attempt
from shmlog.folder.layout import RunLayout
from shmlog.folder.regular import read_regular
from shmlog.folder.root import STAMP
from shmlog.folder.runfile import read_provenance
from shmlog.folder.status import CRASHED, RUNNING, status_of_events
from shmlog.reader import read, snapshot
from shmlog.reader.event_lines import Line, is_call, read_lines

_SALVAGED_MAX = 16 << 20
_FIELD = re.compile(r'^  "(\w{1,40})": ', re.MULTILINE)  # as runfile writes it


def rebuild_description(layout: RunLayout) -> Description:
    """Return what run.yaml would say, as far as its remains, the events and the folder tell.

    Nothing is written.
    """
    events = _events(layout)
    told, salvaged = _of_events(events), _salvage(layout.run_yaml)
    rebuilt = Description.rebuilt(layout, created_at=_created_at(layout), from_events=told, salvaged=salvaged)
    rebuilt.fill(sinks=_sinks(layout), complete=not layout.sealed_json.exists() and not layout.logs())
    rebuilt = rebuilt.changed(**_of_provenance(layout, rebuilt.latest_attempt()))
    for attempt in rebuilt.attempts or [] if rebuilt.fault_of_attempts() is None else []:
        attempt |= _of_provenance(layout, attempt["attempt"])
    rebuilt.name = rebuilt.name or layout.run_id
    # Where it was is not known: recover then asks to be told that its processes are dead.
    rebuilt.segment = rebuilt.segment or {"name": None, "path": str(layout.segment), "device": None, "inode": None}
    rebuilt.status = status_of_events(events) or rebuilt.status or (CRASHED if rebuilt.complete else RUNNING)
    return rebuilt


def _created_at(layout: RunLayout) -> str:
    """Return when the run was created, from its id or else from its folder."""
    stamp = STAMP.match(layout.run_id)
    try:
        when = datetime.strptime(stamp[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC) if stamp else None
    except ValueError:
        when = None
    return rfc3339(when or datetime.fromtimestamp(layout.dir.stat().st_mtime, UTC))


def _events(layout: RunLayout) -> list[dict[str, Any]]:
    try:
        if _is_file(layout.run_yaml):
            return read.read_events(layout, snapshot.take(layout), None)[0]
    except (CorruptDataError, OSError):
        pass  # its logs can't be told from what is sealed: events.jsonl then has to do
    return [line.event for line in _lines(layout, skip_calls=True) if line.event is not None]


def _lines(layout: RunLayout, *, skip_calls: bool = False) -> Iterator[Line]:
    """Yield all lines of events.jsonl and of the files that it goes on in."""
    for path in layout.event_files().values():
        with suppress(CorruptDataError):  # no file of lines: it tells nothing
            yield from read_lines(path, None, skip_calls=skip_calls)


def _is_file(path: Path) -> bool:
    """Whether a path is a file, and no link, and nothing that one may wait on for ever."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _of_events(events: list[dict[str, Any]]) -> Description:
    found, attempts = Description(), []
    for event in events:
        data = event.get("data")
        if not isinstance(data, dict):
            continue
        if event.get("event_type") == "experiment_start":
            begun_at = event.get("timestamp")
            found.fill(started_at=begun_at)
            given = {name: data[name] for name in ("name", "tags") if data.get(name) is not None}
            found = found.changed(ended_at=None, **given)
            number, lane = data.get("attempt", 1), event.get("lane")  # whoever begins an attempt has its first lane
            attempts.append(begun_attempt(number, first_lane=lane, started_at=begun_at, pid=event.get("pid")))
        elif event.get("event_type") == "experiment_end":
            found.ended_at = event.get("timestamp")
    listed = found.changed(attempts=attempts, attempt=len(attempts))
    return found.changed(attempt=1) if listed.fault_of_attempts() else listed


def _of_provenance(layout: RunLayout, attempt: int) -> dict[str, Any]:
    try:
        found = read_provenance(layout, attempt)
    except (CorruptDataError, OSError):
        return {}
    return {name: found[name] for name in ("git", "environment") if isinstance(found.get(name), dict)}


def _salvage(path: Path) -> dict[str, Any]:
    """Return the fields of a damaged run.yaml that are whole, as runfile writes them: one below the other."""
    if not _is_file(path) or path.stat().st_size > _SALVAGED_MAX:
        return {}
    text = read_regular(path).decode("utf-8", "replace")
    decoder = json.JSONDecoder()
    found: dict[str, Any] = {}
    for match in _FIELD.finditer(text):
        try:
            value, end = decoder.raw_decode(text, match.end())
        except (ValueError, RecursionError):
            continue
        # A number that the file ends in may have had more digits.
        if match[1] not in found and text[end : end + 1] in (",", "\n"):
            found[match[1]] = value
    return found


def _sinks(layout: RunLayout) -> list[str]:
    """Return where the metrics of the run are, judged by where some are; as by default where none are yet."""
    has_parts = bool(layout.parts())
    has_lines = any(line.event and is_call(line.event) for line in _lines(layout))
    return ["parquet"] * (has_parts or not has_lines) + ["jsonl"] * has_lines

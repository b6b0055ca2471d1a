"""Rebuild run.yaml from its remains and from the rest of the run."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from shmlog.base.times import rfc3339
from shmlog.errors import UnreadableError
from shmlog.folder.description import Description, begun_attempt
from shmlog.folder.layout import RunLayout
from shmlog.folder.root import STAMP
from shmlog.folder.runfile import read_provenance
from shmlog.folder.status import CRASHED, RUNNING, status_of_events
from shmlog.reader import read, snapshot
from shmlog.reader.event_lines import Line, is_call, read_lines

_SALVAGED_MAX = 16 << 20
_FIELD = re.compile(r'^  "(\w{1,40})": ', re.MULTILINE)  # as runfile writes it


def rebuild_description(layout: RunLayout) -> Description:
    """Return the description that run.yaml would hold, from its remains, the events and the folder.

    Nothing is written.
    """
    events = _events(layout)
    from_events, salvaged = _of_events(events), _salvage(layout)
    rebuilt = Description.rebuilt(layout, created_at=_created_at(layout), from_events=from_events, salvaged=salvaged)
    rebuilt.fill(sinks=_sinks(layout), complete=not layout.files.exists(layout.sealed_json) and not layout.logs())
    rebuilt = rebuilt.changed(**_of_provenance(layout, rebuilt.latest_attempt()))
    for attempt in rebuilt.attempts or [] if rebuilt.fault_of_attempts() is None else []:
        attempt |= _of_provenance(layout, attempt["attempt"])
    rebuilt.name = rebuilt.name or layout.run_id
    # The segment is unknown: recover then asks the user to say that the processes are dead.
    rebuilt.segment = rebuilt.segment or {"name": None, "path": str(layout.segment), "device": None, "inode": None}
    rebuilt.status = status_of_events(events) or rebuilt.status or (CRASHED if rebuilt.complete else RUNNING)
    return rebuilt


def _created_at(layout: RunLayout) -> str:
    """Return when the run was created, by its id or else by its folder."""
    stamp = STAMP.match(layout.run_id)
    try:
        created_at = datetime.strptime(stamp[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC) if stamp else None
    except ValueError:
        created_at = None
    folder = layout.files.state(layout.dir)
    return rfc3339(created_at or datetime.fromtimestamp(folder.st_mtime if folder else 0, UTC))


def _events(layout: RunLayout) -> list[dict[str, Any]]:
    try:
        if _state(layout):
            return read.read_events(layout, snapshot.take(layout), None)[0]
    except (UnreadableError, OSError):
        pass  # which logs are sealed is unknown: events.jsonl alone has to do
    return [line.event for line in _lines(layout, skip_calls=True) if line.event is not None]


def _lines(layout: RunLayout, *, skip_calls: bool = False) -> Iterator[Line]:
    """Yield all lines of events.jsonl and of the files that continue it."""
    for path in layout.event_files().values():
        with suppress(UnreadableError):  # not a file of lines: there is nothing to read
            yield from read_lines(path, None, skip_calls=skip_calls, files=layout.files)


def _state(layout: RunLayout) -> os.stat_result | None:
    """Return the state of run.yaml, or None if it is missing, or a link, a pipe or the like."""
    state = layout.files.known_state(layout.run_yaml)
    return state if state and stat.S_ISREG(state.st_mode) else None


def _of_events(events: list[dict[str, Any]]) -> Description:
    description, attempts = Description(), []
    for event in events:
        data = event.get("data")
        if not isinstance(data, dict):
            continue
        if event.get("event_type") == "experiment_start":
            begun_at = event.get("timestamp")
            description.fill(started_at=begun_at)
            texts = {name: data[name] for name in ("name", "tags") if data.get(name) is not None}
            description = description.changed(ended_at=None, **texts)
            # The process that begins an attempt has its first lane.
            number, lane = data.get("attempt", 1), event.get("lane")
            attempts.append(begun_attempt(number, first_lane=lane, started_at=begun_at, pid=event.get("pid")))
        elif event.get("event_type") == "experiment_end":
            description.ended_at = event.get("timestamp")
    listed = description.changed(attempts=attempts, attempt=len(attempts))
    return description.changed(attempt=1) if listed.fault_of_attempts() else listed


def _of_provenance(layout: RunLayout, attempt: int) -> dict[str, Any]:
    try:
        provenance = read_provenance(layout, attempt)
    except (UnreadableError, OSError):
        return {}
    return {name: provenance[name] for name in ("git", "environment") if isinstance(provenance.get(name), dict)}


def _salvage(layout: RunLayout) -> dict[str, Any]:
    """Return the fields of a damaged run.yaml that are whole, as runfile writes them: one below the other."""
    state = _state(layout)
    if state is None or state.st_size > _SALVAGED_MAX:
        return {}
    text = layout.files.read(layout.run_yaml).decode("utf-8", "replace")
    decoder = json.JSONDecoder()
    fields: dict[str, Any] = {}
    for match in _FIELD.finditer(text):
        try:
            value, end = decoder.raw_decode(text, match.end())
        except (ValueError, RecursionError):
            continue
        # A number that the file ends in may have had more digits.
        if match[1] not in fields and text[end : end + 1] in (",", "\n"):
            fields[match[1]] = value
    return fields


def _sinks(layout: RunLayout) -> list[str]:
    """Return the sinks of the metrics, by where some lie; the default if there are none yet."""
    has_parts = bool(layout.parts())
    has_lines = any(line.event and is_call(line.event) for line in _lines(layout))
    return ["parquet"] * (has_parts or not has_lines) + ["jsonl"] * has_lines

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
from shmlog.folder.attempts import fault_of_attempts, latest_attempt
from shmlog.folder.layout import RunLayout
from shmlog.folder.regular import read_regular
from shmlog.folder.root import STAMP
from shmlog.folder.runfile import read_provenance
from shmlog.folder.status import CRASHED, RUNNING, status_of_events
from shmlog.reader import records, snapshot
from shmlog.reader.event_lines import Line, is_call, read_lines

_SALVAGED_MAX = 16 << 20
_FIELD = re.compile(r'^  "(\w{1,40})": ', re.MULTILINE)  # as runfile writes it

# What the flusher, recover and readers rely on.
_EMPTY: dict[str, Any] = {
    "schema": 1, "name": None, "status": None, "created_at": None, "started_at": None, "ended_at": None,
    "host": None, "machine": None, "boot_id": None, "node": 0, "pid": None, "argv": [], "user": None, "python": None,
    "clock": None,
    "segment": None, "tags": [], "group": None, "notes": None, "parent": None, "git": None,
    "environment": {},
    "producers": None, "counts": None, "dropped": None,
}  # fmt: skip


def rebuild_description(layout: RunLayout) -> dict[str, Any]:
    """Return what run.yaml would say, as far as its remains, the events and the folder tell.

    Nothing is written.
    """
    events = _events(layout)
    told = {**_EMPTY, **_of_folder(layout), **_of_events(events), **_salvage(layout.run_yaml)}
    told |= {"run_id": layout.run_id, "experiment": layout.experiment}
    told.setdefault("sinks", _sinks(layout))
    told.setdefault("complete", not layout.sealed_json.exists() and not layout.logs())
    told |= _of_provenance(layout, latest_attempt(told))
    for attempt in told.get("attempts", []) if fault_of_attempts(told) is None else []:
        attempt |= _of_provenance(layout, attempt["attempt"])
    told["name"] = told["name"] or layout.run_id
    # Where it was is not known: recover then asks to be told that its processes are dead.
    told["segment"] = told["segment"] or {"name": None, "path": str(layout.segment), "device": None, "inode": None}
    told["status"] = status_of_events(events) or told["status"] or (CRASHED if told["complete"] else RUNNING)
    return told


def _of_folder(layout: RunLayout) -> dict[str, Any]:
    """Return when the run was created, from its id or else from its folder."""
    stamp = STAMP.match(layout.run_id)
    try:
        when = datetime.strptime(stamp[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC) if stamp else None
    except ValueError:
        when = None
    return {"created_at": rfc3339(when or datetime.fromtimestamp(layout.dir.stat().st_mtime, UTC))}


def _events(layout: RunLayout) -> list[dict[str, Any]]:
    try:
        if _is_file(layout.run_yaml):
            return records.read_events(layout, snapshot.take(layout), None)[0]
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


def _of_events(events: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for event in events:
        data = event.get("data")
        if not isinstance(data, dict):
            continue
        if event.get("event_type") == "experiment_start":
            found["ended_at"] = None
            found.setdefault("started_at", event.get("timestamp"))
            found |= {name: data[name] for name in ("name", "tags") if data.get(name) is not None}
            found.setdefault("attempts", []).append(_attempt(event, data))
        elif event.get("event_type") == "experiment_end":
            found["ended_at"] = event.get("timestamp")
    if fault_of_attempts(found):
        del found["attempts"]
    return found | {"attempt": len(found.get("attempts", [1]))}


def _attempt(event: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Return the attempt that an event began: whoever begins one has its first lane."""
    return {
        "attempt": data.get("attempt", 1), "first_lane": event.get("lane"), "status": None,
        "started_at": event.get("timestamp"), "ended_at": None, "pid": event.get("pid"), "config": {},
    }  # fmt: skip


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

"""Structured events from an events.jsonl, also one that was cut or is being written to."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shmlog.base.times import timestamp
from shmlog.base.warn import warn_caller
from shmlog.errors import RunNotFoundError
from shmlog.folder.layout import EVENTS, RunLayout
from shmlog.reader.event_lines import read_lines
from shmlog.reader.foreign import TIMES, first_of, is_plain, time_us
from shmlog.reader.stored import load


def load_structured_logs(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the events of a run, or of a file of JSON lines.

    Parameters
    ----------
    path : path
        An events.jsonl of shmlog or a file of another logger, whose last line may be torn, and whose numbers may be
        NaN and Infinity; the files beside it that continue it (events.1.jsonl …) are read, too. Or a run folder:
        then events that are in no such file yet are returned, too, but no metrics.

    Returns
    -------
    list of dict
        In the order of the file.

    Raises
    ------
    RunNotFoundError
        If the path is neither.

    Warns
    -----
    ShmlogWarning
        If a complete line is not a JSON object; it is left out.
    """
    place = Path(path)
    if place.is_dir():
        return load(place).events()
    if not place.is_file():
        raise RunNotFoundError(f"{place}: neither a file nor a run folder")
    if place.name == EVENTS.name(0):
        return [event for path in RunLayout(place.parent).event_files().values() for event in _read(path)]
    return list(_read(place))


def _read(path: Path) -> Iterator[dict[str, Any]]:
    bad = 0
    for line in read_lines(path, None, of_others=True):
        if line.event is not None:
            yield line.event
        elif line.is_whole:
            bad += 1
    if bad:
        warn_caller(f"{path}: {bad} lines are not JSON objects; left out")


def analyze_logs(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Count the events of a run, or of a file of JSON lines.

    Parameters
    ----------
    path : path
        As for `load_structured_logs`; the errors are the same, too.

    Returns
    -------
    dict
        ``total_events``; ``event_counts`` by type, the most frequent first, where lines such as
        ``{"step": 1, "loss": 0.5}`` count as ``metrics``; ``start_time`` and
        ``end_time``, RFC 3339, of the first ``experiment_start`` and the last ``experiment_end`` or else of
        the first and last event; ``final_status`` of the last ``experiment_end``, or of the run if it
        ended at the exit of its process; else None.
    """
    events = load_structured_logs(path)
    starts = [event for event in events if event.get("event_type") == "experiment_start"]
    ends = [event for event in events if event.get("event_type") == "experiment_end"]
    return {
        "total_events": len(events),
        "event_counts": dict(Counter(map(_type, events)).most_common()),
        "start_time": _time(starts[:1] or events[:1], "start_time"),
        "end_time": _time(ends[-1:] or events[-1:], "end_time"),
        "final_status": _final_status(Path(path), ends[-1].get("data")) if ends else None,
    }


def _final_status(path: Path, data: object) -> Any:
    """Return the status in the ``data`` of a run's last event, or that of run.yaml, which knows how an exit went."""
    if isinstance(data, dict) and data.get("status") is not None:
        return data["status"]
    layout = RunLayout(path if path.is_dir() else path.parent)
    if not layout.files.is_file(layout.run_yaml):
        return None
    return load(layout.dir).status


def _type(event: dict[str, Any]) -> str:
    return "metrics" if is_plain(event) else str(event.get("event_type"))


def _time(events: list[dict[str, Any]], field: str) -> Any:
    """Return the time of an event: its own, or else the one in its data."""
    if not events:
        return None
    event, data = events[0], events[0].get("data")
    if is_plain(event):
        ts_us = time_us(event.get(first_of(TIMES, event) or ""))
        return None if ts_us is None else timestamp(ts_us)
    return event.get("timestamp") or (data.get(field) if isinstance(data, dict) else None)

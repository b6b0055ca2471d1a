"""JSON lines: a structured log, or metrics by name.

A structured log has lines of ``{"timestamp": …, "event_type": …, "data": {…}}``: ``metrics`` lines hold metrics,
``config`` lines parameters; ``experiment_start`` has the name of the experiment, ``experiment_end`` its status. All
lines but those of metrics become events as well.

Other lines, such as ``{"step": 1, "loss": 0.5}`` or a line of wandb's history, hold a metric under each name that is
not that of a step, a time or who logged it. Names of nested objects are joined by ``/``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shmlog.base.plain import from_word, plain
from shmlog.errors import CorruptDataError, RefusedError
from shmlog.reader.event_lines import parse
from shmlog.reader.foreign import STEPS, TIMES, first_of, is_elapsed, is_plain
from shmlog.records.values import is_text
from shmlog.transfer.imported import ImportedRun, fit_name, owner_of
from shmlog.transfer.importers import trueno


def read(path: Path) -> ImportedRun:
    """Return the run that the log describes.

    Raises
    ------
    CorruptDataError
        If no line is one of such a log.
    """
    place = path if path.exists() else path.parent
    run = ImportedRun(experiment=fit_name(place.stem.removesuffix("_structured")))
    reading = _Reading(run)
    lines = run.read("log", place).split(b"\n")
    if trueno.kind_of(parse(next(filter(bytes.strip, lines), b""), of_others=True)):
        return _records(path, place, lines)
    if path != place:
        raise RefusedError(f"{place}: holds one run; import it by that name, not {path.name!r} in it")
    for number, line in enumerate(lines, 1):
        if line.strip():
            reading.add(f"line {number}", line, is_last=number == len(lines))
    if not reading.lines:
        raise CorruptDataError(f"{path}: {next(iter(run.problems), 'is empty')}, and no other line is one of a log")
    reading.close()
    return run


def _records(path: Path, place: Path, lines: list[bytes]) -> ImportedRun:
    """Return the run that lines of records of trueno-db describe."""
    entries = {number: parse(line, of_others=True) for number, line in enumerate(lines, 1) if line.strip()}
    run = trueno.read_document(path, place, [entry for entry in entries.values() if entry is not None])
    for number, entry in entries.items():
        if trueno.kind_of(entry) is None:
            run.problems.add("lines", f"line {number}: not a record of trueno-db; left out")
    return run


class _Reading:
    def __init__(self, run: ImportedRun) -> None:
        self.lines = 0
        self._run = run
        self._next = 0
        self._times: list[int] = []
        self._is_structured = False
        self._is_timeless = False

    def add(self, where: str, line: bytes, *, is_last: bool) -> None:
        """Add what a line holds to the run, or report what is wrong with it."""
        entry = parse(line, of_others=True)
        fault = ("a torn last line" if is_last else "not a JSON object") if entry is None else _fault_of(entry)
        if entry is None or fault:
            self._run.problems.add("lines", f"{where}: {fault}; left out")
            return
        self.lines += 1
        if isinstance(entry.get("event_type"), str):
            self._is_structured = True
            self._add_event(where, entry)
        else:
            self._add_plain(where, entry)

    # ---- lines of a structured log ----

    def _add_event(self, where: str, entry: dict[str, Any]) -> None:
        kind, data, ts = entry["event_type"], entry.get("data", {}), self._time(where, entry.get("timestamp"))
        metrics = data.get("metrics") if isinstance(data, dict) and kind == "metrics" else None
        if isinstance(metrics, dict) and set(data) <= {"step", "metrics"}:
            self._add_metrics(where, data.get("step"), metrics, ts, owner_of(entry))
            return
        if kind == "config" and isinstance(data, dict):
            self._run.params |= plain(data)
        if kind == "experiment_end" and isinstance(data, dict) and isinstance(data.get("status"), str):
            self._run.status = data["status"]
        if kind == "experiment_start" and isinstance(data, dict) and isinstance(data.get("experiment_name"), str):
            self._run.described.name = self._run.experiment = data["experiment_name"]
        wrapped = plain(data) if isinstance(data, dict) else {"data": plain(data)}
        self._run.events.append({**owner_of(entry), "timestamp": ts, "event_type": kind, "data": wrapped})

    # ---- lines of metrics by name ----

    def _add_plain(self, where: str, entry: dict[str, Any]) -> None:
        step_name, time_name, owner = first_of(STEPS, entry), first_of(TIMES, entry), owner_of(entry)
        if time_name and is_elapsed(entry[time_name]):
            time_name = None
        names = [name for name in entry if name not in (step_name, time_name, *owner)]
        metrics = dict[str, Any]()
        for name, value in _flat({name: entry[name] for name in names}):
            if name in metrics:
                self._run.problems.add("values", f"{where}: a second value of {name!r}; left out")
            metrics.setdefault(name, value)
        ts = self._time(where, entry[time_name]) if time_name else self._no_time()
        self._add_metrics(where, entry.get(step_name or ""), metrics, ts, owner)

    # ---- what both have ----

    def _time(self, where: str, value: object) -> int:
        ts = self._run.time(where, value, instead_us=self._times[-1] if self._times else 0)
        if ts:
            self._times.append(ts)
        return ts

    def _no_time(self) -> int:
        text = "lines without a time have that of the line before, else 1970-01-01T00:00:00Z"
        if not self._is_timeless:
            self._run.notes.add("times", text)
        self._is_timeless = True
        return self._times[-1] if self._times else 0

    def _add_metrics(self, where: str, value: Any, metrics: dict[str, Any], ts: int, owner: dict[str, Any]) -> None:
        step = self._run.step(where, value, self._next)
        if step is None:
            return
        self._next = step + 1
        for name, number in metrics.items():
            self._run.add(where, name, step, from_word(number), ts, owner=owner)

    def close(self) -> None:
        """Set when the run began and ended, and the status if no line of a structured log says it."""
        if self._times:
            self._run.lasted(min(self._times), max(self._times))
        if self._run.status is None and self._is_structured:
            self._run.notes.add("status", "no experiment_end: imported as crashed")
            self._run.status = "crashed"


def _fault_of(entry: dict[str, Any]) -> str | None:
    """Return what keeps an object from being a line of a log, or None."""
    if not isinstance(entry.get("event_type"), str) and not is_plain(entry):
        return "neither an event_type nor a number"
    if not is_text(json.dumps(entry, ensure_ascii=False)):
        return "half a character"
    try:
        plain(entry)
    except ValueError as error:
        return str(error)
    return None


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values by name, those of nested objects, too; null is no value."""
    for name, value in values.items():
        if isinstance(value, dict) and "_type" not in value:  # wandb's media and histograms have a _type
            yield from _flat(value, f"{prefix}{name}/")
        elif value is not None:
            yield prefix + name, value

"""A structured log: lines of ``{"timestamp": …, "event_type": …, "data": {…}}``.

``metrics`` lines hold metrics, ``config`` lines parameters; ``experiment_start`` has the name of the experiment,
``experiment_end`` its status. All lines but those of metrics become events as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shmlog.base.plain import from_word, plain
from shmlog.base.times import parse_us, time_in_range
from shmlog.errors import CorruptDataError
from shmlog.records.values import is_text
from shmlog.transfer.imported import ImportedRun, fit_name, owner_of


def read(path: Path) -> ImportedRun:
    """Return the run that the log describes.

    Raises
    ------
    CorruptDataError
        If no line is one of such a log.
    """
    run = ImportedRun(experiment=fit_name(path.stem.removesuffix("_structured")))
    reading = _Reading(run)
    lines = run.read("log", path).split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            reading.add(f"line {number}", line, is_last=number == len(lines))
    if not reading.lines:
        raise CorruptDataError(
            f"{path}: no line of it belongs to a structured log; {next(iter(run.problems), 'empty')}"
        )
    reading.close()
    return run


class _Reading:
    def __init__(self, run: ImportedRun) -> None:
        self.lines = 0
        self._run = run
        self._next = 0
        self._times: list[int] = []

    def add(self, where: str, line: bytes, *, is_last: bool) -> None:
        """Add what a line holds to the run, or note what is wrong with it."""
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            torn = "a torn last line" if is_last else "not JSON"
            self._run.problems.add("lines", f"{where}: {torn}; left out")
            return
        fault = self._fault(entry)
        if fault:
            self._run.problems.add("lines", f"{where}: {fault}; left out")
            return
        self.lines += 1
        self._add(where, entry, self._time(where, entry.get("timestamp")))

    def _fault(self, entry: Any) -> str | None:
        if not isinstance(entry, dict) or not isinstance(entry.get("event_type"), str):
            return "no event_type"
        if not is_text(json.dumps(entry, ensure_ascii=False)):
            return "half a character"
        try:
            plain(entry)
        except ValueError as error:
            return str(error)
        return None

    def _time(self, where: str, text: object) -> int:
        ts = parse_us(text)
        if ts is None or not time_in_range(ts):
            self._run.problems.add(
                "times", f"{where}: timestamp {text!r} is not a time; that of the line before instead"
            )
            return self._times[-1] if self._times else 0
        if isinstance(text, str) and "Z" not in text and "+" not in text[10:] and "-" not in text[10:]:
            self._run.problems.add("times without a zone", f"{where}: {text} has no zone; read as UTC")
        self._times.append(ts)
        return ts

    def _add(self, where: str, entry: dict[str, Any], ts: int) -> None:
        kind, data = entry["event_type"], entry.get("data", {})
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
        wrapped = data if isinstance(data, dict) else {"data": data}
        self._run.events.append({**owner_of(entry), "timestamp": ts, "event_type": kind, "data": wrapped})

    def _add_metrics(self, where: str, step: Any, metrics: dict[str, Any], ts: int, owner: dict[str, Any]) -> None:
        if step is None:
            step = self._next
            self._run.problems.add("lines without a step", f"{where}: no step; it is numbered {step}")
        if type(step) is int:
            self._next = step + 1
        for name, value in metrics.items():
            number = from_word(value)
            self._run.add(where, name, step, number, ts, owner)

    def close(self) -> None:
        """Set when the run began and ended, and its status if no line says it."""
        if self._times:
            self._run.lasted(min(self._times), max(self._times))
        if self._run.status is None:
            self._run.problems.add("status", "no experiment_end: imported as crashed")
            self._run.status = "crashed"

"""A structured log: lines of ``{"timestamp": …, "event_type": …, "data": {…}}``.

``metrics`` lines are metrics, ``config`` lines parameters, ``experiment_start`` and ``experiment_end`` tell when
and how it ended. All lines but the metrics become events as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shmlog.base.plain import from_word, plain
from shmlog.base.times import parse_us, time_in_range
from shmlog.errors import CorruptDataError
from shmlog.records.values import is_text
from shmlog.transfer.found import Found, fit_name, owner_of


def read(path: Path) -> Found:
    """Return what the log tells.

    Raises
    ------
    CorruptDataError
        If not a single line is one of such a log.
    """
    found = Found(experiment=fit_name(path.stem.removesuffix("_structured")))
    reading = _Reading(found)
    lines = found.read("log", path).split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            reading.take(f"line {number}", line, is_last=number == len(lines))
    if not reading.lines:
        raise CorruptDataError(
            f"{path}: no line in it is one of a structured log; {next(iter(found.problems), 'empty')}"
        )
    reading.close()
    return found


class _Reading:
    def __init__(self, found: Found) -> None:
        self.lines = 0
        self._found = found
        self._next = 0
        self._times: list[int] = []

    def take(self, where: str, line: bytes, *, is_last: bool) -> None:
        """Take a line, or tell what is wrong with it."""
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):
            torn = "a torn last line" if is_last else "not JSON"
            self._found.problems.add("lines", f"{where}: {torn}; left out")
            return
        fault = self._fault(told)
        if fault:
            self._found.problems.add("lines", f"{where}: {fault}; left out")
            return
        self.lines += 1
        self._take(where, told, self._time(where, told.get("timestamp")))

    def _fault(self, told: Any) -> str | None:
        if not isinstance(told, dict) or not isinstance(told.get("event_type"), str):
            return "no event_type"
        if not is_text(json.dumps(told, ensure_ascii=False)):
            return "half a character"
        try:
            plain(told)
        except ValueError as error:
            return str(error)
        return None

    def _time(self, where: str, text: object) -> int:
        ts = parse_us(text)
        if ts is None or not time_in_range(ts):
            self._found.problems.add(
                "times", f"{where}: timestamp {text!r} is no time; that of the line before instead"
            )
            return self._times[-1] if self._times else 0
        if isinstance(text, str) and "Z" not in text and "+" not in text[10:] and "-" not in text[10:]:
            self._found.problems.add("times without a zone", f"{where}: {text} has no zone; read as UTC")
        self._times.append(ts)
        return ts

    def _take(self, where: str, told: dict[str, Any], ts: int) -> None:
        kind, data = told["event_type"], told.get("data", {})
        metrics = data.get("metrics") if isinstance(data, dict) and kind == "metrics" else None
        if isinstance(metrics, dict) and set(data) <= {"step", "metrics"}:
            self._add_metrics(where, data.get("step"), metrics, ts, owner_of(told))
            return
        if kind == "config" and isinstance(data, dict):
            self._found.params |= plain(data)
        if kind == "experiment_end" and isinstance(data, dict) and isinstance(data.get("status"), str):
            self._found.status = data["status"]
        if kind == "experiment_start" and isinstance(data, dict) and isinstance(data.get("experiment_name"), str):
            self._found.described.name = self._found.experiment = data["experiment_name"]
        wrapped = data if isinstance(data, dict) else {"data": data}
        self._found.events.append({**owner_of(told), "timestamp": ts, "event_type": kind, "data": wrapped})

    def _add_metrics(self, where: str, step: Any, metrics: dict[str, Any], ts: int, owner: dict[str, Any]) -> None:
        if step is None:
            step = self._next
            self._found.problems.add("lines without a step", f"{where}: no step; it is numbered {step}")
        if type(step) is int:
            self._next = step + 1
        for name, value in metrics.items():
            number = from_word(value)
            self._found.add(where, name, step, number, ts, owner)

    def close(self) -> None:
        """Say when it began and ended, and that it did not end."""
        if self._times:
            self._found.lasted(min(self._times), max(self._times))
        if self._found.status is None:
            self._found.problems.add("status", "no experiment_end: taken as crashed")
            self._found.status = "crashed"

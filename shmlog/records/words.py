"""What a structured event says to people: the console, run.log and ``shmlog tail`` say the same in the same words.

Standard library only, since processes that log use it. An event whose data are not what its type promises, as one of
the user's with a name of ours, is told like any other.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from shmlog.base.times import duration

Data = Mapping[str, Any]

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_DEEPER = "  "
_ENDS = {"success": "completed", None: "ended"}  # the other statuses are their own words


def printable(text: str) -> str:
    """Return ``text`` on one line, its control characters as escapes."""
    return _CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode("ascii"), text)


def level_of(event_type: str, data: Data) -> str:
    """Return the level of an event, in lower case."""
    if event_type == "log":
        return str(data.get("level", "info"))
    return {"error": "error", "gap": "warning"}.get(event_type, "info")


def lines_of(event_type: str, data: Data) -> list[str]:
    """Return the lines that an event says, printable; all but the first are indented."""
    form = _FORMS.get(event_type)
    lines: list[str] = []
    if form is not None:
        try:
            lines = list(form(data))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            lines = []
    first, *others = lines or [_other(event_type, data)]
    return [printable(first), *(printable(line) for line in others)]


def metrics_text(metrics: Data) -> str:
    """Return metrics as ``loss=0.5000, n=3``."""
    return ", ".join(f"{name}={_value(value)}" for name, value in metrics.items())


def call_text(step: int | None, metrics: Data) -> str:
    """Return what a call says that has logged metrics."""
    return f"{'' if step is None else f'Step {step} - '}Metrics: {metrics_text(metrics)}"


# ---- values ----


def _value(value: Any, digits: int = 4) -> str:
    """Return a value for people: a float in so many decimals, or digits where these would hide what it is."""
    if isinstance(value, float):
        is_plain = value == 0 or 10 ** (1 - digits) <= abs(value) < 1e6
        return f"{value:.{digits}f}" if is_plain or not math.isfinite(value) else f"{value:.{digits}g}"
    return value if isinstance(value, str) else _as_given(value)


def _as_given(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _fields(data: Data, text: Callable[[Any], str], indent: str = _DEEPER) -> Iterator[str]:
    """Yield a line for each key, and deeper ones for what is below it."""
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:"
            yield from _fields(value, text, indent + _DEEPER)
        else:
            yield f"{indent}{name}: {text(value)}"


def _indented(text: object) -> Iterator[str]:
    return (f"{_DEEPER}{_DEEPER}{line}" for line in str(text).splitlines())


# ---- events ----


def _other(event_type: str, data: Data) -> str:
    try:
        return f"{event_type}: {metrics_text(data)}" if data else event_type
    except (TypeError, ValueError, RecursionError):
        return event_type


def _start(data: Data) -> Iterator[str]:
    name = data.get("name")
    named = f" as {name}" if name else ""
    again = f", attempt {data['attempt']}" if data.get("attempt") else ""
    yield f"Experiment started: {data['experiment']}{named}{again}"


def _config(data: Data) -> Iterator[str]:
    yield "Experiment configuration:"
    yield from _fields(data, _as_given)


def _progress(data: Data) -> Iterator[str]:
    done = data["iteration"] if "iteration" in data else data["current"]  # earlier versions
    text = f"Progress: {done}/{data['total']} ({data['progress_pct']:.1f}%)"
    yield f"{text} | {metrics_text(data['metrics'])}" if data.get("metrics") else text


def _metrics(data: Data) -> Iterator[str]:
    yield call_text(data["step"], data["metrics"])


def _result(data: Data) -> Iterator[str]:
    yield "Experiment result:"
    yield from _fields(data, lambda value: _value(value, 6))


def _error(data: Data) -> Iterator[str]:
    kind, message = error_of(data)
    first, *more = str(message).splitlines() or [""]
    yield f"Error occurred: {f'{kind}: ' if kind else ''}{first}"
    yield from (f"{_DEEPER}{line}" for line in more)
    if data.get("context"):
        yield f"{_DEEPER}Context:"
        yield from _fields(data["context"], _as_given, _DEEPER * 2)
    yield from _indented(data.get("traceback") or "")


def error_of(data: Data) -> tuple[Any, Any]:
    """Return type and message of an error event, also of one of an earlier version; raises KeyError."""
    if "error_message" in data:
        return data.get("error_type"), data["error_message"]
    return data.get("type"), data["message"]


def _checkpoint(data: Data) -> Iterator[str]:
    step = "" if data.get("step") is None else f" after step {data['step']}"
    metrics = f" | {metrics_text(data['metrics'])}" if data.get("metrics") else ""
    yield f"Checkpoint saved: {data['path']}{step}{metrics}"


def _log(data: Data) -> Iterator[str]:
    first, *more = str(data["message"]).splitlines() or [""]
    yield first
    yield from _indented("\n".join(more))
    yield from _indented(data.get("exception") or "")
    yield from _indented(data.get("stack") or "")


def _gap(data: Data) -> Iterator[str]:
    yield "Records were dropped: " + ", ".join(f"{count} ({reason})" for reason, count in data["dropped"].items())


def _end(data: Data) -> Iterator[str]:
    status, reason = data.get("status"), data.get("reason")
    name = f": {data['experiment']}" if data.get("experiment") else ""
    took = f" after {duration(data['duration_s'])}" if data.get("duration_s") is not None else ""
    yield f"Experiment {_ENDS.get(status, status)}{name}{took}{f': {reason}' if reason else ''}"


_FORMS: dict[str, Callable[[Data], Iterator[str]]] = {
    "experiment_start": _start, "config": _config, "progress": _progress, "metrics": _metrics, "result": _result,
    "error": _error, "checkpoint": _checkpoint, "log": _log, "gap": _gap, "experiment_end": _end,
}  # fmt: skip

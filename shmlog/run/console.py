"""Structured events as lines for people, on standard output: ``LEVEL: text``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from shmlog.base.plain import plain
from shmlog.folder.logsettings import LEVELS, LogSettings


def show(event_type: str, data: Mapping[str, Any], settings: LogSettings) -> None:
    """Print an event, if its level is kept. A console that fails must not end a training."""
    level = _level(event_type, data)
    if not settings.keeps(LEVELS.get(level, LEVELS["info"])):
        return
    text = "".join(f"{level.upper()}: {line}\n" for line in lines_of(event_type, plain(data)))
    try:
        _write(text)
    except (OSError, ValueError, AttributeError):
        pass  # standard output is closed or missing


def _write(text: str) -> None:
    """Print lines in one write, so that lines of other processes do not come between them."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def _level(event_type: str, data: Mapping[str, Any]) -> str:
    if event_type == "log":
        return str(data.get("level", "info"))
    return "error" if event_type == "error" else "info"


def lines_of(event_type: str, data: dict[str, Any]) -> Iterator[str]:
    """Yield the lines for an event; no line for a type that is not printed."""
    if event_type == "log":
        yield str(data.get("message"))
    elif event_type == "config":
        yield "Experiment configuration:"
        yield from (f"  {name}: {value}" for name, value in data.items())
    elif event_type == "progress":
        yield _progress(data)
    elif event_type == "metrics":
        step = "" if data.get("step") is None else f"Step {data['step']} - "
        yield f"{step}Metrics: {_numbers(data['metrics'])}"
    elif event_type == "result":
        yield "Experiment result:"
        yield from (f"  {name}: {_number(value, 6)}" for name, value in data.items())
    elif event_type == "error":
        kind = f"{data['type']}: " if data.get("type") else ""
        yield f"Error occurred: {kind}{data.get('message')}"
        if data.get("context"):
            yield f"Context: {data['context']}"
    elif event_type == "checkpoint":
        yield f"Checkpoint saved: {data.get('path')}"
    elif event_type == "experiment_end":
        yield f"Experiment completed: {data['status']}" if data.get("status") else "Experiment ended"


def _progress(data: dict[str, Any]) -> str:
    text = f"Progress: {data['current']}/{data['total']} ({data['progress_pct']:.1f}%)"
    return f"{text} | {_numbers(data['metrics'])}" if data.get("metrics") else text


def _numbers(metrics: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_number(value, 4)}" for name, value in metrics.items())


def _number(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)

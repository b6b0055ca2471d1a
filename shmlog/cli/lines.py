"""Lines of events.jsonl as text for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from shmlog.cli.text import clean, paragraph, value

if TYPE_CHECKING:
    from shmlog.reader.event_lines import Event


def text(line: Event) -> Iterator[str]:
    """Yield a line for people: time, producer, and what was logged, wrapped where the window is narrow."""
    time = str(line.get("timestamp", ""))[11:23]
    title = clean(f"{time}  {_producer(line)}  ")
    return paragraph(title, clean(" ".join(_content(line))), indent=len(title))


def _producer(line: Event) -> str:
    names = [f"{key} {line[key]}" for key in ("rank", "worker") if line.get(key) is not None]
    return ", ".join(names or [f"pid {line.get('pid')}"])


def _content(line: Event) -> Iterator[str]:
    from shmlog.reader.event_lines import metrics_of  # with pyarrow, which no help text needs

    metrics = metrics_of(line)
    if metrics is None:
        yield f"{line.get('event_type')} "
        yield json.dumps(line.get("data"), ensure_ascii=False)
    else:
        yield f"step {line['data'].get('step')} "
        yield "  ".join(f"{name}={value(item)}" for name, item in metrics.items())

"""Lines of events.jsonl as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from shmlog.cli.text import clean, paragraph

if TYPE_CHECKING:
    from shmlog.reader.event_lines import Event


def text(line: Event) -> Iterator[str]:
    """Yield lines for people: time, producer, and what was logged, wrapped where the window is narrow."""
    from shmlog.reader.event_lines import level_of, text_of  # with pyarrow, which no help text needs

    time = str(line.get("timestamp", ""))[11:23]
    level = level_of(line)
    title = clean(f"{time}  {_producer(line)}  {'' if level in ('info', 'debug') else f'{level.upper()} '}")
    first, *others = text_of(line)
    yield from paragraph(title, clean(first), indent=len(title))
    for other in others:
        yield from paragraph(" " * len(title), clean(other), indent=len(title))


def _producer(line: Event) -> str:
    names = [f"{key} {line[key]}" for key in ("rank", "worker") if line.get(key) is not None]
    return ", ".join(names or [f"pid {line.get('pid')}"])

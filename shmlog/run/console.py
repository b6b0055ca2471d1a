"""Structured events on standard output, for people: ``LEVEL: text``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from shmlog.base.plain import plain
from shmlog.folder.logsettings import LEVELS, LogSettings
from shmlog.records import words


def show(event_type: str, data: Mapping[str, Any], settings: LogSettings) -> None:
    """Print an event, if its level is kept. A console that fails must not end a training."""
    level = words.level_of(event_type, data)
    if not settings.keeps(LEVELS.get(level, LEVELS["info"])):
        return
    lines = words.lines_of(event_type, plain(data))
    try:
        _write("".join(f"{level.upper()}: {line}\n" for line in lines))
    except (OSError, ValueError, AttributeError):
        pass  # standard output is closed or missing


def _write(text: str) -> None:
    """Print lines in one write, so that lines of other processes do not come between them."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()

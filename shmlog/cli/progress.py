"""The progress of a long command, in one line of the terminal that is overwritten."""

from __future__ import annotations

import sys
import time
from typing import Self

from shmlog.cli.text import clean

_WAIT_S = 0.5  # shorter commands show no bar
_EVERY_S = 0.1
_WIDTH = 30


class ProgressBar:
    """A bar on stderr, if that is a terminal."""

    def __init__(self, title: str) -> None:
        self._title = clean(title)
        self._next = time.monotonic() + _WAIT_S
        self._is_shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def update(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` records are done."""
        now = time.monotonic()
        if now < self._next or not sys.stderr.isatty():
            return
        self._next = now + _EVERY_S
        self._is_shown = True
        share = done / total if total else 1.0
        full = "#" * round(share * _WIDTH)
        sys.stderr.write(f"\r{self._title} [{full:<{_WIDTH}}] {share:4.0%} {done:,}\x1b[K")
        sys.stderr.flush()

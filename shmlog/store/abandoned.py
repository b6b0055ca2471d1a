"""Recover the runs whose processes have all died, before a command shows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from shmlog.errors import UnreadableError
from shmlog.folder import liveness
from shmlog.folder.layout import RunLayout
from shmlog.folder.recovered import recover_apart


def recover_abandoned(run_dirs: Iterable[Path]) -> Iterator[tuple[Path, str | None]]:
    """Recover the runs of this user that are known to be dead, each in a process of its own.

    Yields
    ------
    Path, str or None
        The folder of such a run, and why it can't be recovered; None if it was.
    """
    for layout in [layout for layout in map(RunLayout, run_dirs) if _is_abandoned(layout)]:
        yield layout.dir, recover_apart(layout)


def _is_abandoned(layout: RunLayout) -> bool:
    try:
        return liveness.is_abandoned(layout)
    except (UnreadableError, OSError):
        return False  # the reader says what is wrong with it

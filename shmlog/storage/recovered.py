"""Which crashed runs the flusher of a run has recovered: a note for the process that says so."""

from __future__ import annotations

import os
from pathlib import Path

from shmlog.errors import log_warning
from shmlog.storage.layout import RunLayout


def note(layout: RunLayout, run_dir: Path) -> None:
    """Note, in the run at ``layout``, that its flusher has recovered another."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(layout.recovered, flags, 0o666)
    try:
        os.write(fd, os.fsencode(run_dir) + b"\n")
    finally:
        os.close(fd)


def tell(layout: RunLayout) -> None:
    """Say which runs are noted in the one at ``layout``, to whoever is told of warnings; never raises."""
    try:
        fd = os.open(layout.recovered, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            run_dirs = os.fsdecode(file.read()).splitlines()
    except OSError:  # nearly always: there is none
        return
    for run_dir in run_dirs:
        log_warning("recovered %s: its processes had died before it was closed", run_dir)

"""What recoveries say: to their caller, and of other runs to the process of the run whose flusher has done them."""

from __future__ import annotations

import os
from pathlib import Path

from shmlog.base.durable import open_to_write
from shmlog.errors import CorruptDataError, log_warning
from shmlog.folder.layout import RunLayout
from shmlog.folder.regular import read_regular

NOTHING = "nothing to recover"  # the whole message for a run that is complete


def note(layout: RunLayout, run_dir: Path) -> None:
    """Note, in the run at ``layout``, that its flusher has recovered another."""
    fd = open_to_write(layout.recovered, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(fd, os.fsencode(run_dir) + b"\n")
    finally:
        os.close(fd)


def tell(layout: RunLayout) -> None:
    """Say which runs are noted in the one at ``layout``, to whoever is told of warnings; never raises."""
    try:
        run_dirs = os.fsdecode(read_regular(layout.recovered)).splitlines()
    except (OSError, CorruptDataError):  # nearly always: there is none
        return
    for run_dir in run_dirs:
        log_warning("recovered %s: its processes had died before it was closed", run_dir)

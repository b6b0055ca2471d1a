"""Recover a run in another process; note in a run which other runs its flusher has recovered."""

from __future__ import annotations

import os
from pathlib import Path

from shmlog.base.durable import open_to_write
from shmlog.base.spawn import helper_command, helper_environment
from shmlog.errors import UnreadableError, log_warning
from shmlog.folder.layout import RunLayout


def recover_apart(layout: RunLayout) -> str | None:
    """Recover a run in another process, since it imports numpy and pyarrow and may take long; return why it failed."""
    import subprocess

    command = helper_command("shmlog", "recover", str(layout.dir))
    done = subprocess.run(command, env=helper_environment(), capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    errors = [line.removeprefix("shmlog: error: ") for line in done.stderr.splitlines() if "error: " in line]
    return "; ".join(errors) or done.stderr.strip()


def note(layout: RunLayout, run_dir: Path) -> None:
    """Note, in the run at ``layout``, that its flusher has recovered another."""
    fd = open_to_write(layout.recovered, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(fd, os.fsencode(run_dir) + b"\n")
    finally:
        os.close(fd)


def tell(layout: RunLayout) -> None:
    """Log a warning for each run noted in the one at ``layout``; never raises."""
    try:
        run_dirs = os.fsdecode(layout.files.read(layout.recovered)).splitlines()
    except (OSError, UnreadableError):  # nearly always: none is noted
        return
    for run_dir in run_dirs:
        log_warning("recovered %s: its processes had died before it was closed", run_dir)

"""Writing run.yaml or manifest.json once more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from shmlog.errors import RunStateError
from shmlog.folder import manifest, runfile
from shmlog.folder.layout import RunLayout
from shmlog.reader import snapshot
from shmlog.reader.rebuild import rebuild_description
from shmlog.reader.stored import StoredRun


def rebuild(layout: RunLayout) -> dict[str, Any]:
    """Write run.yaml anew where it is damaged or missing; what was there is kept beside it.

    Returns
    -------
    dict
        What it says now.
    """
    snapshot.refuse_links(layout)
    description = rebuild_description(layout)
    if os.path.lexists(layout.run_yaml):
        os.replace(layout.run_yaml, layout.run_yaml.with_name("run.yaml.damaged"))
    runfile.write_sealed(layout.run_yaml, description)
    books = [description[name] for name in ("producers", "counts", "dropped")]
    if description["complete"] is True and None in books:
        stored = StoredRun(layout)
        description |= {"producers": stored.producers, "counts": stored.counts, "dropped": stored.dropped}
        runfile.write_sealed(layout.run_yaml, description)
    return description


def write_manifest(run_dir: Path) -> None:
    """Write manifest.json anew, as the end of a run does; raises RunStateError if it is not over."""
    layout = RunLayout(run_dir)
    if runfile.read_description(layout)[0].get("complete") is not True:
        raise RunStateError(f"run {layout.run_id} is not over: its manifest is written when it is")
    manifest.write_manifest(layout)

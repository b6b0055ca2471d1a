"""Write run.yaml or manifest.json anew."""

from __future__ import annotations

import os
from pathlib import Path

from shmlog.errors import RunStateError
from shmlog.folder import manifest
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.reader import snapshot
from shmlog.reader.rebuild import rebuild_description
from shmlog.reader.stored import StoredRun


def rebuild(layout: RunLayout) -> None:
    """Write run.yaml anew where it is damaged or missing; the damaged file is kept beside it."""
    snapshot.refuse_links(layout)
    description = rebuild_description(layout)
    if os.path.lexists(layout.run_yaml):
        os.replace(layout.run_yaml, layout.run_yaml.with_name("run.yaml.damaged"))
    description.write(layout)
    if description.complete is True and None in (description.producers, description.counts, description.dropped):
        stored = StoredRun(layout)
        books = description.changed(producers=stored.producers, counts=stored.counts, dropped=stored.dropped)
        books.write(layout)


def write_manifest(run_dir: Path) -> None:
    """Write manifest.json anew, as the end of a run does; raises RunStateError if the run is not over."""
    layout = RunLayout(run_dir)
    if Description.read_or_guess(layout)[0].complete is not True:
        raise RunStateError(f"run {layout.run_id} is not over: its manifest is written at its end")
    manifest.write_manifest(layout)

"""Writing run.yaml once more."""

from __future__ import annotations

import os

from shmlog.folder.layout import RunLayout
from shmlog.reader import snapshot
from shmlog.reader.rebuild import rebuild_description
from shmlog.reader.stored import StoredRun


def rebuild(layout: RunLayout) -> None:
    """Write run.yaml anew where it is damaged or missing; what was there is kept beside it."""
    snapshot.refuse_links(layout)
    description = rebuild_description(layout)
    if os.path.lexists(layout.run_yaml):
        os.replace(layout.run_yaml, layout.run_yaml.with_name("run.yaml.damaged"))
    description.write(layout)
    if description.complete is True and None in (description.producers, description.counts, description.dropped):
        stored = StoredRun(layout)
        books = description.changed(producers=stored.producers, counts=stored.counts, dropped=stored.dropped)
        books.write(layout)

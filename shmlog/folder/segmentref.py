"""Where run.yaml says that the segment of a run lies."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from shmlog.errors import RunNotFoundError
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout

SHARED_MEMORY = Path("/dev/shm")

#: The beginning of the names of the files in there by which the ranks of a launch meet.
MEETING_PREFIX = "shmlog.meet-"

# run.yaml may come from anybody: it can make us open or remove only objects with such names.
_NAME = r"/shmlog-[0-9a-f]{16}"


def is_segment_name(name: object) -> bool:
    """Whether a shared-memory object with that name can be a segment."""
    return isinstance(name, str) and re.fullmatch(_NAME, name) is not None


class SegmentRef(NamedTuple):
    """The name and path by which a process opens a segment."""

    name: str | None  # of the shared-memory object and its doorbell; None: a file in the run folder
    path: Path


def names_in(folder: Path, prefix: str) -> list[str]:
    """Return the sorted names in a folder that begin with ``prefix``; none if the folder can't be read."""
    try:
        return sorted(name for name in os.listdir(folder) if name.startswith(prefix))
    except OSError:
        return []


def make_ref(layout: RunLayout, name: str | None) -> SegmentRef:
    """Return the reference of the shared-memory object ``name``, or of the file in the run folder."""
    return SegmentRef(name, layout.segment if name is None else SHARED_MEMORY / name.lstrip("/"))


def read_ref(layout: RunLayout) -> SegmentRef:
    """Return the reference of the run's segment from run.yaml.

    Raises
    ------
    RunNotFoundError
        If the folder holds no run, or may not be read.
    """
    try:
        return ref_in(layout, Description.read(layout))
    except FileNotFoundError as error:
        raise RunNotFoundError(f"no run in {layout.dir}: it has no run.yaml") from error
    except PermissionError as error:
        raise RunNotFoundError(f"{layout.run_yaml} may not be read by user {os.geteuid()}") from error


def ref_in(layout: RunLayout, description: Description) -> SegmentRef:
    """Return the reference of the segment that run.yaml's content names; raises RunNotFoundError if it names none."""
    try:
        name = description.segment["name"]
        if name is not None and not is_segment_name(name):
            raise KeyError(name)
        return make_ref(layout, name)
    except (KeyError, TypeError) as error:
        raise RunNotFoundError(f"{layout.run_yaml} does not say where the segment is") from error

"""What was read of the runs of an experiment, in one file: a cache that may be thrown away at any time."""

from __future__ import annotations

import json
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from shmlog.base.durable import atomic_write
from shmlog.errors import ShmlogError, UnreadableError
from shmlog.folder.regular import read_regular
from shmlog.folder.root import Root

_SCHEMA = 2
_BYTES_MAX = 1 << 30

# A file that is changed twice within a tick of the kernel's clock looks the same as after the first.
_TICK_NS = 50_000_000


class Entry(NamedTuple):
    """Something that was read, and the signature of the files that it was read from."""

    signature: Any
    found: Any


def load(path: Path) -> dict[str, Entry]:
    """Return what a file holds, by run; nothing if it is missing, damaged or of another version."""
    try:
        head, _, body = read_regular(path, _BYTES_MAX).partition(b"\n")
        told = json.loads(head)
        if told != {"schema": _SCHEMA, "crc32": zlib.crc32(body)}:
            return {}
        return {run_id: Entry(*entry) for run_id, entry in json.loads(body).items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, UnreadableError):
        return {}


def save(root: Root, path: Path, entries: dict[str, Entry]) -> None:
    """Replace a file; where that fails, as in a store that can't be written, one does without."""
    body = json.dumps(entries, separators=(",", ":")).encode("ascii")
    head = json.dumps({"schema": _SCHEMA, "crc32": zlib.crc32(body)}).encode("ascii")
    try:
        root.make_own(path.parent)
        # Two that write at the same time can spoil it: the checksum then has it thrown away.
        atomic_write(path, head + b"\n" + body, durable=False)
    except (OSError, ShmlogError):
        pass


def is_settled(signature: list[list[int] | None]) -> bool:
    """Whether the files have been as they are for so long that a further change will be seen."""
    newest = max((max(of_file[2], of_file[3]) for of_file in signature if of_file), default=0)
    return newest + _TICK_NS < time.time_ns()

"""A file that caches what was read of the runs of an experiment; it may be deleted at any time."""

from __future__ import annotations

import json
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from shmlog.base.durable import atomic_write
from shmlog.errors import ShmlogError, UnreadableError
from shmlog.folder.files import LOCAL
from shmlog.folder.root import Root

_SCHEMA = 2
_BYTES_MAX = 1 << 30

# A file that changes twice within a tick of the kernel's clock looks as it did after the first change.
_TICK_NS = 50_000_000


class IndexEntry(NamedTuple):
    """What was read of a run, and the signature of the files that it was read from."""

    signature: Any
    content: Any


def load(path: Path) -> dict[str, IndexEntry]:
    """Return the entries of a file by run id; none if it is missing, damaged or of another version."""
    try:
        head, _, body = LOCAL.read(path, _BYTES_MAX).partition(b"\n")
        header = json.loads(head)
        if header != {"schema": _SCHEMA, "crc32": zlib.crc32(body)}:
            return {}
        return {run_id: IndexEntry(*entry) for run_id, entry in json.loads(body).items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, UnreadableError):
        return {}


def save(root: Root, path: Path, entries: dict[str, IndexEntry]) -> None:
    """Replace a file. Where that fails, as in a read-only store, the next reader reads the runs themselves."""
    body = json.dumps(entries, separators=(",", ":")).encode("ascii")
    head = json.dumps({"schema": _SCHEMA, "crc32": zlib.crc32(body)}).encode("ascii")
    try:
        root.make_own(path.parent)
        # Two writers at the same time can spoil it: its checksum is then wrong, and `load` ignores it.
        atomic_write(path, head + b"\n" + body, durable=False)
    except (OSError, ShmlogError):
        pass


def is_settled(signature: list[list[int] | None]) -> bool:
    """Whether the files last changed so long ago that a further change will show in their signature."""
    newest = max((max(of_file[2], of_file[3]) for of_file in signature if of_file), default=0)
    return newest + _TICK_NS < time.time_ns()

"""Where an export goes: a file that appears whole or not at all, or a stream."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from shmlog.base.durable import replacing
from shmlog.errors import StorageError

Progress = Callable[[int, int], None]  # records done, records in all
Target = str | os.PathLike[str] | IO[bytes]

ROWS_AT_ONCE = 1 << 16


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


@contextmanager
def open_target(target: Target) -> Iterator[IO[bytes]]:
    """Write into a stream as it is, or into a file that is replaced when all of it is written.

    Raises
    ------
    StorageError
        If the file can't be written. A file that was there before stays.
    """
    if not isinstance(target, (str, os.PathLike)):
        if not hasattr(target, "write"):
            raise TypeError(f"an export goes to a path or to a binary stream, not to {type(target).__name__}")
        yield target
        return
    path = Path(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, durable=False, exclusive=True) as fd, open(fd, "wb", closefd=False) as file:
            yield file
    except OSError as error:
        raise StorageError(error.errno, f"cannot be written ({error.strerror or error})", str(path)) from error


def slices(table: Any, progress: Progress) -> Iterator[Any]:
    """Yield a table in portions, and report how many rows the caller has taken."""
    for start in range(0, table.num_rows, ROWS_AT_ONCE):
        yield table.slice(start, ROWS_AT_ONCE)
        progress(min(start + ROWS_AT_ONCE, table.num_rows), table.num_rows)

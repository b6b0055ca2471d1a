"""Every exception and warning of shmlog, and how it tells of what raises neither."""

from __future__ import annotations

import os
from contextlib import suppress

__all__ = [
    "ArtifactNotFoundError",
    "CheckpointNotFoundError",
    "CorruptDataError",
    "DroppedError",
    "ExperimentNotFoundError",
    "MissingExtraError",
    "QueryError",
    "RefusedError",
    "RunNotFoundError",
    "RunStateError",
    "SegmentError",
    "SeveralRunsError",
    "ShmlogError",
    "ShmlogWarning",
    "StorageError",
    "UnknownNameError",
    "UnreadableError",
    "UnsafeDataError",
]


class ShmlogError(Exception):
    """Base of all errors that shmlog raises about its own state."""


class SegmentError(ShmlogError, OSError):
    """Shared memory cannot be created, attached or mapped. Nothing was logged."""


class StorageError(ShmlogError, OSError):
    """A folder or file cannot be written. Nothing that was logged is lost by it."""


class RunNotFoundError(ShmlogError, LookupError):
    """There is no run where one was looked for. Nothing was changed."""


class ExperimentNotFoundError(ShmlogError, LookupError):
    """There is no experiment of that name. Nothing was changed."""


class QueryError(ShmlogError, ValueError):
    """A filter or an expression can't be understood. The message says where."""


class UnknownNameError(QueryError):
    """A parameter, a metric or a column that is asked for by name is nowhere. The message lists what there is."""


class CheckpointNotFoundError(ShmlogError, LookupError, FileNotFoundError):
    """There is no such checkpoint. Nothing was changed."""


class ArtifactNotFoundError(ShmlogError, LookupError):
    """The run has no such artifact. Nothing was changed."""


class RunStateError(ShmlogError, RuntimeError):
    """The run is in a state that does not allow this. Nothing was changed."""


class UnreadableError(ShmlogError, ValueError):
    """A file is not read: it is damaged, or refused. The message names it; everything else stays readable."""


class CorruptDataError(UnreadableError):
    """A file is damaged."""


class RefusedError(UnreadableError):
    """A file is refused, damaged or not: a link, a pipe, too large, or not of the kind or version that is read."""


class SeveralRunsError(RefusedError):
    """A source of an import holds several runs; nothing was imported. ``sources`` are the runs, each to be imported."""

    def __init__(self, message: str, sources: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.sources = sources


class UnsafeDataError(ShmlogError, ValueError):
    """A file holds pickled objects, which run code when they are loaded. Nothing was loaded."""


class DroppedError(ShmlogError, RuntimeError):
    """A record was dropped while ``strict=True``. The drop is counted."""


class MissingExtraError(ShmlogError, ImportError):
    """An optional package is missing. The message names the extra to install."""


class ShmlogWarning(UserWarning):
    """Something went wrong that does not stop the program; the message says what is missing or was left undone."""


def log_warning(message: str, *arguments: object) -> None:
    """Tell the user through the logger ``shmlog``, or on standard error where logging can't be imported.

    That takes a descriptor, which a program may have used up; and most programs have nothing to be told.
    """
    try:
        import logging
    except (OSError, ImportError, MemoryError):
        with suppress(OSError):  # no standard error either
            os.write(2, f"shmlog: {message % arguments}\n".encode(errors="replace"))
    else:
        logging.getLogger("shmlog").warning(message, *arguments)

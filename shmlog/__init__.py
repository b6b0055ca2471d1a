"""Shared-memory metric logging for programs made of many processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shmlog._core import Metric
from shmlog.errors import (
    CorruptDataError,
    DroppedError,
    MissingExtraError,
    RunNotFoundError,
    RunStateError,
    SegmentError,
    ShmlogError,
    ShmlogWarning,
    StorageError,
)
from shmlog.run.attach import attach
from shmlog.run.current import current, event, finish, log, metric
from shmlog.run.init import init
from shmlog.run.run import Run

if TYPE_CHECKING:
    from shmlog.reader.stored import StoredRun, load

__all__ = [
    "CorruptDataError",
    "DroppedError",
    "Metric",
    "MissingExtraError",
    "Run",
    "RunNotFoundError",
    "RunStateError",
    "SegmentError",
    "ShmlogError",
    "ShmlogWarning",
    "StorageError",
    "StoredRun",
    "attach",
    "current",
    "event",
    "finish",
    "init",
    "load",
    "log",
    "metric",
]

# What only readers need is imported on first use: a worker must not pay for pyarrow.
_LAZY = {"load": "shmlog.reader.stored", "StoredRun": "shmlog.reader.stored"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("shmlog")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

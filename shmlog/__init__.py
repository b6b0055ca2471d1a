"""Shared-memory metric logging for programs made of many processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shmlog._core import Metric
    from shmlog.checkpoint.auto import AutoCheckpoint
    from shmlog.checkpoint.manager import CheckpointManager
    from shmlog.errors import (
        CheckpointNotFoundError,
        CorruptDataError,
        DroppedError,
        ExperimentNotFoundError,
        MissingExtraError,
        QueryError,
        RunNotFoundError,
        RunStateError,
        SegmentError,
        ShmlogError,
        ShmlogWarning,
        StorageError,
        UnsafeDataError,
    )
    from shmlog.folder.status import RunStatus
    from shmlog.reader.artifacts import Artifact
    from shmlog.reader.event_files import analyze_logs, load_structured_logs
    from shmlog.reader.model import ArtifactRecord, ExperimentRecord, MetricRecord, RunRecord
    from shmlog.reader.stored import StoredRun, load
    from shmlog.run.attach import attach
    from shmlog.run.current import current, event, finish, log, metric
    from shmlog.run.handler import LoggingHandler
    from shmlog.run.init import init
    from shmlog.run.run import Run
    from shmlog.store.store import Store
    from shmlog.transfer.export import export_run
    from shmlog.transfer.imports import ImportReport, import_run
    from shmlog.transfer.results import (
        create_results_dataframe,
        export_all_formats,
        export_results_csv,
        export_results_json,
        export_results_pickle,
        export_summary_statistics,
        load_results_csv,
        load_results_json,
        load_results_pickle,
    )

__all__ = [
    "Artifact",
    "ArtifactNotFoundError",
    "ArtifactRecord",
    "AutoCheckpoint",
    "CheckpointManager",
    "CheckpointNotFoundError",
    "CorruptDataError",
    "DroppedError",
    "ExperimentNotFoundError",
    "ExperimentRecord",
    "ImportReport",
    "LoggingHandler",
    "Metric",
    "MetricRecord",
    "MissingExtraError",
    "QueryError",
    "Run",
    "RunNotFoundError",
    "RunRecord",
    "RunStateError",
    "RunStatus",
    "SegmentError",
    "ShmlogError",
    "ShmlogWarning",
    "StorageError",
    "Store",
    "StoredRun",
    "UnsafeDataError",
    "analyze_logs",
    "attach",
    "create_results_dataframe",
    "current",
    "event",
    "export_all_formats",
    "export_results_csv",
    "export_results_json",
    "export_results_pickle",
    "export_run",
    "export_summary_statistics",
    "finish",
    "import_run",
    "init",
    "load",
    "load_results_csv",
    "load_results_json",
    "load_results_pickle",
    "load_structured_logs",
    "log",
    "metric",
]

# Each is imported on first use: who logs must not pay for pyarrow, who reads needs no shared memory.
_MODULES = {
    "shmlog._core": ["Metric"],
    "shmlog.reader.event_files": ["analyze_logs", "load_structured_logs"],
    "shmlog.reader.stored": ["StoredRun", "load"],
    "shmlog.store.store": ["Store"],
    "shmlog.checkpoint.auto": ["AutoCheckpoint"],
    "shmlog.checkpoint.manager": ["CheckpointManager"],
    "shmlog.errors": [name for name in __all__ if name.endswith(("Error", "Warning"))],
    "shmlog.reader.artifacts": ["Artifact"],
    "shmlog.run.attach": ["attach"],
    "shmlog.run.current": ["current", "event", "finish", "log", "metric"],
    "shmlog.run.handler": ["LoggingHandler"],
    "shmlog.run.init": ["init"],
    "shmlog.run.run": ["Run"],
    "shmlog.folder.status": ["RunStatus"],
    "shmlog.reader.model": ["ArtifactRecord", "ExperimentRecord", "MetricRecord", "RunRecord"],
    "shmlog.transfer.export": ["export_run"],
    "shmlog.transfer.imports": ["ImportReport", "import_run"],
    "shmlog.transfer.results": [
        "create_results_dataframe",
        "export_all_formats",
        "export_results_csv",
        "export_results_json",
        "export_results_pickle",
        "export_summary_statistics",
        "load_results_csv",
        "load_results_json",
        "load_results_pickle",
    ],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        from importlib import import_module

        found = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
        return found
    if name == "__version__":
        from importlib.metadata import version

        return version("shmlog")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})

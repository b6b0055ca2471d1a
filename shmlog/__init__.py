"""Shared-memory metric logging for programs made of many processes."""

from __future__ import annotations

from typing import Any

# Each is imported on first use: a process that logs must not pay for pyarrow, one that reads needs no shared memory.
# __init__.pyi gives the types.
_MODULE_OF = {
    "AutoCheckpoint": "shmlog.checkpoint.auto",
    "CheckpointManager": "shmlog.checkpoint.manager",
    "Metric": "shmlog._core",
    "Run": "shmlog.run.run",
    "ShmlogError": "shmlog.errors",
    "ShmlogWarning": "shmlog.errors",
    "Store": "shmlog.store.store",
    "StoredRun": "shmlog.reader.stored",
    "attach": "shmlog.run.attach",
    "current": "shmlog.run.current",
    "event": "shmlog.run.current",
    "export_run": "shmlog.transfer.export",
    "finish": "shmlog.run.current",
    "import_run": "shmlog.transfer.imports",
    "init": "shmlog.run.init",
    "load": "shmlog.reader.stored",
    "log": "shmlog.run.current",
    "metric": "shmlog.run.current",
}

__all__ = ["__version__", "errors", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("shmlog")
    if name != "errors" and name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_MODULE_OF.get(name, "shmlog.errors"))
    value = globals()[name] = module if name == "errors" else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

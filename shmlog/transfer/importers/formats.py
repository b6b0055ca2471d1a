"""What can be imported: the formats, what a source looks like, and who reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from shmlog.errors import CorruptDataError, StorageError
from shmlog.transfer.found import Found

# By format: the module beside this one whose function `read` reads it.
_READERS = {
    "fetch_ml": "fetch_ml",
    "expman": "expman",
    "jsonl": "jsonl",
    "csv": "csv_table",
    "json": "exported_json",
    "parquet": "exported_table",
    "arrow": "exported_table",
    "tensorboard": "event_files",
}
_SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".json": "json", ".parquet": "parquet", ".arrow": "arrow",
    ".feather": "arrow",
}  # fmt: skip
_WANDB = "wandb offers no reader of its own files; upload them by 'wandb sync', and import what its API gives as CSV"

FORMATS = tuple(_READERS)


def reader_of(format: str) -> Callable[[Path], Found]:
    """Return what reads a source of that format.

    It raises CorruptDataError if nothing of the source can be read, MissingExtraError if a package for it is
    missing, and MemoryError.
    """
    read: Callable[[Path], Found] = import_module(f"shmlog.transfer.importers.{_READERS[format]}").read

    def reader(path: Path) -> Found:
        try:
            return read(path)
        except (CorruptDataError, StorageError):
            raise
        except OSError as error:
            if error.errno is None:
                raise CorruptDataError(f"{path}: damaged ({error})") from error
            raise

    return reader


def check_format(format: str) -> str:
    """Return a format that can be imported; raises ValueError if it is unknown."""
    if format not in _READERS:
        about_wandb = f"; {_WANDB}" if format == "wandb" else ""
        raise ValueError(f"unknown format {format!r}; use one of {', '.join(FORMATS)}{about_wandb}")
    return format


def guess_format(path: Path) -> str:
    """Return what a source looks like; raises ValueError if that is nothing."""
    found = _guess_of_folder(path) if path.is_dir() else _guess_of_file(path.name)
    if found == "wandb":
        raise ValueError(f"{path}: {_WANDB}")
    if found is None:
        raise ValueError(f"{path}: looks like nothing that can be imported; pass the format: {', '.join(FORMATS)}")
    return found


def _guess_of_file(name: str) -> str | None:
    if "tfevents" in name:
        return "tensorboard"
    return "wandb" if name.endswith(".wandb") else _SUFFIXES.get(Path(name).suffix.lower())


def _guess_of_folder(path: Path) -> str | None:
    names = set(os.listdir(path))
    if names & {"meta.bin", "metrics.bin"}:
        return "fetch_ml"
    if "run.yaml" in names:
        if names & {"metrics", "wal", "events.jsonl"}:
            raise ValueError(f"{path}: is a run of shmlog; copy the folder")
        return "expman"
    kinds = {_guess_of_file(name) for name in names}
    if "tensorboard" in kinds:
        return "tensorboard"
    if any(name.startswith("vectors") and name.endswith((".parquet", ".arrow")) for name in names):
        return "expman"
    return "wandb" if "wandb" in kinds else None

"""The formats that can be imported: how a source's is guessed, and which module reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from shmlog.errors import CorruptDataError, StorageError, UnreadableError
from shmlog.transfer.imported import ImportedRun
from shmlog.transfer.importers.experiment_logger import name_in as is_of_experiment_logger

# By format: the module beside this one whose function `read` reads it.
_READERS = {
    "fetch_ml": "fetch_ml",
    "expman": "expman",
    "experiment_logger": "experiment_logger",
    "jsonl": "jsonl",
    "csv": "csv_table",
    "json": "exported_json",
    "parquet": "exported_table",
    "arrow": "exported_table",
    "tensorboard": "event_files",
    "entrenar": "entrenar",
}
_SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".json": "json", ".parquet": "parquet",
    ".arrow": "arrow", ".feather": "arrow", ".db": "entrenar", ".sqlite": "entrenar", ".sqlite3": "entrenar",
}  # fmt: skip
_WANDB = "wandb offers no reader of its files; upload them by 'wandb sync', and import what its API returns as CSV"

FORMATS = tuple(_READERS)
_OF_SEVERAL_RUNS = ("experiment_logger", "entrenar", "json", "jsonl")

_DEPTH = 8  # of the runs below a store: STORE/EXPERIMENT/RUN, or deeper, as people nest logs of TensorBoard


def reader_of(format: str) -> Callable[[Path], ImportedRun]:
    """Return the function that reads a source of a format.

    The function raises CorruptDataError if the source can't be read, MissingExtraError if a package for it is
    missing, and MemoryError.
    """
    read: Callable[[Path], ImportedRun] = import_module(f"shmlog.transfer.importers.{_READERS[format]}").read

    def reader(path: Path) -> ImportedRun:
        try:
            return read(path)
        except (UnreadableError, StorageError):
            raise
        except OSError as error:
            if error.errno is None:
                raise CorruptDataError(f"{path}: damaged ({error})") from error
            raise

    return reader


def place_of(path: Path) -> Path:
    """Return the file or the folder that a path means, which may be one with the name of a run behind it."""
    is_part = not path.exists() and path.parent.exists() and _has_parts(path.parent)
    return path.parent if is_part else path


def _has_parts(place: Path) -> bool:
    """Whether a source can hold several runs, each with a name."""
    try:
        format = _guess_of_folder(place) if place.is_dir() else _guess_of_file(place.name)
    except (ValueError, OSError):
        return False
    return format in _OF_SEVERAL_RUNS


def check_format(format: str) -> str:
    """Return a format; raises ValueError if it can't be imported."""
    if format not in _READERS:
        about_wandb = f"; {_WANDB}" if format == "wandb" else ""
        raise ValueError(f"unknown format {format!r}; use one of {', '.join(FORMATS)}{about_wandb}")
    return format


def guess_format(path: Path) -> str:
    """Return the format that a source looks like; raises ValueError if it looks like none."""
    format = _guess_of_folder(path) if path.is_dir() else _guess_of_file(path.name)
    if format == "wandb":
        raise ValueError(f"{path}: {_WANDB}")
    if format is None:
        raise ValueError(f"{path}: looks like no format that can be imported; pass one of {', '.join(FORMATS)}")
    return format


def runs_below(path: Path) -> list[Path]:
    """Return the runs that a store of another system holds, by path; the path itself if it is not such a store."""
    database = path / ".entrenar" / "experiments.db"
    return [database] if database.is_file() else _folders_with_runs(path, _DEPTH) or _files_with_runs(path) or [path]


def _files_with_runs(path: Path) -> list[Path]:
    """Return the files of a folder in which entrenar keeps runs: a database, or a JSON file for each."""
    files = sorted(path.iterdir()) if path.is_dir() else []
    return [file for file in files if _guess_of_file(file.name) in ("entrenar", "json") and not file.is_symlink()]


def _folders_with_runs(path: Path, depth: int) -> list[Path]:
    """Return the folders below a path that look like runs, and those that can't be imported, which an import says."""
    if not path.is_dir():
        return []
    try:
        if _guess_of_folder(path) is not None:
            return [path]
        below = sorted(place for place in path.iterdir() if not place.is_symlink()) if depth else []
    except (ValueError, OSError):
        return [path]
    return [folder for place in below for folder in _folders_with_runs(place, depth - 1)]


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
    if any(map(is_of_experiment_logger, names)):
        return "experiment_logger"
    if any(name.startswith("vectors") and name.endswith((".parquet", ".arrow")) for name in names):
        return "expman"
    return "wandb" if "wandb" in kinds else None

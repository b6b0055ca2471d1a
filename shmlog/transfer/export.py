"""Export of runs: which format is meant, and where it goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from shmlog.errors import MissingExtraError
from shmlog.folder.layout import RunLike, folder_of
from shmlog.reader.stored import StoredRun, load
from shmlog.records.schema import METRICS
from shmlog.transfer.exporters.output import Progress, Target, no_progress, open_target

# By format: the module below exporters/ and its function that writes it, imported when it is needed.
_WRITERS = {
    "json": ("json", "write_json"),
    "csv": ("csv", "write_long"),
    "wide-csv": ("csv", "write_wide"),
    "parquet": ("arrow", "write_parquet"),
    "arrow": ("arrow", "write_arrow"),
    "summary": ("others", "write_summary"),
    "pickle": ("others", "write_pickle"),
    "tensorboard": ("tensorboard", "write_events"),
}
_SUFFIXES = {".json": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}
_ALL = {
    "json": ".json", "csv": ".csv", "parquet": ".parquet", "arrow": ".arrow", "summary": "_summary.json",
}  # fmt: skip

FORMATS = (*_WRITERS, "all")

# They have no place for the number of an attempt, without which superseded values spoil the curve.
_OF_THE_CURVE = ("summary", "tensorboard")


def export_run(
    run: RunLike, path: Target, format: str | None = None, *,
    superseded: bool = False, progress: Progress | None = None,
) -> list[Path]:  # fmt: skip
    """Write a run, live or not, in a format that other programs read.

    Parameters
    ----------
    run : path, Run, StoredRun or RunRecord
        The run, or its folder. Of a live one, all that ``flush`` has returned for.
    path : path or binary stream
        The file; for ``tensorboard`` and ``all`` a folder. Folders on the way are made. A file that
        is there is replaced once the new one is whole.
    format : str, optional
        ``json``, ``csv``, ``wide-csv``, ``parquet``, ``arrow``, ``summary``, ``tensorboard``, ``all``, or
        ``pickle``, which is never guessed and no part of ``all``. Default: what the end of the
        file's name says.
    superseded : bool
        Of a run that was resumed, also what a later attempt has superseded, with the columns ``attempt`` and
        ``superseded`` (``wide-csv``: ``attempt``). Of ``all``, the summary and the event file are of the curve.
    progress : callable, optional
        Told now and then how many records are written, and how many there are.

    Returns
    -------
    list of Path
        The files written; none for a stream.

    Raises
    ------
    TypeError
        If ``run`` is not one of these.
    ValueError
        If there is no such format, the name tells none, or it can't tell what is superseded.
    RunNotFoundError
        If there is no such run.
    MissingExtraError
        If a package for the format is missing.
    StorageError
        If it can't be written.

    Warns
    -----
    ShmlogWarning
        For what is damaged in the run, and for what the format can't hold exactly.
    """
    stored = run if isinstance(run, StoredRun) else load(folder_of(run, "run must be the folder of a run"))
    wanted = format or guess_format(path)
    if wanted not in FORMATS:
        raise ValueError(f"unknown format {wanted!r}; use one of {', '.join(FORMATS)}")
    if superseded and wanted in _OF_THE_CURVE:
        raise ValueError(f"format {wanted!r} can't tell what is superseded; leave superseded out, or use csv or json")
    tell = progress or no_progress
    if wanted in ("tensorboard", "all"):
        if not isinstance(path, (str, os.PathLike)):
            raise ValueError(f"format {wanted!r} is written into a folder, not into a stream")
        if wanted == "all":
            return _export_all(stored, Path(path), superseded, tell)
        return _export_events(stored, Path(path), tell)
    with open_target(path) as file:
        _writer(wanted)(stored, _records(stored, superseded), file, tell)
    return [Path(path)] if isinstance(path, (str, os.PathLike)) else []


def _records(run: StoredRun, superseded: bool) -> pa.Table:
    """Return the curve, or all records and what marks them."""
    table = run.metrics(superseded=superseded)
    return table if superseded else table.select(METRICS.names)


def guess_format(path: Target) -> str:
    """Return the format that the end of a file's name says; raises ValueError if it says none."""
    suffix = Path(path).suffix.lower() if isinstance(path, (str, os.PathLike)) else ""
    if suffix not in _SUFFIXES:
        raise ValueError(f"{suffix or 'this'} does not say which format is wanted; pass one of {', '.join(FORMATS)}")
    return _SUFFIXES[suffix]


def _writer(format: str) -> Callable[..., Any]:
    module, name = _WRITERS[format]
    writer: Callable[..., Any] = getattr(import_module(f"shmlog.transfer.exporters.{module}"), name)
    return writer


def _export_all(run: StoredRun, folder: Path, superseded: bool, progress: Progress) -> list[Path]:
    """Write every format but the pickle; TensorBoard's only where its package is there."""
    paths: list[Path] = []
    for format, suffix in _ALL.items():
        marked = superseded and format not in _OF_THE_CURVE
        paths += export_run(run, folder / f"{run.id}{suffix}", format, superseded=marked, progress=progress)
    try:
        paths += _export_events(run, folder / "tensorboard", progress)
    except MissingExtraError:
        pass  # the other formats are whole without it
    return paths


def _export_events(run: StoredRun, folder: Path, progress: Progress) -> list[Path]:
    tensorboard = import_module("shmlog.transfer.exporters.tensorboard")
    tensorboard.import_writer()  # before the folder is made
    path = folder / tensorboard.file_name(run)
    with open_target(path) as file:
        _writer("tensorboard")(run, _records(run, superseded=False), file, progress)
    return [path]

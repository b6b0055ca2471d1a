"""Export runs: choose the format and the writer, and open the target."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from shmlog.errors import MissingExtraError
from shmlog.folder.layout import RunLike, folder_of
from shmlog.reader.stored import StoredRun, load
from shmlog.records.schema import METRICS
from shmlog.transfer.exporters.output import Progress, Target, no_progress, open_target
from shmlog.transfer.selection import Selection

# By format: the module below exporters/ and its function that writes it, imported when it is needed.
_WRITERS = {
    "json": ("json", "write_json"),
    "csv": ("csv", "write_long"),
    "wide-csv": ("csv", "write_wide"),
    "parquet": ("arrow", "write_parquet"),
    "arrow": ("arrow", "write_arrow"),
    "summary": ("others", "write_summary"),
    "pickle": ("others", "write_pickle"),
    "prometheus": ("prometheus", "write_last_values"),
    "tensorboard": ("tensorboard", "write_events"),
}
_SUFFIXES = {".json": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow",
             ".prom": "prometheus"}  # fmt: skip
_ALL = {
    "json": ".json", "csv": ".csv", "parquet": ".parquet", "arrow": ".arrow", "summary": "_summary.json",
}  # fmt: skip

FORMATS = (*_WRITERS, "all")

# These formats have no place for the number of an attempt; without it, superseded values would spoil the curve.
_OF_THE_CURVE = ("summary", "prometheus", "tensorboard")


def export_run(
    run: RunLike, path: Target, format: str | None = None, *,
    names: str | Sequence[str] | None = None, steps: tuple[int | None, int | None] = (None, None), every: int = 1,
    superseded: bool = False, progress: Progress | None = None,
) -> list[Path]:  # fmt: skip
    """Write a run, live or not, in a format that other programs read.

    Parameters
    ----------
    run : path, Run, StoredRun or RunRecord
        The run, or its folder. A live run is written up to its last completed ``flush``, or further.
    path : path or binary stream
        The file; for ``tensorboard`` and ``all`` a folder. Missing folders are made. An existing file
        is replaced once the new one is whole.
    format : str, optional
        ``json``, ``csv``, ``wide-csv``, ``parquet``, ``arrow``, ``summary``, ``prometheus``, ``tensorboard``, ``all``
        or ``pickle``; ``prometheus`` and ``pickle`` are not part of ``all``. Default: the format of the file's suffix,
        which is never ``pickle``.
    names : str or sequence of str, optional
        Only metrics of these names, or that fit these patterns with ``*``, ``?`` or ``[ ]``.
    steps : pair of int or None
        Only records from the first to the second step, both included; None is open.
    every : int
        Only every so-manieth record of each metric, from its first one on, and its last one.
    superseded : bool
        Include records that a later attempt has superseded, with the columns ``attempt`` and ``superseded``
        (``wide-csv``: ``attempt``). In ``all``, the summary and the event file show the curve alone.
    progress : callable, optional
        Called now and then with the number of records written, and the number in all.

    Returns
    -------
    list of Path
        The files written; none for a stream.

    Raises
    ------
    TypeError
        If ``run`` is of another type.
    ValueError
        If the format is unknown, the suffix names none, or the format has no place for superseded records.
    RunNotFoundError
        If there is no such run.
    UnknownNameError
        If no metric has one of the names.
    MissingExtraError
        If a package for the format is missing.
    StorageError
        If it can't be written.

    Warns
    -----
    ShmlogWarning
        For damage in the run, and for values that the format can't hold exactly.
    """
    stored = run if isinstance(run, StoredRun) else load(folder_of(run, "run must be the folder of a run"))
    format, progress = format or guess_format(path), progress or no_progress
    selection = Selection([names] if isinstance(names, str) else names, steps, every)
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; use one of {', '.join(FORMATS)}")
    if superseded and format in _OF_THE_CURVE:
        raise ValueError(f"format {format!r} can't mark superseded records; leave superseded out, or use csv or json")
    if format in ("tensorboard", "all"):
        if not isinstance(path, (str, os.PathLike)):
            raise ValueError(f"format {format!r} is written into a folder, not into a stream")
        if format == "all":
            return _export_all(stored, Path(path), selection, superseded, progress)
        return _export_events(stored, Path(path), selection, progress)
    records = _records(stored, selection, superseded)
    with open_target(path) as file:
        _writer(format)(stored, records, file, progress)
    return [Path(path)] if isinstance(path, (str, os.PathLike)) else []


def _records(run: StoredRun, selection: Selection, superseded: bool) -> pa.Table:
    """Return the curve, or all records with the columns that mark superseded ones, as far as they are selected."""
    names = None if selection.names is None else selection.of(run.names())
    table = selection.thin(run.metrics(names, superseded=superseded))
    return table if superseded else table.select(METRICS.names)


def guess_format(path: Target) -> str:
    """Return the format of a file's suffix; raises ValueError if it has none."""
    suffix = Path(path).suffix.lower() if isinstance(path, (str, os.PathLike)) else ""
    if suffix not in _SUFFIXES:
        raise ValueError(f"{suffix or 'the target'} does not say which format; pass one of {', '.join(FORMATS)}")
    return _SUFFIXES[suffix]


def _writer(format: str) -> Callable[..., Any]:
    module, name = _WRITERS[format]
    writer: Callable[..., Any] = getattr(import_module(f"shmlog.transfer.exporters.{module}"), name)
    return writer


def _export_all(run: StoredRun, folder: Path, selection: Selection, superseded: bool, progress: Progress) -> list[Path]:
    """Write every format but the pickle; TensorBoard's only if its package is installed."""
    paths: list[Path] = []
    for format, suffix in _ALL.items():
        marked = superseded and format not in _OF_THE_CURVE
        paths += export_run(
            run, folder / f"{run.id}{suffix}", format, names=selection.names, steps=selection.steps,
            every=selection.every, superseded=marked, progress=progress,
        )  # fmt: skip
    try:
        paths += _export_events(run, folder / "tensorboard", selection, progress)
    except MissingExtraError:
        pass  # the other formats are whole without it
    return paths


def _export_events(run: StoredRun, folder: Path, selection: Selection, progress: Progress) -> list[Path]:
    tensorboard = import_module("shmlog.transfer.exporters.tensorboard")
    tensorboard.import_writer()  # before the folder is made
    path = folder / tensorboard.file_name(run)
    with open_target(path) as file:
        _writer("tensorboard")(run, _records(run, selection, superseded=False), file, progress)
    return [path]

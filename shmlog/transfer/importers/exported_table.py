"""A Parquet or Arrow file that `export_run` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from shmlog.base.plain import plain
from shmlog.errors import CorruptDataError, UnreadableError
from shmlog.folder.description import Description
from shmlog.transfer import sealed
from shmlog.transfer.exporters.arrow import KEY
from shmlog.transfer.imported import ImportedRun
from shmlog.transfer.importers.checked import checked_table, curve_of
from shmlog.transfer.importers.untrusted import read_arrow, read_batches

_PARQUET = b"PAR1"
_ARROW = b"ARROW1\0\0"
"""An Arrow file begins with it; a stream follows, and then an index of the stream, which a stranger can forge."""


def read(path: Path) -> ImportedRun:
    """Return the run that was exported.

    Raises
    ------
    CorruptDataError
        If the file is not such an export.
    """
    run = ImportedRun(experiment=path.stem)
    data = run.read("table", path)
    try:
        if data.startswith(_PARQUET) and not sealed.check(path, data):
            run.notes.add("checksum", "the file has no checksum of shmlog: damage outside its pages can't be seen")
        table = _table(path, data)
        run.metrics = checked_table(path, curve_of(path, table.replace_schema_metadata(None), run.problems))
    except UnreadableError:
        raise
    except (OSError, pa.ArrowException, ValueError) as error:
        raise CorruptDataError(f"{path}: neither Parquet nor Arrow, or damaged ({error})") from error
    description = (table.schema.metadata or {}).get(KEY)
    if description is None:
        run.notes.add("description", "the file does not say of which run its metrics are")
        return run
    try:
        add_description(run, json.loads(description))
    except (ValueError, RecursionError) as error:
        raise CorruptDataError(f"{path}: the description of its run is damaged ({error})") from error
    return run


def _table(path: Path, data: bytes) -> pa.Table:
    if data.startswith(_PARQUET):
        batches, schema = list(read_batches(path, data)), pq.read_schema(pa.BufferReader(data))
    else:
        if not data.startswith(_ARROW):
            raise ValueError("it begins as neither")
        stream = pa.py_buffer(data).slice(len(_ARROW))
        batches, schema = list(read_arrow(path, stream)), pa.ipc.read_schema(stream)
    return pa.Table.from_batches(batches, batches[0].schema if batches else schema)


def add_description(run: ImportedRun, export: Any) -> None:
    """Add what an export says of its run; raises ValueError if the export names none."""
    if not isinstance(export, dict) or export.get("shmlog") != 1 or not isinstance(export.get("run"), dict):
        raise ValueError("not an export of a run")
    export = {name: plain(export[name]) for name in ("run", "params", "annotations") if name in export}
    described = run.described = Description(export["run"])
    run.experiment = str(described.experiment or run.experiment)
    run.status = str(described.status) if described.status else None
    for name in ("params", "annotations"):
        if isinstance(export.get(name), dict):
            setattr(run, name, export[name])

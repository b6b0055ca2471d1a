"""A Parquet or Arrow file that `export_run` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from shmlog.base.plain import plain
from shmlog.errors import CorruptDataError
from shmlog.folder.description import Description
from shmlog.transfer.exporters.arrow import KEY
from shmlog.transfer.found import Found
from shmlog.transfer.importers.checked import checked_table, curve_of
from shmlog.transfer.importers.untrusted import read_arrow, read_batches

_ARROW = b"ARROW1\0\0"
"""With it begins a file whose rest is a stream, and a list of where what is in it, which a stranger can make up."""


def read(path: Path) -> Found:
    """Return what the file tells.

    Raises
    ------
    CorruptDataError
        If it is no such file.
    """
    found = Found(experiment=path.stem)
    data = found.read("table", path)
    try:
        table = _table(path, data)
        found.metrics = checked_table(path, curve_of(path, table.replace_schema_metadata(None), found.problems))
    except CorruptDataError:
        raise
    except (OSError, pa.ArrowException, ValueError) as error:
        raise CorruptDataError(f"{path}: neither Parquet nor Arrow, or damaged ({error})") from error
    told = (table.schema.metadata or {}).get(KEY)
    if told is None:
        found.problems.add("description", "the file does not say which run it is of")
        return found
    try:
        take_description(found, json.loads(told))
    except (ValueError, RecursionError) as error:
        raise CorruptDataError(f"{path}: what it says of its run is damaged ({error})") from error
    return found


def _table(path: Path, data: bytes) -> pa.Table:
    if data.startswith(b"PAR1"):
        batches, schema = list(read_batches(path, data)), pq.read_schema(pa.BufferReader(data))
    else:
        if not data.startswith(_ARROW):
            raise ValueError("it does not begin as one")
        stream = pa.py_buffer(data).slice(len(_ARROW))
        batches, schema = list(read_arrow(path, stream)), pa.ipc.read_schema(stream)
    return pa.Table.from_batches(batches, batches[0].schema if batches else schema)


def take_description(found: Found, told: Any) -> None:
    """Take what an export says of its run; raises ValueError if it says nothing that makes sense."""
    if not isinstance(told, dict) or told.get("shmlog") != 1 or not isinstance(told.get("run"), dict):
        raise ValueError("not an export of a run")
    told = {name: plain(told[name]) for name in ("run", "params", "annotations") if name in told}
    run = found.described = Description(told["run"])
    found.experiment = str(run.experiment or found.experiment)
    found.status = str(run.status) if run.status else None
    for name in ("params", "annotations"):
        if isinstance(told.get(name), dict):
            setattr(found, name, told[name])

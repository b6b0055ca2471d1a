"""A run folder of expman-rs: run.yaml, config.yaml, vectors.parquet (metrics.parquet before 0.3), logs, artifacts/.

A run of 1.x that was killed leaves its journal, vectors-*.arrow, instead of the Parquet file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from shmlog.base.plain import plain
from shmlog.base.times import parse_us, time_in_range, timestamp
from shmlog.errors import RefusedError, UnreadableError
from shmlog.folder import runfile
from shmlog.records.values import is_text
from shmlog.transfer.imported import ImportedRun, files_below
from shmlog.transfer.importers.untrusted import read_arrow, read_batches

_YAML_BYTES_MAX = 1 << 20
_TABLES = ("vectors.parquet", "metrics.parquet")
_LINE = re.compile(r"\[([^\]]{1,40})\] \[([A-Z]{1,10})\] (.*)")
_LEVELS = {"WARN": "warning"}
_COPIED = ("console.log", "provenance.yaml")


def read(path: Path) -> ImportedRun:
    """Return the run that the folder holds.

    Raises
    ------
    RefusedError
        If there is neither run.yaml nor a table of metrics.
    """
    journals = sorted(path.glob("vectors-*.arrow"))
    tables = [path / name for name in _TABLES if (path / name).is_file()]
    if not (path / "run.yaml").is_file() and not tables and not journals:
        raise RefusedError(f"{path}: not a run of expman: it has neither run.yaml nor {_TABLES[0]}")
    run = ImportedRun(experiment=path.parent.name)
    run.params = _yaml(path, "config.yaml", run)
    _describe(path, run, _yaml(path, "run.yaml", run))
    _read_tables(run, [*tables, *journals])
    _read_log(run, path)
    if (path / "artifacts").is_dir():
        run.artifacts = files_below(path / "artifacts", run.problems)
    for name in _COPIED:
        if (path / name).is_file() and not (path / name).is_symlink():
            run.artifacts[f"expman/{name}"] = path / name
    _note_other_files(run, path)
    return run


def _note_other_files(run: ImportedRun, path: Path) -> None:
    imported = {*_TABLES, *_COPIED, "run.yaml", "config.yaml", "run.log", "artifacts", *run.files}
    for file in sorted(path.iterdir()):
        if file.name not in imported and not file.name.startswith("."):
            run.problems.add("files left out", f"{file.name} has no place in a run of ours; left out")


def _yaml(path: Path, name: str, run: ImportedRun) -> dict[str, Any]:
    try:
        document = runfile.parse(path / name, run.read(name, path / name, _YAML_BYTES_MAX))
        return plain(document)  # type: ignore[no-any-return]
    except FileNotFoundError:
        run.problems.add(name, f"{name} is missing")
    except MemoryError:
        raise  # else a run would be imported without what did not fit into memory
    except Exception as error:  # the YAML library has many ways to fail
        run.problems.add(name, f"{name} can't be read ({error})")
    return {}


def _describe(path: Path, run: ImportedRun, document: dict[str, Any]) -> None:
    run.status = str(document["status"]) if document.get("status") else "crashed"
    run.experiment = str(document.get("experiment") or run.experiment)
    run.described.created_at = run.described.started_at = _time(document, "started_at", run)
    run.described.ended_at = _time(document, "finished_at", run)
    # A name that is a date is a number to a YAML reader: then the folder's name is used.
    run.described.name = document["name"] if isinstance(document.get("name"), str) else path.name
    run.described.description = str(document["description"]) if document.get("description") else None
    run.described.group = str(document["group"]) if document.get("group") else None
    run.described.tags = document.get("tags") or []
    scalars = document.get("scalars")
    if scalars:
        ended = parse_us(run.described.ended_at or run.described.started_at) or 0
        data = scalars if isinstance(scalars, dict) else {"scalars": scalars}
        run.events.append({"timestamp": ended, "event_type": "result", "data": data})


def _time(document: dict[str, Any], name: str, run: ImportedRun) -> str | None:
    ts = parse_us(_cut(document.get(name)))
    if ts is not None and time_in_range(ts):
        return timestamp(ts)
    if document.get(name) is not None:
        run.problems.add("times", f"run.yaml: {name} {document[name]!r} is not a time")
    return None


def _cut(when: object) -> object:
    """Return a time without the digits below a microsecond, which Python does not read."""
    return re.sub(r"(\.\d{6})\d+", r"\1", when) if isinstance(when, str) else when


# ---- metrics ----


def _read_tables(run: ImportedRun, paths: list[Path]) -> None:
    last = -1
    earlier: set[tuple[Any, Any]] = set()  # a journal may repeat rows of another file
    for path in paths:
        rows: set[tuple[Any, Any]] = set()
        try:
            data = run.read(path.name, path)
            for batch in _batches(path, data, run):
                last = _add_batch(run, path.name, batch, last, earlier, rows)
        except MemoryError:
            raise
        except (OSError, UnreadableError, pa.ArrowException, ValueError, TypeError, LookupError) as error:
            text = f"{path.name}: what follows {run.records} records can't be read ({error})"
            run.problems.add("tables", text)
        earlier |= rows


def _batches(path: Path, data: bytes, run: ImportedRun) -> Iterator[pa.RecordBatch]:
    if path.suffix == ".parquet":
        yield from read_batches(path, data)
        return
    try:
        yield from read_arrow(path, data)
    except MemoryError:
        raise
    except (OSError, pa.ArrowException) as error:
        run.problems.add("tables", f"{path.name}: its end is torn; left out ({error})")


def _add_batch(
    run: ImportedRun, where: str, batch: pa.RecordBatch, last: int, earlier: set[Any], rows: set[Any]
) -> int:
    """Add the values of the rows whose step and time no ``earlier`` file has; return the last step."""
    columns = {name: column.to_pylist() for name, column in zip(batch.schema.names, _plain(batch), strict=True)}
    steps = columns.pop("step", [None] * batch.num_rows)
    times = columns.pop("timestamp", [None] * batch.num_rows)
    for i, (step, ts) in enumerate(zip(steps, times, strict=True)):
        if (step, ts) in earlier:
            continue
        rows.add((step, ts))
        if step is None:
            run.notes.add("rows without a step", f"{where}: a row without a step; it is numbered {last + 1}")
            step = last + 1
        if ts is None or not time_in_range(ts):
            run.problems.add("times", f"{where}: step {step} has no valid time; 1970 instead")
            ts = 0
        last = step
        for name, values in columns.items():
            if values[i] is not None:
                run.add(where, name, step, values[i], ts, {})
    return last


def _plain(batch: pa.RecordBatch) -> Iterator[Any]:
    """Yield the columns, times as µs."""
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_timestamp(field.type):
            yield column.cast(pa.timestamp("us", field.type.tz), safe=False).cast(pa.int64())
        else:
            yield column


# ---- log ----


def _read_log(run: ImportedRun, path: Path) -> None:
    try:
        text = run.read("run.log", path / "run.log").decode("utf-8", "replace")
    except FileNotFoundError:
        return
    except (OSError, UnreadableError) as error:
        run.problems.add("run.log", f"run.log can't be read ({error})")
        return
    last: dict[str, Any] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        ts = parse_us(match[1]) if match else None
        if match and ts is not None and time_in_range(ts) and is_text(line):
            level = _LEVELS.get(match[2], match[2].lower())
            last = {"level": level, "message": match[3]}
            run.events.append({"timestamp": ts, "event_type": "log", "data": last})
        elif last is not None:
            last["message"] += f"\n{line}"  # a message of several lines
        else:
            run.problems.add("lines of run.log", f"run.log: line {number} is not one of a log; left out")

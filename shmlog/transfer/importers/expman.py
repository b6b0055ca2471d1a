"""A run folder of expman-rs: run.yaml, config.yaml, vectors.parquet (metrics.parquet before 0.3), logs, artifacts/.

A run of 1.x that was killed has left its journal, vectors-*.arrow, instead of the Parquet file.
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
from shmlog.errors import CorruptDataError
from shmlog.folder import runfile
from shmlog.records.values import is_text
from shmlog.transfer.found import Found, files_below
from shmlog.transfer.importers.untrusted import read_arrow, read_batches

_YAML_BYTES_MAX = 1 << 20
_TABLES = ("vectors.parquet", "metrics.parquet")
_LINE = re.compile(r"\[([^\]]{1,40})\] \[([A-Z]{1,10})\] (.*)")
_LEVELS = {"WARN": "warning"}
_COPIED = ("console.log", "provenance.yaml")


def read(path: Path) -> Found:
    """Return what the folder tells.

    Raises
    ------
    CorruptDataError
        If there is neither run.yaml nor a table of metrics.
    """
    journals = sorted(path.glob("vectors-*.arrow"))
    tables = [path / name for name in _TABLES if (path / name).is_file()]
    if not (path / "run.yaml").is_file() and not tables and not journals:
        raise CorruptDataError(f"{path}: not a run of expman: it has neither run.yaml nor {_TABLES[0]}")
    found = Found(experiment=path.parent.name)
    found.params = _yaml(path, "config.yaml", found)
    _describe(path, found, _yaml(path, "run.yaml", found))
    _read_tables(found, [*tables, *journals])
    _read_log(found, path)
    if (path / "artifacts").is_dir():
        found.artifacts = files_below(path / "artifacts", found.problems)
    for name in _COPIED:
        if (path / name).is_file() and not (path / name).is_symlink():
            found.artifacts[f"expman/{name}"] = path / name
    _tell_of_others(found, path)
    return found


def _tell_of_others(found: Found, path: Path) -> None:
    known = {*_TABLES, *_COPIED, "run.yaml", "config.yaml", "run.log", "artifacts", *found.files}
    for one in sorted(path.iterdir()):
        if one.name not in known and not one.name.startswith("."):
            found.problems.add("files left out", f"{one.name} is nothing that is imported; left out")


def _yaml(path: Path, name: str, found: Found) -> dict[str, Any]:
    try:
        told = runfile.parse(path / name, found.read(name, path / name, _YAML_BYTES_MAX))
        return plain(told)  # type: ignore[no-any-return]
    except FileNotFoundError:
        found.problems.add(name, f"{name} is missing")
    except MemoryError:
        raise  # else a run would be imported without what did not fit
    except Exception as error:  # the YAML library has many ways to fail
        found.problems.add(name, f"{name} can't be read ({error})")
    return {}


def _describe(path: Path, found: Found, told: dict[str, Any]) -> None:
    found.status = str(told["status"]) if told.get("status") else "crashed"
    found.experiment = str(told.get("experiment") or found.experiment)
    found.described.created_at = found.described.started_at = _time(told, "started_at", found)
    found.described.ended_at = _time(told, "finished_at", found)
    # A name made of a date is a number to a YAML reader: the folder's is taken then.
    found.described.name = told["name"] if isinstance(told.get("name"), str) else path.name
    found.described.description = str(told["description"]) if told.get("description") else None
    found.described.group = str(told["group"]) if told.get("group") else None
    found.described.tags = told.get("tags") or []
    scalars = told.get("scalars")
    if scalars:
        ended = parse_us(found.described.ended_at or found.described.started_at) or 0
        data = scalars if isinstance(scalars, dict) else {"scalars": scalars}
        found.events.append({"timestamp": ended, "event_type": "result", "data": data})


def _time(told: dict[str, Any], name: str, found: Found) -> str | None:
    ts = parse_us(_cut(told.get(name)))
    if ts is not None and time_in_range(ts):
        return timestamp(ts)
    if told.get(name) is not None:
        found.problems.add("times", f"run.yaml: {name} {told[name]!r} is no time")
    return None


def _cut(when: object) -> object:
    """Return a time without the digits below a microsecond, which Python does not read."""
    return re.sub(r"(\.\d{6})\d+", r"\1", when) if isinstance(when, str) else when


# ---- metrics ----


def _read_tables(found: Found, paths: list[Path]) -> None:
    last = -1
    known: set[tuple[Any, Any]] = set()  # a journal may hold again what another file does
    for path in paths:
        rows: set[tuple[Any, Any]] = set()
        try:
            data = found.read(path.name, path)
            for batch in _batches(path, data, found):
                last = _add_batch(found, path.name, batch, last, known, rows)
        except MemoryError:
            raise
        except (OSError, CorruptDataError, pa.ArrowException, ValueError, TypeError, LookupError) as error:
            text = f"{path.name}: what is behind {found.records} records can't be read ({error})"
            found.problems.add("tables", text)
        known |= rows


def _batches(path: Path, data: bytes, found: Found) -> Iterator[pa.RecordBatch]:
    if path.suffix == ".parquet":
        yield from read_batches(path, data)
        return
    try:
        yield from read_arrow(path, data)
    except MemoryError:
        raise
    except (OSError, pa.ArrowException) as error:
        found.problems.add("tables", f"{path.name}: its end is torn; left out ({error})")


def _add_batch(found: Found, where: str, batch: pa.RecordBatch, last: int, known: set[Any], rows: set[Any]) -> int:
    """Add the values of the rows whose step and time are not ``known``; return the last step."""
    columns = {name: column.to_pylist() for name, column in zip(batch.schema.names, _plain(batch), strict=True)}
    steps = columns.pop("step", [None] * batch.num_rows)
    times = columns.pop("timestamp", [None] * batch.num_rows)
    for i, (step, ts) in enumerate(zip(steps, times, strict=True)):
        if (step, ts) in known:
            continue
        rows.add((step, ts))
        if step is None:
            found.problems.add("rows without a step", f"{where}: a row without a step; it is numbered {last + 1}")
            step = last + 1
        if ts is None or not time_in_range(ts):
            found.problems.add("times", f"{where}: step {step} has no time; 1970 instead")
            ts = 0
        last = step
        for name, values in columns.items():
            if values[i] is not None:
                found.add(where, name, step, values[i], ts, {})
    return last


def _plain(batch: pa.RecordBatch) -> Iterator[Any]:
    """Yield the columns, times as µs."""
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_timestamp(field.type):
            yield column.cast(pa.timestamp("us", field.type.tz), safe=False).cast(pa.int64())
        else:
            yield column


# ---- log ----


def _read_log(found: Found, path: Path) -> None:
    try:
        text = found.read("run.log", path / "run.log").decode("utf-8", "replace")
    except FileNotFoundError:
        return
    except (OSError, CorruptDataError) as error:
        found.problems.add("run.log", f"run.log can't be read ({error})")
        return
    known: dict[str, Any] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        ts = parse_us(match[1]) if match else None
        if match and ts is not None and time_in_range(ts) and is_text(line):
            level = _LEVELS.get(match[2], match[2].lower())
            known = {"level": level, "message": match[3]}
            found.events.append({"timestamp": ts, "event_type": "log", "data": known})
        elif known is not None:
            known["message"] += f"\n{line}"  # a message of several lines
        else:
            found.problems.add("lines of run.log", f"run.log: line {number} is none of a log; left out")

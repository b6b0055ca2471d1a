"""A run folder of expman-rs: run.yaml, config.yaml, vectors.parquet (metrics.parquet before 0.3), logs, artifacts/.

From 1.0 on, it also has media/, histograms.parquet, system.parquet and provenance.yaml. A run of 1.x that was killed
leaves journals, such as vectors-*.arrow, instead of the Parquet files.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from shmlog.base.plain import plain
from shmlog.base.times import parse_us, time_in_range, timestamp
from shmlog.errors import RefusedError, UnreadableError
from shmlog.reader.event_lines import parse
from shmlog.records.values import is_text
from shmlog.transfer.imported import ImportedRun, files_below, owner_of
from shmlog.transfer.importers import yaml12
from shmlog.transfer.importers.untrusted import read_arrow, read_batches

_YAML_BYTES_MAX = 1 << 20
_TABLES = ("vectors.parquet", "metrics.parquet")
_LINE = re.compile(r"\[([^\]]{1,40})\] \[([A-Z]{1,10})\] (.*)")
_LEVELS = {"WARN": "warning"}
_COPIED = ("console.log", "provenance.yaml")
_OWN_FILES = ("run.yaml", "config.yaml", "provenance.yaml", "media.jsonl", "run.log", "artifacts", "media")


def read(path: Path) -> ImportedRun:
    """Return the run that the folder holds.

    Raises
    ------
    RefusedError
        If there is neither run.yaml nor a table of metrics.
    """
    tables = _tables(path, *_TABLES)
    if not (path / "run.yaml").is_file() and not tables:
        raise RefusedError(f"{path}: not a run of expman: it has neither run.yaml nor {_TABLES[0]}")
    run = ImportedRun(experiment=path.parent.name)
    run.params = _yaml(path, "config.yaml", run)  # there is none if the run has no parameters
    document = _yaml(path, "run.yaml", run, must=True)
    _describe(path, run, document)
    _describe_origin(run, _yaml(path, "provenance.yaml", run))
    run.of_experiment = _of_experiment(_yaml(path.parent, "experiment.yaml", run), run)
    run.files.pop("experiment.yaml", None)  # it is no part of the run, whose identity the files make
    owner = owner_of(document)
    _read_tables(run, tables, owner)
    _read_tables(run, _tables(path, "system.parquet"), owner, prefix="sys/")
    _read_histograms(run, _tables(path, "histograms.parquet"), owner)
    _read_log(run, path)
    _read_media(run, path, owner)
    if (path / "artifacts").is_dir():
        run.artifacts |= files_below(path / "artifacts", run.problems)
    for name in _COPIED:
        if (path / name).is_file() and not (path / name).is_symlink():
            run.artifacts[f"expman/{name}"] = path / name
    _note_other_files(run, path)
    return run


def _note_other_files(run: ImportedRun, path: Path) -> None:
    imported = {*_COPIED, *_OWN_FILES, *run.files}
    for file in sorted(path.iterdir()):
        if file.name not in imported and not file.name.startswith("."):
            run.problems.add("files left out", f"{file.name} has no place in a run of ours; left out")


def _tables(path: Path, *names: str) -> list[Path]:
    """Return the Parquet files of some names, and then the journals of the first."""
    journals = sorted(path.glob(f"{names[0].removesuffix('.parquet')}-*.arrow"))
    return [*(path / name for name in names if (path / name).is_file()), *journals]


def _yaml(path: Path, name: str, run: ImportedRun, *, must: bool = False) -> dict[str, Any]:
    try:
        document = yaml12.parse(path / name, run.read(name, path / name, _YAML_BYTES_MAX))
        return plain(document)  # type: ignore[no-any-return]
    except FileNotFoundError:
        if must:
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
    run.described.name = path.name if document.get("name") is None else str(document["name"])
    run.described.description = str(document["description"]) if document.get("description") else None
    run.described.group = str(document["group"]) if document.get("group") else None
    run.described.tags = _tags(document, "run.yaml", run)
    scalars = document.get("scalars")
    if scalars:
        ended = parse_us(run.described.ended_at or run.described.started_at) or 0
        data = scalars if isinstance(scalars, dict) else {"scalars": scalars}
        run.events.append({"timestamp": ended, "event_type": "result", "data": data})


def _describe_origin(run: ImportedRun, provenance: dict[str, Any]) -> None:
    """Say on which host, by which command and from which commit the run was made."""
    git, command = provenance.get("git"), provenance.get("command")
    if isinstance(git, dict):
        run.described.git = {name: git.get(name) for name in ("commit", "branch", "dirty")} | {"diff": None}
    if isinstance(command, str):
        try:
            run.described.argv = shlex.split(command)
        except ValueError:
            run.described.argv = [command]
    if isinstance(provenance.get("hostname"), str):
        run.described.host = provenance["hostname"]


def _tags(document: dict[str, Any], name: str, run: ImportedRun) -> list[str]:
    tags = document.get("tags") or []
    if not isinstance(tags, (list, str)):
        run.problems.add("tags", f"{name}: tags {tags!r} are not a list; left out")
        return []
    return [tags] if isinstance(tags, str) else [str(tag) for tag in tags]


def _of_experiment(document: dict[str, Any], run: ImportedRun) -> dict[str, Any]:
    """Return what people have said of the experiment; its project, for which shmlog has no field, is a tag."""
    tags = _tags(document, "experiment.yaml", run)
    if document.get("project"):
        tags.append(f"project:{document['project']}")
    texts = {name: document[name] for name in ("display_name", "description") if document.get(name)}
    return {name: str(text) for name, text in texts.items()} | ({"tags": tags} if tags else {})


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


def _read_tables(run: ImportedRun, paths: list[Path], owner: dict[str, Any], prefix: str = "") -> None:
    """Add the values of tables with a column for each metric, each under the prefix and its column's name."""
    last = -1
    earlier: set[tuple[Any, Any]] = set()  # a journal may repeat rows of another file
    for path in paths:
        rows: set[tuple[Any, Any]] = set()
        try:
            data = run.read(path.name, path)
            for batch in _batches(path, data, run):
                for step, ts, values in _new_rows(run, path.name, batch, last, (earlier, rows)):
                    last = step
                    for name, value in values.items():
                        run.add(path.name, prefix + name, step, value, ts, owner=owner)
        except MemoryError:
            raise
        except (OSError, UnreadableError, pa.ArrowException, ValueError, TypeError, LookupError) as error:
            text = f"{path.name}: what follows {run.records} records can't be read ({error})"
            run.problems.add("tables", text)
        earlier |= rows


def _read_histograms(run: ImportedRun, paths: list[Path], owner: dict[str, Any]) -> None:
    """Add a `histogram` event for each row: ``tag``, ``step``, ``edges`` and ``counts``."""
    for path in paths:
        try:
            for batch in _batches(path, run.read(path.name, path), run):
                for step, ts, row in _new_rows(run, path.name, batch, -1, (set(), set())):
                    numbers = {name: json.loads(row[name]) for name in ("edges", "counts")}
                    data = plain({"tag": row["tag"], "step": step, **numbers})
                    run.events.append({"timestamp": ts, "event_type": "histogram", "data": data, **owner})
        except MemoryError:
            raise
        except (OSError, UnreadableError, pa.ArrowException, ValueError, TypeError, LookupError) as error:
            run.problems.add("histograms", f"{path.name}: can't be read ({error})")


# ---- media ----


def _read_media(run: ImportedRun, path: Path, owner: dict[str, Any]) -> None:
    """Add media/ as artifacts, and a `media` event for each of its lines in media.jsonl."""
    if (path / "media").is_dir():
        run.artifacts |= {f"media/{name}": file for name, file in files_below(path / "media", run.problems).items()}
    try:
        lines = run.read("media.jsonl", path / "media.jsonl").splitlines()
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, 1):
        entry = parse(line, of_others=True) or {}
        ts = parse_us(_cut(entry.pop("logged_at", None)))
        if ts is None or not time_in_range(ts) or not is_text(json.dumps(entry, ensure_ascii=False)):
            run.problems.add("media.jsonl", f"media.jsonl: line {number} is not one of a file; left out")
            continue
        run.events.append({"timestamp": ts, "event_type": "media", "data": plain(entry), **owner})


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


def _new_rows(
    run: ImportedRun, where: str, batch: pa.RecordBatch, last: int, seen: tuple[set[Any], set[Any]]
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield step, time in µs and values of the rows whose step and time no earlier file has.

    ``seen`` are the steps and times of earlier files, and of this one, to which those of the batch are added.
    """
    columns = {name: column.to_pylist() for name, column in zip(batch.schema.names, _plain(batch), strict=True)}
    steps = columns.pop("step", [None] * batch.num_rows)
    times = columns.pop("timestamp", [None] * batch.num_rows)
    earlier, rows = seen
    for i, (step, ts) in enumerate(zip(steps, times, strict=True)):
        if (step, ts) in earlier:
            continue
        if (step, ts) != (None, None):  # else nothing shows which row it is
            rows.add((step, ts))
        if step is None:
            run.notes.add("rows without a step", f"{where}: a row without a step; it is numbered {last + 1}")
            step = last + 1
        if ts is None or not time_in_range(ts):
            run.problems.add("times", f"{where}: step {step} has no valid time; 1970 instead")
            ts = 0
        last = step
        yield step, ts, {name: values[i] for name, values in columns.items() if values[i] is not None}


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

"""entrenar's experiments.db: an SQLite database of experiments, runs, parameters, metrics and artifacts."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from shmlog.errors import CorruptDataError, RefusedError
from shmlog.folder.artifacts import is_name
from shmlog.folder.files import LOCAL
from shmlog.transfer.imported import ImportedRun
from shmlog.transfer.importers.trueno import choose, run_of, several, tags_of

_MAGIC = b"SQLite format 3\0"
_TABLES = {"experiments", "runs", "metrics"}


def read(path: Path) -> ImportedRun:
    """Return the run of a database that has one, or that of a path ``experiments.db/RUN_ID``; the runs, if several.

    Raises
    ------
    CorruptDataError
        If it is no database, or damaged.
    RefusedError
        If it is not one of entrenar, or has no such run.
    """
    place = path if path.is_file() else path.parent
    try:
        with _opened(place) as database:
            names = {row["name"] for row in database.execute("select name from sqlite_master where type = 'table'")}
            if not names >= _TABLES:
                raise RefusedError(f"{place}: not a database of entrenar; it has the tables {', '.join(sorted(names))}")
            run_ids = [str(row["id"]) for row in database.execute("select id from runs order by rowid")]
            run_id = choose(path, place, run_ids)
            return several(place, run_ids) if run_id is None else _run(database, run_id, names)
    except sqlite3.Error as error:
        raise CorruptDataError(f"{place}: can't be read ({error})") from error


@contextmanager
def _opened(place: Path) -> Iterator[sqlite3.Connection]:
    """Yield the database, to be read. SQLite would write beside one that has a log: that one is copied first."""
    with LOCAL.open(place) as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise CorruptDataError(f"{place}: not a database of SQLite")
    log = place.with_name(f"{place.name}-wal")
    with tempfile.TemporaryDirectory(prefix="shmlog-import-") as folder:
        uri = f"{place.as_uri()}?mode=ro&immutable=1"
        if log.exists() and log.stat().st_size:
            uri = f"{_copied(place, log, Path(folder)).as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            database.row_factory = sqlite3.Row
            database.execute("pragma trusted_schema = off")
            yield database


def _copied(place: Path, log: Path, folder: Path) -> Path:
    """Return a copy of a database and its log; raises RefusedError if a program writes to them meanwhile."""
    before = [_state(path) for path in (place, log)]
    for path in (place, log):
        with LOCAL.open(path) as original, open(folder / path.name, "xb") as copy:
            shutil.copyfileobj(original, copy)
    if [_state(path) for path in (place, log)] != before:
        raise RefusedError(f"{place}: a program writes to it; import it when that has ended")
    return folder / place.name


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _run(database: sqlite3.Connection, run_id: str, tables: set[str]) -> ImportedRun:
    def rows(table: str, column: str = "run_id", value: str = run_id) -> Iterator[dict[str, Any]]:
        """Yield the rows of a table that belong to the run, in the order in which they were written."""
        if table in tables:
            for row in database.execute(f"select * from {table} where {column} = ? order by rowid", [value]):
                row = dict(row)
                identity.update(repr(sorted(row.items())).encode(errors="backslashreplace"))
                yield row

    identity = hashlib.sha256()
    (row,) = rows("runs", "id")
    experiment = next(rows("experiments", "id", str(row.get("experiment_id"))), {})
    span = next(rows("span_ids"), {}).get("span_id")
    record = {
        **row, "run_id": run_id, "started_at": row.get("start_time"), "ended_at": row.get("end_time"),
        "renacer_span_id": span,
    }  # fmt: skip
    faults: list[str] = []
    config = _json(experiment.get("config"), "the configuration of the experiment", faults)
    run = run_of({**experiment, "config": config}, record, rows("metrics"))
    run.described.tags = tags_of(_json(row.get("tags"), "the tags", faults))
    if isinstance(experiment.get("description"), str):
        run.of_experiment["description"] = experiment["description"]
    if tags := tags_of(_json(experiment.get("tags"), "the tags of the experiment", faults)):
        run.of_experiment["tags"] = tags
    for param in rows("params"):
        run.params[str(param["key"])] = _plain(_json(param["value"], f"parameter {param['key']!r}", faults))
    for artifact in rows("artifacts"):
        _add_artifact(run, artifact)
    for fault in faults:
        run.problems.add("texts", fault)
    run.identity = identity.hexdigest()
    return run


def _json(text: object, what: str, faults: list[str]) -> Any:
    if text is None:
        return None
    try:
        return json.loads(str(text))
    except (ValueError, RecursionError) as error:
        faults.append(f"{what}: not JSON ({error}); left out")
        return None


def _plain(value: Any) -> Any:
    """Return a value without the types that entrenar writes beside: ``{"type": "Int", "value": 3}``."""
    if not isinstance(value, dict) or value.keys() != {"type", "value"}:
        return value
    content = value["value"]
    if value["type"] == "List" and isinstance(content, list):
        return [_plain(part) for part in content]
    if value["type"] == "Dict" and isinstance(content, dict):
        return {name: _plain(part) for name, part in content.items()}
    return float("nan") if value["type"] == "Float" and content is None else content


def _add_artifact(run: ImportedRun, artifact: dict[str, Any]) -> None:
    name, data = str(artifact["path"]), artifact.get("data")
    if not isinstance(data, bytes):
        run.problems.add("artifacts", f"artifact {name!r} has no content in the database")
        return
    if hashlib.sha256(data).hexdigest() != artifact.get("sha256"):
        run.problems.add("damage", f"artifact {name!r}: its content is not that of its SHA-256; kept as it is")
    if run.artifacts.get(name) == data:
        return
    if not is_name(name) or name in run.artifacts:
        given, name = name, f"entrenar/{artifact['id']}"
        run.notes.add("names", f"artifact {given!r} is named {name}: its own name is taken, or no path in a folder")
    run.artifacts[name] = data

"""SQL over runs: DuckDB scans the sealed parts itself; what is not sealed yet is given to it as Arrow tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from shmlog.base.extras import import_extra
from shmlog.base.warn import warn_caller
from shmlog.errors import CorruptDataError, QueryError, UnknownNameError, UnreadableError
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.reader import read
from shmlog.reader.model import RunRecord
from shmlog.reader.snapshot import Snapshot, take
from shmlog.reader.sources import NO_ROWS, Sources, find_sources
from shmlog.reader.sql import tables
from shmlog.reader.sql.attempts import attempts_sql
from shmlog.records.lanes import NODE
from shmlog.records.schema import METRICS

Params = Sequence[Any] | Mapping[str, Any]

_TRIES = 20
_UNKNOWN_COLUMN = re.compile("Referenced column|does not have a column named|Referenced table")

TABLES = ("metrics", "events", "runs", "params", "artifacts")

_CONFIG = {
    "autoinstall_known_extensions": "false", "autoload_known_extensions": "false",
    "allow_community_extensions": "false", "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",  # else a query could name our variables
    "temp_directory": "",  # nothing is written, not even what does not fit in memory
}  # fmt: skip

_COLUMNS = ", ".join(f'"{field.name}"' for field in METRICS)

# EXPERIMENT/ID/metrics/node=0/part-000000.parquet. DuckDB evaluates this once a file, and skips files by it.
_RUN_ID, _FOLDER = "split_part(filename, '/', -4)", "split_part(filename, '/', -5)"


class View:
    """One run as a query sees it, from files that belong together."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.layout = RunLayout(record.dir)
        self.problems: list[str] = []
        self.snapshot: Snapshot | None = None
        self.sources = Sources([], NO_ROWS)

    def take(self, wanted: Iterable[str]) -> View:
        """Look at the files anew; raises FileNotFoundError if there is no run.yaml, or a part has gone."""
        if not {"metrics", "events", "artifacts"} & set(wanted):
            return self
        snapshot = self.snapshot = take(self.layout)
        self.problems = [text for _, text in snapshot.problems]
        if "metrics" in wanted:
            is_utf8 = _is_utf8(self.layout.dir)
            self.sources, problems = find_sources(self.layout, snapshot, in_memory=not is_utf8)
            self.problems += problems
        return self

    def events(self, event_type: str | None = None) -> list[dict[str, Any]]:
        """Return the events, or those of a type, from the same files."""
        assert self.snapshot is not None
        events, problems = read.read_events(self.layout, self.snapshot, event_type)
        self.problems += [problem for problem in problems if problem not in self.problems]
        return events

    def first_lanes(self) -> dict[int, list[int]]:
        """Return for each node the first lane of each attempt."""
        described = self.snapshot.described if self.snapshot else Description()
        nodes = {NODE, *(part.node for part in self.snapshot.parts)} if self.snapshot else {NODE}
        return {node: described.first_lanes(node) for node in sorted(nodes)}

    def parts(self) -> Iterator[tuple[int, str]]:
        """Yield node and path of each part; DuckDB opens it by itself."""
        for part in self.sources.parts:
            yield part.node, str(self.layout.files.local(part.path))

    @property
    def is_resumed(self) -> bool:
        """Whether the run has more than one attempt."""
        return any(len(lanes) > 1 for lanes in self.first_lanes().values())

    def is_still_there(self) -> bool:
        """Whether no part has been merged into another meanwhile."""
        return self.snapshot is None or self.snapshot.is_still_there(self.layout)


def query_runs(runs: Sequence[RunRecord], query: str, params: Params | None = None) -> pa.Table:
    """Return the result of a ``SELECT`` over some runs.

    Parameters
    ----------
    runs : sequence of RunRecord
    query : str
        One statement over the tables `TABLES`.
    params : sequence or mapping, optional
        Values for ``?`` or ``$name`` in it.

    Raises
    ------
    MissingExtraError
        If DuckDB is not installed.
    QueryError
        If DuckDB can't answer it; its message says why.
    """
    duckdb = import_extra("duckdb", "SQL")
    _check(duckdb, query)
    wanted = [name for name in TABLES if name in query.lower()]
    views = [View(record) for record in runs]
    for _ in range(_TRIES):
        problems: list[str] = []
        try:
            table = _answer(duckdb, _take_all(views, wanted, problems), wanted, query, params)
        except FileNotFoundError:
            continue  # a part was merged meanwhile
        except duckdb.Error as error:
            if all(view.is_still_there() for view in views):
                raise _explained(duckdb, error, wanted) from error
            continue
        if all(view.is_still_there() for view in views):
            for problem in chain(problems, *(view.problems for view in views)):
                warn_caller(problem)
            return table
    raise CorruptDataError("the parts of these runs keep disappearing; copy them and ask the copy")


def _take_all(views: Sequence[View], wanted: Sequence[str], problems: list[str]) -> list[View]:
    readable = []
    for view in views:
        try:
            readable.append(view.take(wanted))
        except FileNotFoundError:
            if view.layout.files.exists(view.layout.run_yaml):
                raise
            problems.append(f"{view.layout.dir}: no run.yaml; its metrics and events are left out")
        except UnreadableError as error:
            if len(views) == 1:
                raise  # nothing else is asked
            problems.append(f"{error}; the metrics and events of run {view.layout.run_id} are left out")
    return readable


def _check(duckdb: Any, query: str) -> None:
    """Raise QueryError unless the query is one statement that only reads."""
    if not isinstance(query, str):
        raise TypeError(f"query must be a str, not {type(query).__name__}")
    if "\0" in query:
        raise QueryError("a query can't hold NUL; pass values by params")
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise QueryError(str(error).strip()) from error
    if len(statements) != 1:
        raise QueryError(f"one statement is taken, not {len(statements)}")
    if statements[0].type != duckdb.StatementType.SELECT:
        kind = str(statements[0].type).rpartition(".")[2].strip("<>0123456789: ")
        raise QueryError(f"only a query that reads is taken, such as SELECT, not {kind}")


def _explained(duckdb: Any, error: Exception, wanted: Sequence[str]) -> QueryError:
    """Return DuckDB's error; that of an unknown name lists the tables, or the columns of those in the query."""
    text = str(error).strip()
    if isinstance(error, duckdb.CatalogException) and "Table with name" in text:
        return UnknownNameError(f"{text.partition(chr(10))[0]} The tables are {', '.join(TABLES)}.")
    if isinstance(error, duckdb.BinderException) and _UNKNOWN_COLUMN.search(text):
        columns = "; ".join(f"{name}: {', '.join(tables.COLUMNS[name])}" for name in wanted)
        return UnknownNameError(f"{text.partition(chr(10))[0]} The columns are of {columns}.")
    return QueryError(text)


# ---- the database ----


def _answer(duckdb: Any, views: list[View], wanted: Sequence[str], query: str, params: Params | None) -> pa.Table:
    connection = duckdb.connect(":memory:", config=_CONFIG)
    try:
        paths = _define(connection, views, wanted)
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET allowed_paths = [{', '.join(map(_quote, paths))}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        result = connection.sql(query, params=params) if params else connection.sql(query)
        return result.to_arrow_table()
    finally:
        connection.close()


def _define(connection: Any, views: list[View], wanted: Sequence[str]) -> list[str]:
    """Make the tables that are wanted; return the files that they are read from."""
    make: dict[str, Callable[[], pa.Table]] = {
        "runs": lambda: tables.make_table((tables.run_row(view.record) for view in views), tables.RUNS),
        "params": lambda: _gather(views, tables.param_rows, tables.PARAMS),
        "artifacts": lambda: tables.make_table(
            chain.from_iterable(tables.artifact_rows(view.record, view.events("artifact")) for view in views),
            tables.ARTIFACTS,
        ),
        "events": lambda: tables.make_table(
            chain.from_iterable(tables.event_rows(view.record, view.events()) for view in views), tables.EVENTS
        ),
    }
    for name in wanted:
        if name in make:
            connection.register(name, make[name]())
    return _define_metrics(connection, views) if "metrics" in wanted else []


def _gather(views: Iterable[View], rows_of: Callable[[RunRecord], Iterable[Any]], schema: pa.Schema) -> pa.Table:
    return tables.make_table(chain.from_iterable(rows_of(view.record) for view in views), schema)


def _define_metrics(connection: Any, views: list[View]) -> list[str]:
    """Make the view of all records, and mark those of runs that were resumed."""
    plain = [view for view in views if not view.is_resumed]
    resumed = [view for view in views if view.is_resumed]
    is_one = len(views) == 1
    selects = []
    if plain or not resumed:
        of_plain = _select_records(connection, plain, "shmlog_unsealed", is_one)
        selects.append(f"SELECT * EXCLUDE (node), 1::INTEGER AS attempt, false AS superseded FROM ({of_plain})")
    if resumed:
        of_resumed = _select_records(connection, resumed, "shmlog_unsealed_of_resumed", is_one)
        connection.register("shmlog_attempts", tables.attempt_table((v.record, v.first_lanes()) for v in resumed))
        selects.append(attempts_sql(of_resumed, _COLUMNS))
    connection.execute(f"CREATE VIEW metrics AS {' UNION ALL '.join(selects)}")
    return [path for view in views for _, path in view.parts()]


def _select_records(connection: Any, views: list[View], unsealed_name: str, is_one: bool) -> str:
    """Return the SELECT of the records of some runs; what is not in parts is registered as a table."""
    paths: dict[int, list[str]] = {}
    for node, path in chain.from_iterable(view.parts() for view in views):
        paths.setdefault(node, []).append(path)
    unsealed = [_with_ids(view.sources.rows, *_ids_of(view)) for view in views if view.sources.rows.num_rows]
    rows = pa.concat_tables([_with_ids(NO_ROWS, "", ""), *unsealed]).unify_dictionaries()
    selects = []
    run_id, experiment = map(_quote, _ids_of(views[0])) if is_one and views else (_RUN_ID, _experiment(views))
    for node, of_node in paths.items():
        # The name of a file column must not meet that of a metric's column, of which none is "filename".
        files = f"[{', '.join(map(_quote, of_node))}], filename = {not is_one}, hive_partitioning = false"
        ids = f"{run_id} AS run_id, {experiment} AS experiment, {node}::INTEGER AS node"
        selects.append(f"SELECT {ids}, {_COLUMNS} FROM read_parquet({files})")
    if rows.num_rows or not paths:
        connection.register(unsealed_name, rows)
        selects.append(f"SELECT run_id, experiment, node, {_COLUMNS} FROM {unsealed_name}")
    return " UNION ALL ".join(selects)


def _experiment(views: Sequence[View]) -> str:
    """Return the expression of a file's experiment, whose folder need not bear the same name."""
    names = {view.layout.dir.parent.name: view.record.experiment for view in views}
    cases = [f"WHEN {_quote(folder)} THEN {_quote(name)}" for folder, name in names.items() if folder != name]
    return f"CASE {_FOLDER} {' '.join(cases)} ELSE {_FOLDER} END" if cases else _FOLDER


def _ids_of(view: View) -> tuple[str, str]:
    return view.record.run_id, view.record.experiment


def _with_ids(rows: pa.Table, run_id: str, experiment: str) -> pa.Table:
    """Return rows with two columns that say whose they are."""
    codes = pa.repeat(pa.scalar(0, pa.int32()), rows.num_rows)
    for name, text in (("run_id", run_id), ("experiment", experiment)):
        column: Any = pa.DictionaryArray.from_arrays(codes, pa.array([text], pa.string()))
        rows = rows.append_column(name, column)
    return rows


def _quote(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _is_utf8(path: Path) -> bool:
    """Whether DuckDB can be told the path."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True

"""``shmlog sql``: a query over the runs of a store, or over one run."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shmlog.cli.find import open_store, resolve_run
from shmlog.cli.output import print_json, say
from shmlog.cli.parser import RUN, UsageError, add_command, add_root_option, natural, path
from shmlog.cli.text import clean, plural, table, value
from shmlog.errors import QueryError

if TYPE_CHECKING:
    import pyarrow as pa

    from shmlog.cli.parser import Commands

_EXAMPLE = """
shmlog sql "select experiment, name, count(*), avg(value) from metrics group by all"
shmlog sql "select step, value from metrics where name = 'loss' order by step" runs/digits --csv
shmlog sql "describe metrics"    its columns; the other tables: events, runs, params, artifacts
"""

_LIMIT = 1000
_TEXT_MAX = 200  # columns of a text


def add_parser(commands: Commands) -> None:
    """Add the command ``sql``."""
    parser = add_command(commands, "sql", run, "query the runs of a store, or one run, by SQL", _EXAMPLE)
    text = "one SELECT over the tables metrics, events, runs, params and artifacts"
    parser.add_argument("query", metavar="QUERY", help=text)
    text = f"only this run: {RUN} (default: all runs of ROOT)"
    parser.add_argument("path", nargs="?", metavar="RUN", type=path, help=text)
    add_root_option(parser)
    parser.add_argument("--csv", action="store_true", help="comma-separated values, all rows")
    text = f"show no more rows than this as a table; 0: all (default: {_LIMIT:,})"
    parser.add_argument("--limit", metavar="N", type=natural, default=_LIMIT, help=text)


def run(args: argparse.Namespace) -> int:
    """Answer a query."""
    if args.json and args.csv:
        raise UsageError("--json or --csv, not both")
    result = _ask(args)
    if args.json:
        print_json(rows_of(result))
    elif args.csv:
        _write_csv(result)
    else:
        for line in _lines(result, args.limit):
            print(line)
    return 0


def _ask(args: argparse.Namespace) -> pa.Table:
    try:
        return _answer(args)
    except QueryError as error:
        # Without DuckDB's picture of the query, which takes several lines.
        raise type(error)(" ".join(str(error).partition("\nLINE ")[0].split())) from error


def _answer(args: argparse.Namespace) -> pa.Table:
    import shmlog

    if args.path is not None:
        return shmlog.load(resolve_run(args.path, args.root)).sql(args.query)
    return open_store(args.root).sql(args.query)


def rows_of(result: pa.Table) -> list[dict[str, Any]]:
    """Return rows as dicts; the second column of a name becomes ``name_1``, and so on."""
    names: list[str] = []
    for name in result.column_names:
        names.append(next(new for i in range(len(names) + 1) if (new := f"{name}_{i}" if i else name) not in names))
    return [dict(zip(names, row, strict=True)) for row in _rows(result)]


def _rows(result: pa.Table) -> Iterator[tuple[Any, ...]]:
    for batch in result.to_batches(max_chunksize=10_000):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _write_csv(result: pa.Table) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    is_shown = sys.stdout.isatty()
    writer.writerow(_csv_cell(name, is_shown) for name in result.column_names)
    writer.writerows([_csv_cell(item, is_shown) for item in row] for row in _rows(result))


def _csv_cell(item: Any, is_shown: bool) -> Any:
    """Return a cell that no spreadsheet reads as a formula, and no terminal as a command."""
    from shmlog.transfer.cells import guard

    plain = _plain(item)
    if not isinstance(plain, str):
        return plain
    return guard(clean(plain) if is_shown else plain)


def _plain(item: Any) -> Any:
    return json.dumps(item, default=str) if isinstance(item, (list, dict, bool)) else item


def _lines(result: pa.Table, limit: int) -> Iterator[str]:
    from pyarrow import types

    names = result.column_names
    shown = result.slice(0, limit) if limit else result
    # No thousands separators: a number may be an id.
    rows = [[_cell(item) for item in row] for row in _rows(shown)]
    left = [field.name for field in result.schema if not types.is_primitive(field.type)]
    yield from table(names, rows, left=left)
    if len(shown) < len(result):
        say(f"shmlog: {plural(len(result) - len(shown), 'more row')}; --limit 0 shows all")


def _cell(item: Any) -> str | None:
    return None if item is None else value(_plain(item), _TEXT_MAX)

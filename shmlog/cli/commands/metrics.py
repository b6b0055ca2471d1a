"""``shmlog metrics``: the curves of a run, as a table or as CSV."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from shmlog.cli.find import resolve_run
from shmlog.cli.output import print_json, say
from shmlog.cli.parser import RUN, add_command, add_root_option, add_selection_options, natural, path
from shmlog.cli.text import local_time, plural, table, value

if TYPE_CHECKING:
    import pyarrow as pa

    from shmlog.cli.parser import Commands

_EXAMPLE = """
shmlog metrics digits                          the names of the metrics
shmlog metrics digits loss 'val/*'             a row for each call that logged one of them
shmlog metrics digits loss --every 100 | cut -d, -f1,6
"""

_ROWS = 40


def add_parser(commands: Commands) -> None:
    """Add the command ``metrics``."""
    parser = add_command(commands, "metrics", run, "print curves of a run; into a pipe or a file, as CSV", _EXAMPLE)
    parser.add_argument("path", metavar="RUN", type=path, help=RUN)
    text = "a metric, or a pattern such as 'val/*' (default: list the names)"
    parser.add_argument("names", nargs="*", metavar="NAME", help=text)
    add_root_option(parser)
    add_selection_options(parser)
    parser.add_argument("--csv", action="store_true", help="comma-separated values, on a terminal too")
    text = f"rows of a table, evenly spaced if there are more; 0: all (default: {_ROWS})"
    parser.add_argument("--limit", metavar="N", type=natural, default=_ROWS, help=text)


def run(args: argparse.Namespace) -> int:
    """Print the names of metrics, or some curves."""
    from shmlog.reader.stored import load
    from shmlog.transfer.exporters.csv import widen
    from shmlog.transfer.exporters.output import no_progress
    from shmlog.transfer.selection import Selection

    stored = load(resolve_run(args.path, args.root))
    if not args.names:
        return _print_names(stored.names(), args.json)
    selection = Selection(args.names, args.steps, args.every)
    records = selection.thin(stored.metrics(selection.of(stored.names())))
    if len(stored.attempts) == 1:
        records = records.drop_columns(["attempt", "superseded"])
    if args.json:
        print_json(widen(records).to_pylist())
    elif args.csv or not sys.stdout.isatty():
        from shmlog.transfer.exporters.csv import write_wide

        sys.stdout.flush()
        write_wide(stored, records, sys.stdout.buffer, no_progress)
    else:
        _print_table(widen(records), args.limit)
    return 0


def _print_names(names: list[str], as_json: bool) -> int:
    if as_json:
        print_json(names)
    else:
        for name in names:
            print(value(name))
    return 0


def _print_table(calls: pa.Table, limit: int) -> None:
    """Print rows, evenly spaced ones if there are too many; columns without a value are left out."""
    count = calls.num_rows
    shown = calls
    if limit and count > limit:
        shown = calls.take([i * (count - 1) // max(limit - 1, 1) for i in range(limit)])
        say(f"shmlog: {limit} of {plural(count, 'row')}, evenly spaced; --limit 0 shows all")
    columns = {name: list(map(_cell, shown[name].to_pylist())) for name in shown.column_names}
    filled = {name: cells for name, cells in columns.items() if any(cell is not None for cell in cells)}
    for line in table(list(filled), list(zip(*filled.values(), strict=True)), left=["ts"]):
        print(line)


def _cell(item: Any) -> str | None:
    if item is None:
        return None
    return local_time(item, seconds=True) if hasattr(item, "astimezone") else value(item)

"""``shmlog runs``: the runs of a store, filtered and sorted."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from shmlog.base.times import duration
from shmlog.cli.find import open_store, recover_dead
from shmlog.cli.output import print_json, say
from shmlog.cli.parser import add_command, add_filter_options, add_root_option, natural
from shmlog.cli.text import or_one_of, table
from shmlog.folder.root import Root

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.reader.model import RunRecord

_EXAMPLE = """
shmlog runs digits --status failed
shmlog runs --where 'lr > 0.01 and model contains "resnet"' --sort metrics.loss.min
shmlog runs --tag 'arm:tiered AND (study:1 OR study:2)' --since 7d --json
"""

_HEAD = ("run", "experiment", "status", "started", "took", "name", "tags")
_ALWAYS = 4  # so many columns are shown even if they are empty


def add_parser(commands: Commands) -> None:
    """Add the command ``runs``."""
    summary = "list the runs of a store, newest first"
    parser = add_command(commands, "runs", run, summary, _EXAMPLE)
    parser.add_argument("experiment", nargs="?", metavar="EXPERIMENT", help="only runs of this experiment")
    add_root_option(parser)
    add_filter_options(parser)
    where = "only runs that meet this; names are parameters, metrics.NAME.min (max, last, count) or run.FIELD"
    parser.add_argument("--where", metavar="CONDITION", help=where)
    parser.add_argument("--since", metavar="TIME", help="only runs that began then or later, such as 7d or 2026-11-21")
    parser.add_argument("--until", metavar="TIME", help="only runs that began before then")
    parser.add_argument("--sort", metavar="NAME", help="sort by a name as in --where; --sort=-NAME: largest first")
    parser.add_argument("--limit", metavar="N", type=natural, help="show no more than this")


def run(args: argparse.Namespace) -> int:
    """List the runs that meet the options."""
    store = open_store(args.root)
    find = partial(
        store.runs, args.experiment, status=args.status, tags=args.tag, where=args.where, since=args.since,
        until=args.until, sort=args.sort, limit=args.limit,
    )  # fmt: skip
    records = find()
    if recover_dead(record.dir for record in records if record.live is False):
        records = find()
    if args.json:
        print_json([record.to_dict() for record in records])
    else:
        for line in _lines(records):
            print(line)
    if not records and args.where:
        for name, similar in store.unknown_names(args.where, args.experiment).items():
            say(f"shmlog: no run has {name}{or_one_of(similar)}")
    if not records:
        say("shmlog: no such runs" if store.experiments() else f"shmlog: {Root(args.root).content()}")
    for record in records:
        if record.problems:
            say(f"shmlog: warning: {record.problems[0]}{_more(record)}")
    return 0


def _more(record: RunRecord) -> str:
    return f" and {len(record.problems) - 1} more" if len(record.problems) > 1 else ""


def _lines(records: Sequence[RunRecord]) -> Iterator[str]:
    if not records:
        return
    rows = [_cells(record) for record in records]
    shown = [i for i, _ in enumerate(_HEAD) if i < _ALWAYS or any(row[i] for row in rows)]
    head = [_HEAD[i] for i in shown]
    yield from table(head, [[row[i] for i in shown] for row in rows], left=[name for name in head if name != "took"])


def _cells(record: RunRecord) -> list[str]:
    status = str(record.status)
    if status == "running" and record.live is None:
        status += "?"  # this machine can't know
    began = f"{record.began_at:%Y-%m-%d %H:%M}" if record.began_at else ""
    took = duration(record.duration_s) if record.duration_s is not None else ""
    name = "" if record.name == record.run_id else record.name
    tags = ", ".join((*(["pinned"] if record.pinned else []), *record.tags))
    return [record.run_id, record.experiment, status, began, took, name, tags]

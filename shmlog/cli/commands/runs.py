"""``shmlog runs``: the runs of a store, filtered and sorted."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from shmlog.base.times import duration
from shmlog.cli.find import open_store, recover_dead
from shmlog.cli.output import print_json, say, to_json
from shmlog.cli.parser import add_command, add_filter_options, add_root_option, natural
from shmlog.cli.text import is_figure, local_time, plural, statistic, table, value
from shmlog.folder.root import Root
from shmlog.reader.model import flat_params

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.reader.model import RunRecord
    from shmlog.store.store import Store

_EXAMPLE = """
shmlog runs digits --status failed
shmlog runs --where 'lr > 0.01 and model contains "resnet"' --sort metrics.loss.min
shmlog runs digits --columns lr,metrics.loss.min,run.host
shmlog runs --tag 'arm:tiered AND (study:1 OR study:2)' --since 7d --json
"""

_SECONDS = 2.0  # how long runs may be summarised that nobody has listed before; the next list goes on with the others
_METRICS_MAX = 8
_NAMES = re.compile(r"""(?:[^,"']|"[^"]*"|'[^']*')+""")


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
    columns = "show these, such as lr,metrics.loss.min,run.host, instead of the parameters and metrics that differ"
    parser.add_argument("--columns", metavar="NAMES", type=_split, default=[], help=columns)


def run(args: argparse.Namespace) -> int:
    """List the runs that meet the options."""
    store = open_store(args.root)
    if args.where:
        store.check_where(args.where, args.experiment)
    find = partial(
        store.runs, args.experiment, status=args.status, tags=args.tag, where=args.where, since=args.since,
        until=args.until, sort=args.sort, limit=args.limit,
    )  # fmt: skip
    records = find()
    if recover_dead(record.dir for record in records if record.live is False):
        records = find()
    sort = [args.sort.removeprefix("-")] if args.sort else []
    chosen = store.values(records, [*sort, *args.columns]) if records else {}
    if args.json:
        rows = [{name: values[i] for name, values in chosen.items()} for i in range(len(records))]
        print_json([{**record.to_dict(), "columns": row} for record, row in zip(records, rows, strict=True)])
    else:
        _print(store, records, chosen, is_chosen=bool(args.columns))
    if not records:
        say("shmlog: no such runs" if store.experiments() else f"shmlog: {Root(args.root).content()}")
    for record in records:
        if record.problems:
            say(f"shmlog: warning: {record.problems[0]}{_more(record)}")
    return 0


def _split(text: str) -> list[str]:
    """Return the names that commas separate; one in quotes may have commas in it."""
    return [name.strip() for name in _NAMES.findall(text) if name.strip()]


def _more(record: RunRecord) -> str:
    return f" and {len(record.problems) - 1} more" if len(record.problems) > 1 else ""


# ---- the table ----


def _print(store: Store, records: Sequence[RunRecord], chosen: Mapping[str, Sequence[Any]], is_chosen: bool) -> None:
    """Print the table, the most telling columns first: a narrow window leaves the last ones out."""
    if not records:
        return
    columns = {"run": [record.run_id for record in records]}
    if len({record.experiment for record in records}) > 1:
        columns["experiment"] = [record.experiment for record in records]
    columns["name"] = ["" if record.name == record.run_id else record.name for record in records]
    columns["status"] = [_status(record) for record in records]
    columns |= {name.removeprefix("metrics."): [_text(item) for item in items] for name, items in chosen.items()}
    if not is_chosen:
        columns |= _differing(records, columns)
        columns |= _last_values(store, records, columns)
    columns["took"] = ["" if r.duration_s is None else duration(r.duration_s) for r in records]
    columns["started"] = [local_time(record.began_at) for record in records]
    columns["tags"] = [", ".join((*(["pinned"] if record.pinned else []), *record.tags)) for record in records]
    shown = {title: cells for title, cells in columns.items() if title in ("run", "started") or any(cells)}
    left = [title for title, cells in shown.items() if not all(map(is_figure, filter(None, cells)))]
    for line in table(list(shown), list(zip(*shown.values(), strict=True)), left=[*left, "started"]):
        print(line)


def _status(record: RunRecord) -> str:
    is_guess = record.status == "running" and record.live is None  # this machine can't know
    return f"{record.status}?" if is_guess else str(record.status)


def _differing(records: Sequence[RunRecord], taken: Container[str]) -> dict[str, list[str]]:
    """Return the parameters in which runs differ, by name."""
    params = [flat_params(record.params) for record in records]
    names = dict.fromkeys(name for of_run in params for name in of_run)
    cells = {name: [_text(of_run.get(name)) for of_run in params] for name in names if name not in taken}
    return {name: of_name for name, of_name in cells.items() if len(set(of_name)) > 1}


def _last_values(store: Store, records: Sequence[RunRecord], taken: Container[str]) -> dict[str, list[str]]:
    """Return the last values of the metrics that most runs have."""
    summaries = store.summaries(records, _SECONDS)
    left_out = summaries.count(None)
    if left_out:
        say(f"shmlog: {plural(left_out, 'run')} not summarised yet, without metrics here; list them again to go on")
    runs_of = Counter(name for summary in summaries for name in summary or {})
    names = sorted(runs_of, key=lambda name: (-runs_of[name], name))[:_METRICS_MAX]
    return {
        name: [statistic(summary[name]["last"]) if summary and name in summary else "" for summary in summaries]
        for name in names
        if name not in taken
    }


def _text(item: Any) -> str:
    if isinstance(item, datetime):
        return local_time(item, seconds=True)
    return value(to_json(item) if isinstance(item, (list, dict, tuple)) else item)

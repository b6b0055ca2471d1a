"""``shmlog prune``: delete old runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from shmlog.cli.find import open_store
from shmlog.cli.output import print_json, say
from shmlog.cli.parser import FAILED, UsageError, add_command, add_filter_options, add_root_option, natural
from shmlog.cli.text import local_time, plural, relative, size, table

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.store.prune import PruneResult

_EXAMPLE = """
shmlog prune --keep 20                        list which would go
shmlog prune --keep 20 --older-than 30d --force
shmlog prune --older-than 90d --status failed --archive --force
"""

_HEAD = ("run", "experiment", "status", "started", "size")


def add_parser(commands: Commands) -> None:
    """Add the command ``prune``."""
    parser = add_command(commands, "prune", run, "list old runs, and delete them with --force", _EXAMPLE)
    parser.add_argument("--keep", metavar="N", type=natural, help="keep the newest N runs of each experiment")
    parser.add_argument("--older-than", metavar="SPAN", help="keep runs that ended less than this ago: 30d, 12h, 2w")
    text = "with both rules, delete what neither keeps (all, the default) or what one does not keep (any)"
    parser.add_argument("--mode", choices=("all", "any"), default="all", help=text)
    parser.add_argument("--experiment", metavar="NAME", help="only runs of this experiment")
    add_root_option(parser)
    add_filter_options(parser)
    parser.add_argument("--archive", action="store_true", help="keep each as ROOT/.archive/EXPERIMENT/ID.tar.zst")
    parser.add_argument("--force", action="store_true", help="do it; without it nothing is changed")


def run(args: argparse.Namespace) -> int:
    """List old runs; with --force, delete them."""
    if args.keep is None and args.older_than is None:
        raise UsageError("prune needs a rule: --keep, --older-than or both")
    result = open_store(args.root).prune(
        keep=args.keep, older_than=args.older_than, mode=args.mode, experiment=args.experiment, status=args.status,
        tags=args.tag, archive=args.archive, dry_run=not args.force,
    )  # fmt: skip
    if args.json:
        print_json(result.to_dict())
    else:
        _print(result)
    return FAILED if result.failed else 0


def _print(result: PruneResult) -> None:
    if result.runs:
        rows = [
            (run.run_id, run.experiment, run.status, local_time(run.began_at), size(run.size_bytes))
            for run in result.runs
        ]
        for line in table(_HEAD, rows, left=_HEAD[:-1]):
            print(line)
    for line in _remarks(result):
        say(f"shmlog: {line}")


def _remarks(result: PruneResult) -> Iterator[str]:
    for run in result.runs:
        if run.archive:
            yield f"{run.run_id} is kept as {relative(run.archive)}"
    for problem in result.unreadable:
        yield f"warning: kept, since something in it is damaged: {problem}"
    for problem in result.failed:
        yield f"error: {problem}"
    if result.kept:
        yield "kept: " + ", ".join(f"{count:,} {why}" for why, count in result.kept.items())
    if result.leftovers:
        yield f"{plural(result.leftovers, 'earlier deletion')} {'to finish' if result.dry_run else 'finished'}"
    what = f"{plural(len(result.runs), 'run')}, {size(max(result.freed_bytes, 0))}"
    yield f"would delete {what}; nothing is changed without --force" if result.dry_run else f"deleted {what}"

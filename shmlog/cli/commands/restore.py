"""``shmlog restore``: list archived runs, and bring them back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from shmlog.cli.find import for_each, open_store
from shmlog.cli.output import print_json, say
from shmlog.cli.parser import add_command, add_root_option
from shmlog.cli.text import local_time, size, table

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.store.store import Store

_EXAMPLE = """
shmlog restore                          list the archives
shmlog restore 20261121-031522-7f3a9c   out of runs/.archive, where prune --archive has put it
"""

_HEAD = ("run", "experiment", "name", "size", "archived")


def add_parser(commands: Commands) -> None:
    """Add the command ``restore``."""
    parser = add_command(commands, "restore", run, "bring back runs that prune has archived", _EXAMPLE)
    text = "its id or the beginning of it, EXPERIMENT/ID, or its name (default: list the archives)"
    parser.add_argument("run_names", nargs="*", metavar="RUN", help=text)
    add_root_option(parser)


def run(args: argparse.Namespace) -> int:
    """Restore runs, or list those that can be restored."""
    if not args.run_names:
        return _list(args.root, args.json)
    return for_each(args, lambda store, name: store.restore(name), "restored", find=_archive)


def _list(root: str, as_json: bool) -> int:
    archives = open_store(root).archives()
    if as_json:
        print_json([archived._asdict() for archived in archives])
        return 0
    rows = [
        (
            archived.archive,
            archived.experiment,
            archived.name,
            size(archived.size_bytes),
            local_time(archived.archived_at),
        )
        for archived in archives
    ]
    for line in table(_HEAD, rows, left=("run", "experiment", "name", "archived")) if rows else ():
        print(line)
    if not rows:
        say("shmlog: no archived runs; 'shmlog prune --archive' makes some")
    return 0


def _archive(text: str, root: str) -> tuple[Store, str]:
    """Return the store, which finds the archive itself, and the name of the archived run."""
    import shmlog

    return shmlog.Store(root), text

"""``shmlog restore``: bring archived runs back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from shmlog.cli.find import for_each
from shmlog.cli.parser import add_command, add_root_option

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.store.store import Store

_EXAMPLE = """
shmlog restore 20261121-031522-7f3a9c   out of runs/.archive, where prune --archive has put it
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``restore``."""
    parser = add_command(commands, "restore", run, "bring back runs that prune has archived", _EXAMPLE)
    parser.add_argument("run_names", nargs="+", metavar="RUN", help="an id, or EXPERIMENT/ID")
    add_root_option(parser)


def run(args: argparse.Namespace) -> int:
    """Restore runs."""
    return for_each(args, lambda store, name: store.restore(name), "restored", find=_archive)


def _archive(text: str, root: str) -> tuple[Store, str]:
    """Return the store, which finds the archive itself, and the name of the archived run."""
    import shmlog

    return shmlog.Store(root), text

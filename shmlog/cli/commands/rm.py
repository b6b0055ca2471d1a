"""``shmlog rm``: delete runs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from shmlog.cli.find import for_each
from shmlog.cli.parser import add_command, add_runs_argument

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands

_EXAMPLE = """
shmlog rm runs/digits/20261121-031522-7f3a9c
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``rm``."""
    parser = add_command(commands, "rm", run, "delete runs and all their files", _EXAMPLE)
    add_runs_argument(parser, several=True)
    text = (
        "also pinned runs, those whose annotations can't be read, and runs that may run on another machine; "
        "never one that is known to run"
    )
    parser.add_argument("--force", action="store_true", help=text)


def run(args: argparse.Namespace) -> int:
    """Delete runs."""
    return for_each(args, lambda store, name: store.delete(name, force=args.force), "deleted")

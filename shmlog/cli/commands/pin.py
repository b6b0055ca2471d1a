"""``shmlog pin`` and ``shmlog unpin``: protect runs from deletion, or let them be deleted again."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from shmlog.cli.find import for_each
from shmlog.cli.parser import add_command, add_runs_argument

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands


def add_parser(commands: Commands) -> None:
    """Add the commands ``pin`` and ``unpin``."""
    example = "shmlog pin 20261121-031522-7f3a9c      prune and rm leave it alone"
    add_runs_argument(add_command(commands, "pin", pin, "keep runs from being deleted", example), several=True)
    example = "shmlog unpin 20261121-031522-7f3a9c"
    add_runs_argument(add_command(commands, "unpin", unpin, "let runs be deleted again", example), several=True)


def pin(args: argparse.Namespace) -> int:
    """Pin runs."""
    return for_each(args, lambda store, name: store.pin(name), "pinned")


def unpin(args: argparse.Namespace) -> int:
    """Unpin runs."""
    return for_each(args, lambda store, name: store.pin(name, False), "unpinned")

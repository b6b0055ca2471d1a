"""``shmlog tag``: add tags to a run, or remove some."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from shmlog.cli.find import locate_named
from shmlog.cli.output import print_json
from shmlog.cli.parser import UsageError, add_command, add_runs_argument
from shmlog.cli.text import clean

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands

_EXAMPLE = """
shmlog tag runs/digits/20261121-031522-7f3a9c arm:tiered study:2
shmlog tag 20261121-031522-7f3a9c --remove study:2
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``tag``."""
    parser = add_command(commands, "tag", run, "add tags to a run, or remove some", _EXAMPLE)
    add_runs_argument(parser, several=False)
    parser.add_argument("tags", nargs="*", metavar="TAG", help="tags to add")
    parser.add_argument("--remove", action="append", default=[], metavar="TAG", help="remove it; may be repeated")


def run(args: argparse.Namespace) -> int:
    """Change the tags of one run and print them."""
    if not args.tags and not args.remove:
        raise UsageError("no tag to add or to remove")
    store, name = locate_named(args.run_name, args.root)
    record = store.tag(name, args.tags, args.remove)
    if args.json:
        print_json({"run": f"{record.experiment}/{record.run_id}", "tags": record.tags})
    else:
        print(clean(", ".join(record.tags)))
    return 0

"""``shmlog annotate``: change the name, description, notes or group of a run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from shmlog.cli.find import locate_named
from shmlog.cli.output import print_json, say
from shmlog.cli.parser import UsageError, add_command, add_runs_argument

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands

_EXAMPLE = """
shmlog annotate 20261121-031522-7f3a9c --name "best so far"
shmlog annotate runs/digits/20261121-031522-7f3a9c --note "diverged: see the data"
"""

_FIELDS = ("name", "description", "notes", "group")


def add_parser(commands: Commands) -> None:
    """Add the command ``annotate``."""
    parser = add_command(commands, "annotate", run, "give a run a name, a description, a note or a group", _EXAMPLE)
    add_runs_argument(parser, several=False)
    for field in _FIELDS:
        parser.add_argument(f"--{field}", metavar="TEXT", help=f"its {field}, instead of the present one")
    parser.add_argument("--note", metavar="TEXT", help="append this to its notes, with the time and the user")


def run(args: argparse.Namespace) -> int:
    """Annotate one run."""
    annotations = {field: getattr(args, field) for field in _FIELDS if getattr(args, field) is not None}
    if not annotations and args.note is None:
        raise UsageError(f"nothing to say: use one of {', '.join(f'--{field}' for field in (*_FIELDS, 'note'))}")
    store, name = locate_named(args.run_name, args.root)
    record = store.annotate(name, **annotations)
    if args.note is not None:
        record = store.add_note(name, args.note)
    if args.json:
        print_json(record.to_dict())
    else:
        say(f"shmlog: {record.experiment}/{record.run_id}: annotated")
    return 0

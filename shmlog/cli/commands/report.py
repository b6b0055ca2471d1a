"""``shmlog report``: one page about a run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from shmlog.base.durable import atomic_write
from shmlog.cli.find import recover_dead, resolve_run
from shmlog.cli.output import print_json, say
from shmlog.cli.parser import add_command, add_run_argument
from shmlog.errors import StorageError

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands

_EXAMPLE = """
shmlog report                     the newest run below ./runs
shmlog report digits -o last.md   the newest run of an experiment, into a file
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``report``."""
    parser = add_command(commands, "report", run, "write one page about a run: results, findings, changes", _EXAMPLE)
    add_run_argument(parser)
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, help="file of Markdown (default: stdout)")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")


def run(args: argparse.Namespace) -> int:
    """Print the report of a run, or write it into a file."""
    from shmlog.reader.stored import load

    if args.output is not None and args.output.exists() and not args.force:
        raise StorageError(f"{args.output} is there already; --force replaces it")
    run_dir = resolve_run(args.path, args.root)
    recover_dead([run_dir])
    text = load(run_dir).report()
    if args.json:
        print_json({"run_dir": str(run_dir), "report": text})
    elif args.output is None:
        sys.stdout.write(text)
    else:
        atomic_write(args.output, text.encode(), durable=False, exclusive=True)
        say(f"shmlog: wrote {args.output}")
    return 0

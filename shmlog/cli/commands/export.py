"""``shmlog export``: a run as a file that other programs read."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from shmlog.cli.find import resolve_run
from shmlog.cli.output import command, print_json, say
from shmlog.cli.parser import UsageError, add_command, add_run_argument, add_selection_options, path
from shmlog.cli.progress import ProgressBar
from shmlog.cli.text import relative, size
from shmlog.errors import StorageError

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands

_EXAMPLE = """
shmlog export -f csv > loss.csv                    the newest run below ./runs
shmlog export runs/digits -o digits.parquet        the newest run of one experiment
shmlog export 20261121-031522-7f3a9c -f all -o out
shmlog export digits --metric 'val/*' --steps 1000: --every 100
shmlog export -f tensorboard -o tb_logs            then: tensorboard --logdir tb_logs
"""

_FORMATS = ("json", "csv", "wide-csv", "parquet", "arrow", "summary", "prometheus", "tensorboard", "pickle", "all")
_STREAMS = ("json", "csv", "wide-csv", "summary", "prometheus")
_FOLDERS = ("tensorboard", "all")


def add_parser(commands: Commands) -> None:
    """Add the command ``export``."""
    parser = add_command(commands, "export", run, "write a run as CSV, JSON, Parquet, Arrow or event file", _EXAMPLE)
    add_run_argument(parser)
    parser.set_defaults(advise=_advise)
    text = (
        "default: by the end of OUT, else csv. wide-csv: a column for each metric. all: all but prometheus and pickle"
    )
    parser.add_argument("-f", "--format", choices=_FORMATS, help=text)
    text = "only metrics of this name, such as 'val/*'; may be repeated"
    parser.add_argument("--metric", metavar="GLOB", action="append", help=text)
    add_selection_options(parser)
    text = "also records that a later attempt has superseded, with the columns attempt and superseded"
    parser.add_argument("--superseded", action="store_true", help=text)
    out = "file, or folder of all and tensorboard (default: stdout)"
    parser.add_argument("-o", "--output", metavar="OUT", type=path, help=out)
    parser.add_argument("--force", action="store_true", help="replace files that are there already")


def _advise(args: argparse.Namespace, extra: list[str]) -> str:
    """Return the command to type instead of one that has a file, or a format and a file, behind the run."""
    *others, output = extra
    format = args.format or next((word for word in (args.path, *others) if word in _FORMATS), None)
    run = [word for word in (args.path, *others) if word not in _FORMATS][:1]
    return f"; a file is named with -o: {command('export', *run, *(['-f', format] if format else []), '-o', output)}"


def run(args: argparse.Namespace) -> int:
    """Export one run."""
    from shmlog.reader.stored import load
    from shmlog.transfer.export import export_run, guess_format

    to_stdout = args.output in (None, "-")
    format = args.format or ("csv" if to_stdout else guess_format(args.output))
    _check(format, to_stdout, args.json)
    stored = load(resolve_run(args.path, args.root))
    if not to_stdout and not args.force:
        _refuse_existing(Path(args.output), format, stored.id)
    with ProgressBar(f"export {stored.id}") as bar:
        files = export_run(
            stored, sys.stdout.buffer if to_stdout else args.output, format, names=args.metric, steps=args.steps,
            every=args.every, superseded=args.superseded, progress=bar.update,
        )  # fmt: skip
    if args.json:
        print_json({"run": stored.id, "format": format, "files": [_file(file) for file in files]})
        return 0
    for file in files:
        say(f"shmlog: wrote {relative(file)} ({size(file.stat().st_size)})")
    return 0


def _file(file: Path) -> dict[str, object]:
    return {"path": str(file), "bytes": file.stat().st_size}


def _refuse_existing(output: Path, format: str, run_id: str) -> None:
    """Raise StorageError if a file would be replaced; those in a folder have the run's id in their names."""
    files = output.rglob(f"*{run_id}*") if format in _FOLDERS else [output]
    there = next((file for file in files if os.path.lexists(file)), None)
    if there is not None:
        raise StorageError(f"{there} is there already; --force replaces it")


def _check(format: str, to_stdout: bool, json: bool) -> None:
    if not to_stdout:
        return
    if format in _FOLDERS:
        raise UsageError(f"-f {format} makes a folder: name it with -o")
    if format not in _STREAMS and sys.stdout.isatty():
        raise UsageError(f"-f {format} can't be shown on a terminal: name a file with -o")
    if json:
        raise UsageError("--json lists the files that are written: name one with -o")

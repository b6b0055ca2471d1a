"""``shmlog import``: make runs of shmlog from runs of other systems, and from exports."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from shmlog.cli.output import one_line, print_json, say
from shmlog.cli.parser import FOUND, add_command, add_root_option, exit_code, path, positive
from shmlog.cli.text import plural, relative

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.transfer.imports import ImportReport

_EXAMPLE = """
shmlog import experiments/digits/20260308_120000     a run of expman
shmlog import ml/*/ --experiment old                 all runs of fetch_ml
shmlog import tb_logs/events.out.tfevents.*          TensorBoard
shmlog import log.jsonl --json
"""

_FORMATS = ("fetch_ml", "expman", "jsonl", "csv", "json", "parquet", "arrow", "tensorboard")


def add_parser(commands: Commands) -> None:
    """Add the command ``import``."""
    summary = "read runs of other systems, or exports, into a store"
    parser = add_command(commands, "import", run, summary, _EXAMPLE)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", type=path, help="a folder or file; each is a run")
    add_root_option(parser)
    parser.add_argument("--experiment", metavar="NAME", help="default: the one that the source names, or its own name")
    parser.add_argument("-f", "--format", choices=_FORMATS, help="default: recognised by the content")
    text = "most memory in GiB that reading a source may take (default: 6)"
    parser.add_argument("--max-gib", metavar="N", type=positive, default=6, help=text)


def run(args: argparse.Namespace) -> int:
    """Import each source; a failure does not stop the others. Return 1 if something could not be taken."""
    from shmlog.transfer.imports import import_run

    code, outcomes = 0, list[dict[str, Any]]()
    for source in args.sources:
        try:
            report = import_run(
                source, args.root, args.format, experiment=args.experiment, max_bytes=args.max_gib << 30
            )
        except Exception as error:  # reported here, and by the exit code; the other sources must not suffer
            if args.debug:
                raise
            outcomes.append({"source": source, "error": one_line(error)})
            code = max(code, exit_code(error))
            say(f"shmlog: error: {one_line(error)}")
            continue
        outcomes.append({**report.to_dict(), "error": None})
        code = max(code, FOUND if report.problems else 0)
        if not args.json:
            _print(report)
    if args.json:
        print_json(outcomes)
    return code


def _print(report: ImportReport) -> None:
    counts = ", ".join(plural(count, name.removesuffix("s")) for name, count in report.counts.items())
    state = "" if report.is_new else ", imported before"
    print(relative(report.dir))
    say(f"shmlog: {report.format} of {relative(report.source)}: {report.status}, {counts}{state}")
    for note in report.notes:
        say(f"shmlog: note: {note}")
    for problem in report.problems:
        say(f"shmlog: warning: {problem}")

"""``shmlog import``: make runs of shmlog from runs of other systems, and from exports."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from shmlog.cli.output import one_line, print_json, say
from shmlog.cli.parser import FOUND, add_command, add_root_option, exit_code, path, positive
from shmlog.cli.text import plural, relative
from shmlog.errors import SeveralRunsError

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.transfer.imports import ImportReport

_Result = TypeVar("_Result")

_EXAMPLE = """
shmlog import experiments                            a store of expman: each of its runs
shmlog import ml --experiment old                    all runs of fetch_ml
shmlog import tb_logs                                a root of TensorBoard: each of its runs
shmlog import log.jsonl --json
"""

_FORMATS = (
    "fetch_ml",
    "expman",
    "experiment_logger",
    "jsonl",
    "csv",
    "json",
    "parquet",
    "arrow",
    "tensorboard",
    "entrenar",
)


def add_parser(commands: Commands) -> None:
    """Add the command ``import``."""
    summary = "read runs of other systems, or exports, into a store"
    parser = add_command(commands, "import", run, summary, _EXAMPLE)
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        type=path,
        help="a run or a file, or a store of expman, fetch_ml or TensorBoard",
    )
    add_root_option(parser)
    parser.add_argument("--experiment", metavar="NAME", help="default: the one that the source names, or its own name")
    parser.add_argument("-f", "--format", choices=_FORMATS, help="default: by the name; then SOURCE is one run")
    text = "most memory in GiB that reading a source may take (default: 6)"
    parser.add_argument("--max-gib", metavar="N", type=positive, default=6, help=text)


def run(args: argparse.Namespace) -> int:
    """Import each source; a failure does not stop the others. Return 1 if something could not be taken."""
    code, outcomes = 0, list[dict[str, Any]]()
    for source, outcome in _imports(args):
        if isinstance(outcome, Exception):
            outcomes.append({"source": source, "error": one_line(outcome)})
            code = max(code, exit_code(outcome))
            say(f"shmlog: error: {one_line(outcome)}")
            continue
        outcomes.append({**outcome.to_dict(), "error": None})
        code = max(code, FOUND if outcome.problems else 0)
        if not args.json:
            _print(outcome)
    if args.json:
        print_json(outcomes)
    return code


def _imports(args: argparse.Namespace) -> Iterator[tuple[str, ImportReport | Exception]]:
    """Import each run of each source; yield where it is, and the report or the error."""
    from shmlog.transfer.importers.formats import runs_below
    from shmlog.transfer.imports import import_run

    options = {"format": args.format, "experiment": args.experiment, "max_bytes": args.max_gib << 30}
    for source in args.sources:
        runs = [source] if args.format else _attempt(args, partial(runs_below, Path(source)))
        if isinstance(runs, Exception):
            yield source, runs
            continue
        ahead = list(map(str, reversed(runs)))
        while ahead:
            run = ahead.pop()
            outcome = _attempt(args, partial(import_run, run, args.root, **options))
            if isinstance(outcome, SeveralRunsError):
                ahead += reversed(outcome.sources)
                continue
            ahead += reversed(() if isinstance(outcome, Exception) else outcome.further)
            yield run, outcome


def _attempt(args: argparse.Namespace, act: Callable[[], _Result]) -> _Result | Exception:
    """Return a result, or the error, which the caller reports: the other sources must not suffer."""
    try:
        return act()
    except SeveralRunsError as error:
        return error
    except Exception as error:
        if args.debug:
            raise
        return error


def _print(report: ImportReport) -> None:
    counts = ", ".join(plural(count, name.removesuffix("s")) for name, count in report.counts.items())
    state = "" if report.is_new else ", imported before"
    print(relative(report.dir))
    say(f"shmlog: {report.format} of {relative(report.source)}: {report.status}, {counts}{state}")
    for source in report.further:
        say(f"shmlog: further: {relative(Path(source))} is a run of its own")
    for note in report.notes:
        say(f"shmlog: note: {note}")
    for problem in report.problems:
        say(f"shmlog: warning: {problem}")

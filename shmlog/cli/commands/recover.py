"""``shmlog recover``: finish runs whose processes all died."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from shmlog.cli.output import one_line, print_json, say
from shmlog.cli.parser import FAILED, add_command, add_root_option, path
from shmlog.cli.text import clean, plural, relative
from shmlog.folder.root import Root

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands

_EXAMPLE = """
shmlog recover                   finish every crashed run below ./runs
shmlog recover runs/digits       finish the crashed runs of one experiment
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``recover``."""
    summary = "finish crashed runs: bring what they left into their files"
    parser = add_command(commands, "recover", run, summary, _EXAMPLE)
    text = "a run, or a folder or experiment, for all its runs (default: ROOT)"
    parser.add_argument("--force", action="store_true", help="also where it is unknown whether its processes live")
    parser.add_argument("path", nargs="?", metavar="RUN|FOLDER", type=path, help=text)
    add_root_option(parser)


def run(args: argparse.Namespace) -> int:
    """Recover runs that need it; a failure does not stop the others."""
    outcomes = [_recover(run_dir, args.debug, args.force) for run_dir in _chosen(args.path, args.root)]
    if args.json:
        print_json(outcomes)
    else:
        _print(outcomes)
    return FAILED if any(outcome["error"] for outcome in outcomes) else 0


def _chosen(text: str | None, root: str) -> list[Path]:
    """Return the named run, or all runs in a folder or an experiment that may not be complete."""
    from shmlog.flusher.recover import is_complete

    run_dirs, named_by, _ = Root(root).runs(text)
    return run_dirs if named_by is None else [run_dir for run_dir in run_dirs if not is_complete(run_dir)]


def _recover(run_dir: Path, debug: bool, force: bool) -> dict[str, object]:
    from shmlog.flusher.recover import recover

    outcome: dict[str, object] = {"run_dir": str(run_dir), "changed": False, "error": None}
    try:
        result = recover(run_dir, force=force)
    except Exception as error:  # reported below, and by the exit code; the other runs must not suffer
        if debug:
            raise
        return outcome | {"error": one_line(error)}
    fields = {"changed": result.changed, "status": result.status, "records": result.records}
    return outcome | fields | {"message": result.message}


def _print(outcomes: list[dict[str, object]]) -> None:
    from shmlog.flusher.recover import NOTHING

    for outcome in outcomes:
        name = relative(Path(str(outcome["run_dir"])))
        if outcome["error"]:
            say(f"shmlog: error: {name}: {outcome['error']}")
        else:
            print(clean(f"{name}  {outcome['status']}  {outcome['records']:,} metrics  {outcome['message']}"))
    changed = sum(bool(outcome["changed"]) for outcome in outcomes)
    is_done = all(outcome.get("message") == NOTHING for outcome in outcomes)  # not while another process recovers
    say(f"shmlog: {NOTHING if is_done else plural(changed, 'run') + ' recovered'}")

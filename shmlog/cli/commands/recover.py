"""``shmlog recover``: finish runs whose processes all died."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from shmlog.cli.output import one_line, print_json, say
from shmlog.cli.parser import ROOT, add_command, path
from shmlog.cli.text import clean, plural, relative
from shmlog.errors import CorruptDataError
from shmlog.folder import recovered
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
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
    text = "a run folder or id, or a folder or experiment whose runs are all looked at (default: runs)"
    parser.add_argument("--force", action="store_true", help="also where it can't be told whether its processes live")
    parser.add_argument("path", nargs="?", metavar="RUN|ROOT", type=path, help=text)


def run(args: argparse.Namespace) -> int:
    """Recover what needs it; one run that fails does not keep the others from it."""
    outcomes = [_recover(run_dir, args.debug, args.force) for run_dir in _chosen(args.path)]
    if args.json:
        print_json(outcomes)
    else:
        _print(outcomes)
    return 1 if any(outcome["error"] for outcome in outcomes) else 0


def _chosen(text: str | None) -> list[Path]:
    """Return the run that is named, or all runs in a folder or an experiment that are not complete."""
    runs, folder = Root(ROOT).runs(text)
    return [run_dir for run_dir in runs if folder is None or not _complete(run_dir) or RunLayout(run_dir).wal.is_dir()]


def _complete(run_dir: Path) -> bool:
    try:
        return Description.read(RunLayout(run_dir)).complete is True
    except (CorruptDataError, OSError):
        return False  # recover says what is wrong with it


def _recover(run_dir: Path, debug: bool, force: bool) -> dict[str, object]:
    from shmlog.flusher.recover import recover

    outcome: dict[str, object] = {"run_dir": str(run_dir), "changed": False, "error": None}
    try:
        result = recover(run_dir, force=force)
    except Exception as error:  # told below, and by the exit code; the other runs are not its fault
        if debug:
            raise
        return outcome | {"error": one_line(error)}
    found = {"changed": result.changed, "status": result.status, "records": result.records}
    return outcome | found | {"message": result.message}


def _print(outcomes: list[dict[str, object]]) -> None:
    for outcome in outcomes:
        name = relative(Path(str(outcome["run_dir"])))
        if outcome["error"]:
            say(f"shmlog: error: {name}: {outcome['error']}")
        else:
            print(clean(f"{name}  {outcome['status']}  {outcome['records']:,} metrics  {outcome['message']}"))
    changed = sum(bool(outcome["changed"]) for outcome in outcomes)
    is_done = all(outcome.get("message") == recovered.NOTHING for outcome in outcomes)  # not if somebody is at work
    say(f"shmlog: {recovered.NOTHING if is_done else plural(changed, 'run') + ' recovered'}")

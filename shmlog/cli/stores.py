"""Which store a user means, and which runs in it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shmlog.cli.find import ROOT, resolve_named_run
from shmlog.cli.output import one_line, print_json, say
from shmlog.cli.parser import path

if TYPE_CHECKING:
    from shmlog.store.store import Store


RUN = "a run folder, an id, or EXPERIMENT/ID"


def add_root_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --root."""
    parser.add_argument("--root", type=path, default=str(ROOT), help="folder of all experiments (default: runs)")


def add_runs_argument(parser: argparse.ArgumentParser, *, several: bool, text: str = RUN) -> None:
    """Add the argument RUN, which is never left out: what is meant is changed."""
    parser.add_argument("run_name" if not several else "run_names", nargs="+" if several else None, metavar="RUN",
                        type=path, help=text)  # fmt: skip
    add_root_option(parser)


def add_filter_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that tell which runs are meant."""
    parser.add_argument("--status", action="append", help="only runs of this status; may be repeated")
    parser.add_argument("--tag", metavar="EXPR", help="only runs with these tags, such as 'a AND (b OR c)'")


def locate(text: str, root: str) -> tuple[Store, str]:
    """Return the store that a run is in, and the run's name there."""
    import shmlog

    folder = Path(os.path.abspath(resolve_named_run(text, Path(root))))
    return shmlog.Store(folder.parent.parent), f"{folder.parent.name}/{folder.name}"


def for_each(
    args: argparse.Namespace, act: Callable[[Store, str], Any], done: str,
    find: Callable[[str, str], tuple[Store, str]] = locate,
) -> int:  # fmt: skip
    """Do something to each run that is named; one that fails does not keep the others from it."""
    outcomes: list[dict[str, Any]] = []
    for text in args.run_names:
        outcome: dict[str, Any] = {"run": text, "error": None}
        try:
            act(*find(text, args.root))
        except Exception as error:  # told below, and by the exit code; the other runs are not its fault
            if args.debug:
                raise
            outcome["error"] = one_line(error)
        outcomes.append(outcome)
    if args.json:
        print_json(outcomes)
    else:
        _say(outcomes, done)
    return 1 if any(outcome["error"] for outcome in outcomes) else 0


def _say(outcomes: Iterable[dict[str, Any]], done: str) -> None:
    for outcome in outcomes:
        say(f"shmlog: error: {outcome['error']}" if outcome["error"] else f"shmlog: {outcome['run']}: {done}")

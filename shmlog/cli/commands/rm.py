"""``shmlog rm``: delete runs, and with --force whole experiments."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from shmlog.cli.find import for_each, locate, resolve_run
from shmlog.cli.parser import add_command, add_runs_argument
from shmlog.cli.text import plural, relative
from shmlog.errors import RunNotFoundError, RunStateError
from shmlog.folder.root import Root

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.store.store import Store

_EXAMPLE = """
shmlog rm runs/digits/20261121-031522-7f3a9c
shmlog rm digits --force                      the experiment with all its runs
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``rm``."""
    parser = add_command(commands, "rm", run, "delete runs and all their files", _EXAMPLE)
    add_runs_argument(parser, several=True)
    text = (
        "also a run that is named by 'latest' or the beginning of its id or commit, experiments with all their runs, "
        "pinned runs, those whose annotations can't be read, and runs that may run on another machine; never one that "
        "is known to run"
    )
    parser.add_argument("--force", action="store_true", help=text)


def run(args: argparse.Namespace) -> int:
    """Delete runs and experiments."""
    return for_each(args, partial(_delete, force=args.force), "deleted", find=partial(_find, force=args.force))


def _find(text: str, root: str, *, force: bool) -> tuple[Store, str]:
    """Return the store, and ``experiment/id`` of a run in it, or the name of an experiment."""
    import shmlog

    place = Root(root)
    runs = place.runs(text)
    if not force:
        runs.check_exact(text)
    if runs.named_by is None or runs.is_vague:
        return locate(resolve_run(text, root))
    experiment = text.rstrip("/")
    if runs.named_by == place.shown(experiment):
        return shmlog.Store(root), experiment
    advice = f"name one of its runs, such as {relative(runs.folders[-1])}" if runs.folders else place.content()
    raise RunNotFoundError(f"{runs.named_by}: neither a run nor the name of an experiment; {advice}")


def _delete(store: Store, name: str, *, force: bool) -> None:
    if "/" in name:
        store.delete(name, force=force)
    elif force or not store.experiment(name).runs:
        store.delete_experiment(name, force=force)
    else:
        runs = plural(store.experiment(name).runs, "run")
        raise RunStateError(f"{name!r} is an experiment of {runs}; --force deletes it with all of them")

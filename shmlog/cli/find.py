"""Find the run that a user means, and explain to people why there is none."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shmlog.cli.output import one_line, print_json, say
from shmlog.cli.parser import exit_code
from shmlog.cli.text import relative
from shmlog.errors import RunNotFoundError
from shmlog.folder.root import Root, name_of

if TYPE_CHECKING:
    from shmlog.store.store import Store


def resolve_run(text: str | None, root: str | Path) -> Path:
    """Return the folder of the run that ``text`` means; of several, the newest.

    It prints which one that is. `Root.runs` explains ``text`` and the errors.
    """
    place = Root(root)
    folders, named_by, _ = place.runs(text)
    if not folders:
        what = "" if named_by == place.given else f"{named_by}: no run here; "
        raise RunNotFoundError(f"{what}{place.content()}")
    if named_by is not None:
        say(f"shmlog: newest of {len(folders)} in {relative(named_by)}: {relative(folders[-1])}")
    return folders[-1]


def recover_dead(run_dirs: Iterable[Path]) -> bool:
    """Recover the runs of this user that are known to be dead, and say so; return whether there were any.

    A run that can't be recovered is shown as it is.
    """
    from shmlog.store.abandoned import recover_abandoned

    outcomes = [(relative(run_dir), problem) for run_dir, problem in recover_abandoned(run_dirs)]
    for name, problem in outcomes:
        if problem is None:
            say(f"shmlog: recovered {name}: its processes had died before it was closed")
        else:
            say(f"shmlog: warning: can't recover {name}: {problem}")
    return bool(outcomes)


def open_store(root: str) -> Store:
    """Return the store at a root; raises RunNotFoundError if the folder does not exist."""
    import shmlog

    store = shmlog.Store(root)
    if not store.root.is_dir():
        raise RunNotFoundError(Root(root).content())
    return store


def locate(run_dir: Path) -> tuple[Store, str]:
    """Return the store that a run folder is in, and the run's name there."""
    import shmlog

    root, name = name_of(run_dir)
    return shmlog.Store(root), name


def locate_named(text: str, root: str) -> tuple[Store, str]:
    """Return the store of the run that ``text`` means, and the run's name there."""
    return locate(resolve_run(text, root))


def for_each(
    args: argparse.Namespace, act: Callable[[Store, str], Any], done: str,
    find: Callable[[str, str], tuple[Store, str]] = locate_named,
) -> int:  # fmt: skip
    """Do something to each named run; a failure does not stop the others."""
    code, outcomes = 0, list[dict[str, Any]]()
    for text in args.run_names:
        outcome: dict[str, Any] = {"run": text, "error": None}
        try:
            store, outcome["run"] = find(text, args.root)
            act(store, outcome["run"])
        except Exception as error:  # reported below, and by the exit code; the other runs must not suffer
            if args.debug:
                raise
            code, outcome["error"] = max(code, exit_code(error)), one_line(error)
        outcomes.append(outcome)
    if args.json:
        print_json(outcomes)
    else:
        _say(outcomes, done)
    return code


def _say(outcomes: Iterable[dict[str, Any]], done: str) -> None:
    for outcome in outcomes:
        say(f"shmlog: error: {outcome['error']}" if outcome["error"] else f"shmlog: {outcome['run']}: {done}")

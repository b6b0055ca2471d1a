"""Which run a user means: its folder, its id, or a folder or an experiment, for the newest run there."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import NamedTuple

from shmlog.cli.output import say
from shmlog.cli.text import relative
from shmlog.errors import RunNotFoundError
from shmlog.folder.layout import RunLayout, is_id
from shmlog.folder.root import Root, some
from shmlog.folder.root import is_run as has_been_run

ROOT = Path("runs")

_STAMP = re.compile(r"(\d{8}-\d{6})-")


class Found(NamedTuple):
    """The runs that a user means, oldest first, and the folder that was named for them; None: it is one run's own."""

    runs: list[Path]
    folder: Path | None


def find_runs(text: str | None, root: Path = ROOT) -> Found:
    """Return the runs that ``text`` means.

    Parameters
    ----------
    text : str or None
        A run folder; a root or an experiment folder, for all runs in it; of what is below ``root``, the
        id of a run, EXPERIMENT/ID, or an experiment, for all its runs; or None, for all runs below ``root``.

    Raises
    ------
    RunNotFoundError
        If it is nothing of that.
    ValueError
        If it is the id of several runs.
    """
    folder = root if text is None else Path(text)
    if is_run(folder):
        return Found([folder], None)
    runs = runs_below(folder)
    if not runs and text is not None:
        if has_been_run(RunLayout(folder)):  # one that has lost its run.yaml
            return Found([folder], None)
        named = _find_named(text.rstrip("/"), root)
        if named is not None:
            return named
    if not folder.is_dir():
        what = "no runs here" if text is None else f"{text}: no such folder, and no such run or experiment"
        raise RunNotFoundError(f"{what}; {_what_there_is(root)}")
    return Found(runs, folder)


def _find_named(text: str, root: Path) -> Found | None:
    """Return what is called ``text`` in a store: a run, or the runs of an experiment."""
    if not all(is_id(part) for part in text.split("/", 1)):
        return None
    store = Root(root)
    try:
        layout = store.find(text)
    except RunNotFoundError:
        return Found(runs_below(root / text), root / text) if text in store.experiments() else None
    return Found([root / layout.experiment / layout.run_id], None)


def _what_there_is(root: Path) -> str:
    names = Root(root).experiments()
    return f"experiments in {root}: {some(names)}" if names else f"nothing in {root}; create a run: shmlog demo"


def resolve_run(text: str | None, root: Path = ROOT) -> Path:
    """Return the folder of the run that ``text`` means, for who only reads: of several, the newest, which is told.

    Raises what `find_runs` does; see there for ``text``.
    """
    runs, folder = find_runs(text, root)
    if not runs:
        raise RunNotFoundError(f"{folder}: no run here; {_what_there_is(root)}")
    if folder is not None:
        say(f"shmlog: newest of {len(runs)} in {relative(folder)}: {relative(runs[-1])}")
    return runs[-1]


def resolve_named_run(text: str, root: Path) -> Path:
    """Return the folder of the run that ``text`` names itself, for who changes it: no other is meant.

    Raises what `find_runs` does; see there for ``text``.
    """
    runs, folder = find_runs(text, root)
    if folder is not None:
        advice = f"name one of its runs, such as {relative(runs[-1])}" if runs else _what_there_is(root)
        raise RunNotFoundError(f"{folder}: no run; {advice}")
    return runs[0]


def is_run(path: Path) -> bool:
    """Whether ``path`` is a run folder."""
    return (path / "run.yaml").is_file()


def runs_below(folder: Path) -> list[Path]:
    """Return the run folders in a root or an experiment folder, oldest first; none that a link leads to."""
    found = [file.parent for pattern in ("*/run.yaml", "*/*/run.yaml") for file in folder.glob(pattern)]
    return sorted((run for run in found if not _is_linked(run, folder)), key=_created)


def _is_linked(run: Path, folder: Path) -> bool:
    """Whether a run lies elsewhere than below ``folder``, which may be a link itself."""
    return run.is_symlink() or (run.parent != folder and run.parent.is_symlink())


def _created(run: Path) -> tuple[str, int]:
    """Return when a run was created: its id says it, or else its file's time."""
    changed = (run / "run.yaml").stat().st_mtime_ns
    stamp = _STAMP.match(run.name)
    return (stamp[1] if stamp else time.strftime("%Y%m%d-%H%M%S", time.gmtime(changed / 1e9)), changed)

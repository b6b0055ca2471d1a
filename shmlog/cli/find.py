"""Which run a user means: a run folder, an id, or the newest run in a folder."""

from __future__ import annotations

import re
import time
from pathlib import Path

from shmlog.cli.output import say
from shmlog.cli.text import relative
from shmlog.errors import RunNotFoundError
from shmlog.storage.layout import ID_PATTERN

ROOT = Path("runs")

_STAMP = re.compile(r"(\d{8}-\d{6})-")


def resolve_run(text: str | None) -> Path:
    """Return the folder of the run that ``text`` names.

    Parameters
    ----------
    text : str or None
        A run folder; a root or an experiment folder, for the newest run in it;
        the id of a run below ``runs``; or None, for the newest run below ``runs``.

    Raises
    ------
    RunNotFoundError
        If there is none.
    """
    if text is None:
        return _newest(ROOT, "create one: shmlog demo")
    path = Path(text)
    if is_run(path):
        return path
    if not path.exists() and ID_PATTERN.fullmatch(text):
        found = [run for run in runs_below(ROOT) if run.name == text]
        if found:
            return found[0]
    if not path.exists():
        raise RunNotFoundError(f"{text}: no such folder, and no run of that id below {ROOT}")
    return _newest(path, "a run folder holds run.yaml")


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


def _newest(folder: Path, advice: str) -> Path:
    runs = runs_below(folder)
    if not runs:
        raise RunNotFoundError(f"{folder}: no run here; {advice}")
    say(f"shmlog: newest of {len(runs)} in {relative(folder)}: {relative(runs[-1])}")
    return runs[-1]

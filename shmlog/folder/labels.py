"""The names by which people know a run: its name, and the beginnings of its id and its commit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from shmlog.errors import UnreadableError
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.folder.runfile import read_mapping

_COMMIT_MIN = 4  # digits, as for git


class Labels(NamedTuple):
    """The name that people gave a run, and its git commit."""

    name: str | None
    commit: str | None


def labels_of(layout: RunLayout) -> Labels:
    """Return what the files of a run say; what is damaged in them names no run."""
    try:
        described = Description.read_or_guess(layout)[0]
        name, git = described.name, described.git
    except (UnreadableError, OSError):
        name, git = None, None
    try:
        name = read_mapping(layout.annotations_yaml, layout.files).get("name", name)
    except (UnreadableError, OSError):
        pass  # nobody has renamed it, as far as is known
    commit = git.get("commit") if isinstance(git, dict) else None
    return Labels(name if isinstance(name, str) else None, commit if isinstance(commit, str) else None)


class Choice(NamedTuple):
    """The runs that a text may mean: one, several if it does not say which, or none."""

    layouts: list[RunLayout]
    is_prefix: bool
    """Whether it is no run's name, but the beginning of an id or a commit."""


def choose(layouts: Iterable[RunLayout], text: str) -> Choice:
    """Return the runs that ``text`` may mean.

    Runs of that name come first; then the one run whose id begins with it, then the one whose commit does.
    """
    labels = [(layout, labels_of(layout)) for layout in layouts]
    by_name = [layout for layout, label in labels if label.name == text]
    if by_name:
        return Choice(by_name, is_prefix=False)
    by_id = [layout for layout, _ in labels if text and layout.run_id.startswith(text)]
    is_commit = len(text) >= _COMMIT_MIN
    by_commit = [layout for layout, label in labels if is_commit and label.commit and label.commit.startswith(text)]
    fitting = by_commit if len(by_id) != 1 and len(by_commit) == 1 else by_id or by_commit
    return Choice(fitting, is_prefix=True)


def describe(layout: RunLayout) -> str:
    """Return ``experiment/id`` and the name of a run, to list it among others."""
    name = labels_of(layout).name
    return f"{layout.experiment}/{layout.run_id}" + (f" ({name})" if name and name != layout.run_id else "")

"""Content that several runs of a root hold, stored once: ``.artifacts/ALGORITHM/ab/abcdef…`` below the root.

An object is a hard link to the files of the runs, so that the kernel counts the references: at one link,
no run holds it any more. No run needs its object. Losing one, or missing one, costs space and nothing else; that
is why nothing here is locked, and why a folder of a run can be moved to another disk.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shmlog.base.durable import TEMPORARY_SUFFIX, temporary_of
from shmlog.folder.content import Content

FOLDER = ".artifacts"
READ_ONLY = 0o444  # less the umask: who wrote to a file of one run would change it for all
_OBJECT = re.compile(rf"[0-9a-f]{{64,128}}(?:\..+{re.escape(TEMPORARY_SUFFIX)})?")
_TRIES = 3


class Blob(NamedTuple):
    """A file in the store of objects."""

    path: Path
    inode: tuple[int, int]
    size_bytes: int
    links: int


def object_path(root: Path, content: Content) -> Path:
    """Return where the object of some content is, if there is one."""
    algorithm, _, digits = content.digest.partition(":")
    return root / FOLDER / algorithm / digits[:2] / digits


def adopt(root: Path, file: Path, content: Content) -> bool:
    """Make a file, there or not, a link to the object of its content; False if there is none that can be linked to."""
    path = object_path(root, content)
    spare = temporary_of(file, exclusive=True)
    try:
        os.link(path, spare, follow_symlinks=False)
    except OSError:
        return False
    try:
        found = os.lstat(spare)
        if not stat.S_ISREG(found.st_mode) or found.st_size != content.size_bytes:
            path.unlink()  # damaged: the next one takes its place
            return False
        os.replace(spare, file)
    except OSError:
        return False
    finally:
        spare.unlink(missing_ok=True)
    return True


def offer(root: Path, file: Path, content: Content) -> None:
    """Make a file, which is durable and never written to again, the object of its content, unless there is one.

    If there is one, the file becomes a link to it. Where neither can be done, as on a file system without
    hard links, the file stays its run's own.
    """
    path = object_path(root, content)
    for _ in range(_TRIES):
        try:
            _make_folder(root, path.parent)
            os.link(file, path, follow_symlinks=False)
        except FileExistsError:
            if os.path.samefile(file, path) or adopt(root, file, content):
                return
        except OSError:
            return
        else:
            return


def _make_folder(root: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if os.path.realpath(folder) != os.path.join(os.path.realpath(root), folder.relative_to(root)):
        raise OSError(f"{folder} leads out of {root}: nothing is stored there")


def stored(root: Path) -> Iterator[Blob]:
    """Yield all objects of a root, and what a collection that was killed has left."""
    top = root / FOLDER
    for algorithm in _folders(top):
        for folder in _folders(algorithm):
            for entry in os.scandir(folder):
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # collected just now
                if _OBJECT.fullmatch(entry.name) and stat.S_ISREG(found.st_mode):
                    inode = found.st_dev, found.st_ino
                    yield Blob(Path(entry.path), inode, found.st_size, found.st_nlink)


def _folders(folder: Path) -> list[Path]:
    try:
        if folder.is_symlink():
            return []
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def collect(root: Path) -> None:
    """Remove the objects that no run holds.

    Raises
    ------
    OSError
        If one can't be removed. The next collection tries again.
    """
    for found in stored(root):
        is_left_over = found.path.name.endswith(TEMPORARY_SUFFIX)
        if is_left_over or found.links == 1:
            _remove(found.path, is_left_over)


def _remove(path: Path, is_left_over: bool) -> None:
    """Take an object aside, where nobody finds it; put it back if somebody has linked to it meanwhile."""
    aside = path if is_left_over else temporary_of(path, exclusive=True)
    try:
        if not is_left_over:
            os.rename(path, aside)
        if os.lstat(aside).st_nlink > 1:
            os.link(aside, path.with_name(path.name.partition(".")[0]), follow_symlinks=False)
    except FileExistsError:
        pass  # somebody has stored it anew meanwhile
    except FileNotFoundError:
        return  # another collection has it
    aside.unlink(missing_ok=True)

"""Taking runs away: each is whole or gone, whenever this is killed."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from shmlog.base.durable import fsync_dir
from shmlog.errors import RunNotFoundError, StorageError
from shmlog.folder import blobs, flock, liveness
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.folder.root import Root
from shmlog.reader.facts import Facts, make_record

_TRIES = 20


def why_busy(layout: RunLayout, facts: Facts) -> str | None:
    """Return why nobody may take away a run now, or None if its processes are dead or it never had any."""
    record, described = make_record(str(layout.dir), facts), Description(facts.members)
    if record.live is True or liveness.flusher_lives(described) is True:
        return "running"
    is_unknown = record.live is None and bool(described.segment)
    is_doubtful = record.live is False and not liveness.is_dead(layout, described)
    if record.status == "running" or (not record.complete and (is_unknown or is_doubtful)):
        return "running, as far as can be seen from this machine"
    return None


@contextmanager
def held(layout: RunLayout) -> Iterator[None]:
    """Keep others from resuming or recovering a run meanwhile.

    Raises
    ------
    RunNotFoundError
        If it has gone.
    RunStateError
        If somebody does so for long.
    StorageError
        If its folder may not be opened.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(flock.folder_locked(layout.dir))
        except FileNotFoundError as error:
            raise RunNotFoundError(f"no run in {layout.dir} any more") from error
        except OSError as error:
            raise StorageError(f"cannot lock {layout.dir}: {error.strerror}") from error
        yield


def state_of(layout: RunLayout) -> dict[str, tuple[int, int, int]]:
    """Return what changes whenever a file of a run does, or one comes or goes: an archive may lack it."""
    return {path: (file.st_ino, file.st_size, file.st_mtime_ns) for path, file in _files(layout.dir)}


def take_away(root: Root, layout: RunLayout) -> Path:
    """Move a run to the trash, in one step; return where it is now.

    Raises
    ------
    RunNotFoundError
        If it has gone.
    StorageError
        If it can't be moved.
    """
    trash = root.make_own(root.trash)
    target = trash / f"{layout.experiment}-{layout.run_id}-{os.urandom(4).hex()}"
    try:
        os.rename(layout.dir, target)
        fsync_dir(layout.dir.parent)
    except FileNotFoundError as error:
        raise RunNotFoundError(f"no run in {layout.dir} any more") from error
    except OSError as error:
        raise StorageError(f"cannot move {layout.dir} to {trash}: {error.strerror}") from error
    return target


def leftovers(root: Root) -> list[Path]:
    """Return what of earlier deletions still lies in the trash."""
    try:
        return sorted(root.trash.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def delete(folder: Path) -> None:
    """Delete what was moved to the trash; somebody else may be doing the same.

    Raises
    ------
    StorageError
        If something of it can't be deleted. The next `prune` tries again.
    """
    for _ in range(_TRIES):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            if not os.path.lexists(folder):
                return
        except OSError as error:
            raise StorageError(f"cannot delete {error.filename or folder}: {error.strerror}") from error
        else:
            return


def collect_objects(root: Root) -> None:
    """Remove the contents of artifacts that no run holds any more.

    Raises
    ------
    StorageError
        If one can't be removed. The next deletion tries again.
    """
    try:
        blobs.collect(root.path)
    except OSError as error:
        raise StorageError(f"cannot delete {error.filename}: {error.strerror}") from error


class Usage:
    """The files of a folder, each of which may be a link to content that something else holds too."""

    def __init__(self, folder: Path) -> None:
        found = [file for _, file in _files(folder)]
        self.files = {_inode(one): one for one in found}
        self.names = Counter(map(_inode, found))

    @property
    def size_bytes(self) -> int:
        """The bytes in all files, each counted once whatever it is called."""
        return sum(found.st_size for found in self.files.values())


def freed_bytes(usages: Iterable[Usage], stored: Iterable[blobs.Blob]) -> int:
    """Return what is freed when these folders are deleted, and then the contents that no run holds.

    ``stored`` is what there was before the first of them was deleted.
    """
    names: Counter[tuple[int, int]] = Counter()
    sizes: dict[tuple[int, int], int] = {}
    links: dict[tuple[int, int], int] = {}
    for usage in usages:
        names += usage.names
        sizes |= {inode: found.st_size for inode, found in usage.files.items()}
        links |= {inode: found.st_nlink for inode, found in usage.files.items()}
    for one in stored:
        names[one.inode] += 1
        sizes[one.inode], links[one.inode] = one.size_bytes, one.links
    return sum(size for inode, size in sizes.items() if names[inode] >= links[inode])


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            try:
                yield path, os.lstat(path)
            except FileNotFoundError:
                continue

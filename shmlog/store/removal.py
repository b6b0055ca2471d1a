"""Delete runs so that each is whole or gone, whenever the process is killed."""

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
from shmlog.reader.facts import RunFacts, make_record

_TRIES = 20


def why_busy(layout: RunLayout, facts: RunFacts) -> str | None:
    """Return why a run must not be deleted now, or None if its processes are dead or it never had any."""
    record, description = make_record(str(layout.dir), facts), Description(facts.members)
    if record.live is True:
        return "running"
    if liveness.flusher_lives(description) is True:
        return "being closed"
    is_unknown = record.live is None and bool(description.segment)
    is_doubtful = record.live is False and not liveness.is_dead(layout, description)
    if record.status == "running" or (not record.complete and (is_unknown or is_doubtful)):
        return "running, as far as can be seen from this machine"
    return None


def why_pinned(layout: RunLayout, facts: RunFacts) -> str | None:
    """Return why a run must not be deleted without force: it is, or may be, pinned; else None."""
    record = make_record(str(layout.dir), facts)
    unread = [problem for problem in record.problems if problem.startswith(f"{layout.annotations_yaml}:")]
    if record.pinned:
        return "pinned"
    return f"perhaps pinned ({unread[0]})" if unread else None


@contextmanager
def held(layout: RunLayout) -> Iterator[None]:
    """Keep other processes from resuming or recovering a run inside the ``with`` block.

    Raises
    ------
    RunNotFoundError
        If the run is gone.
    RunStateError
        If another process resumes or recovers it, and does not finish soon.
    StorageError
        If its folder can't be opened.
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
    """Return what differs once a file of a run has changed, come or gone: an archive may lack such a change."""
    return {path: (file.st_ino, file.st_size, file.st_mtime_ns) for path, file in _files(layout.dir)}


def move_to_trash(root: Root, layout: RunLayout) -> Path:
    """Move a run to the trash in one step; return its folder there.

    Raises
    ------
    RunNotFoundError
        If the run is gone.
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
    """Return the folders of earlier deletions that still lie in the trash."""
    try:
        return sorted(root.trash.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def delete(folder: Path) -> None:
    """Delete a folder in the trash; another process may be deleting it, too.

    Raises
    ------
    StorageError
        If a file in it can't be deleted. The next `prune` tries again.
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
    """The files of a folder; each may be a hard link to content that other folders hold, too."""

    def __init__(self, folder: Path) -> None:
        files = [file for _, file in _files(folder)]
        self.files = {_inode(file): file for file in files}
        self.names = Counter(map(_inode, files))

    @property
    def size_bytes(self) -> int:
        """The bytes in all files; one with several names counts once."""
        return sum(file.st_size for file in self.files.values())


def freed_bytes(usages: Iterable[Usage], contents: Iterable[blobs.Blob]) -> int:
    """Return the bytes that are freed when these folders are deleted, and then the contents that no run holds.

    ``contents`` are those that exist before the first folder is deleted.
    """
    names: Counter[tuple[int, int]] = Counter()
    sizes: dict[tuple[int, int], int] = {}
    links: dict[tuple[int, int], int] = {}
    for usage in usages:
        names += usage.names
        sizes |= {inode: file.st_size for inode, file in usage.files.items()}
        links |= {inode: file.st_nlink for inode, file in usage.files.items()}
    for blob in contents:
        names[blob.inode] += 1
        sizes[blob.inode], links[blob.inode] = blob.size_bytes, blob.links
    return sum(size for inode, size in sizes.items() if names[inode] >= links[inode])


def _inode(file: os.stat_result) -> tuple[int, int]:
    return file.st_dev, file.st_ino


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            try:
                yield path, os.lstat(path)
            except FileNotFoundError:
                continue

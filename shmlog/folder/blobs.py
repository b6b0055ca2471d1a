"""Content of several runs of a root, stored once: ``.artifacts/ALGORITHM/ab/abcdef…`` below the root.

A blob is a hard link to the files of the runs, so that the kernel counts the references: at one link,
no run holds it any more. No run needs the blob. A lost or missing blob costs space and nothing else; that
is why nothing here is locked, and why a run folder can be moved to another disk.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shmlog.base.durable import TEMPORARY_SUFFIX, temporary_of
from shmlog.folder.content import Content, content_of

FOLDER = ".artifacts"
READ_ONLY = 0o444  # less the umask: a write to the file of one run would change it for all
_OBJECT = re.compile(rf"[0-9a-f]{{64,128}}(?:\..+{re.escape(TEMPORARY_SUFFIX)})?")
_TRIES = 3
_SECOND_NS = 1_000_000_000


class Blob(NamedTuple):
    """A file in the store of blobs."""

    path: Path
    inode: tuple[int, int]
    size_bytes: int
    links: int


def object_path(root: Path, content: Content) -> Path:
    """Return the path of the blob with some content, whether it exists or not."""
    algorithm, _, digits = content.digest.partition(":")
    return root / FOLDER / algorithm / digits[:2] / digits


def adopt(root: Path, file: Path, content: Content) -> bool:
    """Make ``file``, which need not exist, a link to the blob of its content; False if no blob can be linked to."""
    path = object_path(root, content)
    spare = temporary_of(file, exclusive=True)
    try:
        os.link(path, spare, follow_symlinks=False)
    except OSError:
        return False
    try:
        if not _is_intact(spare, content):
            path.unlink()  # the next file with this content takes its place
            return False
        os.replace(spare, file)
    except OSError:
        return False
    finally:
        spare.unlink(missing_ok=True)
    return True


def offer(root: Path, file: Path, content: Content) -> None:
    """Make a file, which is durable and never written to again, the blob of its content, unless a blob exists.

    If it exists, the file becomes a link to it. Where neither is possible, as on a file system without
    hard links, the file belongs to its run alone.
    """
    path = object_path(root, content)
    for _ in range(_TRIES):
        try:
            _make_folder(root, path.parent)
            _stamp(file, content)
            os.link(file, path, follow_symlinks=False)
        except FileExistsError:
            if os.path.samefile(file, path) or adopt(root, file, content):
                return
        except OSError:
            return
        else:
            return


# A program that writes to the file of one run changes it for all. Whatever writes to a file sets its time, so the
# nanoseconds of a blob's time are derived from its content: with others, it is hashed before another run gets it.


def _nanoseconds(content: Content) -> int:
    return int(content.digest.partition(":")[2][:8], 16) % _SECOND_NS


def _stamp(file: Path, content: Content) -> None:
    """Give a file the time by which its content is known to be unchanged; the seconds stay."""
    status = os.lstat(file)
    time_ns = status.st_mtime_ns // _SECOND_NS * _SECOND_NS + _nanoseconds(content)
    os.utime(file, ns=(status.st_atime_ns, time_ns), follow_symlinks=False)


def _is_intact(file: Path, content: Content) -> bool:
    """Whether a file has the content of a blob; raises OSError."""
    status = os.lstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_size != content.size_bytes:
        return False
    return status.st_mtime_ns % _SECOND_NS == _nanoseconds(content) or content_of(file, content.algorithm) == content


def _make_folder(root: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if os.path.realpath(folder) != os.path.join(os.path.realpath(root), folder.relative_to(root)):
        raise OSError(f"{folder} leads out of {root}: nothing is stored there")


def stored(root: Path) -> Iterator[Blob]:
    """Yield all blobs of a root, and the files that a killed collection has left."""
    top = root / FOLDER
    for algorithm in _folders(top):
        for folder in _folders(algorithm):
            for entry in os.scandir(folder):
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # collected just now
                if _OBJECT.fullmatch(entry.name) and stat.S_ISREG(status.st_mode):
                    inode = status.st_dev, status.st_ino
                    yield Blob(Path(entry.path), inode, status.st_size, status.st_nlink)


def _folders(folder: Path) -> list[Path]:
    try:
        if folder.is_symlink():
            return []
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def collect(root: Path) -> None:
    """Remove the blobs that no run holds.

    Raises
    ------
    OSError
        If a blob can't be removed. The next collection tries again.
    """
    for blob in stored(root):
        is_left_over = blob.path.name.endswith(TEMPORARY_SUFFIX)
        if is_left_over or blob.links == 1:
            _remove(blob.path, is_left_over)


def _remove(path: Path, is_left_over: bool) -> None:
    """Move a blob aside, where nobody finds it; put it back if somebody has linked to it meanwhile."""
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

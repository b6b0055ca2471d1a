"""What a file holds, as a digest: read once, in bounded memory."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

ALGORITHM = "sha256"
ALGORITHMS = (ALGORITHM, "sha512", "blake2b")
_BLOCK_BYTES = 1 << 20
_FICLONE = 0x40049409  # of linux/fs.h
_NO_CLONE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)


class Content(NamedTuple):
    """Size and digest of some bytes; the digest is ``algorithm:hexadecimal digits``."""

    size_bytes: int
    digest: str

    @property
    def algorithm(self) -> str:
        """The algorithm of the digest."""
        return self.digest.partition(":")[0]


def is_digest(text: object) -> bool:
    """Whether ``text`` has the form of a digest."""
    if not isinstance(text, str):
        return False
    algorithm, _, digits = text.partition(":")
    if algorithm not in ALGORITHMS or not set(digits) <= set("0123456789abcdef"):
        return False
    return len(digits) == 2 * hashlib.new(algorithm).digest_size


def check_algorithm(algorithm: str) -> None:
    """Raise ValueError if the algorithm is unknown."""
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, not {algorithm!r}")


def content_of(path: Path, algorithm: str = ALGORITHM) -> Content:
    """Return the content of a regular file; raises OSError, also if it is not a regular file."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return content_at(fd, algorithm)
    finally:
        os.close(fd)


def content_at(fd: int, algorithm: str) -> Content:
    """Return the content of an open file, from its beginning."""
    with open(fd, "rb", buffering=0, closefd=False) as file:
        file.seek(0)
        digits = hashlib.file_digest(file, algorithm).hexdigest()
        return Content(file.tell(), f"{algorithm}:{digits}")


def copy_content(source: int, target: int, algorithm: str) -> Content:
    """Copy an open file into an empty one; return the content that was copied.

    Where the file system supports it, both share their blocks on disk until one of them is written to.
    """
    if _clone(source, target):
        return content_at(target, algorithm)
    os.lseek(source, 0, os.SEEK_SET)
    hashed, size = hashlib.new(algorithm), 0
    block = memoryview(bytearray(_BLOCK_BYTES))
    count = os.readv(source, [block])
    if count < _BLOCK_BYTES:
        while count:
            hashed.update(block[:count])
            _write(target, block[:count])
            size += count
            count = os.readv(source, [block])
    else:
        size = _copy_beside(source, target, hashed, block)
    return Content(size, f"{algorithm}:{hashed.hexdigest()}")


def _copy_beside(source: int, target: int, hashed: hashlib._Hash, block: memoryview) -> int:
    """Copy while another thread hashes, so that it takes the longer of both times; ``block`` is read already."""
    from concurrent.futures import Future, ThreadPoolExecutor  # slow to import, and useful for large files alone

    size, count, spare = 0, len(block), memoryview(bytearray(_BLOCK_BYTES))
    pending: Future[None] | None = None
    with ThreadPoolExecutor(1, "shmlog-hash") as hasher:
        while count:
            if pending is not None:
                pending.result()
            pending = hasher.submit(hashed.update, block[:count])
            _write(target, block[:count])
            size += count
            block, spare = spare, block
            count = os.readv(source, [block])
    return size


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    return True

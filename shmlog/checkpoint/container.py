"""A checkpoint's file: safetensors, with its SHA-256 as the last tensor.

The format is eight bytes with the length of the header (little-endian), the header
as JSON with dtype, shape and place of each tensor, then their bytes without holes.
Files are written in one pass that hashes and holds one tensor at a time, and read without the
library, so that a checkpoint needs no package beside numpy.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from shmlog.checkpoint.tensor import BYTES, Tensor, to_numpy, to_torch
from shmlog.errors import CorruptDataError, RefusedError, UnreadableError
from shmlog.folder.files import LOCAL

SHA256 = "shmlog.sha256"  # the SHA-256 of all bytes before it
DIGEST_BYTES = 32
_HEADER_BYTES_MAX = 100_000_000  # of safetensors
_CHUNK_BYTES = 8 << 20


# ---- writing ----


def body(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> Iterator[memoryview]:
    """Yield the bytes of a file up to its digest.

    Raises
    ------
    ValueError
        If there are so many tensors that no reader takes the header.
    """
    ordered = sorted(tensors.items(), key=lambda item: -BYTES[item[1].dtype])  # so that each is aligned
    header: dict[str, Any] = {"__metadata__": dict(about)}
    offset = 0
    for name, tensor in ordered:
        header[name] = _entry(tensor.dtype, tensor.shape, offset, tensor.size)
        offset += tensor.size
    header[SHA256] = _entry("U8", (DIGEST_BYTES,), offset, DIGEST_BYTES)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    if len(text) > _HEADER_BYTES_MAX:
        raise ValueError(f"the state has {len(tensors):,} arrays and bytes, more than one file can name")
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for name, tensor in ordered:
        data = tensor.data()
        if len(data) != tensor.size:
            raise ValueError(f"tensor {name!r} has changed its size while it was saved")
        yield data


def _entry(dtype: str, shape: tuple[int, ...], offset: int, size: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}


def pieces(data: memoryview) -> Iterator[memoryview]:
    """Yield ``data`` in pieces that a cache holds."""
    for begin in range(0, len(data), _CHUNK_BYTES):
        yield data[begin : begin + _CHUNK_BYTES]


def write_all(fd: int, data: memoryview) -> None:
    """Write all of ``data``, however little one call writes."""
    while len(data):
        data = data[os.write(fd, data) :]


def write_sealed(fd: int, chunks: Iterable[memoryview]) -> str:
    """Write the bytes of `body` and the digest behind them; return the SHA-256 of the whole file."""
    digest = hashlib.sha256()
    for chunk in chunks:
        for piece in pieces(chunk):
            digest.update(piece)
            write_all(fd, piece)
    seal = digest.digest()
    write_all(fd, memoryview(seal))
    digest.update(seal)
    return digest.hexdigest()


# ---- reading ----


class Header(NamedTuple):
    """What stands before the tensors of a file, and where they begin."""

    about: dict[str, str]
    tensors: dict[str, Any]
    begin: int
    file_bytes: int


def is_pickle(begin: bytes) -> bool:
    """Whether a file that begins so is a pickle of the protocols 2 to 5; a file of ours can begin so, too."""
    return begin[:1] == b"\x80" and begin[1:2] in (b"\2", b"\3", b"\4", b"\5")


def read_header(path: Path) -> Header:
    """Return the header of a checkpoint's file, which must be as long as the header says.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptDataError
        If it is not a checkpoint, or cut.
    RefusedError
        If it is a pickle.
    """
    with LOCAL.open(path) as file:
        file_bytes = os.fstat(file.fileno()).st_size
        begin = file.read(8)
        length = int.from_bytes(begin, "little")
        if not 2 <= length <= min(file_bytes - 8, _HEADER_BYTES_MAX):
            raise _unlike(path, begin, f"no safetensors file, or cut ({file_bytes:,} bytes)")
        text = file.read(length)
    try:
        header = json.loads(text)
        about = header.pop("__metadata__")
        end = header[SHA256]["data_offsets"][1]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise _unlike(path, begin, "the header is damaged, or not that of a checkpoint") from error
    if 8 + length + end != file_bytes:
        raise CorruptDataError(f"{path}: {file_bytes:,} bytes long, its header says {8 + length + end:,}")
    return Header(about, header, 8 + length, file_bytes)


def _unlike(path: Path, begin: bytes, fault: str) -> UnreadableError:
    """Return the error of a file that is no checkpoint; a pickle is another thing, and no damage."""
    if is_pickle(begin):
        return RefusedError(f"{path}: a pickle of another program; load(path) reads it with allow_pickle=True")
    return CorruptDataError(f"{path}: {fault}")


def verify(path: Path) -> str:
    """Read all of a file and return its SHA-256.

    Raises
    ------
    CorruptDataError
        If the digest in it is not that of its bytes.
    """
    with LOCAL.open(path) as file:
        rest = os.fstat(file.fileno()).st_size - DIGEST_BYTES
        digest = hashlib.sha256()
        for piece in read_pieces(file, rest):
            digest.update(piece)
        stored = file.read()
    if stored != digest.digest():
        raise CorruptDataError(f"{path}: damaged, its SHA-256 is not the one stored in it")
    digest.update(stored)
    return digest.hexdigest()


def read_pieces(file: io.BufferedReader, rest: int) -> Iterator[memoryview]:
    """Yield the next ``rest`` bytes of a file; each piece is valid until the next one."""
    buffer = memoryview(bytearray(min(_CHUNK_BYTES, max(rest, 0))))
    while rest > 0:
        count = file.readinto(buffer[: min(rest, len(buffer))])
        if not count:
            return
        yield buffer[:count]
        rest -= count


class TensorReader:
    """Reads the tensors of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header = read_header(path)

    def numpy(self, name: str) -> Any:
        """Return a tensor as a writable array; raises CorruptDataError if the header does not describe one."""
        return self._tensor(name, to_numpy)

    def torch(self, name: str) -> Any:
        """Return a tensor as one of torch, on the CPU; raises CorruptDataError as `numpy` does."""
        return self._tensor(name, to_torch)

    def _tensor(self, name: str, convert: Callable[[bytearray, str, list[int]], Any]) -> Any:
        """Return the tensor that ``convert`` makes of its bytes, its dtype and its shape."""
        try:
            entry = self._header.tensors[name]
            dtype, shape = str(entry["dtype"]), [operator.index(length) for length in entry["shape"]]
            begin, end = (self._header.begin + operator.index(offset) for offset in entry["data_offsets"])
            size = math.prod(shape) * BYTES[dtype]
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptDataError(f"{self.path}: the header describes no tensor {name!r}") from error
        is_inside = self._header.begin <= begin <= end <= self._header.file_bytes
        if min([0, *shape]) < 0 or not is_inside or size != end - begin:
            raise CorruptDataError(f"{self.path}: the bytes of tensor {name!r} are not where the header says")
        data = bytearray(size)
        with LOCAL.open(self.path) as file:
            file.seek(begin)
            if file.readinto(data) != size:
                raise CorruptDataError(f"{self.path}: cut while it was read")
        return convert(data, dtype, shape)

# The bulk functions of records: csrc/bulk/py_bulk.c.

from array import array
from typing import Any

from numpy.typing import NDArray

def crc32(data: bytes | bytearray | memoryview, crc: int = 0, /) -> int: ...
def decode(
    frames: list[tuple[NDArray[Any], NDArray[Any], int, int, float, int]],
    names: NDArray[Any],
    columns: tuple[NDArray[Any], ...],
    /,
) -> tuple[int, int, int, int, int, int]: ...
def order(group: NDArray[Any], groups: int, keys: tuple[NDArray[Any], ...], order: NDArray[Any], /) -> None: ...
def lines(*buffers: NDArray[Any] | memoryview) -> bytes: ...
def check_pages(fd: int, groups: array[int], encodings: bytes, /) -> None: ...

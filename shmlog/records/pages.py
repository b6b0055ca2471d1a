"""Compare a whole part with its checksums, before another library reads the file by itself.

DuckDB does not compare the checksums of pages. Page headers have no checksums, and are compared with the footer.
"""

from __future__ import annotations

import os
from array import array
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from itertools import chain
from pathlib import Path

from shmlog import _bulk
from shmlog.errors import CorruptDataError
from shmlog.folder.files import LOCAL
from shmlog.records.parts import open_file
from shmlog.records.schema import METRICS

_PLAIN, _DELTA_BINARY_PACKED, _RLE_DICTIONARY, _BYTE_STREAM_SPLIT = 0, 5, 8, 9  # as parquet.thrift numbers them
_TEXTS = 0x80  # as csrc/bulk/pages.h marks a dictionary of texts
_OTHERS = {
    "step": _DELTA_BINARY_PACKED, "name": _RLE_DICTIONARY | _TEXTS, "value": _BYTE_STREAM_SPLIT,
    "int_value": _DELTA_BINARY_PACKED, "text": _PLAIN, "kind": _RLE_DICTIONARY | _TEXTS, "ts": _DELTA_BINARY_PACKED,
    "seq": _DELTA_BINARY_PACKED,
}  # fmt: skip
ENCODINGS = bytes(_OTHERS.get(name, _RLE_DICTIONARY) for name in METRICS.names)
"""The encoding of each column, see `write_options`."""
_SOUND_MAX = 1 << 16
_PORTION = 3 * 4  # the numbers of four row groups

_sound: set[tuple[int, int, int, int]] = set()  # files that need not be read again


def check_whole(path: Path) -> None:
    """Check all of a part: its footer, its texts, and each page. A process reads each file once.

    Raises
    ------
    FileNotFoundError
        If the part is gone, perhaps merged into another.
    CorruptDataError
        If it is damaged, or not a part of shmlog, or its texts could fill the memory.
    """
    with LOCAL.open(path) as file:
        status = os.fstat(file.fileno())
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if identity in _sound:
            return
        _check(path, file)
    if len(_sound) >= _SOUND_MAX:
        _sound.clear()
    _sound.add(identity)


def _check(path: Path, file: BufferedReader) -> None:
    groups = groups_of(path)
    portions = [groups[start : start + _PORTION] for start in range(0, len(groups), _PORTION)]

    def check(portion: array[int]) -> None:
        _bulk.check_pages(file.fileno(), portion, ENCODINGS)

    try:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # starts at most a thread for each portion
            list(pool.map(check, portions))
    except ValueError as error:
        raise CorruptDataError(f"{path}: damaged ({error})") from error


def groups_of(path: Path) -> array[int]:
    """Return, from the footer, the offset, rows and unpacked bytes of each row group; raises as `open_file`."""
    with open_file(path) as part:
        groups = [part.metadata.row_group(group) for group in part.groups]
    numbers = ((group.column(0).data_page_offset, group.num_rows, group.total_byte_size) for group in groups)
    return array("q", chain.from_iterable(numbers))

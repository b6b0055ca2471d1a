"""Many parts read as one file: their pages one after the other, behind them a footer that describes them all.

To set up the reading of a file takes pyarrow as long as to read ten thousand rows of it, and a run
that is at work has many parts. Each footer is checked as if the part was read alone, and so is each page.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from shmlog import _bulk
from shmlog.errors import CorruptDataError
from shmlog.records import footer
from shmlog.records.parts import check_cells, only_names, open_checked, read_part
from shmlog.records.schema import METRICS

_MOST_BYTES = 16 << 20  # of files at a time: they are in memory while rows are made of them

_MAGIC = b"PAR1"
_ROWS, _GROUPS = b"\x16", b"\x19\xfc"  # what begins the fields of a footer behind the schema: i64, list of structs


@dataclass(frozen=True)
class _Group:
    """A row group: where its description begins in the footer, its rows, and its pages in the file."""

    at: int
    rows: int
    begin: int
    end: int


@dataclass(frozen=True)
class _Piece:
    """What is wanted of a part. ``pages`` is of each group; None if they are too many to be joined."""

    path: Path
    footer: bytes
    schema: bytes
    groups_end: int
    groups: list[_Group]
    pages: list[bytes] | None

    @property
    def bytes(self) -> int:
        """How much memory it takes."""
        return len(self.footer) + sum(map(len, self.pages or ()))


def read_parts(paths: list[Path], names: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of some parts, or those of some names.

    Raises
    ------
    FileNotFoundError
        If a part is gone.
    CorruptDataError, ValueError
        If one is damaged; which it is, and what the others hold, shows when each is read alone.
    """
    wanted = None if names is None else sorted(name.encode("utf-8", "surrogatepass") for name in names)
    waiting: list[_Piece] = []
    size = 0
    for path in paths:
        piece = _take(path, wanted)
        is_alone = piece.pages is None
        if waiting and (is_alone or piece.schema != waiting[0].schema or size + piece.bytes > _MOST_BYTES):
            yield _read(waiting, names)
            waiting, size = [], 0
        if is_alone:
            yield read_part(path, names)
        else:
            waiting.append(piece)
            size += piece.bytes
    if waiting:
        yield _read(waiting, names)


def _take(path: Path, wanted: list[bytes] | None) -> _Piece:
    with footer.checked(path) as (fd, begin, data):
        schema_end, groups_end, described = _bulk.footer_groups(data, METRICS.get_field_index("name"))
        check_cells(path, sum(rows for _, rows, *_ in described) * len(METRICS), begin + len(data))
        groups = [_Group(*group) for *group, low, high in described if _may_hold(wanted, low, high)]
        if any(not len(_MAGIC) <= group.begin <= group.end <= begin for group in groups):
            raise CorruptDataError(f"{path}: damaged (pages that are not in the file)")
        pages = None
        if sum(group.end - group.begin for group in groups) <= _MOST_BYTES:
            pages = [os.pread(fd, group.end - group.begin, group.begin) for group in groups]
        return _Piece(path, data, data[:schema_end], groups_end, groups, pages)


def _may_hold(wanted: list[bytes] | None, low: bytes | None, high: bytes | None) -> bool:
    """Whether names, which are sorted, can be in a row group with these bounds."""
    if wanted is None or low is None or high is None:
        return True
    at = bisect_left(wanted, low)
    return at < len(wanted) and wanted[at] <= high


def _read(pieces: list[_Piece], names: list[str] | None) -> pa.Table:
    path = pieces[0].path.parent
    data = _join(pieces)
    with open_checked(path, pa.BufferReader(data), len(data)) as file:
        table = file.read(file.groups)
    return table if names is None else only_names(table, names)


def _join(pieces: list[_Piece]) -> bytes:
    """Return a file that has the row groups of all pieces; what else its footer says is that of the first."""
    chunks = [_MAGIC]
    groups: list[bytes] = []
    place, rows = len(_MAGIC), 0
    for piece in pieces:
        for group, pages in zip(piece.groups, piece.pages or (), strict=True):
            groups.append(_bulk.footer_move(piece.footer, group.at, place - group.begin))
            chunks.append(pages)
            place += len(pages)
            rows += group.rows
    first = pieces[0]
    described = first.schema + _ROWS + _varint(2 * rows) + _GROUPS + _varint(len(groups))
    described += b"".join(groups) + first.footer[first.groups_end :]
    return b"".join([*chunks, described, struct.pack("<I", len(described)), _MAGIC])


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])

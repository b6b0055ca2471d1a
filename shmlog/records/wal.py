"""Read write-ahead logs as frames and damage. See docs/format.md, section 2."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shmlog import _bulk
from shmlog.folder.files import LOCAL

MAGIC = b"SLF2"
FIRST = 1
"""Flag of a frame that repeats the full state."""

TORN_TAIL = "torn tail"

SLOT = np.dtype([("ts", "<u8"), ("value", "<u8"), ("step", "<i8"), ("commit", "<u8")])
ENTRY = np.dtype(
    [
        ("lane", "<u4"),
        ("slots", "<u4"),
        ("position", "<u8"),
        ("seq", "<u8"),
        ("tenancy", "<u4"),
        ("reserved", "<u4"),
        ("gapped", "<u8", (6,)),
    ]
)

_HEADER = struct.Struct("<4sIQ10IQ")
_ENTRY = struct.Struct("<II")
_FIXED_BYTES = 232
_UNLANED_AT, _RUN_ID_AT = 112, 160
_EARLIER_MAGIC = b"SLF1"
_CRC_BEGIN = 8
# The effort of all searches for the next whole frame, in bytes checked per byte of the log.
_SEARCH_EFFORT = 16


@dataclass(frozen=True)
class Damage:
    """A stretch of a file that was left out, and why.

    ``offset`` and ``length`` are in bytes; ``offset`` counts from the start of the data.
    """

    path: Path
    offset: int
    length: int
    reason: str


class Foreign(Damage):
    """Whole frames of another run or another log."""


class OtherVersion(Damage):
    """A stretch that begins with a frame of an earlier version of shmlog; only that version can read it."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame, whole and with the right checksum. Its arrays are views of the log's bytes.

    Attributes
    ----------
    path, log, index, flags, clock, offset, length
        Its place, and its header. ``offset`` counts from the start of the data.
    anchors : ndarray of int64, shape (2, 3)
        ticks, monotonic ns and UTC ns, at the beginning of the run and when the frame was written.
    unlaned : ndarray of uint64, shape (6,)
        Drops of processes that had no lane, by reason.
    lanes : ndarray of ENTRY
        Lane entries: the counters of each lane before the slots of this frame.
    names : dict of int to str
        Names defined in this frame. One that is not UTF-8 is left out.
    owners : dict of int to bytes
        By lane, the owner's JSON text.
    slots : ndarray of SLOT
        The slots of all lane entries, in their order.
    """

    path: Path
    log: int
    index: int
    flags: int
    clock: int
    offset: int
    length: int
    anchors: NDArray[np.int64]
    unlaned: NDArray[np.uint64]
    lanes: NDArray[np.void]
    names: dict[int, str]
    owners: dict[int, bytes]
    slots: NDArray[np.void]


class _BadFrameError(Exception):
    """At this place is no whole frame."""


class _ForeignFrameError(_BadFrameError):
    """The frame is whole, but belongs to another run or log."""


class _EarlierVersionError(_BadFrameError):
    """An earlier version has written the frame."""

    def __init__(self) -> None:
        super().__init__("written by an earlier version of shmlog, and only that version can read it")


class _CutShortError(_BadFrameError):
    """The data ends within the frame."""

    def __init__(self) -> None:
        super().__init__("frame cut short")


@dataclass(frozen=True)
class _Header:
    crc: int
    length: int
    log: int
    index: int
    lanes: int
    names: int
    owners: int
    slots: int
    flags: int
    clock: int
    names_bytes: int
    owners_bytes: int


def scan(
    data: bytes | memoryview, *, path: Path, log: int, run_id: str | None, start: int = 0, goes_on: bool = False
) -> Iterator[Frame | Damage]:
    """Yield the whole frames of a log, and the damage between them.

    Parameters
    ----------
    data : bytes-like
        The log, or its rest after a frame.
    path : Path
        Path of the log, for reports.
    log : int
        Number of the log; frames with another one are left out.
    run_id : str or None
        Id of the run; frames of another one are left out. None: unknown, so that frames of any run count.
    start : int
        Where in ``data`` to begin, in bytes.
    goes_on : bool
        Whether more may follow ``data``: then a frame that is cut short at its end is no damage.

    Yields
    ------
    Frame or Damage
        In the order of the log. The bytes after the last whole frame are one Damage with the reason
        ``"torn tail"``.
    """
    view = memoryview(data).cast("B")
    pieces = _pieces(view, path=path, log=log, run_id=run_id, start=start, goes_on=goes_on)
    foreign: Foreign | None = None
    for piece in pieces:
        if foreign is not None and isinstance(piece, Foreign) and piece.reason == foreign.reason:
            foreign = Foreign(path, foreign.offset, foreign.length + piece.length, foreign.reason)
            continue
        if foreign is not None:
            yield foreign
        foreign = piece if isinstance(piece, Foreign) else None
        if foreign is None:
            yield piece
    if foreign is not None:
        yield foreign


def _pieces(
    view: memoryview, *, path: Path, log: int, run_id: str | None, start: int, goes_on: bool
) -> Iterator[Frame | Damage]:
    """Yield what `scan` yields, but each foreign frame by itself."""
    search = _Search(view)
    while start < len(view):
        try:
            header = _read_header(view, start)
            _check_crc(view, start, header)
        except _BadFrameError as bad:
            if goes_on and isinstance(bad, _CutShortError):
                return
            next_frame = search.next_whole(start + 1)
            end = len(view) if next_frame is None else next_frame
            if isinstance(bad, _EarlierVersionError):
                yield OtherVersion(path, start, end - start, str(bad))
            else:
                yield Damage(path, start, end - start, TORN_TAIL if next_frame is None else str(bad))
            start = end
            continue
        try:
            _check_origin(view, start, header, log, run_id)
            yield _read_frame(view, start, header, path)
        except _ForeignFrameError as bad:
            yield Foreign(path, start, header.length, str(bad))
        except _BadFrameError as bad:
            yield Damage(path, start, header.length, str(bad))
        start += header.length


def first_piece(path: Path, log: int, run_id: str | None) -> Frame | Damage | None:
    """Return the first frame of a log, which repeats the state after the logs before it, or its damage; None: empty."""
    with LOCAL.open(path) as file:
        data = file.read(_CRC_BEGIN + 8)
        length = int.from_bytes(data[_CRC_BEGIN:], "little")
        data += file.read(min(length, os.fstat(file.fileno()).st_size))
    return next(scan(data, path=path, log=log, run_id=run_id), None)


class _Search:
    """Searches for the next whole frame, with bounded effort whatever the bytes are."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._budget = _SEARCH_EFFORT * len(view)
        self._bytes: bytes | None = None

    def next_whole(self, start: int) -> int | None:
        if self._bytes is None:
            self._bytes = bytes(self._view)
        at = self._bytes.find(MAGIC, start)
        while at >= 0 and self._budget > 0:
            try:
                header = _read_header(self._view, at)
                self._budget -= header.length
                _check_crc(self._view, at, header)
            except _BadFrameError:
                at = self._bytes.find(MAGIC, at + 1)
            else:
                return at
        return None


def _read_header(view: memoryview, at: int) -> _Header:
    if view[at : at + len(_EARLIER_MAGIC)] == _EARLIER_MAGIC:
        raise _EarlierVersionError
    if len(view) - at < _FIXED_BYTES:
        raise _CutShortError
    magic, *fields, reserved = _HEADER.unpack_from(view, at)
    header = _Header(*fields)
    sections = 80 * header.lanes + header.names_bytes + header.owners_bytes + 32 * header.slots
    if magic != MAGIC or reserved or header.length % 8 or header.length != _FIXED_BYTES + sections:
        raise _BadFrameError("not a frame where one should begin")
    if header.length > len(view) - at:
        raise _CutShortError
    return header


def _check_crc(view: memoryview, at: int, header: _Header) -> None:
    if _bulk.crc32(view[at + _CRC_BEGIN : at + header.length]) != header.crc:
        raise _BadFrameError("wrong checksum")


def _check_origin(view: memoryview, at: int, header: _Header, log: int, run_id: str | None) -> None:
    """Raise _ForeignFrameError if a frame does not belong to the log in which it lies."""
    origin = bytes(view[at + _RUN_ID_AT : at + _FIXED_BYTES]).rstrip(b"\0").decode("utf-8", "replace")
    if run_id is not None and origin != run_id:
        raise _ForeignFrameError(f"frames of run {origin!r}")
    if header.log != log:
        raise _ForeignFrameError(f"frames of log {header.log}")


def _read_frame(view: memoryview, at: int, header: _Header, path: Path) -> Frame:
    lanes_at = at + _FIXED_BYTES
    names_at = lanes_at + 80 * header.lanes
    owners_at = names_at + header.names_bytes
    slots_at = owners_at + header.owners_bytes
    lanes = np.frombuffer(view, ENTRY, header.lanes, lanes_at)
    if int(lanes["slots"].sum(dtype=np.uint64)) != header.slots:
        raise _BadFrameError("lane entries that do not match the slots")
    return Frame(
        path=path,
        log=header.log,
        index=header.index,
        flags=header.flags,
        clock=header.clock,
        offset=at,
        length=header.length,
        anchors=np.frombuffer(view, "<i8", 6, at + _HEADER.size).reshape(2, 3),
        unlaned=np.frombuffer(view, "<u8", 6, at + _UNLANED_AT),
        lanes=lanes,
        names=_decode_names(_read_texts(view[names_at:owners_at], header.names)),
        owners=_read_texts(view[owners_at:slots_at], header.owners),
        slots=np.frombuffer(view, SLOT, header.slots, slots_at),
    )


def _read_texts(section: memoryview, count: int) -> dict[int, bytes]:
    """Return the texts of a section of names or owners, by number."""
    texts: dict[int, bytes] = {}
    at = 0
    for _ in range(count):
        if len(section) - at < _ENTRY.size:
            raise _BadFrameError("names or owners that end too early")
        number, size = _ENTRY.unpack_from(section, at)
        at += _ENTRY.size
        if size > len(section) - at:
            raise _BadFrameError("names or owners that end too early")
        texts[number] = bytes(section[at : at + size])
        at += (size + 7) // 8 * 8
    if at != len(section):
        raise _BadFrameError("names or owners of another size than the header says")
    return texts


def _decode_names(texts: dict[int, bytes]) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, text in texts.items():
        try:
            names[number] = text.decode("utf-8")
        except UnicodeDecodeError:
            continue  # its records are reported as nameless
    return names

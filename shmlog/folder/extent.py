"""How much of a file counts, and the checksum of that: text files have none of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from shmlog import _bulk
from shmlog.errors import UnreadableError
from shmlog.folder.regular import open_regular

crc32 = _bulk.crc32

_BLOCK_BYTES = 1 << 20


class Extent(NamedTuple):
    """The first bytes of a file, and their CRC-32."""

    bytes: int = 0
    crc32: int = 0

    def fault(self, path: Path) -> str | None:
        """Return what is wrong with the file, or None. More may follow in it."""
        try:
            found = _measure(path, self.bytes)
        except FileNotFoundError:
            found = Extent()
        except UnreadableError as error:
            return str(error).removeprefix(f"{path}: ")
        if found.bytes < self.bytes:
            return f"has {found.bytes} bytes; {self.bytes} were written"
        return None if found == self else "its checksum is wrong: any of it may be"


def of_file(path: Path) -> Extent:
    """Return the extent of a whole file."""
    return _measure(path, path.stat().st_size)


def of_mapping(told: object) -> Extent | None:
    """Return the extent that a file of ours tells; None if it tells none."""
    if not isinstance(told, Mapping):
        return None
    size, crc = told.get("bytes"), told.get("crc32")
    return Extent(size, crc) if type(size) is int and type(crc) is int and size >= 0 else None


def extents_of(told: Any) -> dict[str, Extent]:
    """Return the extents in a mapping of file names."""
    found = {name: of_mapping(one) for name, one in told.items()} if isinstance(told, Mapping) else {}
    return {name: extent for name, extent in found.items() if extent is not None}


def _measure(path: Path, most: int) -> Extent:
    size = crc = 0
    with open_regular(path) as file:
        while size < most and (block := file.read(min(_BLOCK_BYTES, most - size))):
            size += len(block)
            crc = crc32(block, crc)
    return Extent(size, crc)

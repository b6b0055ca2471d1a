"""How many bytes of a file count, and their checksum: text files have none of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from shmlog import _bulk
from shmlog.errors import UnreadableError
from shmlog.folder.files import LOCAL, RunFiles

crc32 = _bulk.crc32

_BLOCK_BYTES = 1 << 20


class Extent(NamedTuple):
    """The first bytes of a file, and their CRC-32."""

    bytes: int = 0
    crc32: int = 0

    def fault(self, path: Path, files: RunFiles = LOCAL) -> str | None:
        """Return what is wrong with the file, or None. It may be longer."""
        try:
            actual = _measure(path, self.bytes, files)
        except FileNotFoundError:
            actual = Extent()
        except UnreadableError as error:
            return str(error).removeprefix(f"{path}: ")
        if actual.bytes < self.bytes:
            return f"has {actual.bytes} bytes; {self.bytes} were written"
        return None if actual == self else "its checksum is wrong: any of it may be"


def of_file(path: Path) -> Extent:
    """Return the extent of a whole file."""
    return _measure(path, path.stat().st_size, LOCAL)


def of_mapping(mapping: object) -> Extent | None:
    """Return the extent that a mapping of one of our files holds; None if it holds none."""
    if not isinstance(mapping, Mapping):
        return None
    size, crc = mapping.get("bytes"), mapping.get("crc32")
    return Extent(size, crc) if type(size) is int and type(crc) is int and size >= 0 else None


def extents_of(mapping: Any) -> dict[str, Extent]:
    """Return the extents in a mapping of file names."""
    extents = {name: of_mapping(one) for name, one in mapping.items()} if isinstance(mapping, Mapping) else {}
    return {name: extent for name, extent in extents.items() if extent is not None}


def _measure(path: Path, bytes_max: int, files: RunFiles) -> Extent:
    size = crc = 0
    with files.open(path) as file:
        while size < bytes_max and (block := file.read(min(_BLOCK_BYTES, bytes_max - size))):
            size += len(block)
            crc = crc32(block, crc)
    return Extent(size, crc)

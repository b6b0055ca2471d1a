"""The demo's input: Python's own standard library as text, and a tokeniser for it."""

from __future__ import annotations

import os
import random
import re
import sysconfig
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from shmlog import ShmlogError

VOCABULARY_SIZE = 512
MAX_FILE_BYTES = 64 * 1024

_SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "__pycache__"})
_PIECE = re.compile(rb" ?[A-Za-z_]+|\n[ ]*| +|[^A-Za-z_ ]")


def stdlib_files(folder: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the source files of the standard library that the demo reads, sorted.

    Tests, empty files and files over ``MAX_FILE_BYTES`` are left out: one huge
    table of data would hold a worker up for seconds.

    Raises
    ------
    ShmlogError
        If the folder holds no source files, as in some stripped-down images.
    """
    root = Path(folder or sysconfig.get_path("stdlib"))
    files = sorted(path for path in _source_files(root) if 0 < path.stat().st_size <= MAX_FILE_BYTES)
    if not files:
        raise ShmlogError(f"{root}: no Python source files to read; install the standard library's sources")
    return files


def _source_files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


class Vocabulary:
    """256 single bytes and the most frequent longer pieces of a sample.

    Every text can be encoded, and decodes to itself: unknown pieces are spelled
    byte by byte.

    Parameters
    ----------
    pieces : sequence of bytes
        The longer pieces. Piece ``i`` is token ``256 + i``.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = list(pieces)
        self._token = {piece: 256 + index for index, piece in enumerate(self.pieces)}

    def __len__(self) -> int:
        return 256 + len(self.pieces)

    @classmethod
    def of(cls, texts: Iterable[bytes], size: int = VOCABULARY_SIZE) -> Vocabulary:
        """Return the vocabulary of at most ``size`` tokens that saves most in ``texts``."""
        counts: Counter[bytes] = Counter()
        for text in texts:
            counts.update(_PIECE.findall(text))
        saved = {piece: count * (len(piece) - 1) for piece, count in counts.items() if len(piece) > 1}
        ranked = sorted(saved, key=lambda piece: (-saved[piece], piece))
        return cls(ranked[: size - 256])

    def encode(self, text: bytes) -> array[int]:
        """Return the tokens of ``text``, each an unsigned 16-bit integer."""
        tokens = array("H")
        token_of = self._token.get
        for piece in _PIECE.findall(text):
            token = token_of(piece)
            if token is None:
                tokens.extend(piece)
            else:
                tokens.append(token)
        return tokens

    def decode(self, tokens: Iterable[int]) -> bytes:
        """Return the text that ``tokens`` stand for."""
        return b"".join(bytes([t]) if t < 256 else self.pieces[t - 256] for t in tokens)


def windows(tokens: array[int], length: int, count: int, rng: random.Random) -> bytes:
    """Return ``count`` random windows of ``length`` tokens, one after the other.

    Returns nothing if the text is shorter than one window.
    """
    last = len(tokens) - length
    if last < 0:
        return b""
    starts = [rng.randint(0, last) for _ in range(count)]
    return b"".join(tokens[start : start + length].tobytes() for start in starts)

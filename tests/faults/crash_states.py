"""What a file system may hold after a loss of power.

The model is that of Pillai et al., "All File Systems Are Not Created Equal: On
the Complexity of Crafting Crash-Consistent Applications" (OSDI '14, the tool
ALICE), in its weakest form, which promises no more than POSIX does:

- ``fsync`` of a file makes durable what had been written to it, and its length,
  when the call began. It does not make its name durable.
- ``fsync`` of a folder makes durable the names made, moved and removed in it
  when the call began. Nothing else does, not even an ``fsync`` of the file.
- Of all other operations any subset is on the disk: they are reordered at will,
  data against data, names against names, and one against the other.
- A write is split at multiples of 512 bytes in the file, and each piece is there
  or not. A length may be there before its data: what is missing reads as zeros,
  or as what had been in these blocks (ext4 with ``data=writeback``).
- One creation, removal or move of a name is there as a whole or not at all.

Not modelled: blocks that were written before and go bad, and a disk that lies
about having written. Names are below ``base``, which was there before.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.oplog import Op

SECTOR = 512


@dataclass
class _File:
    """Operations on the bytes of a file, and how many of them are durable."""

    ops: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Number, offset and data; a truncation has its length for offset and b"" for data."""
    durable: int = 0
    size: int = 0


@dataclass
class _Folder:
    """Changes of the names in a folder, and how many of them are durable."""

    ops: list[tuple[int, dict[str, _Node | None]]] = field(default_factory=list)
    durable: int = 0
    now: dict[str, _Node] = field(default_factory=dict)


_Node = _File | _Folder
Tree = dict[str, bytes | None]
"""Path below the base -> content; None for a folder."""

MODES = ("lose all", "keep all", "names alone", "data alone")
"""Ways to lose that are no matter of chance."""


class Disk:
    """A disk after some operations."""

    def __init__(self, base: Path) -> None:
        self._base = str(base)
        self._root = _Folder()

    def _find(self, path: str) -> _Node:
        node: _Node = self._root
        for name in Path(path).relative_to(self._base).parts:
            assert isinstance(node, _Folder)
            node = node.now[name]
        return node

    def _parent(self, path: str) -> tuple[_Folder, str]:
        folder, name = os.path.split(path)
        found = self._find(folder)
        assert isinstance(found, _Folder)
        return found, name

    def _rename(self, number: int, path: str, changes: dict[str, _Node | None]) -> None:
        folder, _ = self._parent(path)
        folder.ops.append((number, changes))
        for name, node in changes.items():
            if node is None:
                folder.now.pop(name)
            else:
                folder.now[name] = node

    def apply(self, number: int, op: Op) -> None:
        """Do operation ``number``."""
        if op.kind == "mark":
            return
        if op.kind == "sync":
            node = self._find(op.path)
            node.durable = max(node.durable, sum(1 for done in node.ops if done[0] < op.begun))
            return
        if op.kind in ("append", "truncate"):
            file = self._find(op.path)
            assert isinstance(file, _File)
            file.ops.append((number, op.size if op.kind == "truncate" else file.size, op.data))
            file.size = op.size if op.kind == "truncate" else file.size + len(op.data)
            return
        if op.kind == "overwrite":
            file = self._find(op.path)
            assert isinstance(file, _File)
            file.ops.append((number, op.size, op.data))
            file.size = max(file.size, op.size + len(op.data))
            return
        folder, name = self._parent(op.path)
        if op.kind == "rename":
            assert os.path.dirname(op.path) == os.path.dirname(op.target), "moved to another folder"
            self._rename(number, op.path, {name: None, os.path.basename(op.target): folder.now[name]})
        elif op.kind == "link":
            self._rename(number, op.target, {os.path.basename(op.target): folder.now[name]})
        elif op.kind in ("create", "mkdir"):
            self._rename(number, op.path, {name: _File() if op.kind == "create" else _Folder()})
        else:
            self._rename(number, op.path, {name: None})

    # ---- what is left ----

    def after_loss(self, mode: str, chance: random.Random) -> Tree:
        """Return what is on the disk if power is lost now; ``mode`` is one of `MODES`, or "random"."""
        loss = _Loss(mode, chance, sorted(self._pending()))
        tree: Tree = {}
        self._walk(self._root, "", loss, tree)
        return tree

    def _pending(self) -> Iterator[int]:
        """Yield the operations that are not durable."""
        todo: list[_Node] = [self._root]
        seen: set[int] = set()
        while todo:
            node = todo.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            yield from (op[0] for op in node.ops[node.durable :])
            if isinstance(node, _Folder):
                todo += [found for _, changes in node.ops for found in changes.values() if found is not None]

    def _walk(self, folder: _Folder, path: str, loss: _Loss, tree: Tree) -> None:
        names: dict[str, _Node] = {}
        for i, (number, changes) in enumerate(folder.ops):
            if i >= folder.durable and not loss.keeps_name(number):
                continue
            for name, node in changes.items():
                if node is None:
                    names.pop(name, None)
                else:
                    names[name] = node
        for name, node in names.items():
            below = f"{path}/{name}" if path else name
            if isinstance(node, _File):
                tree[below] = _content(node, loss)
            else:
                tree[below] = None
                self._walk(node, below, loss, tree)


class _Loss:
    """Decides which operations are on the disk."""

    def __init__(self, mode: str, chance: random.Random, pending: list[int]) -> None:
        self._chance = chance
        self.filler = chance.choice(("zeros", "garbage", "cut"))
        self._likely = chance.choice((0.1, 0.5, 0.9, 0.98))
        self.tears = mode == "random" and chance.random() < 0.7
        if mode == "random":
            mode = chance.choice(("each", "each", "all but one", "only one", "up to one"))
        one = chance.choice(pending) if pending else -1
        self._chosen = {
            "lose all": set[int](),
            "keep all": set(pending),
            "names alone": set(pending),
            "data alone": set(pending),
            "each": {number for number in pending if chance.random() < self._likely},
            "all but one": set(pending) - {one},
            "only one": {one},
            "up to one": {number for number in pending if number <= one},
        }[mode]
        self._torn = one if mode in ("all but one", "only one", "up to one") else None
        self._names = mode != "data alone"
        self._data = mode != "names alone"

    def keeps_name(self, number: int) -> bool:
        return self._names and number in self._chosen

    def keeps_piece(self, number: int) -> bool:
        if self.tears and (self._torn is None or self._torn == number):
            return self._chance.random() < self._likely
        return self._data and number in self._chosen

    def keeps_size(self, number: int) -> bool:
        return number in self._chosen and self.filler != "cut"

    def fill(self, size: int) -> bytes:
        return self._chance.randbytes(size) if self.filler == "garbage" else bytes(size)


def _content(file: _File, loss: _Loss) -> bytes:
    content = bytearray()
    for i, (number, offset, data) in enumerate(file.ops):
        durable = i < file.durable
        if not data:
            if durable or loss.keeps_piece(number):
                del content[offset:]
                _extend(content, offset, loss)
            continue
        if durable:
            _extend(content, offset, loss)
            content[offset : offset + len(data)] = data
            continue
        for begin, end in _pieces(offset, len(data)):
            if loss.keeps_piece(number):
                _extend(content, begin, loss)
                content[begin:end] = data[begin - offset : end - offset]
        if loss.keeps_size(number):
            _extend(content, offset + len(data), loss)
    return bytes(content)


def _extend(content: bytearray, size: int, loss: _Loss) -> None:
    if len(content) < size:
        content += loss.fill(size - len(content))


def _pieces(offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of the parts of a write that are written at once."""
    begin, end = offset, offset + size
    while begin < end:
        stop = min(end, (begin // SECTOR + 1) * SECTOR)
        yield begin, stop
        begin = stop


def replay(ops: Iterable[Op], base: Path) -> Iterator[tuple[int, Disk]]:
    """Yield the disk before the first operation, and after each; always the same object."""
    disk = Disk(base)
    yield 0, disk
    for number, op in enumerate(ops):
        disk.apply(number, op)
        yield number + 1, disk


def digest(tree: Tree) -> bytes:
    """Return what tells a state from others."""
    found = hashlib.blake2b(digest_size=12)
    for path in sorted(tree):
        content = tree[path]
        found.update(f"{path}\0{-1 if content is None else len(content)}\0".encode())
        found.update(content or b"")
    return found.digest()


def write_tree(tree: Tree, folder: Path) -> None:
    """Put a state onto a disk that works."""
    for path in sorted(tree):
        content = tree[path]
        if content is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)

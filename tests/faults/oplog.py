"""The file operations of a real run, in their order, as strace saw them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_CALLS = (
    "openat,write,writev,pwrite64,pwritev,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,ftruncate,"
    "truncate,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,fallocate,sendfile,copy_file_range"
)
_LINE = re.compile(r"(\d+) +(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?)(.*)")
_FD = re.compile(r"(?:\d+|AT_FDCWD)<([^>]*)>(\(deleted\))?")
_STRING = re.compile(r'"([^"]*)"')


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes
    ----------
    kind : str
        ``create``, ``truncate``, ``append``, ``overwrite``, ``sync``, ``rename``, ``link``, ``unlink``, ``mkdir``,
        ``rmdir``, or ``mark``: the program told where it is.
    path : str
        What it was done to.
    data : bytes
        What was written; of a mark, what it tells.
    size : int
        Of a truncation. Where an overwrite begins.
    target : str
        Of a rename or a link.
    begun : int
        How many operations had ended when this one began: a sync covers no others.
    """

    kind: str
    path: str
    data: bytes = b""
    size: int = 0
    target: str = ""
    begun: int = 0


def record(script: Path, *arguments: str, base: Path, marks: Path, trace: Path) -> list[Op]:
    """Run a Python script and all that it starts; return what they did to files below ``base``.

    Whatever is appended to the file ``marks`` becomes a mark.
    """
    command = [
        "strace", "-f", "--seccomp-bpf", "-qq", "-xx", "-y", "-s", str(1 << 25), "-e", f"trace={_CALLS}",
        "-e", "signal=none", "-o", str(trace), sys.executable, str(script), *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*(p for p in sys.path if p), str(ROOT)])}
    # strace ends when the last process does, the flusher.
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return list(_parse(trace, str(base), str(marks)))


def _parse(trace: Path, base: str, marks: str) -> Iterator[Op]:
    unfinished: dict[str, tuple[str, int]] = {}
    count = 0
    known = {base}
    with open(trace, encoding="ascii") as file:
        for line in file:
            found = _LINE.match(line)
            assert found is not None, line
            pid, text = found[1], found[2]
            begun = count
            if text.endswith("<unfinished ...>"):
                unfinished[pid] = text.removesuffix("<unfinished ...>"), count
                continue
            if text.startswith("<... "):
                head, begun = unfinished.pop(pid)
                text = head + text.partition("resumed>")[2]
            for op in _ops(text, begun, base, marks, known):
                yield op
                count += 1


def _ops(text: str, begun: int, base: str, marks: str, known: set[str]) -> Iterator[Op]:
    """Yield what a call did below ``base``; ``known`` are the files and folders that are there."""
    call = _CALL.match(text)
    if call is None or call[3].startswith("-") or call[3] == "?":
        return
    name, arguments, result = call[1], call[2], int(call[3])
    if name == "openat":
        path = _paths(arguments)[0]
        flags = arguments.split(", ")[2]
        if not _is_below(path, base) or path == marks or ("O_WRONLY" not in flags and "O_RDWR" not in flags):
            return
        if path not in known:
            known.add(path)
            yield Op("create", path, begun=begun)
        elif "O_TRUNC" in flags:
            yield Op("truncate", path, begun=begun)
        return
    if name in ("write", "writev"):
        path, is_deleted = _fd(arguments)
        if path == marks:
            yield Op("mark", path, _data(arguments)[:result], begun=begun)
        elif _is_below(path, base) and not is_deleted:
            yield Op("append", path, _data(arguments)[:result], begun=begun)
        return
    if name == "pwrite64":
        path, is_deleted = _fd(arguments)
        if _is_below(path, base) and not is_deleted:
            begin = int(arguments.rpartition(", ")[2])
            yield Op("overwrite", path, _data(arguments)[:result], size=begin, begun=begun)
        return
    if name in ("fsync", "fdatasync", "ftruncate"):
        path, is_deleted = _fd(arguments)
        if _is_below(path, base) and not is_deleted:
            size = int(arguments.rpartition(", ")[2]) if name == "ftruncate" else 0
            yield Op("truncate" if name == "ftruncate" else "sync", path, size=size, begun=begun)
        return
    paths = _paths(arguments)
    if not any(_is_below(path, base) for path in paths):
        return
    if name.startswith("rename"):
        known.discard(paths[0])
        known.add(paths[1])
        yield Op("rename", paths[0], target=paths[1], begun=begun)
    elif name.startswith("link"):
        known.add(paths[1])
        yield Op("link", paths[0], target=paths[1], begun=begun)
    elif name.startswith("mkdir"):
        known.add(paths[0])
        yield Op("mkdir", paths[0], begun=begun)
    elif name.startswith("unlink") or name == "rmdir":
        known.discard(paths[0])
        yield Op("rmdir" if name == "rmdir" or "AT_REMOVEDIR" in arguments else "unlink", paths[0], begun=begun)
    else:
        raise AssertionError(f"{name} of {paths}: the model of crash states does not know it")


def _is_below(path: str, base: str) -> bool:
    return path == base or path.startswith(base + "/")


def _unescape(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _fd(arguments: str) -> tuple[str, bool]:
    """Return the path behind the descriptor that is the first argument, and whether it was deleted."""
    found = _FD.match(arguments)
    return (os.fsdecode(_unescape(found[1])), bool(found[2])) if found and found[1].startswith("\\x") else ("", False)


def _data(arguments: str) -> bytes:
    return b"".join(_unescape(text) for text in _STRING.findall(arguments))


def _paths(arguments: str) -> list[str]:
    """Return the path arguments, each joined to the folder whose descriptor stands before it."""
    paths = []
    for found in re.finditer(r'(?:(?:\d+|AT_FDCWD)(?:<([^>]*)>)?, )?"([^"]*)"', arguments):
        folder = os.fsdecode(_unescape(found[1])) if found[1] else ""
        path = os.path.join(folder, os.fsdecode(_unescape(found[2])))
        paths.append(os.path.normpath(path))
    return paths

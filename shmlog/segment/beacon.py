"""How a process tells its children which runs it has open.

A process that owns runs keeps a small file in shared memory, its beacon, named after its user, pid and start
time. A child finds it, however it was started, by the name that was handed down with the run or from its
own ancestors. The file is replaced whole at each `init` and each `finish`.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from shmlog import _core
from shmlog.base.durable import atomic_write
from shmlog.errors import log_warning
from shmlog.folder.segmentref import SHARED_MEMORY, names_in
from shmlog.segment.guard import Guard
from shmlog.segment.process import Process, parent_of, pid_namespace, process_of

_PREFIX = "shmlog.runs-"
# User, pid namespace, pid, start time; and the suffix of files that a killed write has left.
_NAME = rf"{re.escape(_PREFIX)}(\d+)-(\d+)-(\d+)-(\d+)(?:\..+\.tmp)?"
_BYTES_MAX = 1 << 20
_UNUSABLE = (OSError, ValueError, TypeError, KeyError)  # made in advance: without memory no tuple can be made
_ANCESTORS_MAX = 64
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")

#: How long a process may rely on its last look, which found no run of its ancestors. `announce` takes that long, so
#: that a call after it finds the run.
UNSEEN_NS = 200_000


class BeaconEntry(NamedTuple):
    """A run that a process has open."""

    run_dir: str
    segment: str | None  # name of the shared-memory object; None: a file in the run folder
    token: int  # of the process in that run
    begun: int  # number of the run in the process
    chain: int  # shared by runs made one after the other in one thread or task
    alone: bool  # no other run was open when it was made
    under: tuple[int, ...]  # numbers of the runs open around it in its thread or task
    since_s: float  # CLOCK_BOOTTIME when it was made


Listener = Callable[[str, int], None]
"""Called with the path of a beacon, and its state while it lists the listener's run."""


_guard = Guard()  # several threads make and finish runs


class _Own:
    """The beacon of this process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.name = name_of(process_of(self.pid))
        self.path = str(path_of(self.name))
        self.entries: dict[int, BeaconEntry] = {}
        self.listeners: dict[int, Listener] = {}
        self.count = 0

    def write(self) -> None:
        written: list[BeaconEntry] | None = None
        while written != (entries := list(self.entries.values())):  # a signal handler may have changed them meanwhile
            data = json.dumps([entry._asdict() for entry in entries]).encode("utf-8", "surrogateescape")
            atomic_write(path_of(self.name), data, durable=False, exclusive=True, mode=0o600)
            written = entries


_own: _Own | None = None


_FOLDER = str(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else "/tmp"


def folder() -> str:
    """Return the folder of all beacons."""
    return _FOLDER


def path_of(name: str) -> Path:
    """Return the file of a beacon."""
    return Path(_FOLDER, name)


def name_of(process: Process) -> str:
    """Return the name of a process's beacon."""
    return f"{_PREFIX}{os.geteuid()}-{_namespace()}-{process.pid}-{process.start or 0}"


def _namespace() -> str:
    return re.sub(r"\D", "", pid_namespace() or "") or "0"


# ---- of this process ----


def _ours() -> _Own:
    global _own
    if _own is None or _own.pid != os.getpid():
        _own = _Own()
        atexit.register(_remove, _own)
    return _own


def _remove(own: _Own) -> None:
    if own.pid == os.getpid():
        with suppress(OSError):  # a file system that can't be written to any more
            path_of(own.name).unlink(missing_ok=True)


def new_entry(run_dir: Path, segment: str | None, chain: int | None, under: tuple[int, ...]) -> tuple[str, BeaconEntry]:
    """Return the beacon's name and its entry for a run that this process is about to own.

    ``chain`` is that of the run before it; None: the run begins a chain.
    """
    with _guard.lock:
        own = _ours()
        own.count += 1
        begun, is_alone = own.count, not own.entries
    token = int.from_bytes(os.urandom(8)) | 1
    since_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    return own.name, BeaconEntry(str(run_dir), segment, token, begun, chain or begun, is_alone, under, since_s)


def announce(entry: BeaconEntry, listener: Listener) -> None:
    """Tell children about a run that this process now owns.

    ``listener`` is called at each change while the process owns the run, so that a child forked after the last change
    need not read the beacon.
    """
    with _guard.lock:
        own = _ours()
        own.entries[entry.begun], own.listeners[entry.begun] = entry, listener
        _write(own)
    time.sleep(UNSEEN_NS * 1e-9)


def withdraw(entry: BeaconEntry) -> None:
    """Tell children that the run has ended for this process and for them."""
    with _guard.lock:
        if _own is not None and _own.pid == os.getpid() and _own.entries.pop(entry.begun, None) is not None:
            del _own.listeners[entry.begun]
            _write(_own)


def _write(own: _Own) -> None:
    try:
        own.write()
        # Before the entries are listed: if another thread withdraws a run meanwhile, the state changes again.
        state = _core.state_of((own.path,))
        # So a forked child need not read the beacon before its first record.
        _read_before[own.name] = state, list(own.entries.values())
        for listener in list(own.listeners.values()):
            listener(own.path, state)
    except OSError as error:
        # Without descriptors a file can still be removed: no beacon is better than an outdated one.
        _remove(own)
        log_warning(
            "%s: %s; worker processes that outlive a run won't find the next one", path_of(own.name), error.strerror
        )


# ---- of others ----


_read_before: dict[str, tuple[int, list[BeaconEntry] | None]] = {}  # by beacon, its state and its entries then


def read(name: str) -> list[BeaconEntry] | None:
    """Return the runs that a process has open, the oldest first; None if its beacon is gone or can't be read."""
    state = _core.state_of((f"{_FOLDER}/{name}",))
    if not state:
        _read_before.pop(name, None)
        return None
    cached = _read_before.get(name)
    if cached is None or cached[0] != state:
        _read_before[name] = cached = state, _parse(name)
    return cached[1]


def _parse(name: str) -> list[BeaconEntry] | None:
    if not re.fullmatch(_NAME, name):
        return None
    try:
        data = _read_ours(path_of(name))
        if data is None:
            return None
        entries = json.loads(data.decode("utf-8", "surrogateescape"))
        return [BeaconEntry(**{**entry, "under": tuple(entry["under"])}) for entry in entries]
    except _UNUSABLE:
        return None


def _read_ours(path: Path) -> bytes | None:
    """Return the content of a file; None if it is not this user's."""
    # No `with`: its exit loops for ever in a process without memory (CPython 3.11).
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        return os.read(fd, _BYTES_MAX) if is_ours else None
    finally:
        os.close(fd)


def ancestors() -> Iterator[Process]:
    """Yield the parent of this process, its parent, and so on."""
    pid = os.getppid()
    for _ in range(_ANCESTORS_MAX):
        if pid <= 0:
            return
        yield process_of(pid)
        pid = parent_of(pid)


def born_s() -> float:
    """Return the start time of this process by CLOCK_BOOTTIME."""
    return (process_of(os.getpid()).start or 0) * _TICK_S


def stale() -> list[Path]:
    """Return the beacons of this user whose processes are gone, as far as this pid namespace shows."""
    return [path_of(name) for name in names_in(Path(_FOLDER), f"{_PREFIX}{os.geteuid()}-") if _is_stale(name)]


def _is_stale(name: str) -> bool:
    match = re.fullmatch(_NAME, name)
    if match is None:
        return False
    if match[2] != _namespace():
        return _are_runs_closed(name)
    return not Process(int(match[3]), int(match[4]) or None).is_alive


def _are_runs_closed(name: str) -> bool:
    """Whether the segments of all runs in the beacon of another pid namespace are gone: a live process keeps them.

    If the process lives all the same, it writes its beacon again when it next makes or finishes a run.
    """
    segments = [entry.segment for entry in read(name) or []]
    return bool(segments) and all(path and not (SHARED_MEMORY / path.lstrip("/")).exists() for path in segments)


def remove_stale(path: Path) -> None:
    """Remove the beacon of a process that is gone; no other process can have its pid and start time."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def sweep() -> None:
    """Remove all stale beacons."""
    for path in stale():
        remove_stale(path)

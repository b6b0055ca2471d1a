"""What an attempt was made from, as far as finding it takes longer than init may, and the files that tell it."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from shmlog.base.durable import atomic_write
from shmlog.errors import ShmlogError, UnreadableError
from shmlog.flusher import closing, git, machine
from shmlog.flusher.nice import be_nice
from shmlog.folder import runfile
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.folder.runfile import read_provenance

SCHEMA = 1
FINDING_S = git.TIMEOUT_S + 10.0
TRIES = 5  # when the run is over


class Gathered(NamedTuple):
    """What provenance.yaml says, and the text of git.diff."""

    told: dict[str, Any]
    diff: bytes = b""
    is_kept: bool = False


class Provenance:
    """Finds in a thread what the latest attempt of a run was made from, and writes it when asked to.

    The run is whole without it: what fails is reported, and nothing waits for a disk that refuses it.
    """

    def __init__(self, layout: RunLayout, report: Callable[[str], None]) -> None:
        self._layout = layout
        self._report = report
        self._found: Gathered | None = None
        self._finder: threading.Thread | None = None
        self._started_s = 0.0
        self._try_at_s = 0.0
        self._told = ""

    def start(self) -> None:
        """Begin to look, if no flusher before this one has done it."""
        self._started_s = time.monotonic()
        finder = threading.Thread(target=self._guarded, args=(self._find,), name="provenance", daemon=True)
        if self._guarded(finder.start):  # there may be a limit of threads
            self._finder = finder

    def _find(self) -> None:
        self._found = _load(self._layout) or _find(self._layout)

    def keep(self) -> bool:
        """Write what has been found, unless that has just failed; return whether it is still being looked for."""
        is_looking = self._finder is not None and self._finder.is_alive()
        if self._found is not None and time.monotonic() >= self._try_at_s:
            self._guarded(self._write)
        return is_looking

    def finish(self) -> None:
        """Wait for what is being found, and write it; without a start, have run.yaml say what was written before."""
        if self._finder is None:
            self._guarded(self._load)
        else:
            self._finder.join(max(0.0, self._started_s + FINDING_S - time.monotonic()))
        for _ in range(TRIES):
            if self._found is None or self._guarded(self._write):
                return
            time.sleep(closing.RETRY_S)

    def _load(self) -> None:
        self._found = _load(self._layout)

    def _write(self) -> None:
        assert self._found is not None
        _write(self._layout, self._found)
        self._found = None

    def _guarded(self, work: Callable[[], None]) -> bool:
        """Do something that is no reason for a flusher to end; return whether it was done."""
        try:
            work()
        except Exception as error:
            is_known = isinstance(error, (OSError, ShmlogError))
            self._tell(f"provenance: {error}" if is_known else traceback.format_exc())
            self._try_at_s = time.monotonic() + closing.RETRY_S
            return False
        return True

    def _tell(self, failure: str) -> None:
        if failure != self._told:  # else it was tried again
            self._report(failure)
            self._told = failure


def _load(layout: RunLayout) -> Gathered | None:
    """Return what a flusher of this attempt has written; None if there is none, or it is damaged."""
    attempt = Description.read(layout).latest_attempt()
    try:
        told = read_provenance(layout, attempt)
    except UnreadableError:
        return None
    return Gathered(told, is_kept=True) if told.get("schema") == SCHEMA else None


def _find(layout: RunLayout) -> Gathered:
    described = Description.read(layout)
    environment: dict[str, Any] = described.environment or {}
    folder = environment.get("cwd")
    state, diff = git.git_state(folder, with_diff=described.git_diff is True) if folder else (None, b"")
    be_nice()  # not before: until a git that is being started has begun, it holds this process's locks
    packages = machine.packages()
    environment = {**environment, **machine.machine(), "shmlog": packages.get("shmlog")}
    if state and diff:
        state["diff"] = layout.git_diff(described.latest_attempt()).name
    return Gathered({"schema": SCHEMA, "git": state, "environment": environment, "packages": packages}, diff)


def _write(layout: RunLayout, found: Gathered) -> None:
    """Write the diff, then the file that tells of it, then run.yaml, which tells of both."""
    described = Description.read(layout)
    attempt = described.latest_attempt()
    if found.diff:
        atomic_write(layout.git_diff(attempt), found.diff)
    if not found.is_kept:
        runfile.write_sealed(layout.provenance(attempt), found.told)
    told = described.made_from(found.told)
    if told.mapping != described.mapping:
        told.write(layout)

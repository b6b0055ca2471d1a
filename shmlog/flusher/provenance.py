"""The code and machine of an attempt, found after `init` since it takes long, and the files that record them."""

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
FINDING_S = git.TIMEOUT_S + 10.0  # how long the end of a run waits for them
TRIES = 5  # when the run is over


class Gathered(NamedTuple):
    """The content of provenance.yaml, and the text of git.diff."""

    provenance: dict[str, Any]
    diff: bytes = b""
    is_written: bool = False


class Provenance:
    """Finds, in a thread, the code and machine of a run's latest attempt, and writes them on request.

    The run is complete without them: failures are reported, and nothing waits for a disk that refuses to write.
    """

    def __init__(self, layout: RunLayout, report: Callable[[str], None]) -> None:
        self._layout = layout
        self._report = report
        self._gathered: Gathered | None = None
        self._finder: threading.Thread | None = None
        self._started_s = 0.0
        self._try_at_s = 0.0
        self._reported = ""

    def start(self) -> None:
        """Begin to gather, or to read what an earlier flusher has written."""
        self._started_s = time.monotonic()
        finder = threading.Thread(target=self._guarded, args=(self._find,), name="provenance", daemon=True)
        if self._guarded(finder.start):  # there may be a limit on threads
            self._finder = finder

    def _find(self) -> None:
        self._gathered = _load(self._layout) or _find(self._layout)

    def keep(self) -> bool:
        """Write what is gathered, unless that has just failed; return whether gathering goes on."""
        is_looking = self._finder is not None and self._finder.is_alive()
        if self._gathered is not None and time.monotonic() >= self._try_at_s:
            self._guarded(self._write)
        return is_looking

    def finish(self) -> None:
        """Wait for the end of gathering, and write; without a `start`, copy into run.yaml what was written before."""
        if self._finder is None:
            self._guarded(self._load)
        else:
            self._finder.join(max(0.0, self._started_s + FINDING_S - time.monotonic()))
        for _ in range(TRIES):
            if self._gathered is None or self._guarded(self._write):
                return
            time.sleep(closing.RETRY_S)

    def _load(self) -> None:
        self._gathered = _load(self._layout)

    def _write(self) -> None:
        assert self._gathered is not None
        _write(self._layout, self._gathered)
        self._gathered = None

    def _guarded(self, work: Callable[[], None]) -> bool:
        """Do ``work``, whose failure must not end the flusher; return whether it succeeded."""
        try:
            work()
        except Exception as error:
            is_expected = isinstance(error, (OSError, ShmlogError))
            self._report_once(f"provenance: {error}" if is_expected else traceback.format_exc())
            self._try_at_s = time.monotonic() + closing.RETRY_S
            return False
        return True

    def _report_once(self, failure: str) -> None:
        if failure != self._reported:  # else the same work was tried again
            self._report(failure)
            self._reported = failure


def _load(layout: RunLayout) -> Gathered | None:
    """Return the provenance that a flusher of this attempt has written; None if it is missing or damaged."""
    attempt = Description.read(layout).latest_attempt()
    try:
        provenance = read_provenance(layout, attempt)
    except UnreadableError:
        return None
    return Gathered(provenance, is_written=True) if provenance.get("schema") == SCHEMA else None


def _find(layout: RunLayout) -> Gathered:
    description = Description.read(layout)
    environment: dict[str, Any] = description.environment or {}
    folder = environment.get("cwd")
    state, diff = git.git_state(folder, with_diff=description.git_diff is True) if folder else (None, b"")
    be_nice()  # only now: a git that is starting holds this process's locks until its program begins
    packages = machine.packages()
    environment = {**environment, **machine.machine(), "shmlog": packages.get("shmlog")}
    if state and diff:
        state["diff"] = layout.git_diff(description.latest_attempt()).name
    return Gathered({"schema": SCHEMA, "git": state, "environment": environment, "packages": packages}, diff)


def _write(layout: RunLayout, gathered: Gathered) -> None:
    """Write the diff, then provenance.yaml, which names the diff, then run.yaml, which refers to both."""
    description = Description.read(layout)
    attempt = description.latest_attempt()
    if gathered.diff:
        atomic_write(layout.git_diff(attempt), gathered.diff)
    if not gathered.is_written:
        runfile.write_sealed(layout.provenance(attempt), gathered.provenance)
    changed = description.made_from(gathered.provenance)
    if changed.mapping != description.mapping:
        changed.write(layout)

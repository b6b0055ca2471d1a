"""Ask questions about runs while one of the calls that read them fails: a process of its own, with failingreads.so."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import shmlog
from shmlog.errors import ShmlogError
from shmlog.folder.layout import RunLayout
from shmlog.folder.unbegun import is_unbegun
from shmlog.reader.verify.verify import verify
from tests.faults.prepared import content

FAILED = "an error was raised"
TOLD = "a warning was given"
_PATH_BYTES = 4096


class Reads:
    """The calls that read below a folder."""

    def __init__(self, folder: Path) -> None:
        library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self._folder = os.fsencode(folder)
        self._below = (ctypes.c_char * _PATH_BYTES).in_dll(library, "reads_below")
        self._failed = (ctypes.c_char * _PATH_BYTES).in_dll(library, "reads_failed")
        self._seen, self._fail_at, self._error = (
            ctypes.c_long.in_dll(library, f"reads_{name}") for name in ("seen", "fail_at", "error")
        )

    @contextmanager
    def failing(self, number: int) -> Iterator[None]:
        """Have the call of this number, from 1 on, fail within the block; 0: none."""
        self._seen.value, self._fail_at.value, self._error.value = 0, number, errno.EIO
        self._failed.value = b""
        self._below.value = self._folder
        try:
            yield
        finally:
            self._below.value = b""

    @property
    def count(self) -> int:
        """How many calls were seen in the last block."""
        return self._seen.value

    @property
    def failed(self) -> str:
        """The call that has failed in the last block, and its file."""
        return os.fsdecode(self._failed.value)


def _records(root: Path) -> str:
    return str([record.to_dict() for record in shmlog.Store(root).runs()])


def questions(root: Path) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return by name what is done while a call fails, and what is asked then: None for what the first has returned."""
    sound, changed, begun = (RunLayout(path) for path in sorted((root / "asked").glob("*/")))

    def list_runs() -> None:
        _records(root)

    def list_again() -> str:
        runs = _records(root)
        (root / ".shmlog" / "index" / "asked.json").unlink(missing_ok=True)
        return runs

    return {
        "what a run holds": (lambda: content(sound.dir), lambda: None),
        "whether a run is sound that is not": (lambda: verify(changed.dir).ok, lambda: None),
        "which runs there are, later": (list_runs, list_again),
        "whether a pinned run is there after it was to be deleted": (
            lambda: shmlog.Store(root).delete(f"asked/{sound.run_id}"), sound.dir.exists,
        ),
        "where a log can be kept": (lambda: begun.free_kept_log(0).name, lambda: None),
        "whether a run never began": (lambda: is_unbegun(begun), lambda: None),
    }  # fmt: skip


def ask(reads: Reads, number: int, work: Callable[[], Any], later: Callable[[], Any]) -> tuple[Any, Any]:
    """Return both answers, the first while the call of this number fails."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            with reads.failing(number):
                answer = work()
        except (ShmlogError, OSError):
            answer = FAILED
    return (TOLD if told else answer), later()


def main(root: Path) -> None:
    """Print for each question how many calls there are, each of which fails once, and the wrong answers."""
    reads = Reads(root)
    outcomes = {}
    for name, (work, later) in questions(root).items():
        due = ask(reads, 0, work, later)
        due = ask(reads, 0, work, later)  # what was imported and cached by the first is not asked again
        calls, wrong = reads.count, []
        for number in range(1, calls + 1):
            now, afterwards = ask(reads, number, work, later)
            if now not in (due[0], FAILED, TOLD) or afterwards != due[1]:
                wrong.append(f"{reads.failed}: {str(now)[:300]}, then {str(afterwards)[:300]}")
        outcomes[name] = {"calls": calls, "wrong": wrong}
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

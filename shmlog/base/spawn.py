"""Start a module of ours in a process of its own, which imports what this one can import.

This file is both ends: the starting process imports it, and the started process runs it, as
``python -SP spawn.py MODULE ARGUMENT...``. There the standard library comes first, and the rest of the path is added
only after the environment's own start-up hooks have run: a program's ``queue.py`` must not end the process, nor its
``sitecustomize.py`` run there.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

IMPORT_PATH = "SHMLOG_IMPORT_PATH"  # the folders that the starting process imports from, one a line

# No thread pools of the trainer's size. Sealing uses the same memory log after log:
# giving it back in between costs more than the work that is done in it.
_MEMORY = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
# Libraries and start-up hooks that are meant for the trainer.
_DROPPED = ("LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONPROFILEIMPORTTIME", "PYTHONWARNINGS")


def helper_command(module: str, *arguments: str) -> list[str]:
    """Return the command of a process that runs one of our modules; it needs `helper_environment`."""
    flags = "-SP" + "E" * sys.flags.ignore_environment + "s" * sys.flags.no_user_site
    return [sys.executable, flags, os.path.abspath(__file__), module, *arguments]


def helper_environment() -> dict[str, str]:
    """Return the environment of such a process: that of this one, and the folders that this one imports from."""
    environment = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    return environment | {IMPORT_PATH: "\n".join(_import_path())} | _MEMORY


def _import_path() -> list[str]:
    """Return the folders that this process imports from, and shmlog's, which sys.path may not name any more."""
    folders = [folder for folder in sys.path if isinstance(folder, str) and folder]
    with suppress(OSError):  # without a current folder, relative ones lead nowhere in both processes
        folders = [os.path.abspath(folder) for folder in folders]
    return [*folders, str(Path(__file__).parents[2])]


def _run() -> None:
    """Run the module that the command line names as the main program."""
    import runpy
    import site

    standard = list(sys.path)
    site.main()  # the environment's own packages, as at the start of any Python: -S has put it off
    folders = os.environ.pop(IMPORT_PATH).split("\n")
    sys.path[:] = dict.fromkeys([*standard, *folders, *sys.path])
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run()

"""``python -SP launch.py MODULE ARGUMENT...``: run a module with the import path of the process that starts it.

The standard library comes first, and what the environment runs at the start of each Python is over before the rest of
the path is there: a program's own ``queue.py`` must not end what shmlog starts for it, nor its ``sitecustomize.py``
run there.
"""

from __future__ import annotations

import os
import runpy
import site
import sys

IMPORT_PATH = "SHMLOG_IMPORT_PATH"  # where the process that starts it imports from, a line for each folder


def main() -> None:
    """Run the module that the command line names as the main program."""
    standard = list(sys.path)
    site.main()  # the environment's own packages, as at the start of any Python: -S has put it off
    given = os.environ.pop(IMPORT_PATH).split("\n")
    sys.path[:] = dict.fromkeys([*standard, *given, *sys.path])
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

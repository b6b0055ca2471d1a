"""End the run that a notebook cell has left open when the cell is run again.

IPython, if loaded, shows which request the kernel executes, and from which cell it comes.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable
from typing import Any, NamedTuple

from shmlog.run import registry
from shmlog.run.run import Run


class _Execution(NamedTuple):
    cell: Hashable
    request: object


# The cells of the open runs, by run folder.
_made: dict[str, _Execution] = {}


def finish_earlier() -> None:
    """Finish the runs that an earlier execution of the present cell has left open.

    Two runs of one execution may be open together.
    """
    now = _execution()
    if now is None:
        return
    for run in registry.open_runs():
        made = _made.get(str(run.dir))
        if made is not None and run.is_owner and made.cell == now.cell and made.request != now.request:
            run.finish("cancelled")
            print(f"shmlog: finished run {run.experiment}/{run.id} (cancelled), which this cell had left open")


def remember(run: Run) -> None:
    """Note the cell that has made ``run``."""
    now = _execution()
    if now is not None:
        still_open = {str(other.dir) for other in registry.open_runs()}
        for run_dir in _made.keys() - still_open:
            del _made[run_dir]
        _made[str(run.dir)] = now


def _execution() -> _Execution | None:
    """Return the cell and the request that the kernel executes; None outside of a notebook."""
    ipython: Any = sys.modules.get("IPython")
    get_ipython = getattr(ipython, "get_ipython", None)
    shell = get_ipython() if get_ipython else None
    get_parent = getattr(shell, "get_parent", None)  # a terminal has none, and no cells
    message: Any = get_parent() if get_parent else None
    try:
        header, metadata, content = message["header"], message["metadata"], message["content"]
        if header["msg_type"] != "execute_request":
            return None
        # Some front ends do not name the cell. Then its code identifies it, as in ipykernel's file names.
        return _Execution(metadata.get("cellId") or ("code", content["code"]), header["msg_id"])
    except (KeyError, TypeError, AttributeError):
        return None  # a kernel of another kind

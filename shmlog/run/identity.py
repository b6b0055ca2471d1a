"""Who logs: what the caller or the launcher says of this process, and the name of its script."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple, Self

from shmlog import _core

# What a launcher calls a rank, and in which of them it says how many there are.
_RANKS = (
    ("RANK", ("WORLD_SIZE", "LOCAL_WORLD_SIZE")),
    ("SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")),
    ("OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",)),
    ("PMI_RANK", ("PMI_SIZE",)),
)


class Identity(NamedTuple):
    """What the caller said of this process; what is None is detected."""

    rank: int | None = None
    local_rank: int | None = None
    worker: int | None = None

    def detected(self) -> Self:
        """Return it with the rank that the C core would not find: that of a process which only has a local one."""
        if _core.variable("LOCAL_RANK") is None:  # for a child's first record, which is not to wait for the rest
            return self
        local = lone_local_rank()
        is_known = self.rank is not None or "SHMLOG_RANK" in os.environ
        if is_known or local is None or os.environ.get("NODE_RANK", "0") != "0":
            return self
        return self._replace(rank=local)


def rank_among_several() -> str | None:
    """Return the rank that a launcher of several processes has given to this one."""
    for rank, sizes in _RANKS:
        if rank in os.environ and any(_is_several(size) for size in sizes):
            return os.environ[rank]
    return None


def lone_local_rank() -> int | None:
    """Return $LOCAL_RANK where nothing else tells the ranks apart.

    Lightning does so: the first process of a script sets it to 0 for itself, then starts the script again
    for the others, with 1 and so on. It sets WORLD_SIZE too, but removes that after the first training.
    """
    local = os.environ.get("LOCAL_RANK", "")
    is_one_of_one = "WORLD_SIZE" in os.environ and not _is_several("WORLD_SIZE")
    if not local.isdecimal() or is_one_of_one or "RANK" in os.environ or rank_among_several() is not None:
        return None
    return int(local)


def _is_several(name: str) -> bool:
    size = os.environ.get(name, "")
    return size.isdecimal() and int(size) > 1


def script_name() -> str:
    """Return the name of the script, or of the package that is run with ``python -m``."""
    script = sys.argv[0] if getattr(sys, "argv", None) else ""
    folder, name = os.path.split(script)
    return (os.path.basename(folder) if name == "__main__.py" else name) or "python"

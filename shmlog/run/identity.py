"""The identity of a producer: its ranks, from the caller or the launcher, and the name of its script."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple, Self

from shmlog import _core

# The variables of each launcher for the rank, and for the number of ranks.
_RANKS = (
    ("RANK", ("WORLD_SIZE", "LOCAL_WORLD_SIZE")),
    ("SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")),
    ("OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",)),
    ("PMI_RANK", ("PMI_SIZE",)),
)


class Identity(NamedTuple):
    """The ranks that the caller gave this process; those that are None are detected."""

    rank: int | None = None
    local_rank: int | None = None
    worker: int | None = None

    def detected(self) -> Self:
        """Return it with the rank of a process that has only a local rank, which the C core would not find."""
        if _core.variable("LOCAL_RANK") is None:  # fast: a child's first record waits for it
            return self
        local = lone_local_rank()
        is_known = self.rank is not None or "SHMLOG_RANK" in os.environ
        if is_known or local is None or os.environ.get("NODE_RANK", "0") != "0":
            return self
        return self._replace(rank=local)


def rank_among_several() -> str | None:
    """Return the rank that a launcher of several processes has given to this one, or None."""
    for rank, sizes in _RANKS:
        if rank in os.environ and any(_is_several(size) for size in sizes):
            return os.environ[rank]
    return None


def lone_local_rank() -> int | None:
    """Return $LOCAL_RANK if nothing else distinguishes the ranks.

    Lightning works so: the first process of a script sets it to 0 for itself, then starts the script again
    for the other ranks, with 1 and so on. It sets WORLD_SIZE too, but removes it after the first training.
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
    """Return the name of the script, or of the package run by ``python -m``."""
    script = sys.argv[0] if getattr(sys, "argv", None) else ""
    folder, name = os.path.split(script)
    return (os.path.basename(folder) if name == "__main__.py" else name) or "python"

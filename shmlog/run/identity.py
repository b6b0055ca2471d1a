"""Who logs: rank, worker and process of this producer, from what its launcher set."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, NamedTuple

from shmlog import _core

_RANK = ("SHMLOG_RANK", "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
_LOCAL_RANK = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK")
_TEXT_MAX = 48  # characters of host and process; the whole must fit OWNER_BYTES_MAX


class Identity(NamedTuple):
    """What the caller said of this process; what is None is detected."""

    rank: int | None = None
    local_rank: int | None = None
    worker: int | None = None


def _from_environment(names: tuple[str, ...]) -> int | None:
    for name in names:
        text = os.environ.get(name, "")
        if text.isascii() and text.isdecimal() and len(text) < 10:
            return int(text)
    return None


def _dataloader_worker() -> int | None:
    """Return the id of this DataLoader worker, without importing torch."""
    data: Any = sys.modules.get("torch.utils.data")
    info = data.get_worker_info() if data is not None else None
    return None if info is None else int(info.id)


def _process_name() -> str:
    """Return the multiprocessing name, or the name of the script."""
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        return str(process.current_process().name)
    script = sys.argv[0] if getattr(sys, "argv", None) else ""
    folder, name = os.path.split(script)
    return (os.path.basename(folder) if name == "__main__.py" else name) or "python"  # python -m package


def owner_record(known: Identity) -> bytes:
    """Return the JSON object that stands at the start of this producer's tenancy."""
    rank, local_rank, worker = known
    owner = {
        "pid": os.getpid(),
        "rank": _from_environment(_RANK) if rank is None else rank,
        "local_rank": _from_environment(_LOCAL_RANK) if local_rank is None else local_rank,
        "worker": _dataloader_worker() if worker is None else worker,
        "host": os.uname().nodename[:_TEXT_MAX],
        "process": _process_name()[:_TEXT_MAX],
        "started_ns": time.time_ns(),
    }
    record = json.dumps(owner, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    if len(record) > _core.OWNER_BYTES_MAX:
        owner["process"] = owner["host"] = "?"
        record = json.dumps(owner, separators=(",", ":")).encode("ascii")
    return record

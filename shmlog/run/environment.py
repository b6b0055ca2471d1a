"""The part of a process's environment that may differ between processes of one machine."""

from __future__ import annotations

import os
import sys
from typing import Any

# Variables with the place of a process in its job and the devices that it may use. No others: they may be secrets.
VARIABLES = (
    "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_STEP_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_NNODES",
    "SLURM_NODEID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_CPUS_PER_TASK", "PBS_JOBID", "LSB_JOBID",
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT",
    "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK", "PMI_RANK", "PMI_SIZE", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED", "CONDA_DEFAULT_ENV",
)  # fmt: skip
_VALUE_MAX = 1_000  # characters


def environment_of_process() -> dict[str, Any]:
    """Return the environment of the process that makes a run, for run.yaml; the flusher adds facts of the machine."""
    variables = {name: os.environ.get(name) for name in VARIABLES}
    return {
        "executable": _text(sys.executable),
        "cwd": _cwd(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "variables": {name: _text(value) for name, value in variables.items() if value and len(value) <= _VALUE_MAX},
    }


def _cwd() -> str | None:
    try:
        return _text(os.getcwd())
    except OSError:
        return None  # the folder was removed


def _text(value: str) -> str:
    """Return a text without characters that UTF-8 can't hold."""
    return os.fsencode(value).decode("utf-8", "replace")

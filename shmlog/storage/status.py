"""Status words of runs, ours and those of other systems."""

from __future__ import annotations

PENDING, RUNNING = "pending", "running"
SUCCESS, FAILED, CANCELLED, CRASHED = "success", "failed", "cancelled", "crashed"

#: What `Run.finish` accepts, and what it becomes.
FINISHED = {
    SUCCESS: SUCCESS,
    "finished": SUCCESS,
    "completed": SUCCESS,
    FAILED: FAILED,
    CANCELLED: CANCELLED,
    "interrupted": CANCELLED,
    "killed": CANCELLED,
    CRASHED: CRASHED,
}

#: How a status is told to the flusher; 0 means that nobody finished the run.
FINISH_CODES = {SUCCESS: 1, FAILED: 2, CANCELLED: 3, CRASHED: 4}
FINISH_STATUSES = {code: status for status, code in FINISH_CODES.items()}

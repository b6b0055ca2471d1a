"""The status of a stored run: what run.yaml says, and what the kernel knows better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shmlog.storage.liveness import finished_as
from shmlog.storage.status import CRASHED, PENDING, RUNNING, map_status


def find_status(described: Mapping[str, Any], live: bool | None) -> str:
    """Return the status of the run that run.yaml describes.

    A run that says ``pending`` or ``running`` is over if it is complete, or if the kernel knows that none of
    its processes lives. Then it has crashed, unless its segment says that it was finished, or that a signal has
    stopped it: the flusher may be late to write that.
    """
    status = map_status(described.get("status")) or RUNNING
    is_over = described.get("complete") is True or live is False
    return finished_as(described) or CRASHED if status in (PENDING, RUNNING) and is_over else status


def status_of_events(events: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the status that the run told when it ended, if its latest attempt did."""
    status = None
    for event in events:
        data = event.get("data")
        if event.get("event_type") == "experiment_start":
            status = None  # the run was resumed
        elif event.get("event_type") == "experiment_end" and isinstance(data, dict):
            status = map_status(data.get("status")) or status
    return status

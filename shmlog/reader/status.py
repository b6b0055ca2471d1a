"""The status of a stored run: what run.yaml says, and what the kernel knows better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shmlog.storage.liveness import finished_as
from shmlog.storage.status import CRASHED, PENDING, RUNNING, map_status


def find_status(described: Mapping[str, Any], live: bool | None) -> str:
    """Return the status of the run that run.yaml describes.

    A run is over if it is complete, or if the kernel knows that none of its processes lives. If it is not complete
    then, its segment knows better than run.yaml: that it was finished, that its maker has ended otherwise than was
    likely, or that a signal has stopped it. The flusher may be late to write that. Else a run that says ``pending``
    or ``running`` has crashed.
    """
    status = map_status(described.get("status")) or RUNNING
    is_complete, is_open = described.get("complete") is True, status in (PENDING, RUNNING)
    if (is_open and is_complete) or (not is_complete and live is False):
        return finished_as(described) or (CRASHED if is_open else status)
    return status


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

"""A consistent look at the files of a run that may be written to meanwhile.

``wal/sealed.json`` is the commit point: what it says is sealed is taken from
parts and events.jsonl, the rest from the logs, so that nothing is met twice or
missed. If it has changed during the look, or a file has gone, one looks again.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shmlog.errors import CorruptDataError, ShmlogWarning
from shmlog.storage import runfile
from shmlog.storage.decode import Batch, Decoder
from shmlog.storage.layout import Part, RunLayout
from shmlog.storage.wal import Damage, Frame, scan

_TRIES = 50


@dataclass
class Snapshot:
    """The files of a run at one moment."""

    described: dict[str, Any]
    next_log: int
    events_bytes: int | None  # None: all of events.jsonl
    parts: list[Part]
    logs: dict[int, bytes]
    producers: list[dict[str, Any]]
    unlaned: dict[str, int]
    damage: list[Damage] = field(default_factory=list)

    def batches(self, run_dir: Path) -> list[Batch]:
        """Return what the unsealed logs hold."""
        decoder = Decoder(run_dir)
        found: list[Batch] = []
        for number, data in sorted(self.logs.items()):
            path = RunLayout(run_dir).log(number)
            frames: list[Frame] = []
            for piece in scan(data, path=path, log=number):
                if isinstance(piece, Frame):
                    frames.append(piece)
                else:
                    self.damage.append(piece)
            if frames:
                found.append(decoder.decode(frames))
        return found


def read_description(layout: RunLayout) -> dict[str, Any]:
    """Return run.yaml, or what can be said without it if it is damaged."""
    try:
        return runfile.read(layout.run_yaml)
    except CorruptDataError as error:
        warnings.warn(f"{error}; status and times are unknown", ShmlogWarning, stacklevel=3)
        return {"run_id": layout.run_id, "experiment": layout.experiment, "complete": not layout.wal.is_dir()}


def _read_sealed(layout: RunLayout) -> dict[str, Any]:
    try:
        told = json.loads(layout.sealed_json.read_bytes())
    except FileNotFoundError:
        return {"next_log": 0, "events_bytes": 0, "producers": [], "dropped": {}}
    except ValueError as error:
        raise CorruptDataError(f"{layout.sealed_json}: damaged ({error})") from error
    if not isinstance(told, dict) or not isinstance(told.get("next_log"), int):
        raise CorruptDataError(f"{layout.sealed_json}: does not say which logs are sealed")
    return told


def take(layout: RunLayout) -> Snapshot:
    """Return the files of the run.

    Raises
    ------
    FileNotFoundError
        If there is no run.yaml.
    """
    for _ in range(_TRIES):
        described = read_description(layout)
        if described.get("complete"):
            return _complete(layout, described)
        snapshot = _try_live(layout, described)
        if snapshot is not None:
            return snapshot
    raise CorruptDataError(f"{layout.dir}: its logs and {layout.sealed_json.name} don't fit together")


def _complete(layout: RunLayout, described: dict[str, Any]) -> Snapshot:
    return Snapshot(
        described, next_log=1 << 62, events_bytes=None, parts=layout.parts(), logs={},
        producers=described.get("producers") or [], unlaned={},
    )  # fmt: skip


def _try_live(layout: RunLayout, described: dict[str, Any]) -> Snapshot | None:
    sealed = _read_sealed(layout)
    next_log = sealed["next_log"]
    try:
        logs = {number: layout.log(number).read_bytes() for number in layout.logs() if number >= next_log}
    except FileNotFoundError:
        return None  # sealed meanwhile
    parts = [part for part in layout.parts() if part.last < next_log]
    if _read_sealed(layout) != sealed or read_description(layout).get("complete"):
        return None
    return Snapshot(described, next_log, sealed["events_bytes"], parts, logs, sealed["producers"], sealed["dropped"])

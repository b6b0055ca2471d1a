"""Whether the parts of a run are all there and are its own, as their footers and the books tell.

A copy that was cut short lacks parts; one that went astray has those of another run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shmlog.errors import UnreadableError
from shmlog.folder.layout import Part, RunLayout
from shmlog.reader.snapshot import Snapshot
from shmlog.records import footer


def own_parts(layout: RunLayout, taken: Snapshot) -> tuple[list[Part], list[str]]:
    """Return the parts that are this run's, and what is wrong with the others and with all together.

    A part whose footer is damaged is among the first: whoever reads it tells.

    Raises
    ------
    FileNotFoundError
        If a part has gone.
    """
    own: list[Part] = []
    problems: list[str] = []
    rows: int | None = 0
    useless: set[Path] = set()
    parts = list(taken.parts)
    for part in parts:  # and those that only what is useless covers
        try:
            found = footer.read_facts(part.path)
        except UnreadableError:
            own.append(part)
        else:
            fault = fault_of(part, taken.run_id, found.metadata)
            if not fault:
                own.append(part)
                rows = None if rows is None else rows + found.rows
                continue
            problems.append(f"{part.path}: {fault}; left out")
        rows = None
        useless.add(part.path)
        parts += [part for part in layout.parts(but=useless, below=taken.next_log) if part not in parts]
    booked = _booked(taken)
    if None not in (rows, booked) and rows != booked:
        problems.append(f"{layout.metrics}: {_difference(rows, booked)}")
    return sorted(own), problems


def fault_of(part: Part, run_id: str | None, metadata: Mapping[str, Any]) -> str | None:
    """Return why a file is not the part of run ``run_id`` that its name says; None if it is, or as far as is known."""
    origin = metadata.get(footer.RUN_ID)
    if run_id is not None and origin != run_id:
        return f"a part of run {origin!r}"
    first, last = metadata.get(footer.FIRST_LOG), metadata.get(footer.LAST_LOG)
    if (first, last) != (str(part.first), str(part.last)):
        return f"it holds logs {first} to {last}, not those that its name says"
    return None


def _booked(taken: Snapshot) -> int | None:
    """Return how many metrics the parts should hold; None if that is not known."""
    if taken.producers is None or taken.metrics_are_lines:
        return None
    metrics: int = sum(producer["metrics"] for producer in taken.producers)
    return metrics


def _difference(rows: int | None, booked: int | None) -> str:
    return (
        f"the parts in it hold {rows} metrics, but {booked} were written: "
        "was the run copied in part? Copy it again, or see 'shmlog verify'"
    )

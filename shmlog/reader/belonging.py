"""Check by footers and books that the parts of a run are complete and its own.

An interrupted copy lacks parts; a misdirected one has parts of another run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shmlog.errors import UnreadableError
from shmlog.folder.layout import Part, RunLayout
from shmlog.reader.snapshot import Snapshot
from shmlog.records import footer


def own_parts(layout: RunLayout, snapshot: Snapshot) -> tuple[list[Part], list[str]]:
    """Return the parts of this run, and what is wrong with the others and with all parts together.

    A part whose footer is damaged is among the former: reading it reports the damage.

    Raises
    ------
    FileNotFoundError
        If a part has disappeared.
    """
    own: list[Part] = []
    problems: list[str] = []
    rows: int | None = 0
    useless: set[Path] = set()
    parts = list(snapshot.parts)
    for part in parts:  # the loop adds parts that only useless ones cover
        try:
            facts = footer.read_facts(part.path, layout.files)
        except UnreadableError:
            own.append(part)
        else:
            fault = fault_of(part, snapshot.run_id, facts.metadata)
            if not fault:
                own.append(part)
                rows = None if rows is None else rows + facts.rows
                continue
            problems.append(f"{part.path}: {fault}; left out")
        rows = None
        useless.add(part.path)
        parts += [part for part in layout.parts_of_nodes(but=useless, below=snapshot.next_log) if part not in parts]
    booked = _booked(snapshot)
    if None not in (rows, booked) and rows != booked:
        problems.append(f"{layout.metrics}: {_difference(rows, booked)}")
    return sorted(own), problems


def fault_of(part: Part, run_id: str | None, metadata: Mapping[str, Any]) -> str | None:
    """Return why a file is not the part of run ``run_id`` that its name says; None if nothing speaks against it."""
    origin = metadata.get(footer.RUN_ID)
    if run_id is not None and origin != run_id:
        return f"a part of run {origin!r}"
    first, last = metadata.get(footer.FIRST_LOG), metadata.get(footer.LAST_LOG)
    if (first, last) != (str(part.first), str(part.last)):
        return f"it holds logs {first} to {last}, not those that its name says"
    return None


def _booked(snapshot: Snapshot) -> int | None:
    """Return how many metrics the parts must hold by the books; None if that is unknown."""
    if snapshot.producers is None or snapshot.metrics_are_lines:
        return None
    metrics: int = sum(producer["metrics"] for producer in snapshot.producers)
    return metrics


def _difference(rows: int | None, booked: int | None) -> str:
    return (
        f"the parts in it hold {rows} metrics, but {booked} were written: "
        "was the run copied in part? Copy it again, or see 'shmlog verify'"
    )

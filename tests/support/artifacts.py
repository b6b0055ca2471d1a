"""Runs with artifacts, and what is stored of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import shmlog
from shmlog.folder import blobs
from shmlog.folder.layout import RunLayout
from shmlog.run.keep import keep
from tests.support.processes import wait_for_end


def finished_run(folder: Path) -> RunLayout:
    """Make a run with every kind of file, and three artifacts."""
    (folder / "plots").mkdir()
    (folder / "plots" / "a.png").write_bytes(b"png")
    (folder / "plots" / "b.csv").write_bytes(b"1,2\n")
    (folder / "model.bin").write_bytes(b"model")
    with shmlog.init("digits", root=folder / "runs", sinks=("parquet", "jsonl")) as run:
        for step in range(10):
            run.log("loss", 1 / (1 + step), step)
        run.event("large", {"text": "x" * 2_000_000})
        run.log_artifact(folder / "model.bin")
        run.log_artifact(folder / "plots", "eval/plots")
    wait_for_end(run.dir)
    return RunLayout(run.dir)


def put(layout: RunLayout, data: bytes, name: str = "model.bin") -> Path:
    """Log some bytes, without an event; return the artifact's file."""
    source = layout.root.parent / "source"
    source.write_bytes(data)
    keep(layout, source, name, "sha256")
    return layout.artifacts / name


def left_over(layout: RunLayout) -> list[str]:
    """Return the copies in a run that got no name."""
    return [path.name for path in layout.dir.iterdir() if path.name.endswith(".tmp")]


def stored(root: Path) -> dict[str, int]:
    """Return the links of each object, by digits."""
    return {one.path.name: one.links for one in blobs.stored(root)}


def digits(data: bytes) -> str:
    """Return what the object of some bytes is called."""
    return hashlib.sha256(data).hexdigest()

"""What draining a lane into the log costs, against a plain copy of as many bytes and one write of them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from harness import Bench, alternate, main, seconds

from shmlog import _core

SLOTS = 1 << 16
RECORDS = 16_000  # of a burst: what one frame takes
LOG_BYTES_MAX = 16 << 20


class Producer(_core.RunBase):
    """A producer without a run around it."""

    def _identity(self) -> bytes:
        return b"{}"

    def _ring(self) -> None:
        pass


class Lane:
    """A segment with one producer, and its drain."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        path = folder / "segment"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        segment = _core.Segment.create(
            fd,
            str(path),
            run_id="run",
            run_dir=str(folder),
            lanes=1,
            lane_slots=SLOTS,
            clock=_core.CLOCK_MONOTONIC,
            drop_policy=(False, 0.0, True),
        )
        self._drain = _core.Drain(segment, os.open(folder, os.O_RDONLY | os.O_DIRECTORY), 0, None)
        self._drain.next_log()
        producer = Producer()
        producer._join(segment, str(path), True, 0)
        self._metric = producer.metric("loss")
        self._values = np.random.default_rng(0).normal(size=RECORDS)
        self._steps = np.arange(RECORDS)

    def drain(self) -> float:
        """Return the seconds that a burst takes from the lane into the log."""
        if self._drain.log_bytes > LOG_BYTES_MAX:
            self._drain.next_log()
        self._metric.extend(self._values, self._steps)
        elapsed = seconds(self._drain.drain_pass)
        error, left = self._drain.drain_pass()
        if error or left:
            raise SystemExit(f"not all was drained: {left} slots, error {error}")
        return elapsed


def benchmark(bench: Bench) -> None:
    """Measure bursts in turn with copies; both files are in the page cache."""
    lane = Lane(bench.folder / "drain")
    slots = np.ones(RECORDS * _core.SLOT_BYTES, np.uint8)
    buffer = np.empty_like(slots)
    with (bench.folder / "plain").open("wb", buffering=0) as file:

        def copy_and_write() -> None:
            np.copyto(buffer, slots)
            file.write(buffer)

        def plain() -> float:
            if file.tell() > LOG_BYTES_MAX:
                file.truncate(0)
                file.seek(0)
            return seconds(copy_and_write)

        pairs = alternate(bench.size(400, 40), lane.drain, plain)
    bench.record("drain into the log / plain copy and write", "x", [a / b for a, b in pairs], "<= 3")
    bench.record("drain into the log", "ns/record", [a / RECORDS * 1e9 for a, _ in pairs])


if __name__ == "__main__":
    main([benchmark])

"""How fast artifacts are addressed by their content, against the hash alone."""

from __future__ import annotations

import hashlib
import itertools
import os
from pathlib import Path

from harness import Bench, alternate, main, seconds, wait_for_quiet

import shmlog

MIB = 1 << 20


def hash_alone(path: Path) -> None:
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")


def make_file(path: Path, mib: int) -> Path:
    """Make a file that no run has logged; it is in the page cache, and on the disk."""
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())
    return path


def benchmark(bench: Bench) -> None:
    """Measure content that the root has, and content that is new to it, which has to get onto the disk."""
    mib = bench.size(256, 16)
    known, durable = make_file(bench.folder / "known", mib), []
    names = map("again-{}".format, itertools.count())
    with shmlog.init("artifacts", root=bench.folder / "runs") as run:
        run.log_artifact(known)
        pairs = alternate(
            bench.size(15, 2),
            lambda: seconds(lambda: hash_alone(known)),
            lambda: seconds(lambda: run.log_artifact(known, next(names))),
        )
        for number in range(bench.size(5, 1)):
            new = make_file(bench.folder / "new", mib)
            durable.append(mib / seconds(lambda new=new, number=number: run.log_artifact(new, f"new-{number}")))
    wait_for_quiet(run.dir)
    target = None if bench.quick else ">= 0.8"
    bench.record("log_artifact() of known content / SHA-256 alone, speed", "x", [a / b for a, b in pairs], target)
    bench.record("log_artifact() of known content", "MiB/s", [mib / took for _, took in pairs])
    bench.record("log_artifact() of new content, durable", "MiB/s", durable)


if __name__ == "__main__":
    main([benchmark])

"""What logging costs a real training: the demo's, with it and without, in turn."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

from harness import Bench, alternate, main, seconds

import shmlog
from shmlog.demo.corpus import Vocabulary, stdlib_files
from shmlog.demo.main import SAMPLE_FILES, DemoOptions, train_with_workers


def benchmark(bench: Bench) -> None:
    """Measure the training alone: workers are started in it, init() and finish() are not."""
    files = stdlib_files()
    random.Random(0).shuffle(files)
    vocabulary = Vocabulary.of(path.read_bytes() for path in files[:SAMPLE_FILES])
    steps = bench.size(100, 10)

    def train(mode: str) -> float:
        os.environ["SHMLOG_MODE"] = mode
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            options = DemoOptions(root=Path(folder), steps=steps)
            with shmlog.init("demo", root=options.root) as run:
                return seconds(lambda: train_with_workers(run, options, files, vocabulary, lambda _line: None))

    pairs = alternate(bench.size(12, 2), lambda: train("enabled"), lambda: train("disabled"))
    del os.environ["SHMLOG_MODE"]
    bench.record("training of the demo, logged / not logged", "x", [logged / bare for logged, bare in pairs])
    bench.record("  not logged", "s", [bare for _, bare in pairs])


if __name__ == "__main__":
    main([benchmark])

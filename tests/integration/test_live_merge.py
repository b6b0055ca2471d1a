"""A run that is at work for long: its parts become few, and whoever reads meanwhile sees each record once."""

from __future__ import annotations

import threading
from pathlib import Path

import shmlog
from shmlog.flusher.merger import FAN_IN
from shmlog.folder.layout import RunLayout
from tests.support.books import assert_books_balance
from tests.support.processes import wait_for_end, wait_until

STEPS = 50
LOGS = FAN_IN + 2


def seal(run: shmlog.Run) -> None:
    """Have the open log become a part, as time does."""
    request = run._segment.request_finish(1, True)
    run._bell.ring()
    wait_until(lambda: run._segment.finish_done == request, "the log to be sealed")


def test_parts_of_a_live_run_become_few_and_who_reads_meanwhile_sees_each_record_once(tmp_path: Path) -> None:
    flushed, is_over, wrong = 0, threading.Event(), []

    def read(run_dir: str) -> None:
        while not is_over.is_set():
            least = flushed
            try:
                steps = shmlog.load(run_dir).metrics("x")["step"].to_pylist()
            except Exception as error:
                wrong.append(repr(error))
                return
            if steps != list(range(len(steps))) or len(steps) < least:
                wrong.append(f"{len(steps)} steps, of {least} at least: {steps}")

    with shmlog.init("merged", root=tmp_path) as run:
        layout = RunLayout(run.dir)
        reader = threading.Thread(target=read, args=(run.dir,))
        for log in range(LOGS):
            for step in range(log * STEPS, (log + 1) * STEPS):
                run.log("x", float(step), step=step)
            assert run.flush(timeout=60)
            flushed = (log + 1) * STEPS
            if not log:
                reader.start()
            seal(run)
        wait_until(lambda: len(layout.parts()) <= LOGS - FAN_IN + 1 and not layout.covered_parts(), "the merge")
        assert shmlog.load(run.dir).metrics("x").num_rows == flushed
        assert not layout.manifest.exists(), "the run is at work"
        is_over.set()
        reader.join()
    assert not wrong
    wait_for_end(run.dir)
    assert_books_balance(Path(run.dir), offered=flushed)
    assert len(layout.parts()) == 1

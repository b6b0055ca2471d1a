"""The flusher's main loop, without its process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import shmlog
from shmlog.flusher.loop import UNSEALED_LOGS_MIN, Keeper
from shmlog.folder.layout import RunLayout
from tests.support.processes import wait_until

MORE_THAN_A_FRAME = 40_000


def add_log(run: shmlog.Run, keeper: Keeper) -> None:
    run.log("x", 1.0)
    assert keeper._drain.drain_pass()[0] == 0
    assert keeper._drain.next_log() == 0


@contextmanager
def draining(keeper: Keeper, log_bytes_max: int = 1 << 30) -> Iterator[None]:
    """Have the drain run in a thread of its own, as in a flusher that is busy with something else."""
    drain = threading.Thread(target=keeper._drain.run, args=(log_bytes_max,))
    drain.start()
    try:
        yield
    finally:
        keeper._drain.stop()
        drain.join()


def test_a_finish_waits_for_what_was_logged_before_it_and_no_more(unkept_run: shmlog.Run) -> None:
    """However far behind the sealing is, also if it has not begun, and whatever the others log meanwhile."""
    assert unkept_run._ref is not None
    keeper = Keeper(RunLayout(unkept_run.dir), unkept_run._segment, unkept_run._ref)
    assert keeper._drain.next_log() == 0
    for _ in range(6):
        add_log(unkept_run, keeper)
    request = unkept_run._segment.request_finish(1, True)
    with draining(keeper):
        wait_until(lambda: keeper._drain.noted == request, "the drain to note what the request has to wait for")
    asked = keeper._drain.finish_below
    assert unkept_run._segment.finish_noted == request
    assert asked == 7, "the log that was open is closed: all before it was closed already"
    for _ in range(30):
        add_log(unkept_run, keeper)
    while unkept_run._segment.finish_done != request:
        keeper._tick()
    assert asked <= keeper._get_sealer().next_log, "all of that is sealed"
    assert keeper._get_sealer().next_log < asked + 10, "of what came later only what was on its way"


def test_a_request_that_a_dead_flusher_has_noted_is_noted_anew(unkept_run: shmlog.Run) -> None:
    assert unkept_run._ref is not None
    first = Keeper(RunLayout(unkept_run.dir), unkept_run._segment, unkept_run._ref)
    request = unkept_run._segment.request_finish(1, True)
    with draining(first):
        wait_until(lambda: first._drain.noted == request, "the drain to note what the request has to wait for")
    for step in range(MORE_THAN_A_FRAME):
        unkept_run.log("x", 1.0, step)
    second = Keeper(RunLayout(unkept_run.dir), unkept_run._segment, unkept_run._ref)
    assert second._drain.noted != request, "the numbers of its logs are known to the one that has noted it alone"
    with draining(second):
        while unkept_run._segment.finish_done != request:
            second._tick()
    assert second._get_sealer().ledger.counts()["metrics"] == MORE_THAN_A_FRAME


def test_the_logs_that_may_wait_are_limited_before_anything_is_sealed(
    unkept_run: shmlog.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4: what is logged while pyarrow is imported must not fill the disk."""
    assert unkept_run._ref is not None
    monkeypatch.setattr("shmlog.flusher.loop.UNSEALED_SHARE", 0.0)  # as on a small disk
    keeper = Keeper(RunLayout(unkept_run.dir), unkept_run._segment, unkept_run._ref)
    with draining(keeper, log_bytes_max=1):  # each log is full with its first frame
        for _ in range(3 * UNSEALED_LOGS_MIN):
            unkept_run.log("x", 1.0)
            let_look(keeper, unkept_run)
    assert RunLayout(unkept_run.dir).logs() == list(range(UNSEALED_LOGS_MIN))


def let_look(keeper: Keeper, run: shmlog.Run) -> None:
    """Wait until the drain has looked at its lanes: between two looks it counts the work of this thread."""
    place, before = keeper._drain.begin_work(), run._segment.sealing
    while run._segment.sealing < before + 3:
        pass
    keeper._drain.end_work(place)

"""The flusher's main loop, without its process."""

from __future__ import annotations

import threading

import shmlog
from shmlog.flusher.keeper import Keeper
from shmlog.storage.layout import RunLayout
from tests.support.processes import wait_until


def add_log(run: shmlog.Run, keeper: Keeper) -> None:
    run.log("x", 1.0)
    assert keeper._drain.drain_pass()[0] == 0
    assert keeper._drain.next_log() == 0


def test_a_finish_waits_for_what_was_logged_before_it_and_no_more(unkept_run: shmlog.Run) -> None:
    """However far behind the sealing is, and whatever the others log meanwhile."""
    keeper = Keeper(RunLayout(unkept_run.dir), unkept_run._segment, unkept_run._ref)  # type: ignore[arg-type]
    assert keeper._drain.next_log() == 0
    for _ in range(6):
        add_log(unkept_run, keeper)
    request = unkept_run._segment.request_finish(1, True)
    keeper._tick()
    assert keeper._finish is not None, "the request is seen before all that waits is sealed"
    drain = threading.Thread(target=keeper._drain.run, args=(1 << 30,))
    drain.start()
    wait_until(lambda: keeper._drain.rotated >= keeper._finish.rotation, "the rotation")
    keeper._drain.stop()
    drain.join()
    asked = keeper._drain.rotated_below
    for _ in range(30):
        add_log(unkept_run, keeper)
    while unkept_run._segment.finish_done != request:
        keeper._tick()
    assert asked <= keeper._get_sealer().next_log, "all of that is sealed"
    assert keeper._get_sealer().next_log < asked + 10, "of what came later only what was on its way"

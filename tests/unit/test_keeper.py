"""The flusher's main loop, without its process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import shmlog
from shmlog.flusher.keeper import Keeper
from shmlog.run import registry
from shmlog.segment import shm
from shmlog.storage.layout import RunLayout
from tests.support.processes import wait_until


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[shmlog.Run]:
    """A run that nobody keeps yet."""
    monkeypatch.setattr("shmlog.run.start.start_flusher", lambda layout: None)
    run = shmlog.init("kept", root=tmp_path)
    yield run
    run._dismiss_followers()
    run._leave()
    registry.forget(run)
    assert run._ref is not None
    shm.unlink(run._ref)


def add_log(run: shmlog.Run, keeper: Keeper) -> None:
    run.log("x", 1.0)
    assert keeper._drain.drain_pass()[0] == 0
    assert keeper._drain.next_log() == 0


def test_a_finish_waits_for_what_was_logged_before_it_and_no_more(run: shmlog.Run) -> None:
    """However far behind the sealing is, and whatever the others log meanwhile."""
    keeper = Keeper(RunLayout(run.dir), run._segment, run._ref)  # type: ignore[arg-type]
    assert keeper._drain.next_log() == 0
    for _ in range(6):
        add_log(run, keeper)
    request = run._segment.request_finish(1, True)
    keeper._tick()
    assert keeper._finish is not None, "the request is seen before all that waits is sealed"
    drain = threading.Thread(target=keeper._drain.run, args=(1 << 30,))
    drain.start()
    wait_until(lambda: keeper._drain.rotated >= keeper._finish.rotation, "the rotation")
    keeper._drain.stop()
    drain.join()
    asked = keeper._drain.rotated_below
    for _ in range(30):
        add_log(run, keeper)
    while run._segment.finish_done != request:
        keeper._tick()
    assert asked <= keeper._get_sealer().next_log, "all of that is sealed"
    assert keeper._get_sealer().next_log < asked + 10, "of what came later only what was on its way"

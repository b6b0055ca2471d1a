"""What counts as progress of the flusher: the processor time of who is at work, but not of who only tries again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

import shmlog
from shmlog import _core
from shmlog.flusher.loop import Keeper
from shmlog.flusher.progress import Progress
from shmlog.folder.layout import RunLayout
from tests.support.processes import wait_until

PLENTY_S = 0.3  # of processor time


@pytest.fixture
def drain(unkept_run: shmlog.Run) -> Iterator[_core.Drain]:
    """A drain at work in a thread of its own, with nothing more to drain."""
    assert unkept_run._ref is not None
    keeper = Keeper(RunLayout(unkept_run.dir), unkept_run._segment, unkept_run._ref)
    drain = keeper._drain
    thread = threading.Thread(target=drain.run, args=(1 << 30,))
    thread.start()
    assert unkept_run.flush()
    rotation = drain.rotate()
    wait_until(lambda: drain.rotated == rotation, "the drain to have done all that there is to do")
    yield drain
    drain.stop()
    thread.join()


def burn(seconds: float) -> None:
    """Take so much processor time, however long that takes."""
    begun = time.thread_time()
    while time.thread_time() - begun < seconds:
        pass


def grows_by_work(segment: _core.Segment) -> bool:
    """Whether work of this thread makes the count of progress grow."""
    before, begun = segment.progress, time.thread_time()
    while segment.progress == before and time.thread_time() - begun < PLENTY_S:
        burn(0.001)
    return segment.progress != before


def test_the_processor_time_of_a_thread_at_work_is_progress(unkept_run: shmlog.Run, drain: _core.Drain) -> None:
    assert not grows_by_work(unkept_run._segment)
    place = drain.begin_work()
    assert grows_by_work(unkept_run._segment)
    drain.end_work(place)
    before = unkept_run._segment.progress
    burn(PLENTY_S)
    assert unkept_run._segment.progress == before


def test_a_thread_at_work_that_takes_no_processor_time_makes_no_progress(
    unkept_run: shmlog.Run, drain: _core.Drain
) -> None:
    """As one that waits for a disk."""
    began, let_go = threading.Event(), threading.Event()

    def wait() -> None:
        place = drain.begin_work()
        began.set()
        let_go.wait()
        drain.end_work(place)

    thread = threading.Thread(target=wait)
    thread.start()
    began.wait()
    grows = grows_by_work(unkept_run._segment)
    let_go.set()
    thread.join()
    assert not grows


def test_more_threads_than_there_are_places_go_unseen(drain: _core.Drain) -> None:
    places = [drain.begin_work() for _ in range(5)]
    assert places == [0, 1, 2, 3, -1]
    for place in places:
        drain.end_work(place)
    assert drain.begin_work() == 0


def test_who_only_tries_again_makes_no_progress(unkept_run: shmlog.Run, drain: _core.Drain) -> None:
    sealed = 0
    progress = Progress(unkept_run._segment, drain, lambda: sealed)
    with progress.at_work():
        assert grows_by_work(unkept_run._segment)
    progress.note_failure()
    with progress.at_work():
        assert grows_by_work(unkept_run._segment), "the second try is not yet a repetition"
    progress.note_failure()
    before = unkept_run._segment.progress
    progress.add()
    with progress.at_work():
        burn(PLENTY_S)
    assert unkept_run._segment.progress == before
    sealed = 1
    progress.add()
    assert unkept_run._segment.progress == before + 1
    with progress.at_work():
        assert grows_by_work(unkept_run._segment)

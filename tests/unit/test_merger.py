"""Merging while the run lives: few parts at any time, each row once, and sealing goes first."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmlog.flusher import merger as merger_module
from shmlog.flusher.merger import FAN_IN, Merger, due
from shmlog.folder.layout import Part, RunLayout
from shmlog.records import merge as merge_module
from shmlog.records import parts
from tests.support.frames import Log
from tests.support.processes import wait_until
from tests.unit.test_merge import logged, rows_in, write_parts

DAY = 1440  # logs of a run that logs a record a second: one a minute


def merged(present: list[Part], sealed_below: int) -> tuple[list[Part], int]:
    """Return the parts when all that is due was merged, and how many logs were written again."""
    written = 0
    while group := next(due(present, sealed_below), None):
        whole = Part(group[0].first, group[-1].last, Path())
        written += whole.last - whole.first + 1
        present = sorted([*(part for part in present if part not in group), whole])
    return present, written


def test_a_run_that_has_logged_for_a_day_has_few_parts_at_any_time() -> None:
    present: list[Part] = []
    written = most = 0
    for log in range(DAY):
        present, more = merged([*present, Part(log, log, Path())], log + 1)
        written += more
        most = max(most, len(present))
    assert most + FAN_IN <= 64, "those that are being merged are there, too"
    assert written <= 2 * DAY, "each log is written again once for 16 and once for 256"


@settings(max_examples=50)
@given(
    logs=st.lists(st.sampled_from(["part", "none", "old"]), max_size=600), behind=st.integers(0, 3), seed=st.integers()
)
def test_whatever_lies_in_the_logs_each_part_is_in_one_and_none_that_is_not_sealed(
    logs: list[str], behind: int, seed: int
) -> None:
    """Logs without metrics make no part; an earlier attempt has left one of many logs."""
    present: list[Part] = []
    number = 0
    chance = random.Random(seed)
    for kind in logs:
        last = number + chance.randrange(1, 90) if kind == "old" else number
        if kind != "none":
            present.append(Part(number, last, Path()))
        number = last + 1
    sealed_below = max(0, number - behind)
    after, _ = merged(present, sealed_below)
    assert all(one.last < other.first for one, other in pairwise(after))
    for part in present:
        holders = [whole for whole in after if whole.first <= part.first and part.last <= whole.last]
        assert len(holders) == 1
        assert part in after or holders[0].last < sealed_below, "the part of a log that is not sealed may change"


# ---- with files ----


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunLayout:
    monkeypatch.setattr(merger_module, "FAN_IN", 3)
    monkeypatch.setattr(merger_module, "RETRY_S", 0.0)
    (tmp_path / "run.yaml").write_text('{"run_id": "run"}')
    (tmp_path / "wal").mkdir()
    return RunLayout(tmp_path)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def merger(layout: RunLayout, told: list[str]) -> Iterator[Merger]:
    made = Merger(layout, told.append)
    yield made
    made.close()


def spans(layout: RunLayout) -> list[tuple[int, int]]:
    return [(part.first, part.last) for part in layout.parts()]


def merge_until(merger: Merger, layout: RunLayout, sealed_below: int, expected: list[tuple[int, int]]) -> None:
    def is_done() -> bool:
        merger.go_on(sealed_below)
        return spans(layout) == expected

    wait_until(is_done, f"the parts {expected}")


def all_rows(layout: RunLayout) -> list[str]:
    return sorted(row for part in layout.parts() for row in rows_in(part.path))


def test_parts_become_one_by_threes_and_then_by_nines(layout: RunLayout, merger: Merger, told: list[str]) -> None:
    rows = write_parts(layout, [5, 0, 7, 1] * 4)
    merge_until(merger, layout, 14, [(0, 8), (9, 11), (12, 12), (13, 13), (14, 14), (15, 15)])
    assert all_rows(layout) == sorted(rows)
    merge_until(merger, layout, 16, [(0, 8), (9, 11), (12, 14), (15, 15)])
    assert all_rows(layout) == sorted(rows)
    merger.close()
    assert not layout.covered_parts()
    assert not told


class Gate(threading.Event):
    """Tells whether somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.is_waited_for = False

    def wait(self, timeout: float | None = None) -> bool:
        self.is_waited_for = not self.is_set()
        return super().wait(timeout)


def test_a_merge_waits_while_it_is_held_and_leaves_nothing_when_it_is_stopped(
    layout: RunLayout, merger: Merger, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parts(layout, [50, 50, 50])
    before = {path.name: path.read_bytes() for path in layout.metrics.iterdir()}
    gate, give_way = Gate(), merger._give_way

    def hold_and_give_way() -> None:
        merger.hold()
        give_way()

    with monkeypatch.context() as patched:
        patched.setattr(merger, "_may_work", gate)
        patched.setattr(merger, "_give_way", hold_and_give_way)
        merger.go_on(3)
        wait_until(lambda: gate.is_waited_for, "the merge to give way")
        assert spans(layout) == [(0, 0), (1, 1), (2, 2)]
        merger.close()
    assert {path.name: path.read_bytes() for path in layout.metrics.iterdir()} == before
    merge_until(merger, layout, 3, [(0, 2)])


def test_the_books_are_durable_before_parts_are_merged_by_them(
    layout: RunLayout, merger: Merger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a flusher that was killed may be there, and be lost with the power."""
    write_parts(layout, [5, 5, 5])
    seen: list[tuple[Path, int]] = []
    monkeypatch.setattr(merger_module, "fsync_dir", lambda folder: seen.append((folder, len(layout.parts()))))
    merge_until(merger, layout, 3, [(0, 2)])
    assert seen == [(layout.wal, 3)]


def test_most_of_a_disk_that_is_nearly_full_is_left_to_others(
    layout: RunLayout, merger: Merger, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parts(layout, [50, 50, 50])
    size = sum(path.stat().st_size for path in layout.metrics.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=4 * size - 4, f_frsize=1))
        merger.go_on(3)
        wait_until(lambda: told != [] and not merger._is_at_work(), "the merge to be put off")
    assert "free space" in told[0]
    assert len(spans(layout)) == 3
    merge_until(merger, layout, 3, [(0, 2)])


def test_an_error_of_the_disk_puts_a_merge_off(
    layout: RunLayout, merger: Merger, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_parts(layout, [5, 5, 5])
    write_group, errors = merge_module.write_group, [OSError(errno.ENOSPC, "no space")]

    def fail_once(*args: object) -> None:
        if errors:
            raise errors.pop()
        write_group(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(merge_module, "write_group", fail_once)
    merge_until(merger, layout, 3, [(0, 2)])
    assert len(told) == 1
    assert "no space" in told[0]
    assert all_rows(layout) == sorted(rows)


def test_a_limit_on_threads_puts_a_merge_off(
    layout: RunLayout, merger: Merger, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    write_parts(layout, [5, 5, 5])
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        merger.go_on(3)
        merger.close()
    assert len(told) == 1
    assert "can't start new thread" in told[0]
    merge_until(merger, layout, 3, [(0, 2)])


def of_another_run(layout: RunLayout, number: int) -> None:
    table = logged(Log(), 9, random.Random(5))
    parts.write_part(layout.part(number), table, run_id="other", first=number, last=number, progress=lambda: None)


def cut_off(layout: RunLayout, number: int) -> None:
    os.truncate(layout.part(number), 99)


@pytest.mark.parametrize("spoil", [of_another_run, cut_off])
def test_a_part_that_is_strange_stays_as_it_is_with_its_neighbours_and_is_told_of_once(
    layout: RunLayout, merger: Merger, told: list[str], spoil: object
) -> None:
    """What is of another run would be this run's behind a merge, and no reader could tell."""
    write_parts(layout, [5] * 6)
    spoil(layout, 1)  # type: ignore[operator]
    strange = layout.part(1).read_bytes()
    merge_until(merger, layout, 6, [(0, 0), (1, 1), (2, 2), (3, 5)])
    for _ in range(3):
        merger.go_on(6)
        wait_until(lambda: not merger._is_at_work(), "the end of a look")
    assert len(told) == 1
    assert layout.part(1).name in told[0]
    assert layout.part(1).read_bytes() == strange


def test_rows_that_a_merge_would_lose_are_not_lost(
    layout: RunLayout, merger: Merger, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_parts(layout, [5, 5, 5])
    merged_tables = merge_module._merged
    monkeypatch.setattr(merge_module, "_merged", lambda streams: (table.slice(1) for table in merged_tables(streams)))
    merger.go_on(3)
    wait_until(lambda: told != [] and not merger._is_at_work(), "the merge to be given up")
    assert "rows were merged, of 15" in told[0]
    assert len(spans(layout)) == 3
    assert all_rows(layout) == sorted(rows)

"""Runs that are not where their paths say: a class with the methods of `RunFiles` is all that readers need."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import pytest

from shmlog.errors import RefusedError
from shmlog.folder.files import BYTES_MAX, LOCAL, RunFiles
from shmlog.folder.layout import RunLayout
from shmlog.reader.facts import read_record, sign
from shmlog.reader.follow import Follower
from shmlog.reader.rebuild import rebuild_description
from shmlog.reader.stored import load
from shmlog.reader.verify.verify import verify
from tests.support.artifacts import finished_run
from tests.support.folders import Folder, fill, simple_log


class Elsewhere(RunFiles):
    """The files below ``folder``, under names of a folder that does not exist."""

    def __init__(self, folder: Path, place: Path) -> None:
        self._folder, self._place = folder, place

    def _real(self, path: Path | str) -> Path:
        path = Path(path)
        return path if path.is_relative_to(self._place) else self._place / path.relative_to(self._folder)

    def names(self, folder: Path) -> list[str]:
        return super().names(self._real(folder))

    def below(self, folder: Path) -> Iterator[Path]:
        for path in super().below(self._real(folder)):
            yield self._folder / path.relative_to(self._place)

    def state(self, path: Path | str) -> os.stat_result | None:
        return super().state(self._real(path))

    def exists(self, path: Path) -> bool:
        return super().exists(self._real(path))

    def is_file(self, path: Path) -> bool:
        return super().is_file(self._real(path))

    def is_link(self, path: Path) -> bool:
        return super().is_link(self._real(path))

    def open(self, path: Path) -> BufferedReader:
        return super().open(self._real(path))

    def open_below(self, folder: Path, name: str) -> BufferedReader:
        return super().open_below(self._real(folder), name)

    def open_for_arrow(self, path: Path) -> Any:
        return super().open_for_arrow(self._real(path))

    def read(self, path: Path, bytes_max: int = BYTES_MAX) -> bytes:
        return super().read(self._real(path), bytes_max)

    def read_range(self, path: Path, start: int, size: int) -> bytes:
        return super().read_range(self._real(path), start, size)

    def local(self, path: Path) -> Path:
        return super().local(self._real(path))


def live_run(folder: Path) -> RunLayout:
    """Make a run of which one log is sealed, one is not, one is kept, and something was logged after another's end."""
    run = Folder(folder / "digits" / "live", sinks=("parquet", "jsonl"))
    log = simple_log()
    run.add(log)
    log = log.next()
    run.layout.large.mkdir()
    (run.layout.large / "1.txt").write_text("long")
    log.lane(0).file_metric("text", "large/1.txt", "long", 30, 30)
    log.lane(0).file_event("e", "large/1.txt", 4, 30)
    fill(log)
    run.add(log)
    run.layout.kept.mkdir()
    shutil.copy(run.layout.log(0), run.layout.kept_log(0))
    run.seal(1)
    run.layout.late.mkdir()
    (run.layout.late / "7-0123abcd.json").write_text('{"closed": 3}\n')
    run.layout.annotations_yaml.write_text('{"notes": "of people"}')
    (run.layout.dir / "left.tmp").touch()
    run.layout.git_diff(1).write_text("+ a line\n")
    run.layout.artifacts.mkdir()
    (run.layout.artifacts / "not logged").write_text("of people")
    return run.layout


def damaged_run(folder: Path) -> RunLayout:
    """Make a run that has lost parts of its files."""
    layout = live_run(folder)
    part = layout.parts()[0].path
    part.write_bytes(part.read_bytes()[:-1])
    layout.run_yaml.write_bytes(layout.run_yaml.read_bytes()[:-80])
    with open(layout.events, "ab") as file:
        file.write(b"no JSON\n")
    return layout


def lost_run(folder: Path) -> RunLayout:
    """Make a run that has lost its run.yaml and its logs."""
    layout = live_run(folder)
    layout.run_yaml.unlink()
    layout.log(1).unlink()
    return layout


def answers(layout: RunLayout) -> list[Any]:
    """Return what readers say of a run."""
    if not layout.files.exists(layout.run_yaml):
        return [read_record(layout).to_dict() | {"dir": None}, rebuild_description(layout).mapping]
    stored = load(layout.dir)
    record = read_record(layout)
    follower = Follower(layout.dir)
    return [
        stored.metrics(nodes=True).to_pylist(), stored.names(), stored.events(), stored.config, stored.annotations,
        stored.attempts, stored.packages(), stored.git_diff(), stored.status, stored.counts, stored.dropped,
        stored.producers, stored.lost, stored.scan().to_table().num_rows, stored.age < 3600,
        stored.sql("select name, count(*), min(step) from metrics group by name order by name").to_pylist(),
        stored.sql("select path, digest from artifacts order by path").to_pylist(),
        [(artifact.name, artifact.digest, artifact.open().read()) for artifact in stored.artifacts],
        [artifact.verify() for artifact in stored.artifacts],
        {**record.to_dict(), "dir": None}, sign(str(layout.dir)), rebuild_description(layout).mapping,
        verify(layout.dir).to_dict(), follower.history(3), follower.poll(), follower.rest(),
    ]  # fmt: skip


def said(layout: RunLayout, real: RunLayout) -> str:
    """Return what readers say and warn of, without the folders' names."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        text = repr([answers(layout), sorted({str(warning.message) for warning in warned})])
    return text.replace(str(layout.dir), "RUN").replace(str(real.dir), "RUN")


@pytest.mark.parametrize("make", [live_run, damaged_run, lost_run, finished_run])
def test_readers_need_nothing_but_the_files_of_a_run(
    make: Callable[[Path], RunLayout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = make(tmp_path)
    away = RunLayout(tmp_path / "nowhere" / real.experiment / real.run_id)
    expected = said(real, real)
    monkeypatch.setattr(RunLayout, "files", Elsewhere(away.dir, real.dir))
    assert said(away, real) == expected
    assert len(expected) > 500


def test_a_range_ends_where_the_file_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    ranges = [(0, 3), (8, 5), (-3, 3), (-20, 30), (20, 1)]
    assert [LOCAL.read_range(path, *one) for one in ranges] == [b"012", b"89", b"789", b"0123456789", b""]


def test_a_link_that_comes_meanwhile_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("of others", "artifacts"):
        (tmp_path / name / "a").mkdir(parents=True)
        (tmp_path / name / "a" / "file").write_text(name)
    with LOCAL.open_below(tmp_path / "artifacts", "a/file") as file:
        assert file.read() == b"artifacts"
    shutil.rmtree(tmp_path / "artifacts" / "a")
    (tmp_path / "artifacts" / "a").symlink_to(tmp_path / "of others" / "a")
    (tmp_path / "link").symlink_to(tmp_path / "of others")
    (tmp_path / "artifacts" / "file").symlink_to(tmp_path / "of others" / "a" / "file")
    monkeypatch.setattr("os.path.realpath", str)  # it looked before the links came
    for folder, name in [("artifacts", "a/file"), ("link", "a/file"), ("artifacts", "file")]:
        with pytest.raises((OSError, RefusedError)):
            LOCAL.open_below(tmp_path / folder, name)


def test_pyarrow_is_given_no_link(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to(path)
    with LOCAL.open_for_arrow(path) as file:
        assert file.size() == 10
    with pytest.raises(RefusedError, match="link: not a regular file"):
        LOCAL.open_for_arrow(tmp_path / "link")

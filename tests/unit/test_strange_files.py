"""What lies in the place of a run's files, in a folder from anybody, holds no command up and fills no memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import shmlog
from shmlog.base import durable
from shmlog.cli.main import main
from shmlog.errors import RefusedError
from shmlog.folder import files, layout, runfile
from shmlog.reader.event_lines import read_lines
from tests.faults.hostile_folders import make_folder

HOLE_BYTES = 256 << 20
MEMORY_BYTES = 100 << 20

FILES = (
    "run.yaml", "config.yaml", "annotations.yaml", "manifest.json", "events.jsonl", "run.log", "provenance.yaml",
    "git.diff", "wal/sealed.json", "wal/000002.wal", "wal/flusher.log", "wal/sealed.json.tmp", "run.yaml.tmp",
    "run.log.tmp", "late/1-0123abcd.json", "metrics/node=0/part-000000.parquet",
    "metrics/node=0/part-000002.parquet.tmp",
)  # fmt: skip
READ_WHOLE = (
    "run.yaml", "config.yaml", "annotations.yaml", "manifest.json", "events.jsonl", "wal/sealed.json",
    "wal/000002.wal",
)  # fmt: skip
COMMANDS = {
    "show": [], "tail": ["--no-follow"], "verify": [], "sql": ["select count(*) from metrics, events"],
    "export": ["-o", "OUT", "--format", "csv"], "artifacts": [], "recover": ["--force"],
}  # fmt: skip


@contextmanager
def no_waiting(most_s: int = 60) -> Iterator[None]:
    """Fail if what is done within takes so long that it must be waiting, also where that is not its last word."""
    waited = []

    def fail(*_: object) -> None:
        waited.append(True)
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(most_s)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        assert not waited


@pytest.fixture(scope="module", params=[True, False], ids=["complete", "crashed"])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run whose processes are dead; if it is not complete, it waits for ``recover``."""
    folder = tmp_path_factory.mktemp("sound") / "digits" / "one"
    run_dir = make_folder(folder, ("parquet",), complete=request.param)
    run_yaml = layout.RunLayout(run_dir).run_yaml
    segment = {"name": "/shmlog-0123456789abcdef", "path": "/dev/shm/shmlog-0123456789abcdef", "device": 1, "inode": 1}
    runfile.write_sealed(run_yaml, {**runfile.read(run_yaml), "segment": segment})
    return run_dir


def put_pipe(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def put_hole(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.truncate(path, HOLE_BYTES)


def run_all(sound: Path, folder: Path, put: Callable[[Path], None], name: str) -> None:
    """Run each command on a run in which something strange lies in the place of a file."""
    for command, options in COMMANDS.items():
        run_dir = Path(shutil.copytree(sound, folder / "digits" / command))
        put(run_dir / name)
        arguments = [str(folder / command) if option == "OUT" else option for option in options]
        with warnings.catch_warnings(), no_waiting():
            warnings.simplefilter("ignore")
            assert main([command, *arguments, str(run_dir)]) in (0, 1, 3)
    with no_waiting():
        assert len(shmlog.Store(folder).runs()) == len(COMMANDS)


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_holds_no_command_up(name: str, sound: Path, tmp_path: Path) -> None:
    run_all(sound, tmp_path, put_pipe, name)


@pytest.mark.parametrize("name", READ_WHOLE)
def test_a_file_that_is_all_hole_fills_no_memory(name: str, sound: Path, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        run_all(sound, tmp_path, put_hole, name)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
    finally:
        tracemalloc.stop()


def test_events_are_read_around_a_hole(sound: Path, tmp_path: Path) -> None:
    """A loss of power may leave one in a file that was not synced; it costs itself, and halves of lines around it."""
    run_dir = Path(shutil.copytree(sound, tmp_path / "digits" / "one"))
    events = layout.RunLayout(run_dir).events
    lines = events.read_bytes().splitlines(keepends=True)
    with open(events, "r+b") as file:
        file.seek(len(lines[0]) + 1)
        file.truncate()
        file.seek(HOLE_BYTES)
        file.write(b"the rest of a line\n" + b"".join(lines[1:]))
    found = list(read_lines(events, None))
    assert [line.event for line in found if line.event] == list(map(json.loads, lines))
    assert sum(line.size for line in found) == events.stat().st_size
    assert len(found) - len(lines) <= 3
    stored = shmlog.load(run_dir)
    if stored.metadata["complete"]:  # else what the books tell of ends within the hole
        with pytest.warns(shmlog.errors.ShmlogWarning) as told:
            assert len(stored.events()) == len(lines)
        assert any("lines that are not JSON" in str(warning.message) for warning in told)


def test_a_small_file_of_too_many_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with open(path, "wb") as file:
        file.writelines(b" " * (1 << 20) for _ in range(65))
    with pytest.raises(RefusedError, match=r"68,157,440 bytes: refused, since ours have 67,108,864 at most"):
        runfile.read(path)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").mkdir()
    put_pipe(tmp_path / "pipe")
    for name in ("link", "folder", "pipe"):
        with pytest.raises(RefusedError, match=f"{name}: not a regular file; refused"), no_waiting(10):
            files.LOCAL.open(tmp_path / name)
    for name in ("link", "folder", "pipe"):
        with pytest.raises(OSError, match=name), no_waiting(10):
            durable.open_to_write(tmp_path / name, os.O_WRONLY | os.O_CREAT)
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="not a regular file"):
        durable.open_to_write(tmp_path / "pipe", os.O_WRONLY)
    os.close(reader)

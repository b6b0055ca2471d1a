"""The files that only grow: what the disk refuses is kept, and nothing stands twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shmlog.flusher.appendfile import AppendFile, RedoError, SyncError
from shmlog.folder.extent import Extent, of_file


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    file = AppendFile(tmp_path / "file", Extent())
    file.append(b"first line\n")
    file.append(b"second\n")
    assert file.path.read_bytes() == b"first line\nsecond\n"
    assert file.extent == of_file(file.path)
    file.close()


def test_what_a_full_disk_refuses_goes_first_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile(tmp_path / "file", Extent())

    def refuse(fd: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        with pytest.raises(OSError, match="No space"):
            file.append(b"first\n")
    file.append(b"second\n")
    assert file.path.read_bytes() == b"first\nsecond\n"
    file.close()


def test_what_is_not_known_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"known\n")
    known = of_file(path)
    path.write_bytes(b"known\nnot known")
    file = AppendFile(path, known)
    file.append(b"next\n")
    assert path.read_bytes() == b"known\nnext\n"
    assert file.extent == of_file(path)
    file.close()


def put_aside(path: Path) -> None:
    path.rename(path.with_name("file.1"))


def go_on(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"of somebody else\n")


def replace(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("change", [Path.unlink, put_aside, go_on, replace])
def test_what_was_written_into_a_file_that_somebody_else_has_changed_does_not_count(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    file = AppendFile(tmp_path / "file", Extent())
    file.append(b"first\n")
    file.sync()
    known = file.extent
    change(file.path)
    file.append(b"second\n")
    with pytest.raises(RedoError):
        file.sync()
    file.close()
    again = AppendFile(tmp_path / "file", known)
    again.append(b"second\n")
    again.sync()
    assert again.path.read_bytes().endswith(b"second\n")
    again.close()


def test_a_failed_fsync_is_told_from_other_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    file = AppendFile(tmp_path / "file", Extent())
    file.append(b"line\n")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        file.sync()
    assert isinstance(caught.value, SyncError), "P5: it is no error that heals"
    file.close()

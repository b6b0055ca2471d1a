"""Who lives, as the kernel's locks tell it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shmlog
from shmlog.base import boot
from shmlog.folder import liveness
from shmlog.folder.description import Description
from tests.support.csource import CORE, ROOT
from tests.support.processes import wait_until


@pytest.fixture
def described(tmp_path: Path) -> Iterator[Description]:
    """Return what the run.yaml of a live run says."""
    with shmlog.init("live", root=tmp_path) as run:
        wait_until(lambda: run._segment.flusher_state, "the flusher to work")
        yield shmlog.load(run.dir).described


def elsewhere(described: Description, **changes: Any) -> Description:
    """Return the same as another container sees it: the segment lies in no folder that is here."""
    return described.changed(segment={**described.segment, "path": "/nowhere/shmlog-0", **changes})


ASKED: dict[str, Callable[[Description], bool | None]] = {
    "members": liveness.members_live,
    "flusher": liveness.flusher_lives,
}


@pytest.mark.parametrize("who", ASKED)
def test_a_run_of_another_container_of_this_kernel_is_dead_if_nobody_holds_its_locks(
    described: Description, who: str
) -> None:
    ask = ASKED[who]
    assert ask(described) is True
    assert ask(elsewhere(described)) is None, "a third one may have got its numbers"
    assert ask(elsewhere(described, inode=described.segment["inode"] + 1000)) is False, "nobody holds that"
    assert liveness.is_closing(elsewhere(described)) is False


@pytest.mark.parametrize("who", ASKED)
def test_a_segment_without_a_name_lives_as_long_as_it_is_held(described: Description, who: str) -> None:
    path = Path(described.segment["path"])
    renamed = path.rename(path.with_name("renamed-" + path.name))
    assert ASKED[who](described) is False, "there is another file of its number, so it lay in a memory before this one"
    renamed.unlink()
    assert ASKED[who](described) is True


@pytest.mark.parametrize("table", ["", "1: POSIX  ADVISORY  WRITE 1 00:01:1 0 EOF\n", "no table\n"])
@pytest.mark.parametrize("who", ASKED)
def test_a_table_without_a_lock_of_our_own_tells_nothing(
    described: Description, who: str, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "locks"
    path.write_text(table)
    monkeypatch.setattr(liveness, "_LOCK_TABLE", path)
    assert ASKED[who](elsewhere(described)) is None
    monkeypatch.setattr(liveness, "_LOCK_TABLE", tmp_path / "none")
    assert ASKED[who](elsewhere(described)) is None


def test_a_segment_on_a_disk_elsewhere_is_not_looked_up(described: Description) -> None:
    """Its device may be another one in the table."""
    assert liveness.members_live(elsewhere(described, name=None, inode=0)) is None


CHURN = """
import fcntl, os, struct, sys
files = [os.open(f"{sys.argv[1]}/{i}", os.O_RDWR | os.O_CREAT) for i in range(400)]
flock = lambda fd, kind: fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, 0, 0, 1, 0))
for fd in files: flock(fd, fcntl.F_WRLCK)
print("held", flush=True)
while os.getppid() != 1:
    for fd in files:
        flock(fd, fcntl.F_UNLCK)
        flock(fd, fcntl.F_WRLCK)
"""


def test_a_live_run_is_found_in_a_table_that_changes(described: Description, tmp_path: Path) -> None:
    """The table comes page by page: one reading may miss a lock."""
    with subprocess.Popen([sys.executable, "-c", CHURN, str(tmp_path)], stdout=-1, text=True) as churn:
        assert churn.stdout is not None
        assert churn.stdout.readline() == "held\n"
        found = [liveness.members_live(elsewhere(described)) for _ in range(300)]
        churn.kill()
    assert False not in found


def test_the_words_of_the_header_are_where_the_page_says() -> None:
    page = (ROOT / "docs" / "format.md").read_text()
    told = {words: int(offset) for offset, words in re.findall(r"^\| (\d+) \| u32 \| (.*) \|$", page, re.MULTILINE)}
    offsets = {offset for words, offset in told.items() if re.search("finish|status asked|signal", words)}
    size = liveness._FINISH.size // 2
    due = {liveness._FINISH_OFFSET + size * n for n in range(2)} | {
        liveness._ENDED_BY_OFFSET + size * n for n in range(3)
    }
    assert offsets == due
    header = (CORE / "format.h").read_text()
    asserted = dict(re.findall(r"offsetof\(shmlog_header, (\w+)\) == (\d+)", header))
    assert int(asserted["finish_request"]) == liveness._FINISH_OFFSET
    assert int(asserted["ended_by"]) == liveness._ENDED_BY_OFFSET
    assert int(asserted["likely_status"]) == liveness._ENDED_BY_OFFSET + size
    assert int(asserted["exiting"]) == liveness._ENDED_BY_OFFSET + 2 * size


def test_a_run_of_another_boot_is_dead_on_its_own_machine_and_unknown_elsewhere(
    described: Description, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "machine-id").write_text("0123456789abcdef" * 2)
    monkeypatch.setattr(boot, "_MACHINE_ID", tmp_path / "machine-id")
    here = described.changed(boot_id="another", machine=boot.machine_id())
    assert liveness.members_live(here) is False
    assert liveness.members_live(here.changed(host=f"not-{os.uname().nodename}")) is None
    assert liveness.members_live(here.changed(machine="another")) is None, "images and containers share a name"
    assert liveness.members_live(here.changed(machine=None)) is None
    (tmp_path / "machine-id").unlink()
    assert liveness.members_live(here.changed(machine=None)) is None, "two that have no id need not be one"


def test_a_lock_that_is_about_to_go_is_not_that_of_one_who_stays() -> None:
    """The kernel takes some time to release the locks of a process that was killed."""
    held = iter([True, True, False])
    assert liveness.stays(lambda: next(held)) is False
    assert liveness.stays(lambda: True) is True
    assert liveness.stays(lambda: None) is None

"""Artifacts where there is no room, and among users of one root."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import shmlog
from shmlog.folder import blobs
from shmlog.run.keep import keep
from tests.faults.test_neighbours import as_nobody
from tests.support.artifacts import put
from tests.support.processes import run_script
from tests.support.stores import add_run
from tests.support.tools import need

FULL = """
import os, subprocess, sys
from pathlib import Path
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=True)
import shmlog
from shmlog.reader.verify.verify import verify

def kept():  # no other file of the run: the flusher's own come and go
    return sorted(path for top in ("runs/.artifacts", "runs/full/*/artifacts") for path in disk.glob(top + "/**/*"))

source = disk.parent / "source"
with shmlog.init("full", root=disk / "runs") as run:
    source.write_bytes(b"x" * 1_000_000)
    run.log_artifact(source, "fits")
    run.log_artifact(source, "is/there")  # takes no room but for a name
    source.write_bytes(b"y" * 6_000_000)
    before = kept()
    assert before
    try:
        run.log_artifact(source, "too-large")
    except shmlog.errors.StorageError as error:
        print(error)
    assert kept() == before, (kept(), before)
    run.log("loss", 0.5)
    source.write_bytes(b"z" * 1_000_000)
    run.log_artifact(source, "fits-again")
stored = shmlog.load(run.dir)
print(stored.metrics().num_rows, [artifact.name for artifact in stored.artifacts], verify(run.dir).ok)
"""


def test_a_full_disk_says_so_and_the_run_goes_on(tmp_path: Path) -> None:
    """FAULTS 44."""
    need("unshare")
    (tmp_path / "disk").mkdir()
    (tmp_path / "inner.py").write_text(FULL)
    words = ["unshare", "-rm", sys.executable, str(tmp_path / "inner.py"), str(tmp_path / "disk")]
    done = run_script(f"import subprocess, sys; sys.exit(subprocess.call({words!r}))", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    error, found = done.stdout.splitlines()
    assert error.startswith("cannot log 'too-large' as an artifact of ")
    assert error.endswith("No space left on device")
    assert found == "1 ['fits', 'fits-again', 'is/there'] True"


def test_users_of_one_root_do_not_need_each_other(open_folder: Path) -> None:
    """What belongs to another user can't be linked to: who logs the same has a file of its own."""
    root = open_folder / "runs"
    ours = put(add_run(root, "ours"), b"same")
    theirs = add_run(root, "theirs")
    os.chown(theirs.dir, 65534, 65534)
    source = open_folder / "source"
    told = as_nobody(lambda: keep(theirs, source, "model.bin", "sha256"))
    assert isinstance(told, list), told
    theirs_path = theirs.artifacts / "model.bin"
    assert theirs_path.read_bytes() == b"same"
    assert (theirs_path.stat().st_uid, theirs_path.stat().st_nlink) == (65534, 1)
    assert ours.stat().st_nlink == 2
    blobs.collect(root)
    assert len(list(blobs.stored(root))) == 1


def test_what_can_not_be_read_is_told(open_folder: Path) -> None:
    layout = add_run(open_folder / "runs", "one")
    os.chown(layout.dir, 65534, 65534)
    secret = open_folder / "folder" / "secret"
    secret.parent.mkdir(mode=0o755)
    secret.write_text("x")
    secret.chmod(0o600)
    for path in (secret, secret.parent):
        outcome = as_nobody(lambda path=path: keep(layout, path, "x", "sha256"))  # type: ignore[misc]
        assert isinstance(outcome, tuple), outcome
        error, message = outcome
        assert error is shmlog.errors.StorageError
        assert "Permission denied" in message
        assert str(secret) in message
    assert sorted(path.name for path in layout.dir.iterdir()) == ["config.yaml", "run.yaml"]

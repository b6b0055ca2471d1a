"""Archives that somebody else has made: refused whole, and nothing is written anywhere (FAULTS 73, 74)."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import shmlog
from shmlog.cli.main import main
from shmlog.errors import RunNotFoundError
from shmlog.store import restore
from shmlog.store.restore import SUFFIX
from tests.support.stores import add_metrics, add_run

Fill = Callable[[tarfile.TarFile], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def put(archive: tarfile.TarFile, name: str, data: bytes = b"", **told: object) -> None:
    """Put a member of any kind and any size that it claims to have."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in told.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(data))


def make(root: Path, fill: Fill) -> Path:
    """Make an archive of run ``digits/a``, which begins as one of ours does."""
    path = root / ".archive" / "digits" / f"a{SUFFIX}"
    path.parent.mkdir(parents=True)
    with pa.CompressedOutputStream(str(path), "zstd") as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        put(archive, "a", type=tarfile.DIRTYPE, mode=0o755)
        put(archive, "a/run.yaml", b"status: success\n")
        fill(archive)
    return path


def link(archive: tarfile.TarFile, name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> None:
    put(archive, name, type=kind, linkname=to)


def through_a_link(archive: tarfile.TarFile) -> None:
    link(archive, "a/out", "../../../..")
    put(archive, "a/out/pwned", b"x")


HOSTILE: dict[str, Fill] = {
    "dots": lambda archive: put(archive, "a/../../pwned", b"x"),
    "dots in front": lambda archive: put(archive, "../pwned", b"x"),
    "absolute": lambda archive: put(archive, "/tmp/pwned", b"x"),
    "another run": lambda archive: put(archive, "b/run.yaml", b"x"),
    "an empty part": lambda archive: put(archive, "a//pwned", b"x"),
    "a link to a file": lambda archive: link(archive, "a/artifacts", "/etc/passwd"),
    "a link to a folder, and a file below it": through_a_link,
    "a hard link to a file outside": lambda archive: link(archive, "a/x", "/etc/passwd", tarfile.LNKTYPE),
    "a hard link by dots": lambda archive: link(archive, "a/x", "a/../../../outside", tarfile.LNKTYPE),
    "a device": lambda archive: put(archive, "a/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "a pipe": lambda archive: put(archive, "a/pipe", type=tarfile.FIFOTYPE),
    "a sparse file": lambda archive: put(archive, "a/sparse", type=tarfile.CONTTYPE),
    "a file twice": lambda archive: put(archive, "a/run.yaml", b"status: failed\n"),
    "a file below a file": lambda archive: put(archive, "a/run.yaml/x", b"x"),
    "a long header": lambda archive: put(archive, "a/x", bytes(2 << 20), type=tarfile.XHDTYPE),
    "a long name": lambda archive: put(archive, "a/x", bytes(2 << 20), type=tarfile.GNUTYPE_LONGNAME),
}


def paths(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def assert_refused(root: Path, error: type[Exception] = shmlog.ShmlogError) -> str:
    """Restore, which is refused and leaves no trace; return what is said."""
    before = paths(root.parent)
    with pytest.raises(error) as refused:
        shmlog.Store(root).restore("a")
    assert paths(root.parent) - before <= {"runs/.shmlog", "runs/.shmlog/restore"}
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_by_name(root: Path, kind: str) -> None:
    """FAULTS 73: a name, a link or a kind that no archive of the run has."""
    path = make(root, HOSTILE[kind])
    (root.parent / "outside").write_text("precious")
    assert str(path) in assert_refused(root)
    assert not Path("/tmp/pwned").exists()
    assert os.stat(root.parent / "outside").st_nlink == 1


def test_a_member_larger_than_the_disk_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 74: what its header says is enough; not a byte of it is unpacked."""
    make(root, lambda archive: put(archive, "a/zeros", bytes(1 << 20)))
    monkeypatch.setattr(restore.shutil, "disk_usage", lambda _: shutil_usage(restore.FREE_BYTES_MIN + (1 << 19)))
    assert "1,048,576 bytes" in assert_refused(root, shmlog.errors.StorageError)


def test_the_last_of_the_disk_is_left_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(root, lambda archive: put(archive, "a/big", b"x" * 1000))
    free = restore.FREE_BYTES_MIN + 999
    monkeypatch.setattr(restore.shutil, "disk_usage", lambda _: shutil_usage(free))
    with pytest.raises(
        shmlog.errors.StorageError, match="takes 1,000 bytes, 67,109,863 are free, of which 67,108,864 are left"
    ):
        shmlog.Store(root).restore("digits/a")
    assert not (root / "digits").exists()


def shutil_usage(free: int) -> object:
    return type("Usage", (), {"free": free})


def test_an_archive_of_too_many_files_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 73: each takes an inode."""
    monkeypatch.setattr(restore, "FILES_MAX", 10)
    make(root, lambda archive: [put(archive, f"a/{i}") for i in range(20)] and None)
    assert "more than 10 files" in assert_refused(root, shmlog.errors.RefusedError)


def test_an_archive_cut_at_any_length_or_changed_restores_nothing(root: Path) -> None:
    path = make(root, lambda archive: put(archive, "a/big", os.urandom(5000)))
    whole = path.read_bytes()
    for size in [0, 1, 4, *range(10, len(whole) - 10, 500)]:
        path.write_bytes(whole[:size])
        assert_refused(root)
    for at in range(0, len(whole) - 10, 500):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            shmlog.Store(root).restore("a")
        except shmlog.ShmlogError:
            continue
        shmlog.Store(root).delete("a", force=True)  # a byte of the content: verify is for that
    path.write_bytes(b"no archive")
    assert_refused(root)


def test_an_archive_without_a_run_is_refused(root: Path) -> None:
    path = root / ".archive" / "digits" / f"a{SUFFIX}"
    path.parent.mkdir(parents=True)
    with pa.CompressedOutputStream(str(path), "zstd") as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        put(archive, "a", type=tarfile.DIRTYPE)
    assert "there is no run in it" in assert_refused(root, shmlog.errors.CorruptDataError)


def test_a_link_in_the_place_of_an_archive_is_refused(root: Path, tmp_path: Path) -> None:
    path = make(root, lambda archive: None)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in assert_refused(root, shmlog.errors.StorageError)


def test_no_program_gets_rights_by_an_archive(root: Path) -> None:
    """FAULTS 73: no setuid bit, and nothing that everybody may write to."""
    make(root, lambda archive: put(archive, "a/tool", b"x", mode=0o6777))
    record = shmlog.Store(root).restore("a")
    assert (record.dir / "tool").stat().st_mode & 0o6022 == 0


def test_which_run_is_meant(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = shmlog.Store(root)
    add_run(root, "a")
    add_metrics(root, "a", "letters")
    store.prune(keep=0, archive=True, dry_run=False)
    with pytest.raises(ValueError, match="write more of one: digits/a, letters/a"):
        store.restore("a")
    assert store.restore("letters/a").experiment == "letters"
    with pytest.raises(shmlog.errors.RunStateError, match="already"):
        store.restore("letters/a")
    with pytest.raises(shmlog.errors.RunNotFoundError):
        store.restore("digits/b")
    assert main(["restore", "digits/a", "none", "--root", str(root)]) == 3
    said = capsys.readouterr().err
    assert "digits/a: restored" in said
    assert "no archive of a run 'none'" in said
    assert len(store.runs()) == 2


def test_archives_are_listed_and_restored_by_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_run(root, "20261121-aaa", name="first try")
    add_run(root, "20261121-bbb", name="old name")
    add_run(root, "20261122-ccc", "letters")
    store = shmlog.Store(root)
    store.rename("20261121-bbb", "second try")
    store.prune(keep=0, archive=True, dry_run=False)
    assert {(found.archive, found.name) for found in store.archives()} == {
        ("20261121-aaa", "first try"), ("20261121-bbb", "second try"), ("20261122-ccc", "20261122-ccc"),
    }  # fmt: skip
    assert main(["restore", "--root", str(root)]) == 0
    assert "20261121-bbb  digits      second try" in capsys.readouterr().out
    with pytest.raises(ValueError, match="archives of 2 runs are called '2026112"):
        store.restore("20261121")
    with pytest.raises(RunNotFoundError, match="'shmlog restore' lists them"):
        store.restore("third")
    for text, run_id in {
        "second try": "20261121-bbb",
        "20261122": "20261122-ccc",
        "digits/20261121-a": "20261121-aaa",
    }.items():
        assert store.restore(text).run_id == run_id

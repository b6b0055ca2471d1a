"""Artifacts: what is logged comes back, is stored once, leads nowhere, and goes with the last run that holds it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shmlog
from shmlog.errors import ArtifactNotFoundError, RunStateError, StorageError
from shmlog.folder import blobs, content
from shmlog.folder.artifacts import NAME_BYTES_MAX, check_name, media_type_of
from shmlog.folder.content import content_of
from shmlog.folder.layout import RunLayout
from shmlog.reader.verify.verify import verify
from shmlog.run import keep as logging_side
from shmlog.run.keep import keep
from tests.support.artifacts import digits, finished_run, left_over, put, stored
from tests.support.processes import run_script, start_script, wait_for_end
from tests.support.stores import add_run

BLOCK = 1 << 20


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    """Return a finished run without records: artifacts are kept there without a segment."""
    return add_run(tmp_path / "runs", "one")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    """Return a run with artifacts, of which each test changes a copy."""
    return finished_run(tmp_path_factory.mktemp("finished"))


# ---- logged and read ----


def test_what_is_logged_comes_back(finished: RunLayout) -> None:
    run = shmlog.load(finished.dir)
    assert [artifact.name for artifact in run.artifacts] == ["eval/plots/a.png", "eval/plots/b.csv", "model.bin"]
    model = run.artifact("model.bin")
    assert (model.size_bytes, model.digest, model.media_type) == (
        5, f"sha256:{digits(b'model')}", "application/octet-stream",
    )  # fmt: skip
    assert model.path.read_bytes() == b"model"
    assert model.path == finished.artifacts / "model.bin"
    model.verify()
    with model.open() as file:
        assert file.read() == b"model"
    with run.artifact("eval/plots/b.csv").open("r") as text:
        assert text.read() == "1,2\n"
    assert run.artifact("eval/plots/a.png").media_type == "image/png"


class Unseekable(io.BytesIO):
    """A stream, such as a pipe, that can't go back."""

    def seekable(self) -> bool:
        return False


def written(stream: Any) -> Any:
    """Return a file object as who wrote to it has it: at its end."""
    stream.seek(0, io.SEEK_END)
    return stream


DATA = {
    "bytes": (b"data", b"data"),
    "none": (b"", b""),
    "bytearray": (bytearray(b"data"), b"data"),
    "memoryview": (memoryview(b"xdatax")[1:5], b"data"),
    "written": (written(io.BytesIO(b"data" * BLOCK)), b"data" * BLOCK),
    "text": (written(io.StringIO("größer\n")), "größer\n".encode()),
    "stream": (Unseekable(b"data"), b"data"),
}


@pytest.mark.parametrize("kind", DATA)
def test_data_are_kept_under_a_name(tmp_path: Path, kind: str) -> None:
    data, expected = DATA[kind]
    with shmlog.init("data", root=tmp_path) as run:
        run.log_artifact(data, name="a/data.bin")
        run.log_artifact(expected, name="a/data.bin")
        run.log_artifact(expected, name="again", algorithm="sha512")
    wait_for_end(run.dir)
    artifact = shmlog.load(run.dir).artifact("a/data.bin")
    assert artifact.path.read_bytes() == expected
    assert artifact.digest == f"sha256:{digits(expected)}"
    assert stored(tmp_path)[digits(expected)] == 2, "the run's file, and the object"
    assert left_over(RunLayout(run.dir)) == []
    assert verify(run.dir).findings == []


def test_data_that_the_root_has_take_no_room(tmp_path: Path) -> None:
    paths = []
    for _ in range(2):
        with shmlog.init("data", root=tmp_path) as run:
            run.log_artifact(b"data", name="data.bin")
        paths.append(run.dir / "artifacts" / "data.bin")
    assert paths[0].samefile(paths[1])


def test_texts_and_dicts_are_files(tmp_path: Path) -> None:
    settings_of = {"lr": 1e-5, "inf": math.inf, "layers": [64, 10], "name": "größer: yes", "none": None, "on": True}
    with shmlog.init("data", root=tmp_path) as run:
        run.log_text("größer\r\n", "notes/a.md")
        for name in ("a.json", "a.yaml", "a.yml"):
            run.log_dict(settings_of, name)
        run.log_dict([Path("x"), np.float32(0.5)], "list.json")
    run_files = shmlog.load(run.dir).artifacts
    files = {artifact.name: artifact.path.read_bytes().decode() for artifact in run_files}
    assert files["notes/a.md"] == "größer\r\n"
    assert json.loads(files["a.json"]) == {**settings_of, "inf": "Infinity"}
    assert yaml.safe_load(files["a.yaml"]) == yaml.safe_load(files["a.yml"]) == settings_of
    assert "layers:\n" in files["a.yaml"], "for people"
    assert json.loads(files["list.json"]) == ["x", 0.5]


WRONG_DATA: list[tuple[str, type[Exception], str]] = [
    ("log_artifact(b'data')", TypeError, "needs a name"),
    ("log_artifact(3, name='x')", TypeError, "a path, bytes or a file object to read, not int"),
    ("log_artifact({}, name='x')", TypeError, "not dict"),
    ("log_artifact(b'data', name='../x')", ValueError, "artifact name '../x'"),
    ("log_artifact(b'data', name='x', algorithm='md5')", ValueError, "md5"),
    ("log_text(b'data', 'x')", TypeError, r"log_text\(\) takes a str, not bytes"),
    ("log_dict({}, 'x.txt')", ValueError, "ends in .json, .yaml or .yml"),
    ("log_dict(3, 'x.json')", TypeError, "takes a dict or a list, not int"),
    ("log_dict({'a': [object()]}, 'x.json')", TypeError, r"x.json\['a'\]\[0\]: JSON has nothing for a object"),
    ("log_dict({'a': 1}, None)", TypeError, "the name of an artifact must be a str"),
]


@pytest.mark.parametrize(("call", "error", "text"), WRONG_DATA)
def test_wrong_data_raise_and_nothing_is_logged(tmp_path: Path, call: str, error: type[Exception], text: str) -> None:
    with shmlog.init("data", root=tmp_path) as run, pytest.raises(error, match=text):
        eval(f"run.{call}")
    assert shmlog.load(run.dir).artifacts == []
    assert left_over(RunLayout(run.dir)) == []


def test_a_file_object_that_fails_leaves_nothing(tmp_path: Path) -> None:
    class Failing(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ZeroDivisionError

    with shmlog.init("data", root=tmp_path) as run, pytest.raises(ZeroDivisionError):
        run.log_artifact(Failing(), name="x")
    assert shmlog.load(run.dir).artifacts == []
    assert left_over(RunLayout(run.dir)) == []


def test_an_artifact_is_found_by_its_digest(tmp_path: Path) -> None:
    with shmlog.init("data", root=tmp_path) as run:
        run.log_artifact(b"data", name="b")
        run.log_artifact(b"data", name="a")
        run.log_artifact(b"other", name="c")
    stored_run = shmlog.load(run.dir)
    digest = f"sha256:{digits(b'data')}"
    assert stored_run.artifact(digest).name == stored_run.artifact(digest[:15]).name == "a"
    for name in ("sha256:", digest[:14], digest[:15] + "g", f"sha256:{digits(b'none')}", f"sha512:{digits(b'data')}"):
        with pytest.raises(ArtifactNotFoundError):
            stored_run.artifact(name)


def test_a_folder_is_an_artifact_of_its_files(finished: RunLayout) -> None:
    for name in ("eval", "eval/plots"):
        folder = shmlog.load(finished.dir).artifact(name)
        assert (folder.size_bytes, folder.digest, len(folder.files)) == (7, None, 2)
        assert sorted(path.name for path in folder.path.rglob("*.*")) == ["a.png", "b.csv"]
        folder.verify()
        with pytest.raises(ValueError, match="is a folder"):
            folder.open()


def test_an_event_tells_of_each(finished: RunLayout) -> None:
    events = shmlog.load(finished.dir).events("artifact")
    assert [event["data"]["path"] for event in events] == [
        "artifacts/model.bin", "artifacts/eval/plots/a.png", "artifacts/eval/plots/b.csv",
    ]  # fmt: skip
    assert events[0]["data"] == {
        "name": "model.bin", "path": "artifacts/model.bin", "size_bytes": 5, "digest": f"sha256:{digits(b'model')}",
        "media_type": "application/octet-stream",
    }  # fmt: skip


def test_a_name_that_nobody_logged_is_told_with_those_there_are(finished: RunLayout) -> None:
    with pytest.raises(ArtifactNotFoundError, match=r"no artifact 'eval/pl'; it has eval/plots/a\.png"):
        shmlog.load(finished.dir).artifact("eval/pl")


@pytest.mark.parametrize("mode", ["w", "r+", "ab", "rt", ""])
def test_an_artifact_is_not_opened_for_writing(finished: RunLayout, mode: str) -> None:
    with pytest.raises(ValueError, match="for reading alone"):
        shmlog.load(finished.dir).artifact("model.bin").open(mode)


def test_writing_through_the_run_is_an_error(layout: RunLayout) -> None:
    assert stat.S_IMODE(put(layout, b"x").stat().st_mode) & 0o222 == 0


def test_a_store_tells_of_them_as_records(finished: RunLayout) -> None:
    store = shmlog.Store(finished.root)
    records = {record.path: record for record in store.artifacts(finished.run_id)}
    assert records["model.bin"].digest == f"sha256:{digits(b'model')}"
    assert records["eval/plots/a.png"].media_type == "image/png"
    found = store.sql("select path, digest from artifacts where media_type = 'image/png'").to_pylist()
    assert found == [{"path": "eval/plots/a.png", "digest": f"sha256:{digits(b'png')}"}]


def test_any_process_of_a_run_logs_artifacts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    with shmlog.init("digits", root=tmp_path / "runs") as run:
        pid = os.fork()
        if pid == 0:
            run.log_artifact(tmp_path / "a.txt")
            os._exit(0 if run.flush() else 1)
        assert os.waitpid(pid, 0)[1] == 0
        script = "import shmlog, sys; shmlog.current().log_artifact(sys.argv[1]); assert shmlog.current().flush()"
        done = run_script(script, tmp_path / "b.txt", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    wait_for_end(run.dir)
    assert [artifact.digest for artifact in shmlog.load(run.dir).artifacts] == [
        f"sha256:{digits(b'a')}", f"sha256:{digits(b'b')}",
    ]  # fmt: skip
    assert verify(run.dir).findings == []


def test_a_run_that_has_ended_here_takes_none_and_a_disabled_one_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with shmlog.init("digits", root=tmp_path / "off", mode="disabled") as run:
        run.log_artifact(tmp_path / "a")
    assert not (tmp_path / "off").exists()
    with shmlog.init("digits", root=tmp_path / "runs") as run:
        pass
    with pytest.raises(RunStateError, match="has ended"):
        run.log_artifact(tmp_path / "a")


# ---- once per root ----


def test_the_same_content_is_stored_once(tmp_path: Path) -> None:
    runs = [add_run(tmp_path / "runs", name) for name in ("one", "two")]
    paths = [put(runs[0], b"same"), put(runs[1], b"same", "other/name"), put(runs[1], b"same", "again")]
    assert len({path.stat().st_ino for path in paths}) == 1
    assert stored(tmp_path / "runs") == {digits(b"same"): 4}
    assert left_over(runs[0]) == left_over(runs[1]) == []


def test_the_source_may_be_written_to_afterwards(layout: RunLayout) -> None:
    path = put(layout, b"first")
    (layout.root.parent / "source").write_bytes(b"later")
    assert path.read_bytes() == b"first"


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
@pytest.mark.parametrize("algorithm", content.ALGORITHMS)
def test_every_size_comes_back(layout: RunLayout, size: int, algorithm: str) -> None:
    data = os.urandom(size)
    (layout.root.parent / "source").write_bytes(data)
    (told,) = keep(layout, layout.root.parent / "source", "x", algorithm)
    assert (layout.artifacts / "x").read_bytes() == data
    assert (told["size_bytes"], told["digest"]) == (size, f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")
    assert tuple(content_of(layout.artifacts / "x", algorithm)) == (size, told["digest"])


def test_a_clone_is_hashed_as_a_copy_is(layout: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file system here clones: one that does leaves the target with what is in the source."""
    cloned = []

    def clone(target: int, request: int, source: int) -> int:
        assert request == 0x40049409
        cloned.append(os.write(target, os.pread(source, 100, 0)))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone)
    assert put(layout, b"cloned").read_bytes() == b"cloned"
    assert cloned == [6]
    assert stored(layout.root) == {digits(b"cloned"): 2}


def test_without_hard_links_each_run_has_its_own(layout: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    assert put(layout, b"own").read_bytes() == b"own"
    assert put(layout, b"own").stat().st_nlink == 1
    with pytest.raises(RunStateError, match="other content"):
        put(layout, b"other")
    assert stored(layout.root) == {}
    assert left_over(layout) == []


def test_an_object_of_the_wrong_size_is_replaced(tmp_path: Path) -> None:
    one, two, three = (add_run(tmp_path / "runs", name) for name in ("one", "two", "three"))
    path = put(one, b"whole")
    path.chmod(0o600)
    path.write_bytes(b"cut")
    assert put(two, b"whole").read_bytes() == b"whole"
    assert put(three, b"whole").stat().st_ino == (two.artifacts / "model.bin").stat().st_ino


def test_a_file_that_was_changed_in_one_run_is_given_to_no_other(tmp_path: Path) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(b"good" * 1000)
    first = logged(tmp_path, source)
    first.chmod(0o644)
    with open(first, "r+b") as file:
        file.write(b"evil")
    second = logged(tmp_path, source)
    assert second.read_bytes() == source.read_bytes()
    third = logged(tmp_path, source)
    assert third.samefile(second), "it has taken the place of the changed one"


def test_content_whose_time_was_lost_is_read_and_stored_once_all_the_same(tmp_path: Path) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(b"good" * 1000)
    first = logged(tmp_path, source)
    os.utime(first, (0, 0))
    assert logged(tmp_path, source).samefile(first)


def logged(root: Path, source: Path) -> Path:
    """Return the file that a run has of an artifact."""
    with shmlog.init("objects", root=root / "runs") as run:
        run.log_artifact(source)
    wait_for_end(run.dir)
    return shmlog.load(run.dir).artifact(source.name).path


def test_a_store_of_objects_that_leads_elsewhere_is_not_used(layout: RunLayout, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (layout.root / ".artifacts").symlink_to(tmp_path / "elsewhere")
    assert put(layout, b"x").read_bytes() == b"x"
    assert list((tmp_path / "elsewhere").rglob("*.*")) == []
    assert not [path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()]


WRITER = """
import sys
from pathlib import Path
from shmlog.run.keep import keep
from shmlog.folder.layout import RunLayout
sys.stdin.readline()
for number in range(20):
    source = Path(sys.argv[2]) / str(number)
    keep(RunLayout(sys.argv[1]), source, f"n{number}", "sha256")
"""


def test_writers_of_the_same_content_at_the_same_time_store_it_once(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    for number in range(20):
        (sources / str(number)).write_bytes(bytes([number]) * (1 + 50_000 * number))
    runs = [add_run(tmp_path / "runs", name) for name in ("one", "two")]
    writers = [
        start_script(WRITER, layout.dir, sources, cwd=tmp_path, stdin=subprocess.PIPE) for layout in [*runs, *runs]
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, err = writer.communicate(timeout=60)
        assert writer.returncode == 0, err
    for number in range(20):
        data = (sources / str(number)).read_bytes()
        assert {(layout.artifacts / f"n{number}").read_bytes() for layout in runs} == {data}
        assert stored(tmp_path / "runs")[digits(data)] == 3
    assert len(stored(tmp_path / "runs")) == 20
    assert left_over(runs[0]) == left_over(runs[1]) == []


# ---- what is refused ----


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "/etc/passwd", "a//b", "a/", "../a", "a/../b", "a/./b", "a\\..\\b", "nul\0", "line\nbreak",
        "\x1b[31m", "\u2028", "lone\ud800", "x" * 256, "a/" * 600 + "a", "CON", "a/nul.txt", "\x85",
    ],
)  # fmt: skip
def test_a_name_that_could_lead_astray_is_refused(layout: RunLayout, name: str) -> None:
    with pytest.raises(ValueError, match="artifact name"):
        put(layout, b"x", name)
    assert not layout.artifacts.exists()
    assert left_over(layout) == []


@pytest.mark.parametrize("name", [3, b"x", Path("x")])
def test_a_name_that_is_no_str_is_refused(layout: RunLayout, name: Any) -> None:
    with pytest.raises(TypeError, match="must be a str"):
        put(layout, b"x", name)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("./\\a\0\n %é:~") | st.characters(), min_size=1, max_size=12))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    try:
        check_name(name)
    except ValueError:
        return
    assert len(name.encode()) <= NAME_BYTES_MAX
    path = os.path.normpath(os.path.join("/r/artifacts", name))
    assert path == f"/r/artifacts/{name}"
    assert len(name.splitlines()) == 1


def test_another_content_under_the_same_name_is_refused(layout: RunLayout) -> None:
    path = put(layout, b"first")
    with pytest.raises(RunStateError, match="other content"):
        put(layout, b"later")
    with pytest.raises(RunStateError, match=r"can't have an artifact 'model\.bin/below'"):
        put(layout, b"x", "model.bin/below")
    put(layout, b"y", "folder/file")
    with pytest.raises(RunStateError):
        put(layout, b"x", "folder")
    assert path.read_bytes() == b"first"
    assert left_over(layout) == []
    assert set(stored(layout.root)) == {digits(b"first"), digits(b"y")}


def test_a_folder_of_which_one_name_is_taken_is_not_logged_at_all(layout: RunLayout, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("a", "b"):
        (tmp_path / "folder" / name).write_text(name)
    put(layout, b"other", "f/b")
    with pytest.raises(RunStateError, match="'f/b' of other content"):
        keep(layout, tmp_path / "folder", "f", "sha256")
    assert [path.name for path in (layout.artifacts / "f").iterdir()] == ["b"]
    assert left_over(layout) == []


def test_nothing_is_written_through_links_in_the_run(layout: RunLayout, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    layout.artifacts.symlink_to(outside)
    with pytest.raises(RunStateError):
        put(layout, b"x")
    layout.artifacts.unlink()
    layout.artifacts.mkdir()
    (layout.artifacts / "deep").symlink_to(outside)
    with pytest.raises(RunStateError):
        put(layout, b"x", "deep/file")
    (layout.artifacts / "file").symlink_to(outside / "new")
    with pytest.raises(RunStateError):
        put(layout, b"x", "file")
    assert list(outside.iterdir()) == []
    assert left_over(layout) == []


def test_what_is_no_file_is_refused(layout: RunLayout, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "with-fifo").mkdir()
    os.mkfifo(tmp_path / "with-fifo" / "fifo")
    (tmp_path / "empty").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        for path in (tmp_path / "fifo", tmp_path / "with-fifo", "/dev/null", tmp_path / "s"):
            with pytest.raises(ValueError, match="neither a file nor a folder"):
                keep(layout, path, "x", "sha256")
    with pytest.raises(ValueError, match="holds no file"):
        keep(layout, tmp_path / "empty", "x", "sha256")
    with pytest.raises(ValueError, match="algorithm must be one of"):
        keep(layout, tmp_path / "empty", "x", "md5")
    with pytest.raises(StorageError, match="No such file"):
        keep(layout, tmp_path / "missing", "x", "sha256")
    assert not layout.artifacts.exists()


def test_links_in_a_folder_are_followed_as_far_as_they_stay_in_it(layout: RunLayout, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("x")
    (folder / "link").symlink_to("deep/file")
    told = keep(layout, folder, "f", "sha256")
    assert [one["name"] for one in told] == ["f/deep/file", "f/link"]
    assert not (layout.artifacts / "f" / "link").is_symlink()
    for bad in ("/etc/passwd", "deep", "missing", ".."):
        (folder / "bad").symlink_to(bad)
        with pytest.raises((ValueError, StorageError)):
            keep(layout, folder, "g", "sha256")
        (folder / "bad").unlink()
    assert not (layout.artifacts / "g").exists()
    (tmp_path / "direct").symlink_to(folder / "deep" / "file")
    assert [one["name"] for one in keep(layout, tmp_path / "direct", None, "sha256")] == ["direct"]


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    source, copy_content = layout.root.parent / "source", content.copy_content

    def copy(original: int, target: int, algorithm: str) -> content.Content:
        copied = copy_content(original, target, algorithm)
        if change == "rewrite":
            source.write_bytes(b"later")
            os.utime(source, ns=(1, 1))
        else:
            os.truncate(source, 100 if change == "grow" else 1)
        return copied

    monkeypatch.setattr(logging_side, "copy_content", copy)
    with pytest.raises(StorageError, match="has changed while it was read"):
        put(layout, b"first")
    assert not layout.artifacts.exists()
    assert left_over(layout) == []
    assert stored(layout.root) == {}


@pytest.mark.parametrize("step", ["copy", "place"])
def test_a_full_disk_leaves_nothing_behind(layout: RunLayout, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    folder = layout.root.parent / "folder"
    folder.mkdir()
    for number in range(3):
        (folder / str(number)).write_bytes(b"x" * number)
    calls = 0

    def fail(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        if step == "place" or calls == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync" if step == "copy" else "mkdir", fail)
    with pytest.raises(StorageError, match="No space left on device"):
        keep(layout, folder, "f", "sha256")
    monkeypatch.undo()
    assert not layout.artifacts.exists()
    assert left_over(layout) == []
    assert stored(layout.root) == {}
    assert len(keep(layout, folder, "f", "sha256")) == 3


def test_memory_is_bounded(layout: RunLayout) -> None:
    source = layout.root.parent / "source"
    with open(source, "wb") as file:
        file.truncate(64 * BLOCK)
    script = """
import sys, tracemalloc
from shmlog.run.keep import keep
from shmlog.folder.layout import RunLayout
tracemalloc.start()
keep(RunLayout(sys.argv[1]), sys.argv[2], "sparse", "sha256")
assert tracemalloc.get_traced_memory()[1] < 8 << 20
"""
    done = run_script(script, layout.dir, source, cwd=layout.root.parent)
    assert done.returncode == 0, done.stderr


def test_media_types() -> None:
    assert [media_type_of(name) for name in ("a/b.json", "x.tar.gz", "x", "x.png.xz", ".bashrc")] == [
        "application/json", "application/gzip", "application/octet-stream", "application/octet-stream",
        "application/octet-stream",
    ]  # fmt: skip


# ---- deleted ----


def test_contents_that_no_run_holds_go_with_the_last(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    one, two = (add_run(root, name) for name in ("one", "two"))
    put(one, b"shared" * 100)
    put(two, b"shared" * 100)
    put(one, b"own" * 100, "own")
    store = shmlog.Store(root)
    store.delete("one")
    assert stored(root) == {digits(b"shared" * 100): 2}
    assert (two.artifacts / "model.bin").read_bytes() == b"shared" * 100
    store.delete("two")
    assert stored(root) == {}


@pytest.mark.parametrize("archive", [False, True])
def test_freed_bytes_are_those_that_no_kept_run_holds(tmp_path: Path, archive: bool) -> None:
    root = tmp_path / "runs"
    new, old, older = (add_run(root, name, days=days) for days, name in enumerate(("new", "old", "older")))
    for layout in (new, old, older):
        put(layout, os.urandom(100_000), "own")
        put(layout, b"k" * 1_000_000, "shared-with-kept")
    for layout in (old, older):
        put(layout, b"d" * 500_000, "shared-by-deleted")
    store = shmlog.Store(root)
    told = store.prune(keep=1, archive=archive)
    used = disk_usage(root)
    done = store.prune(keep=1, archive=archive, dry_run=False)
    assert done.failed == ()
    freed = used - disk_usage(root)
    assert abs(done.freed_bytes - freed) < 1000  # the index, and what archives of .shmlog take
    assert 700_000 < told.freed_bytes < 720_000
    assert sorted(stored(root).values()) == [2, 2]
    (new.artifacts / "own").unlink()
    assert store.prune(keep=1).freed_bytes == 100_000  # what no run holds any more, whoever took it away
    store.prune(keep=1, dry_run=False)
    assert list(stored(root).values()) == [2]


def disk_usage(folder: Path) -> int:
    found = [path.lstat() for path in folder.rglob("*") if path.is_file() and ".shmlog" not in path.parts]
    return sum({status.st_ino: status.st_size for status in found}.values())


def test_a_run_that_was_moved_away_is_whole(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    layout = add_run(root, "one")
    put(layout, b"moved")
    elsewhere = tmp_path / "elsewhere" / "digits" / "one"
    shutil.copytree(layout.dir, elsewhere)
    shmlog.Store(root).delete("one")
    assert stored(root) == {}
    assert (elsewhere / "artifacts" / "model.bin").read_bytes() == b"moved"


def test_an_object_that_is_logged_while_it_is_collected_stays_one(layout: RunLayout, monkeypatch: Any) -> None:
    """Between the look at its links and its end, somebody links to it."""
    put(layout, b"x").unlink()
    (found,) = blobs.stored(layout.root)
    rename = os.rename

    def link_before(source: Any, target: Any) -> None:
        os.link(source, layout.artifacts / "model.bin")
        rename(source, target)

    monkeypatch.setattr(os, "rename", link_before)
    blobs.collect(layout.root)
    assert stored(layout.root) == {digits(b"x"): 2}
    assert found.path.samefile(layout.artifacts / "model.bin")

"""events.jsonl and the files that it goes on in: all parts are read as one, whatever befalls the writer."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shmlog
from shmlog.flusher.textfiles import TextFiles
from shmlog.folder.extent import Extent, of_file
from shmlog.folder.layout import EVENTS, RunLayout
from shmlog.folder.logsettings import parse_size
from shmlog.logs import load_structured_logs
from shmlog.reader.verify.verify import verify
from tests.support.folders import Folder, fill, simple_log

LIMIT = 40

LINES = st.lists(st.integers(0, 2 * LIMIT).map(lambda n: b"x" * n + b"\n"), max_size=6).map(b"".join)
#: What is appended, and whether it is booked, or whether the writer is killed and started anew.
STEPS = st.lists(st.tuples(LINES, st.sampled_from(["go on", "book", "kill"])), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_what_is_booked_is_there_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bytes, str]]
) -> None:
    layout = RunLayout(tmp_path_factory.mktemp("run"))
    files, booked = TextFiles(layout, EVENTS, [Extent()], LIMIT), (Extent(),)
    due = pending = b""
    for lines, then in steps:
        files.append(lines)
        pending += lines
        if then == "book":
            files.sync()
            booked, due, pending = tuple(files.extents.values()), due + pending, b""
        elif then == "kill":
            files.close()
            files, pending = TextFiles(layout, EVENTS, booked, LIMIT), b""
    files.sync()
    parts = list(layout.event_files().values())
    assert files.extents == {path.name: of_file(path) for path in parts}
    assert b"".join(path.read_bytes() for path in parts) == due + pending
    for path in parts:
        data = path.read_bytes()
        assert len(data) <= LIMIT or data.count(b"\n") == 1
        assert not data or data.endswith(b"\n")
    files.close()


def test_what_a_full_disk_refuses_is_kept_over_the_change_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = RunLayout(tmp_path)
    files = TextFiles(layout, EVENTS, [Extent()], LIMIT)
    lines = [b"%030d\n" % i for i in range(4)]

    def refuse(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    for refused in ("write", "open"):  # into a file, and the making of the next
        with monkeypatch.context() as patch:
            patch.setattr(os, refused, refuse)
            with pytest.raises(OSError, match="No space"):
                files.append(lines.pop(0) + lines.pop(0))
    files.retry()
    found = [path.read_bytes() for path in layout.event_files().values()]
    assert found == [b"%030d\n" % i for i in range(4)]
    files.close()


# ---- read as one ----


@pytest.fixture(params=["half", "complete"])
def rotated(tmp_path: Path, request: pytest.FixtureRequest) -> Folder:
    """Return a run whose events are in several files, complete or not."""
    folder = Folder(tmp_path / "digits" / "one", ("parquet", "jsonl"))
    folder.describe(structured_log={"rotate_bytes": 1024})
    log = simple_log()
    for _ in range(3):
        folder.add(log)
        log = log.next()
        fill(log)
    folder.seal(2)
    if request.param == "complete":
        folder.complete()
    return folder


def test_all_readers_read_all_files(rotated: Folder) -> None:
    assert len(rotated.layout.event_files()) > 5
    stored = shmlog.load(rotated.dir)
    events = stored.events()
    assert [event["event_type"] for event in events] == ["checked", "gap"] * 3
    assert len(load_structured_logs(rotated.dir)) == len(events)
    assert verify(rotated.dir).ok
    pytest.importorskip("duckdb")
    assert stored.sql("select count(*) as n from events").to_pylist() == [{"n": len(events)}]


def test_a_file_of_events_names_the_run(rotated: Folder) -> None:
    by_file = load_structured_logs(rotated.layout.events)
    lines = chain.from_iterable(path.read_text().splitlines() for path in rotated.layout.event_files().values())
    assert len(by_file) == len(list(lines)) > 60
    (first,) = {path for number, path in rotated.layout.event_files().items() if number == 1}
    assert 0 < len(load_structured_logs(first)) < len(by_file)


def test_verify_misses_a_file_and_names_one_that_is_not_of_the_run(rotated: Folder) -> None:
    gone, spoilt = rotated.layout.event_file(1), rotated.layout.event_file(2)
    gone.rename(rotated.dir / "away")
    spoilt.write_bytes(spoilt.read_bytes().replace(b"loss", b"lass", 1))
    report = verify(rotated.dir)
    assert {gone, spoilt} <= {finding.file for finding in report.findings}
    with pytest.warns(shmlog.ShmlogWarning) as caught:
        shmlog.load(rotated.dir).events()
    assert any(gone.name in str(warning.message) for warning in caught)
    (rotated.dir / "away").rename(gone)
    strange = rotated.layout.event_file(999)
    strange.write_text("{}\n")
    is_complete = not rotated.layout.wal.exists()
    assert (strange in {finding.file for finding in verify(rotated.dir).findings}) == is_complete
    with pytest.warns(shmlog.ShmlogWarning):
        assert len(shmlog.load(rotated.dir).events()) == 6, "what the books do not know is not read"


@pytest.mark.parametrize(
    ("text", "size"), [("64 MB", 64_000_000), ("64MiB", 64 << 20), ("1.5 kB", 1500), ("2048", 2048), (4096, 4096)]
)
def test_sizes_are_numbers_with_units(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("size", ["", "64 MX", "-1", "1 KiBi", 100, "100 B", 1.5, True])
def test_sizes_that_make_no_sense_are_refused(tmp_path: Path, size: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"size|rotate_events"):
        shmlog.init("digits", root=tmp_path, rotate_events=size)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())

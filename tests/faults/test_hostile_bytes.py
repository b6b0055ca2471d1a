"""Any bytes in the files of a run, and in shared memory: FAULTS P9, rows 12-14, 51-53; invariants I10, I11."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import shmlog
from shmlog.folder import liveness
from shmlog.folder.segmentref import SegmentRef
from shmlog.reader.verify.verify import verify
from shmlog.segment import shm
from tests.faults.hostile_folders import CALLS, Answer, ask, make_folder, read_all

DAMAGES = 450
DAMAGES_FULL = 25_000
CALLS_AT_ONCE = 3
SEGMENTS = 3_000
SEGMENTS_FULL = 100_000

FOLDERS = {
    "finished": (("parquet", "jsonl"), True),
    "finished, lines alone": (("jsonl",), True),
    "live": (("parquet", "jsonl"), False),
    "live, parts alone": (("parquet",), False),
}


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sinks, complete = FOLDERS[request.param]
    return make_folder(tmp_path_factory.mktemp("hostile") / "exp" / "run", sinks, complete=complete)


def damaged(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Return ``data`` with something done to it, and what."""
    at = chance.randrange(len(data)) if data else 0
    how = chance.choice(("flip", "flip", "flip", "byte", "cut", "zeros", "insert"))
    match how:
        case "flip":
            changed = data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
        case "byte":
            changed = data[:at] + chance.randbytes(1) + data[at + 1 :]
        case "cut":
            changed = data[:at]
        case "zeros":
            size = min(chance.choice((8, 512)), len(data) - at)
            changed = data[:at] + bytes(size) + data[at + size :]
        case _:
            changed = data[:at] + chance.randbytes(chance.randrange(1, 9)) + data[at:]
    return f"{how} at byte {at}", changed


# ---- what has no checksum, and what a change of it can do ----


def is_silent_by_design(path: Path, call: str, was: Answer, now: Answer) -> bool:
    """Whether nothing can tell that a value is another one: docs/durability.md says so."""
    if path.name == "config.yaml" and call == "config":
        return True  # of a run that goes on: people and programs write into it
    if path.parent.name == "large":
        return "events" in call  # that name it, and its size: what is in it is not looked at
    if path.name == "000003.wal":
        return is_prefix(now.value, was.value)  # the log that is being written: its end may be anywhere
    return False


def is_prefix(now: Any, was: Any) -> bool:
    """Whether a call gave a part of what it should have, and nothing else."""
    if isinstance(now, (list, dict)) and isinstance(was, type(now)):
        return all(item in was for item in now)
    return True  # counts of it


def test_no_damage_is_read_in_silence(folder: Path, seed: int, full: bool) -> None:
    """I11: what is read is what was written, or the call raises or warns and names what is damaged."""
    chance = random.Random(seed)
    whole = read_all(folder)
    assert all(answer.error is None and not answer.told for answer in whole.values())
    assert verify(folder).ok
    families = _families(folder)
    told: Counter[str] = Counter()
    with mock.patch.object(liveness, "_LOCK_TABLE", Path(os.devnull)):
        for number in range(DAMAGES_FULL if full else DAMAGES):
            path = chance.choice(families[chance.choice(sorted(families))])
            data = path.read_bytes()
            what, changed = damaged(data, chance)
            path.write_bytes(changed)
            where = f"{path.relative_to(folder)}: {what} (number {number}); repeat with --seed={seed}"
            try:
                told[_check(folder, path, whole, chance, where)] += changed != data
            finally:
                path.write_bytes(data)
    print(dict(told))
    assert read_all(folder) == whole, "the test has changed the run"


def _families(folder: Path) -> dict[str, list[Path]]:
    """Return the files to be damaged by what they are, so that those that are many are not all."""
    families: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".parquet":
            family = path.parent.name if path.parent.name in ("large", "wal") else path.name
            families.setdefault(family, []).append(path)
    return families


def _check(folder: Path, path: Path, whole: dict[str, Answer], chance: random.Random, where: str) -> str:
    is_seen = is_silent = False
    for call in chance.sample(sorted(CALLS), CALLS_AT_ONCE):
        now = ask(folder, call)
        if now.error is not None or now.told:
            named = " ".join([now.error or "", *now.told])
            assert path.name in named or path.parent.name == "large", f"I10: {call} of {where}: it names {named}"
            is_seen = True
        elif now.value != whole[call].value:
            assert is_silent_by_design(path, call, whole[call], now), f"I11: {call} is silently wrong: {where}"
            is_silent = True
    report = verify(folder)
    is_named = any(finding.file == path or path.name in finding.message for finding in report.findings)
    if is_silent and path.name != "config.yaml":
        assert is_named or path.name == "000003.wal", f"I10: verify does not name the file: {where}"
    return "silent" if is_silent and not is_named else "found" if is_seen or is_named else "not read"


# ---- shared memory ----


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[tuple[Path, bytes]]:
    """Return the file of a segment that somebody has logged to, and its bytes."""
    with shmlog.init("segment", root=tmp_path, lane_records=64, lanes=2) as run:
        for step in range(20):
            run.log({"a": 1.5, "b": step, "text": f"some text of step {step}"}, step=step)
        path = Path(run.stats["segment"])
        yield path, path.read_bytes()


def test_no_bytes_in_shared_memory_make_a_reader_or_a_drain_fail(
    segment: tuple[Path, bytes], tmp_path: Path, seed: int, full: bool
) -> None:
    """FAULTS 12, 13: a damaged segment is refused, or drained without a crash and without an end."""
    chance = random.Random(seed)
    _, data = segment
    copy = tmp_path / "copy"
    logs = tmp_path / "logs"
    logs.mkdir()
    for number in range(SEGMENTS_FULL if full else SEGMENTS):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 4, 64))):
            at = chance.randrange(chance.choice((512, 8192, len(data))))
            changed[at : at + 8] = chance.choice((bytes(8), b"\xff" * 8, chance.randbytes(8), b"\x01" + bytes(7)))
        copy.write_bytes(changed[: len(data)])
        copy.chmod(0o600)
        try:
            _drain(copy, logs)
        except shmlog.errors.SegmentError:
            continue
        except Exception as error:
            error.add_note(f"number {number}; repeat with --seed={seed}")
            raise


def _drain(path: Path, logs: Path) -> None:
    opened = shm.open_segment(SegmentRef(None, path))
    _ = opened.run_id, opened.run_dir, opened.unlaned, opened.finish_status, opened.progress
    for lane in range(opened.lanes):
        opened.lane(lane)
    drain = shmlog._core.Drain(opened, os.open(logs, os.O_RDONLY | os.O_DIRECTORY), 0, None)
    assert drain.next_log() == 0
    for _ in range(10):
        error, slots = drain.drain_pass()
        assert error == 0
        if not slots:
            break
    opened.cut_all()
    drain.finalize()
    drain.settle()

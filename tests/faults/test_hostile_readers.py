"""Any bytes for what reads files in Python: FAULTS P9, P14, rows 13, 14, 53, 71, 72; invariant I11."""

from __future__ import annotations

import json
import struct
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import shmlog
from shmlog.flusher.recover import recover
from shmlog.folder import runfile
from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import read_ref
from shmlog.reader.verify.verify import verify
from shmlog.records.decode import Decoder
from shmlog.records.ledger import Ledger
from shmlog.records.wal import Damage, Frame, scan
from tests.faults.hostile_folders import ask, make_folder, read_all
from tests.support.bombs import BOMBS
from tests.support.folders import simple_log
from tests.support.frames import reseal

ROOMY = settings(
    max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
KEYS = ["run_id", "complete", "sinks", "segment", "name", "producers", "dropped", "files", "next_log", "counts",
        "events_bytes", "events.jsonl", "bytes", "crc32", "lane", "tenancy", "metrics", "events", "status"]  # fmt: skip
NEARLY = st.recursive(
    JSON, lambda inner: st.dictionaries(st.sampled_from(KEYS), inner, max_size=8) | st.lists(inner, max_size=3)
)
MEMORY_BYTES = 64 << 20


# ---- small files ----


@ROOMY
@given(data=st.binary(max_size=300) | NEARLY.map(lambda value: json.dumps(value).encode()))
@example(data=b"{run_id: []}")
def test_any_bytes_are_a_mapping_or_a_clean_error(tmp_path: Path, data: bytes) -> None:
    """I11: run.yaml, config.yaml and sealed.json that are anything."""
    layout = RunLayout(tmp_path)
    layout.wal.mkdir(exist_ok=True)
    for path in (layout.run_yaml, layout.sealed_json, layout.config_yaml):
        path.write_bytes(data)
    for read in (lambda: runfile.read(layout.run_yaml), lambda: read_ref(layout), lambda: Ledger.load(layout)):
        assert str(tmp_path) in (_refusal(read) or str(tmp_path)), "I10: it does not say which file"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", shmlog.ShmlogWarning)
        read_all(tmp_path)
    verify(tmp_path)


def _refusal(read: Callable[[], object]) -> str | None:
    try:
        read()
    except shmlog.ShmlogError as error:
        return str(error)
    return None


@pytest.mark.parametrize("file", ["run.yaml", "config.yaml", "wal/sealed.json"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_in_a_small_file_costs_little(tmp_path: Path, file: str, bomb: str) -> None:
    """FAULTS 71: it is refused, or read, in bounded memory, and nothing in it is run."""
    folder = make_folder(tmp_path / "exp" / "run", ("parquet",), complete=False)
    (folder / file).write_bytes(BOMBS[bomb])
    tracemalloc.start()
    try:
        ask(folder, "config")
        verify(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= MEMORY_BYTES + 2 * len(BOMBS[bomb]), f"P9: {peak} bytes for {len(BOMBS[bomb])}"
    assert not Path("pwned").exists()


@pytest.mark.parametrize("bomb", BOMBS)
def test_recovery_of_a_run_with_damaged_books_is_refused_by_name(tmp_path: Path, bomb: str) -> None:
    """FAULTS 53: nothing is changed, and it is said what is damaged."""
    folder = make_folder(tmp_path / "exp" / "run", ("parquet",), complete=False)
    described = runfile.read(folder / "run.yaml")
    runfile.write_sealed(folder / "run.yaml", {**described, "segment": {"name": None}})
    (folder / "wal" / "sealed.json").write_bytes(BOMBS[bomb])
    with pytest.raises(shmlog.errors.CorruptDataError, match=r"sealed\.json"):
        recover(folder, force=True)
    assert (folder / "wal" / "000002.wal").exists()


@pytest.mark.parametrize("name", ["/../victim", "victim", "/etc/passwd", 7, [], "/shmlog-0123456789abcdef/../x"])
def test_a_run_of_somebody_else_makes_recovery_touch_nothing_outside_of_it(tmp_path: Path, name: Any) -> None:
    """P14: run.yaml names files to be opened and removed; only those that a run can have are."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = make_folder(tmp_path / "exp" / "run", ("parquet",), complete=False)
    described = runfile.read(folder / "run.yaml")
    for segment in ({"name": None}, {"name": name}):
        runfile.write_sealed(folder / "run.yaml", {**described, "segment": segment})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", shmlog.ShmlogWarning)
            _refusal(lambda: recover(folder, force=True))
        assert victim.read_text() == "precious"
    with pytest.raises(shmlog.errors.RunNotFoundError, match="does not say where the segment is"):
        read_ref(RunLayout(folder))


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    """FAULTS 72, P14: no reader looks up what a pickle names, and no file of a run is a pickle."""
    seen: list[Any] = []
    sys.addaudithook(lambda event, arguments: seen.append(arguments) if event == "pickle.find_class" else None)
    folder = make_folder(tmp_path / "exp" / "run", ("parquet", "jsonl"), complete=True)
    read_all(folder)
    verify(folder)
    assert not seen
    assert not any(path.read_bytes().startswith(b"\x80\x04") for path in folder.rglob("*") if path.is_file())


# ---- frames ----


@ROOMY
@given(data=st.data())
def test_any_bytes_are_frames_or_damage(tmp_path: Path, data: st.DataObject) -> None:
    """FAULTS 13: a log of anything; each of its bytes is in a frame, or is told to be damaged."""
    whole = simple_log(0, 3).data
    pieces = st.lists(st.binary(max_size=40) | st.sampled_from([whole, whole[:200], b"SLF2", whole[-100:]]), max_size=6)
    log = b"".join(data.draw(pieces))
    found = list(scan(log, path=tmp_path / "000000.wal", log=0, run_id=None))
    assert sum(piece.length for piece in found) == len(log)
    assert sorted(found, key=lambda piece: piece.offset) == found
    Decoder(tmp_path).decode([piece for piece in found if isinstance(piece, Frame)])


@ROOMY
@given(data=st.data())
def test_frames_whose_checksum_is_right_may_hold_anything(tmp_path: Path, data: st.DataObject) -> None:
    """FAULTS 13, I11: no field of a frame that was made on purpose makes the decoder fail."""
    log = simple_log(0, 4)
    frames = [log.data[begin:end] for begin, end in zip(log.frames, [*log.frames[1:], len(log.data)], strict=True)]
    changed = bytearray(data.draw(st.sampled_from(frames)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(1, (len(changed) - 4) // 4 - 1)) * 4
        value = data.draw(st.sampled_from([0, 1, 2, 31, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1))
        changed[at : at + 4] = struct.pack("<I", value)
    path = tmp_path / "000000.wal"
    found = list(scan(reseal(bytes(changed)), path=path, log=0, run_id=None))
    decoder = Decoder(tmp_path)
    batch = decoder.decode([piece for piece in found if isinstance(piece, Frame)])
    batch.metrics.validate(full=True)
    assert all(isinstance(piece, Damage) and piece.path == path for piece in batch.damage)
    assert batch.metrics.num_rows <= len(changed) // 32

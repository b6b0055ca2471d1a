"""A whole part is held against its checksums and its footer: every bit of its pages and of their headers."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shmlog import _bulk
from shmlog.errors import CorruptDataError, UnreadableError
from shmlog.records import pages, parts
from shmlog.records.pages import ENCODINGS, check_whole, groups_of
from shmlog.records.schema import METRICS
from tests.unit.test_parts import mixed, repeated, write, writer_of_bombs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "part-000003.parquet"


def pages_end(path: Path) -> int:
    """Return where the last page ends."""
    metadata = pq.read_metadata(path)
    last = metadata.row_group(metadata.num_row_groups - 1).column(len(METRICS) - 1)
    return int(last.data_page_offset + last.total_compressed_size)


def is_seen(fd: int, groups: Any, bit: int) -> bool:
    """Whether a file with that bit flipped is refused; it is as it was afterwards."""
    was = os.pread(fd, 1, bit // 8)
    os.pwrite(fd, bytes([was[0] ^ 1 << bit % 8]), bit // 8)
    try:
        _bulk.check_pages(fd, groups, ENCODINGS)
    except ValueError:
        return True
    finally:
        os.pwrite(fd, was, bit // 8)
    return False


def test_every_bit_of_a_page_and_of_its_header_matters(path: Path) -> None:
    """I11: DuckDB compares no checksums, and headers have none."""
    write(path, mixed(60))
    groups = groups_of(path)
    with path.open("r+b", buffering=0) as file:
        missed = [bit for bit in range(4 * 8, pages_end(path) * 8) if not is_seen(file.fileno(), groups, bit)]
        assert missed == []
        _bulk.check_pages(file.fileno(), groups, ENCODINGS)


def test_long_names_in_one_row_group_are_sound(path: Path) -> None:
    """Of several attempts there may be more than the name table of one holds."""
    table, names = mixed(4200), pa.array([f"{'n' * 1018}{number:05}" for number in range(4200)])
    at = METRICS.get_field_index("name")
    write(path, table.set_column(at, METRICS.field(at), names.dictionary_encode().cast(METRICS.field(at).type)))
    assert pq.read_metadata(path).row_group(0).column(1).total_uncompressed_size > 4 << 20
    check_whole(path)


def test_several_row_groups_of_several_pages_are_sound(path: Path) -> None:
    write(path, mixed(30_000, names=["a", "b", "c"]))
    assert pq.read_metadata(path).num_row_groups > 1
    check_whole(path)


def test_names_too_many_for_a_dictionary_are_sound(path: Path, seed: int) -> None:
    """The rest of them stands as it is in the pages behind it."""
    names = [f"{'name' * 200}{number:05}" for number in range(6000)]
    write(path, mixed(6000, names=names))
    assert pq.read_metadata(path).row_group(0).column(1).total_uncompressed_size > 2_000_000, "more than a dictionary"
    check_whole(path)
    chance = random.Random(seed)
    groups = groups_of(path)
    with path.open("r+b", buffering=0) as file:
        assert all(is_seen(file.fileno(), groups, chance.randrange(4 * 8, pages_end(path) * 8)) for _ in range(20))


def test_a_part_without_rows_is_sound(path: Path) -> None:
    write(path, mixed(1).slice(0, 0))
    check_whole(path)


def test_a_part_that_was_looked_at_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, mixed(50))
    check_whole(path)
    with monkeypatch.context() as patched:
        patched.setattr(pages, "_check", None)
        check_whole(path)
    damaged = bytearray(path.read_bytes())
    damaged[pages_end(path) - 1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptDataError, match=path.name):
        check_whole(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        check_whole(path)


def test_what_is_cut_or_has_other_encodings_is_refused(path: Path) -> None:
    write(path, mixed(50))
    groups = groups_of(path)
    with path.open("r+b", buffering=0) as file:
        for wrong in (ENCODINGS[:-1], ENCODINGS[::-1], bytes(len(ENCODINGS))):
            with pytest.raises(ValueError, match="not as it was written"):
                _bulk.check_pages(file.fileno(), groups, wrong)
        os.truncate(path, pages_end(path) - 1)
        with pytest.raises(ValueError, match="not as it was written"):
            _bulk.check_pages(file.fileno(), groups, ENCODINGS)
    with pytest.raises(OSError, match="Bad file descriptor"):
        _bulk.check_pages(-1, groups, ENCODINGS)


@pytest.mark.parametrize("encoding", ["dictionary", "plain"])
def test_texts_that_would_fill_the_memory_are_refused(
    path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 74: no other library is handed them."""
    monkeypatch.setattr(parts, "TEXT_BYTES", 16 << 20)
    with writer_of_bombs(monkeypatch, encoding):
        write(path, repeated(1 << 16, 1200))
    with pytest.raises(UnreadableError, match=path.name):
        check_whole(path)

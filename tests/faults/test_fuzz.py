"""libFuzzer with ASan and UBSan on what reads bytes of others: the drain, the names, the decoder and pages.

FAULTS P9, rows 12, 13, 15, 66 (I10, I11): whatever the bytes, nothing is read or written out of bounds, nothing
loops, and what is taken for a record is what the format says it is: the drain is held against the decoder,
the decoder against a second one in its harness. A crash leaves its input in the folder that the test names.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import frames
from tests.support.csource import CSRC, WARNINGS, mutated, run_tool

HARNESSES = Path(__file__).with_name("fuzz")
SECONDS_CI = 6
SECONDS_FULL = 400
EXECUTIONS_OF_A_MISTAKE = 2_000_000
SECONDS_OF_A_MISTAKE = 900
# Tracing of comparisons costs most of the speed, and finds nothing that the seeds don't have.
FLAGS = [
    "-std=c11", "-O2", "-g", "-D_GNU_SOURCE=1", *WARNINGS, "-fsanitize=fuzzer,address,undefined",
    "-fno-sanitize-recover=all", "-fno-sanitize-coverage=trace-cmp",
]  # fmt: skip
OPTIONS = {"ASAN_OPTIONS": "quarantine_size_mb=1:detect_leaks=0", "PATH": os.environ["PATH"]}
LANE_SLOTS = 64


@dataclass(frozen=True)
class Target:
    """A harness, and the sources it is linked with beside what it includes."""

    sources: tuple[str, ...]
    flags: tuple[str, ...] = ()


TARGETS = {
    "drain": Target(
        ("core/clock.c", "core/crc32.c", "core/lane.c", "core/lock.c", "core/names.c", "bulk/decode.c"),
        ("-Dwritev=fuzz_writev", "-Dfsync=fuzz_fsync"),
    ),
    "names": Target(()),
    "decode": Target(("bulk/decode.c",)),
    "pages": Target(("bulk/pages.c", "core/crc32.c")),
}


def build(name: str, folder: Path, csrc: Path = CSRC) -> Path:
    target = TARGETS[name]
    made = folder / name
    includes = [f"-I{csrc / 'core'}", f"-I{csrc / 'bulk'}"]
    sources = [csrc / source for source in target.sources]
    run_tool("clang", *FLAGS, *target.flags, *includes, HARNESSES / f"fuzz_{name}.c", *sources, "-o", made)
    return made


# ---- what a run begins with ----


def lane_images() -> list[bytes]:
    """Return the slots of lanes in order, with units of every kind, and in between."""
    log = frames.Log(0)
    lane = frames.Lane(log, 0)
    images: list[bytes] = []
    lane.owner({"pid": 7, "host": "h"}, 1)
    lane.metric("loss", 0.5, 1, 10)
    lane.row({"a": 1.0, "b": 2, "c": True, "t": "short", "u": "a text that is longer than eight bytes"}, 2, 20)
    lane.event("note", {"a": [1, 2, 3], "b": "x" * 50}, 30)
    lane.gap([3, 1, 0, 0, 0, 0], 40)
    lane.metric("long", "y" * 100, 3, 50)
    lane.metric("flag", True, 4, 60)
    whole = b"".join(lane.slots)
    images += [whole, whole[: 32 * 5], whole[32 * 3 :]]
    images += [whole[unit : unit + 32] for unit in range(0, len(whole), 32)]
    large, too_large = frames.Lane(log, 0), frames.Lane(log, 0)
    large.event("large", {"x": "z" * 1400}, 70)
    too_large.owner({"x": "z" * 1400}, 80)
    return [*images, b"".join(large.slots), b"".join(too_large.slots)]


def lane_words(final: int) -> bytes:
    """Return the words of two lanes that have drops, and whose ends are decided if ``final`` says by whom."""
    words = b""
    for position in (0, 3 * LANE_SLOTS + 60):
        end = position + 4 << 2 | final if final else 0
        words += struct.pack("<QQ6Q6QQI", position, 9, 0, 5, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, end, 1)
    return words


def corpus_of(name: str, folder: Path) -> Path:
    corpus = folder / "corpus"
    corpus.mkdir()
    entries = struct.pack("<16I", *(number for i in range(8) for number in (4 * i, 4)))
    seeds: list[bytes] = []
    for image in lane_images():
        slots = image.ljust(LANE_SLOTS * 32, b"\0")[: LANE_SLOTS * 32]
        if name == "drain":
            seeds += [
                bytes([flags]) + lane_words(final) + entries + slots + slots
                for flags, final in ((0, 0), (2, 0), (6, 0), (6, 1), (6, 3), (0xFE, 0))
            ]
        elif name == "decode":
            entry = struct.pack("<IIQQII6Q", 1, 0, 5, 9, 1, 0, *[0] * 6)
            seeds.append(entry + struct.pack("<qqd", 100, 10**18, 0.5) + b"\xff" + image)
    if name == "pages":
        seeds = list(some_pages())
    if name == "names":
        seeds += [struct.pack("<2I", 4, 20) + entries * 2 + struct.pack("<32I", *range(32))]
    for number, seed in enumerate(seeds):
        (corpus / f"{number:03d}").write_bytes(seed)
    return corpus


def some_pages() -> Iterator[bytes]:
    """Yield the pages of each column of a part, and the texts of a dictionary alone."""
    sink = pa.BufferOutputStream()
    names = pa.array([f"metric {i % 9}" for i in range(40)]).dictionary_encode()
    table = pa.table({"step": list(range(40)), "name": names, "lane": [i % 3 for i in range(40)]})
    pq.write_table(table, sink, compression="snappy", use_dictionary=["name", "lane"], write_page_checksum=True)
    data = sink.getvalue()
    group = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0)
    for column in map(group.column, range(group.num_columns)):
        begin = column.dictionary_page_offset or column.data_page_offset
        yield data.to_pybytes()[begin : begin + column.total_compressed_size]
        yield data.to_pybytes()[begin : column.data_page_offset]


def fuzz(
    program: Path, folder: Path, seed: int, name: str, *, seconds: int, runs: int = -1
) -> subprocess.CompletedProcess[str]:
    corpus = corpus_of(name, folder)
    command = [
        str(program), f"-seed={seed % 2**31 + 1}", f"-max_total_time={seconds}", f"-runs={runs}", "-max_len=7000",
        "-timeout=5", "-rss_limit_mb=1024", f"-artifact_prefix={folder}/", "-print_final_stats=1", str(corpus),
    ]  # fmt: skip
    return subprocess.run(
        command, env=OPTIONS, capture_output=True, text=True, errors="replace", check=False, timeout=seconds + 120
    )


def executions(done: subprocess.CompletedProcess[str]) -> int:
    found = re.search(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
    assert found, done.stderr
    return int(found[1])


@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_lead_out_of_bounds_or_to_a_wrong_value(name: str, tmp_path: Path, full: bool, seed: int) -> None:
    program = build(name, tmp_path)
    done = fuzz(program, tmp_path, seed, name, seconds=SECONDS_FULL if full else SECONDS_CI)
    assert done.returncode == 0, f"I11: {name}, --seed={seed}, input in {tmp_path}:\n{done.stderr[-6000:]}"
    print(f"{name}: {executions(done)} executions")
    assert executions(done) > 1000


MISTAKES = {
    "an owner of any length": (
        "drain",
        "core/lane.c",
        "count <= SHMLOG_OWNER_BYTES_MAX && !unit->flags ? slots : 0",
        "count <= UINT32_MAX && !unit->flags ? slots : 0",
    ),
    "members that are not looked at": (
        "drain",
        "core/lane.c",
        "unit->slots > room || !members_are_whole(lane, position, unit->slots)",
        "unit->slots > room || !members_are_whole(lane, position, 1)",
    ),
    "a unit that is longer than the lane": (
        "drain",
        "core/lane.c",
        "unit->slots > room || !members_are_whole(lane, position, unit->slots)",
        "!members_are_whole(lane, position, unit->slots % (room + 1))",
    ),
    "a gap that is added, not taken as a total": (
        "drain",
        "core/frame.c",
        "cursor->seq += counts[reason] - cursor->gapped[reason];",
        "cursor->seq += counts[reason];",
    ),
    "a name whose text lies outside": (
        "names",
        "core/names.c",
        "entry.offset > SHMLOG_NAME_TEXT_BYTES - entry.bytes",
        "entry.offset > SHMLOG_NAME_TEXT_BYTES",
    ),
    "bytes behind the last slot": (
        "decode",
        "bulk/decode.c",
        "    if (count > at->entry->slots - i) {",
        "    if (count > at->entry->slots) {",
    ),
    "a copy of what stands before the texts": (
        "pages",
        "bulk/pages.c",
        "back > 0 && back <= *at && put(",
        "back > 0 && put(",
    ),
    "texts that are more than there is room for": (
        "pages",
        "bulk/pages.c",
        "    if (bytes > room_bytes - *at) {",
        "    if (bytes > room_bytes) {",
    ),
    "bytes behind the end of a page": (
        "pages",
        "bulk/pages.c",
        "        in->bad |= bytes > in->size - in->at;",
        "        in->bad |= bytes > in->size;",
    ),
    "a row that ends in the middle of a record": (
        "decode",
        "bulk/decode.c",
        "return records == 0 && next == i + length ? length : 0;",
        "return records == 0 ? length : 0;",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake: str, tmp_path: Path, seed: int) -> None:
    name, source, right, wrong = MISTAKES[mistake]
    program = build(name, tmp_path, mutated(tmp_path, source, right, wrong))
    done = fuzz(program, tmp_path, seed, name, seconds=SECONDS_OF_A_MISTAKE, runs=EXECUTIONS_OF_A_MISTAKE)
    assert done.returncode != 0, f"{mistake}: not seen in {executions(done)} executions"

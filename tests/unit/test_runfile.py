"""Small files with a checksum: no damage, that of the checksum and of its key included, is believed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmlog.errors import UnreadableError
from shmlog.folder import runfile

TOLD = {"schema": 1, "status": "running", "segment": None, "complete": False}
DATA = runfile.sealed(runfile.render(TOLD))


def test_a_file_is_intact_with_its_checksum_and_without_any() -> None:
    assert runfile.is_intact(DATA)
    assert runfile.is_intact(runfile.render(TOLD).encode())
    assert runfile.is_intact(b'{\n  "mine": "0badcafe"\n}\n'), "the user's own"


def damages() -> Iterator[bytes]:
    """Yield the file with each bit flipped, and with a byte put in or left out at each place."""
    for at in range(len(DATA)):
        for bit in range(8):
            yield DATA[:at] + bytes([DATA[at] ^ 1 << bit]) + DATA[at + 1 :]
        yield DATA[:at] + b"x" + DATA[at:]
        yield DATA[:at] + DATA[at + 1 :]


def test_no_damage_is_read_in_silence() -> None:
    for damaged in damages():
        try:
            found = runfile.parse(Path("run.yaml"), damaged)
        except UnreadableError:
            continue
        assert found == TOLD or not runfile.is_intact(damaged), f"I11: {damaged!r}"


def test_a_file_is_replaced_by_one_that_is_whole_and_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    runfile.write(path, {"x": 1})
    old = path.read_bytes()
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(path.read_bytes()))
    runfile.write(path, {"x": 2})
    assert synced == [old, path.read_bytes()], "P5: the new one, then the folder"


@pytest.mark.parametrize("value", [{"x": 1}, {"x": [1.5, None, True, "ü\u2028"]}, {"crc32_above": "00000000"}])
def test_what_is_written_is_read(tmp_path: Path, value: dict[str, object]) -> None:
    runfile.write_sealed(tmp_path / "file", value)
    assert runfile.is_intact((tmp_path / "file").read_bytes())
    expected = {key: item for key, item in value.items() if key != "crc32_above"}
    assert runfile.read(tmp_path / "file") == expected

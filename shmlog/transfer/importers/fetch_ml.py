"""A folder of fetch_ml: meta.bin, metrics.bin and files/. All numbers are big-endian.

meta.bin: version u8 = 1, seconds i64, then commit, job and user, each a length u8 and UTF-8.
metrics.bin: records of seconds i64, step u32, value f64, length u8, and the name.
"""

from __future__ import annotations

import struct
from pathlib import Path

from shmlog.base.times import time_in_range, timestamp
from shmlog.errors import RefusedError, UnreadableError
from shmlog.transfer.imported import ImportedRun, files_below

_RECORD = struct.Struct(">qIdB")
_META = struct.Struct(">Bq")
_META_BYTES_MAX = 1 << 16
_FIELDS = ("commit", "job", "user")


def read(path: Path) -> ImportedRun:
    """Return the run that the folder holds.

    Raises
    ------
    RefusedError
        If there is neither meta.bin nor metrics.bin.
    """
    run = ImportedRun(experiment=path.parent.name)
    if not path.is_dir() or not any((path / name).is_file() for name in ("meta.bin", "metrics.bin")):
        raise RefusedError(f"{path}: not a folder of fetch_ml: it has neither meta.bin nor metrics.bin")
    _read_meta(path, run)
    _read_metrics(path, run)
    files = files_below(path / "files", run.problems) if (path / "files").is_dir() else {}
    run.artifacts = {f"files/{name}": file for name, file in files.items()}
    return run


def _read_meta(path: Path, run: ImportedRun) -> None:
    try:
        data = run.read("meta.bin", path / "meta.bin", _META_BYTES_MAX)
    except FileNotFoundError:
        run.problems.add("meta.bin", "meta.bin is missing")
        return
    except (UnreadableError, OSError) as error:
        run.problems.add("meta.bin", f"meta.bin can't be read ({error})")
        return
    if len(data) < _META.size:
        run.problems.add("meta.bin", f"meta.bin has {len(data)} bytes: too short for a version and a time")
        return
    version, seconds = _META.unpack_from(data)
    if version != 1:
        run.problems.add("meta.bin", f"meta.bin has version {version}; only 1 is known")
        return
    if time_in_range(seconds * 1_000_000):
        run.described.created_at = run.described.started_at = timestamp(seconds * 1_000_000)
    else:
        run.problems.add("meta.bin", f"meta.bin: {seconds} is not a time")
    _describe(run, _texts(data, run))


def _texts(data: bytes, run: ImportedRun) -> dict[str, str]:
    texts: dict[str, str] = {}
    at = _META.size
    for name in _FIELDS:
        if at == len(data):
            run.problems.add("meta.bin", f"meta.bin ends before its {name}")
            return texts
        size = data[at]
        text = data[at + 1 : at + 1 + size]
        if len(text) < size:
            run.problems.add("meta.bin", f"meta.bin: the {name} of {size} bytes is cut after {len(text)}")
            return texts
        texts[name] = _decode(text, f"meta.bin: {name}", run)
        at += 1 + size
    if at < len(data):
        run.problems.add("meta.bin", f"meta.bin: {len(data) - at} bytes behind the last text")
    return texts


def _describe(run: ImportedRun, texts: dict[str, str]) -> None:
    if texts.get("commit"):
        run.described.git = {"commit": texts["commit"]}
    if texts.get("job"):
        run.experiment = run.described.name = run.described.job_name = texts["job"]
    if texts.get("user"):
        run.described.user = texts["user"]


def _decode(text: bytes, where: str, run: ImportedRun) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        run.problems.add("names that are not UTF-8", f"{where}: not UTF-8; invalid bytes are written as \\x..")
        return text.decode("utf-8", "backslashreplace")


def _read_metrics(path: Path, run: ImportedRun) -> None:
    try:
        data = run.read("metrics.bin", path / "metrics.bin")
    except FileNotFoundError:
        return  # the run has logged nothing
    except (UnreadableError, OSError) as error:
        run.problems.add("metrics.bin", f"metrics.bin can't be read ({error})")
        return
    at = 0
    while at + _RECORD.size <= len(data):
        seconds, step, value, size = _RECORD.unpack_from(data, at)
        name = data[at + _RECORD.size : at + _RECORD.size + size]
        if len(name) < size:
            break
        where = f"metrics.bin, byte {at}"
        ts = seconds * 1_000_000
        if not time_in_range(ts):
            run.problems.add("times", f"{where}: {seconds} is not a time; 1970 instead")
            ts = 0
        run.add(where, _decode(name, where, run), step, value, ts, {})
        at += _RECORD.size + size
    if at < len(data):
        run.problems.add("metrics.bin", f"metrics.bin: a torn record of {len(data) - at} bytes at byte {at}; left out")

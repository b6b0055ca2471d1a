"""TensorBoard event files, read with TensorBoard's own package: scalars, texts and hyperparameters."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shmlog.base.extras import import_extra
from shmlog.base.times import time_in_range
from shmlog.errors import RefusedError
from shmlog.folder.description import Description
from shmlog.transfer.exporters.tensorboard import PARAMS_TAG
from shmlog.transfer.imported import ImportedRun
from shmlog.transfer.importers.exported_table import add_description

_PLUGIN_OF = {"image": "images", "histo": "histograms", "audio": "audio", "obsolete_old_style_histogram": "histograms"}


def read(path: Path) -> ImportedRun:
    """Return the run that an event file, or all event files of a folder, describe.

    Raises
    ------
    RefusedError
        If the folder has no event file.
    MissingExtraError
        If the package tensorboard is missing.
    """
    import_extra("tensorboard.compat.proto.event_pb2", "event files")
    run = ImportedRun(experiment=(path if path.is_dir() else path.parent).name)
    paths = sorted(p for p in path.iterdir() if "tfevents" in p.name) if path.is_dir() else [path]
    if not paths:
        raise RefusedError(f"{path}: there is no event file in it")
    _note_other_folders(path, run)
    reading = _Reading(run)
    for file in paths:
        if file.is_symlink() or not file.is_file():
            run.problems.add("files left out", f"{file.name}: not a regular file; left out")
            continue
        run.files[file.name if path.is_dir() else "events"] = file
        for event in _events(file, run):
            reading.add(file.name, event)
    reading.close()
    return run


def _note_other_folders(path: Path, run: ImportedRun) -> None:
    for place, _, names in os.walk(path) if path.is_dir() else ():
        if Path(place) != path and any("tfevents" in name for name in names):
            run.problems.add("folders left out", f"{place} is a run of its own: import it by itself")


def _events(path: Path, run: ImportedRun) -> Iterator[Any]:
    """Yield the events of a file up to its end, or up to where it is damaged."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub import errors
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    reader = PyRecordReader_New(os.fspath(path))
    count = 0
    while True:
        try:
            reader.GetNext()
            yield Event.FromString(reader.record())
        except errors.OutOfRangeError:
            return
        except DecodeError:
            run.problems.add("events", f"{path.name}: event {count} can't be decoded; left out")
        except (errors.DataLossError, OverflowError) as error:
            why = str(error).removeprefix(f"{path} ") or type(error).__name__
            run.problems.add("events", f"{path.name}: damaged after {count} events; the rest is left out ({why})")
            return
        count += 1


class _Reading:
    def __init__(self, run: ImportedRun) -> None:
        self._run = run
        self._times: list[int] = []

    def add(self, where: str, event: Any) -> None:
        """Add what an event holds to the run."""
        if event.WhichOneof("what") == "file_version":
            return
        ts = (
            round(event.wall_time * 1e6)
            if math.isfinite(event.wall_time) and abs(event.wall_time) < 1e12
            else -(1 << 62)
        )
        if not time_in_range(ts):
            self._run.problems.add("times", f"{where}: {event.wall_time} is not a time; 1970 instead")
            ts = 0
        for value in event.summary.value:
            self._add_value(where, event.step, ts, value)
        if not event.HasField("summary"):
            kind = event.WhichOneof("what") or "empty event"
            self._run.problems.add(f"{kind}: left out", f"{where}: a {kind}; left out")

    def _add_value(self, where: str, step: int, ts: int, value: Any) -> None:
        plugin, which = value.metadata.plugin_data.plugin_name, value.WhichOneof("value")
        if plugin == "hparams":
            self._add_params(where, value.metadata.plugin_data.content)
            return
        if which == "simple_value":
            self._add(where, value.tag, step, value.simple_value, ts)
        elif which == "tensor":
            self._add_tensor(where, step, ts, value, plugin)
        else:
            kind = _PLUGIN_OF.get(which, which or "nothing")
            self._run.problems.add(f"{kind}: left out", f"{where}: {value.tag!r} holds {kind}; left out")

    def _add_tensor(self, where: str, step: int, ts: int, value: Any, plugin: str) -> None:
        from tensorboard.util.tensor_util import make_ndarray

        count = math.prod(dim.size for dim in value.tensor.tensor_shape.dim)
        try:
            item = make_ndarray(value.tensor).item() if count == 1 else None
        except MemoryError:
            raise
        except Exception:  # a tensor whose parts do not fit can fail in any way
            item = None
        if isinstance(item, bytes):
            item = self._text(where, value.tag, item)
        if item is None or not isinstance(item, (bool, int, float, str)):
            sort = plugin or "tensors"
            self._run.problems.add(f"{sort}: left out", f"{where}: {value.tag!r} holds {sort}; left out")
        elif value.tag == PARAMS_TAG and isinstance(item, str):
            self._add_description(where, item)
        else:
            self._add(where, value.tag.removesuffix("/text_summary"), step, item, ts)

    def _text(self, where: str, tag: str, data: bytes) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            self._run.problems.add("texts that are not UTF-8", f"{where}: {tag!r}: invalid bytes are written as \\x..")
            return data.decode("utf-8", "backslashreplace")

    def _add(self, where: str, tag: str, step: int, value: Any, ts: int) -> None:
        if ts:
            self._times.append(ts)
        self._run.add(where, tag, step, value, ts, {})

    def _add_description(self, where: str, text: str) -> None:
        try:
            add_description(self._run, json.loads(text))
        except (ValueError, RecursionError) as error:
            self._run.problems.add("description", f"{where}: the description of its run is damaged ({error})")

    def _add_params(self, where: str, content: bytes) -> None:
        from google.protobuf.message import DecodeError
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        try:
            hparams = HParamsPluginData.FromString(content)
        except DecodeError:
            self._run.problems.add("hparams", f"{where}: hyperparameters that can't be decoded; left out")
            return
        for name, value in hparams.session_start_info.hparams.items():
            kind = value.WhichOneof("kind")
            if kind in ("number_value", "string_value", "bool_value"):
                self._run.params[name] = getattr(value, kind)
            else:
                self._run.problems.add("hparams", f"{where}: {name!r} has no plain value; left out")
        status = {2: "failed", 1: "success", 3: "running"}.get(hparams.session_end_info.status)
        if status:
            self._run.status = status

    def close(self) -> None:
        """Set when the run began and ended, unless the file says so itself."""
        if self._times:
            known = {name: text for name, text in self._run.described.mapping.items() if text is not None}
            self._run.lasted(min(self._times), max(self._times))
            self._run.described = Description({**self._run.described.mapping, **known})

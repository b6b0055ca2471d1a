"""What the events of TensorBoard hold: scalars, texts, hyperparameters, media, histograms, curves, graphs."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

from shmlog.base.plain import plain
from shmlog.base.times import time_in_range
from shmlog.transfer.exporters.tensorboard import PARAMS_TAG
from shmlog.transfer.imported import Problems, Rows

_OLD_KINDS = {"obsolete_old_style_histogram": "histograms"}
_STATUS = {1: "success", 2: "failed", 3: "running"}
_MAGIC = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".wav", b"BM": ".bmp"}
_PR_ROWS = ("true_positives", "false_positives", "true_negatives", "false_negatives", "precision", "recall")
_GRAPHS = ("graph_def", "meta_graph_def")


class Values:
    """What the event files of one folder hold.

    Attributes
    ----------
    rows : Rows
        Scalars, and texts of one piece.
    names : Counter
        How many records each metric has.
    events : list of dict
        ``histogram``, ``pr_curve``, ``text``, ``media`` and ``checkpoint`` events, as the events of an `ImportedRun`.
    artifacts : dict of str to bytes
        Pictures, sounds and graphs.
    params : dict
        Hyperparameters.
    status : str or None
        How the session of the hyperparameters has ended.
    export : object
        What an export of ours says of its run; None in files of others.
    problems : Problems
        What is left out.
    """

    def __init__(self) -> None:
        self.rows, self.names, self.problems = Rows(), Counter[str](), Problems()
        self.events: list[dict[str, Any]] = []
        self.artifacts: dict[str, bytes] = {}
        self.params: dict[str, Any] = {}
        self.has_session = False
        self.status: str | None = None
        self.export: Any = None
        self._plugins: dict[str, str] = {}  # by tag: some writers name the plugin in the first value alone
        self._media = Counter[str]()

    def add(self, where: str, event: Any, ts_us: int) -> None:
        """Add what an event holds."""
        kind = event.WhichOneof("what")
        for value in event.summary.value:
            self._add_value(where, event.step, ts_us, value)
        if kind in _GRAPHS:
            self._add_artifact(f"tensorboard/{kind}", event.step, ".pb", getattr(event, kind))
        elif kind == "tagged_run_metadata":
            self._add_artifact("tensorboard/run_metadata", event.step, ".pb", event.tagged_run_metadata.run_metadata)
        elif kind == "session_log":
            if event.session_log.checkpoint_path:
                self._add_event("checkpoint", event.step, ts_us, path=event.session_log.checkpoint_path)
        elif kind not in ("summary", "file_version"):
            kind = kind or "empty event"
            self._leave_out(where, kind, f"a {kind}")

    def _add_value(self, where: str, step: int, ts_us: int, value: Any) -> None:
        plugin = value.metadata.plugin_data.plugin_name
        if plugin == "hparams":
            self._add_params(where, value.metadata.plugin_data.content)
            return
        plugin, which = self._plugins.setdefault(value.tag, plugin), value.WhichOneof("value")
        if which == "simple_value":
            self._add_record(where, value.tag, step, value.simple_value, ts_us)
        elif which == "tensor":
            self._add_tensor(where, step, ts_us, value, plugin)
        elif which == "image":
            self._add_media(where, value.tag, step, ts_us, value.image.encoded_image_string)
        elif which == "audio":
            self._add_media(where, value.tag, step, ts_us, value.audio.encoded_audio_string)
        elif which == "histo":
            self._add_event("histogram", step, ts_us, tag=value.tag, **_histogram(value.histo))
        else:
            kind = _OLD_KINDS.get(which, which or "nothing")
            self._leave_out(where, kind, f"{value.tag!r} holds {kind}")

    def _add_record(self, where: str, tag: str, step: int, value: Any, ts_us: int) -> None:
        fault = self.rows.add(tag, step, value, ts_us)
        if fault:
            self.problems.add("records left out", f"{where}: {fault}")
        else:
            self.names[tag] += 1

    def _add_event(self, event_type: str, step: int, ts_us: int, **data: Any) -> None:
        data = {"step": step, **{name: value for name, value in data.items() if value is not None}}
        self.events.append({"timestamp": ts_us, "event_type": event_type, "data": plain(data)})

    def _leave_out(self, where: str, sort: str, what: str) -> None:
        self.problems.add(f"{sort}: left out", f"{where}: {what}; left out")

    # ---- media ----

    def _add_media(self, where: str, tag: str, step: int, ts_us: int, data: bytes) -> None:
        if not data:
            self._leave_out(where, "media", f"{tag!r} holds a picture or sound of no bytes")
            return
        suffix = next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), ".bin")
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", tag).strip("._")[:80] or "media"
        file = self._add_artifact(f"media/{stem}", step, suffix, data)
        self._add_event("media", step, ts_us, tag=tag, file=file, bytes=len(data))

    def _add_artifact(self, stem: str, step: int, suffix: str, data: bytes) -> str:
        """Keep the content of a file; return its name, which no other has."""
        name = f"{stem}-{step:08d}"
        self._media[name] += 1
        name = f"{name}{suffix}" if self._media[name] == 1 else f"{name}.{self._media[name]}{suffix}"
        self.artifacts[name] = data
        return name

    # ---- tensors ----

    def _add_tensor(self, where: str, step: int, ts_us: int, value: Any, plugin: str) -> None:
        from tensorboard.util.tensor_util import make_ndarray

        try:
            array = make_ndarray(value.tensor)
            is_taken = self._add_array(where, value.tag, step, ts_us, array=array, plugin=plugin)
        except MemoryError:
            raise
        except Exception:  # a tensor whose parts do not fit can fail in any way
            is_taken = False
        if not is_taken:
            self._leave_out(where, plugin or "tensors", f"{value.tag!r} holds {plugin or 'tensors'}")

    def _add_array(self, where: str, tag: str, step: int, ts_us: int, *, array: Any, plugin: str) -> bool:
        """Add what a tensor holds; return False if that has no place in a run."""
        if plugin == "images":  # width and height, then pictures
            for data in array[2:]:
                self._add_media(where, tag, step, ts_us, bytes(data))
        elif plugin == "audio":  # sounds, or sounds with their labels
            for data in array if array.ndim == 1 else array[:, 0]:
                self._add_media(where, tag, step, ts_us, bytes(data))
        elif plugin == "histograms":
            left, right, counts = array.reshape(-1, 3).T.tolist()
            edges = [*left, right[-1]] if right else []
            self._add_event("histogram", step, ts_us, tag=tag, edges=edges, counts=_whole(counts))
        elif plugin == "pr_curves":
            rows = dict(zip(_PR_ROWS, array.tolist(), strict=True))
            self._add_event("pr_curve", step, ts_us, tag=tag, **rows)
        elif array.dtype.kind in "OSU":
            self._add_text(where, tag, step, ts_us, array)
        elif array.size == 1:
            self._add_record(where, tag, step, array.item(), ts_us)
        else:
            return False
        return True

    def _add_text(self, where: str, tag: str, step: int, ts_us: int, array: Any) -> None:
        texts, tag = self._decoded(where, tag, array.tolist()), tag.removesuffix("/text_summary")
        if array.size != 1:
            self._add_event("text", step, ts_us, tag=tag, text=texts)
            return
        while isinstance(texts, list):
            (texts,) = texts
        if tag != PARAMS_TAG:
            self._add_record(where, tag, step, texts, ts_us)
            return
        try:
            self.export = json.loads(texts)
        except (ValueError, RecursionError) as error:
            self.problems.add("description", f"{where}: the description of its run is damaged ({error})")

    def _decoded(self, where: str, tag: str, texts: Any) -> Any:
        if isinstance(texts, list):
            return [self._decoded(where, tag, text) for text in texts]
        try:
            return texts.decode("utf-8") if isinstance(texts, bytes) else str(texts)
        except UnicodeDecodeError:
            self.problems.add("texts that are not UTF-8", f"{where}: {tag!r}: invalid bytes are written as \\x..")
            return texts.decode("utf-8", "backslashreplace")

    # ---- hyperparameters ----

    def _add_params(self, where: str, content: bytes) -> None:
        from google.protobuf.json_format import MessageToDict
        from google.protobuf.message import DecodeError
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        try:
            hparams = HParamsPluginData.FromString(content)
        except DecodeError:
            self.problems.add("hparams", f"{where}: hyperparameters that can't be decoded; left out")
            return
        self.has_session |= hparams.HasField("session_start_info")
        for name, value in hparams.session_start_info.hparams.items():
            kind = value.WhichOneof("kind")
            if kind in ("number_value", "string_value", "bool_value"):
                self.params[name] = getattr(value, kind)  # a number can be NaN, which the other way refuses
            elif kind is not None:
                self.params[name] = MessageToDict(value)
            else:
                self.problems.add("hparams", f"{where}: {name!r} has no value; left out")
        self.status = _STATUS.get(hparams.session_end_info.status, self.status)


def _histogram(histogram: Any) -> dict[str, Any]:
    """Return edges and counts, and what the writer knew of the values themselves."""
    limits, counts = list(histogram.bucket_limit), list(histogram.bucket)
    if len(limits) > 1 and counts[:1] == [0]:  # what lies left of the first edge
        edges, counts = limits, counts[1:]
    else:
        edges = [min(histogram.min, *limits[:1]), *limits]
    known = {name: getattr(histogram, name) for name in ("min", "max", "num", "sum", "sum_squares")}
    return {"edges": edges, "counts": _whole(counts), **known}


def _whole(numbers: list[float]) -> list[float]:
    return [int(number) if math.isfinite(number) and number == int(number) else number for number in numbers]


def time_of(event: Any) -> int | None:
    """Return the time of an event in µs since 1970, or None if it is not a time."""
    if not math.isfinite(event.wall_time) or abs(event.wall_time) > 1e12:
        return None
    ts_us = round(event.wall_time * 1e6)
    return ts_us if time_in_range(ts_us) else None

"""Records of trueno-db and of entrenar's tracker, in JSON as serde writes them; a file may hold those of several runs.

trueno-db has an ExperimentRecord, RunRecord, MetricRecord and ArtifactRecord; entrenar's tracker has a RunRecord of its
own, with the metrics in it.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from shmlog.base.plain import plain
from shmlog.base.times import timestamp
from shmlog.errors import CorruptDataError, RefusedError
from shmlog.reader.foreign import time_us
from shmlog.records.values import is_text
from shmlog.transfer.imported import ImportedRun, fit_name

# By kind, the fields by which a record is known. The order counts: a record is of the first kind whose fields it has.
_KINDS = {
    "metric": {"run_id", "key", "step", "value"},
    "artifact": {"run_id", "key", "cas_hash"},
    "tracked": {"run_id", "experiment_name", "metrics"},
    "run": {"run_id", "experiment_id", "status"},
    "experiment": {"experiment_id", "name", "created_at"},
}
_STATUS = {"active": "running"}
_DEPTH = 3  # of the lists and objects that hold records


def kind_of(record: object) -> str | None:
    """Return the kind of a record, or None for anything else."""
    if not isinstance(record, dict):
        return None
    return next((kind for kind, fields in _KINDS.items() if fields <= record.keys()), None)


def has_records(document: object) -> bool:
    """Whether a document holds such records: one, a list of them, or an object with some."""
    return next(_records(document, _DEPTH), None) is not None


def _records(document: object, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the records of a document and their kinds."""
    kind = kind_of(document)
    if kind is not None and isinstance(document, dict):
        yield kind, document
    elif depth and isinstance(document, list | dict):
        for part in document.values() if isinstance(document, dict) else document:
            yield from _records(part, depth - 1)


def read_document(path: Path, place: Path, document: object) -> ImportedRun:
    """Return the run that the records of a file describe, or that of a path ``FILE/RUN_ID``; its runs, if several.

    Raises
    ------
    CorruptDataError
        If there are texts that are not valid.
    RefusedError
        If there is no such run.
    """
    if not is_text(json.dumps(document, ensure_ascii=False)):
        raise CorruptDataError(f"{place}: half a character in a text")
    by_run: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    experiments: dict[str, dict[str, Any]] = {}
    for kind, record in _records(document, _DEPTH):
        if kind == "experiment":
            experiments[str(record["experiment_id"])] = record
        else:
            by_run[str(record["run_id"])][kind].append(record)
    run_id = choose(path, place, list(by_run))
    if run_id is None:
        return several(place, list(by_run))
    own = by_run[run_id]
    if own["tracked"]:
        run = _of_tracker(own["tracked"][-1])
    else:
        record = (own["run"] or [{"run_id": run_id}])[-1]  # a later one replaces an earlier one, as in its store
        experiment = experiments.get(str(record.get("experiment_id")), {})
        run = run_of(experiment, record, own["metric"])
    for record in own["artifact"]:
        _add_artifact(run, record)
    identity = [run_id, own, run.experiment]
    run.identity = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return run


# ---- which run ----


def choose(path: Path, place: Path, run_ids: list[str]) -> str | None:
    """Return the id of the run that a path means; None if it means several."""
    if path != place:
        for run_id in run_ids:
            if path.name == quote(run_id, safe=""):
                return run_id
        raise RefusedError(f"{place}: holds no run {path.name!r}, but {len(run_ids)} others")
    if not run_ids:
        raise RefusedError(f"{place}: holds no run")
    return run_ids[0] if len(run_ids) == 1 else None


def several(place: Path, run_ids: list[str]) -> ImportedRun:
    """Return what names the runs of a source."""
    return ImportedRun("", further=[str(place / quote(run_id, safe="")) for run_id in run_ids])


# ---- one run ----


def run_of(experiment: dict[str, Any], record: dict[str, Any], metrics: Iterable[dict[str, Any]]) -> ImportedRun:
    """Return the run of a RunRecord, with the metrics of MetricRecords, and with what is said of its experiment."""
    name = experiment.get("name") or record.get("experiment_id") or "imported"
    run = ImportedRun(fit_name(name))
    run.described.name = str(record["run_id"])
    run.of_experiment = {"display_name": str(name)}
    if isinstance(record.get("renacer_span_id"), str):
        run.described.span_id = record["renacer_span_id"]
    status = record.get("status")
    run.status = _STATUS.get(str(status).lower(), str(status)) if status is not None else "pending"
    _add_params(run, experiment.get("config"))
    times = [time for time in (_time(run, record, name) for name in ("started_at", "ended_at")) if time is not None]
    for number, metric in enumerate(metrics):
        ts_us = _add_metric(run, number, metric, times)
        if ts_us:
            times.append(ts_us)
    if times:
        started, ended = (_time(run, record, name) for name in ("started_at", "ended_at"))
        run.lasted(min(times) if started is None else started, max(times) if ended is None else ended)
    return run


def _add_metric(run: ImportedRun, number: int, metric: dict[str, Any], times: list[int]) -> int:
    where, value, ts_us = f"metric {number}", metric.get("value"), times[-1] if times else 0
    step = run.step(where, metric.get("step"), number)
    if step is None:
        return 0
    if value is None:
        run.notes.add("null", f"{where}: its value is null, as serde writes NaN and infinities; read as NaN")
        value = float("nan")
    elif type(value) is int:
        value = float(value)  # of a program that writes 1.0 as 1
    if "timestamp" in metric:
        ts_us = run.time(where, metric["timestamp"], instead_us=ts_us)
    run.add(where, metric["key"], step, value, ts_us, owner={})
    return ts_us


def _add_params(run: ImportedRun, config: object) -> None:
    if config is None:
        return
    try:
        run.params |= plain(config if isinstance(config, dict) else {"config": config})
    except ValueError as error:
        run.problems.add("config", f"the configuration is left out: {error}")


def _time(run: ImportedRun, record: dict[str, Any], name: str) -> int | None:
    value = record.get(name)
    ts_us = time_us(value)
    if value is not None and ts_us is None:
        run.problems.add("times", f"{name} {value!r} is not a time")
    return ts_us


def _add_artifact(run: ImportedRun, record: dict[str, Any]) -> None:
    """Add what is said of an artifact; its content is in no record."""
    ts_us = run.time(f"artifact {record['key']!r}", record.get("created_at"))
    data = {"name": record["key"], "size_bytes": record.get("size_bytes"), "digest": record["cas_hash"]}
    run.events.append({"timestamp": ts_us, "event_type": "artifact_record", "data": plain(data)})
    run.notes.add("artifacts", f"artifact {record['key']!r} was logged, and is not in the source")


def _of_tracker(record: dict[str, Any]) -> ImportedRun:
    """Return the run of entrenar's tracker: it knows times of runs alone, and of artifacts their paths."""
    metrics = [
        {"key": key, **point}
        for key, points in (record["metrics"] if isinstance(record["metrics"], dict) else {}).items()
        for point in (points if isinstance(points, list) else [])
        if isinstance(point, dict)
    ]
    times = {name: record.get(f"{name.removesuffix('ed_at')}_time_ms") for name in ("started_at", "ended_at")}
    run = run_of(
        {"name": record["experiment_name"], "config": record.get("params")},
        {
            "run_id": record["run_id"], "status": record.get("status"),
            **{name: timestamp(time * 1000) for name, time in times.items() if type(time) is int},
        },
        metrics,
    )  # fmt: skip
    if metrics:
        run.notes.add("times", "the metrics have no times of their own; they have that of the run's start or end")
    run.described.name = str(record.get("run_name") or record["run_id"])
    run.described.tags = tags_of(record.get("tags"))
    for path in record.get("artifacts") or []:
        run.problems.add("artifacts", f"artifact {path!r} was logged by its path, and is not in the source")
    return run


def tags_of(tags: object) -> list[str]:
    """Return a map of tags as tags of ours."""
    return [f"{key}:{value}" for key, value in tags.items()] if isinstance(tags, dict) else []

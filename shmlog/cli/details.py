"""The description of a run as text for people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from shmlog.base.times import duration, read_time
from shmlog.cli.output import command, to_json
from shmlog.cli.text import clean, local_time, paragraph, plural, relative, size, statistic, table, value
from shmlog.reader.model import flat_params

_PRODUCER = ("lane", "pid", "rank", "worker", "process", "metrics", "events", "dropped")
_METRIC = ("name", "kind", "count", "last", "min", "max")
_INDENT = 9

# Longer lists are folded, or their end is left out, unless all of it is asked for.
_PARAMS_MAX, _ARTIFACTS_MAX, _METRICS_MAX, _PRODUCERS_MAX = 30, 10, 50, 12


def lines(description: dict[str, Any], *, everything: bool, pattern: str | None) -> Iterator[str]:
    """Yield the lines that describe a run, its failure first.

    Parameters
    ----------
    description : dict
        What ``shmlog show --json`` prints.
    everything : bool
        Whether long lists are whole.
    pattern : str or None
        Show metrics of these names alone.
    """
    yield from _failure(description["failure"])
    yield from _head(description)
    params = [(name, _text(item)) for name, item in flat_params(description["config"]).items()]
    yield from _section("parameter", params, None if everything else _PARAMS_MAX, "parameter")
    yield from _section("result", [(name, _text(item)) for name, item in flat_params(description["results"]).items()])
    files = [(artifact["name"], size(artifact["size_bytes"])) for artifact in description["artifacts"]]
    yield from _section("artifact", files, None if everything else _ARTIFACTS_MAX, "artifact")
    if description["producers"]:
        yield ""
        yield from table(_PRODUCER, _producers(description["producers"], everything), left=("process",))
    yield from _metrics(description["metrics"], everything, pattern)
    drops = {reason: count for reason, count in description["dropped"].items() if count}
    if drops:
        yield ""
        yield from table(("dropped because", "records"), drops.items(), left=("dropped because",))


def _failure(failure: dict[str, Any] | None) -> Iterator[str]:
    """Yield the error that a run has logged last, if it did not end well, with its traceback."""
    if failure is None:
        return
    data = failure["data"]
    kind, message = data.get("error_type", data.get("type")), data.get("error_message", data.get("message"))
    yield from paragraph("error", clean(f"{kind}: {message}" if kind else message), _INDENT)
    who = ", ".join(f"{key} {failure[key]}" for key in ("rank", "worker", "pid") if failure.get(key) is not None)
    yield from paragraph("", clean(f"{local_time(read_time(failure.get('timestamp')), seconds=True)}, {who}"), _INDENT)
    if data.get("context"):
        yield from paragraph("", clean(to_json(data["context"])), _INDENT)
    for line in str(data.get("traceback") or "").splitlines():
        yield f"  {clean(line)}"
    yield ""


def _section(title: str, rows: Sequence[tuple[str, str]], most: int | None = None, noun: str = "") -> Iterator[str]:
    """Yield names and texts, one a line, below an empty line; nothing if there are none."""
    if not rows:
        return
    yield ""
    yield from table((title, ""), rows[:most], left=(title, ""))
    if most is not None and len(rows) > most:
        yield f"… {plural(len(rows) - most, f'more {noun}')}; --all shows all"


def _metrics(metrics: Sequence[dict[str, Any]], everything: bool, pattern: str | None) -> Iterator[str]:
    wanted = [metric for metric in metrics if pattern is None or fnmatchcase(metric["name"], pattern)]
    shown = wanted if everything else wanted[:_METRICS_MAX]
    if shown:
        yield ""
        yield from table(_METRIC, map(_metric_cells, shown), left=("name", "kind"))
    if len(shown) < len(wanted):
        more = plural(len(wanted) - len(shown), "more metric")
        yield f"… {more}; --all shows all, --metric 'GLOB' those of a name"


def _producers(producers: Sequence[dict[str, Any]], everything: bool) -> Iterator[list[object]]:
    """Yield the cells of each producer; of many, a row for those of one rank, worker and kind of process."""
    if everything or len(producers) <= _PRODUCERS_MAX:
        yield from map(_producer_cells, producers)
        return
    roles: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for producer in producers:
        kind = re.sub(r"[-_:]?[0-9]+$", "", str(producer.get("process") or ""))
        roles.setdefault((producer.get("rank"), producer.get("worker"), kind), []).append(producer)
    for role, alike in roles.items():
        yield _producer_cells(alike[0]) if len(alike) == 1 else _role_cells(str(role[-1]), alike)


def _role_cells(kind: str, alike: Sequence[dict[str, Any]]) -> list[object]:
    processes = plural(sum(producer.get("tenancies", 1) for producer in alike), "process")
    ids = [_id(alike[0].get(key)) for key in ("rank", "worker")]
    sums = [sum(producer.get(key) or 0 for producer in alike) for key in ("metrics", "events")]
    dropped = sum(n for producer in alike for n in (producer.get("dropped") or {}).values())
    return [None, None, *ids, f"{processes} {kind}".rstrip(), *sums, dropped]


def _id(number: object) -> str | None:
    """Return an id as text: it is a name, not an amount, and has no thousands separators."""
    return None if number is None else str(number)


def _text(item: Any) -> str:
    return item if isinstance(item, str) else to_json(item) if isinstance(item, (list, dict)) else value(item)


def _head(description: dict[str, Any]) -> Iterator[str]:
    facts = {
        "run": f"{description['experiment']} / {description['id']}",
        "name": description["name"] if description["name"] != description["id"] else None,
        "folder": relative(Path(description["run_dir"])),
        "status": _status(description),
        "time": _times(description),
        "attempts": _attempts(description["attempts"]),
        "host": description["host"],
        "git": _git(description["git"]),
        "tags": ", ".join(map(str, tags if isinstance(tags := description["tags"], list) else [])),
        "group": description["group"],
        "about": description["description"],
        "pinned": "not deleted by prune or rm" if description["pinned"] else None,
        "records": _records(description),
    }
    for title, fact in facts.items():
        if fact:
            yield from paragraph(title, clean(fact), _INDENT)
    for i, note in enumerate(str(description["notes"] or "").splitlines()):
        yield from paragraph("notes" if i == 0 else "", clean(note), _INDENT)


def _status(description: dict[str, Any]) -> str:
    if description["unrecovered"]:
        remedy = command("recover", relative(Path(description["run_dir"])))
        return f"{description['status']}, unrecovered; finish it: {remedy}"
    if description["status"] == "running" and description["live"] is None:
        return "running, as far as can be seen from this machine"
    return str(description["status"])


def _git(state: object) -> str:
    """Return the commit, and what is known about changes since."""
    if not isinstance(state, dict) or not state.get("commit"):
        return ""
    branch = f" on {state['branch']}" if state.get("branch") else ", detached" if "branch" in state else ""
    changed = ", changed since" if state.get("dirty") else ""
    diff = f": {state['diff']}" if state.get("diff") else ""
    problem = f"; no diff: {state['diff_problem']}" if state.get("diff_problem") else ""
    return f"{str(state['commit'])[:12]}{branch}{changed}{diff}{problem}"


def _attempts(attempts: list[dict[str, Any]]) -> str:
    """Return the status of each attempt of a resumed run."""
    if len(attempts) == 1:
        return ""
    return ", ".join(f"{attempt['attempt']} {attempt.get('status') or 'unknown'}" for attempt in attempts)


def _times(description: dict[str, Any]) -> str:
    start = read_time(str(description["started_at"] or description["created_at"]))
    if start is None:
        return ""
    end = read_time(str(description["ended_at"]))
    seconds, paused = ((end or datetime.now(UTC)) - start).total_seconds(), description["paused_s"]
    began = local_time(start, seconds=True)
    if not end:
        return f"{began}, {duration(seconds)} ago"
    without = f" without the pauses of {duration(paused)}" if paused else ""
    return f"{began}, took {duration(seconds - paused)}{without}"


def _records(description: dict[str, Any]) -> str:
    counts = description["counts"]
    dropped = sum(description["dropped"].values())
    superseded = counts.get("superseded")
    apart = f"; {plural(superseded, 'metric')} superseded by a later attempt" if superseded else ""
    lost = sum(description["lost"].values())
    gone = f", {lost:,} LOST, see 'shmlog verify'" if description["lost"] else ""
    if description["segment_lost"]:
        gone += ", and what only its shared memory held LOST"
    return (
        f"{plural(counts['metrics'], 'metric')}, {plural(counts['events'], 'event')}, {dropped:,} dropped{gone}{apart}"
    )


def _producer_cells(producer: dict[str, Any]) -> list[object]:
    dropped = sum((producer.get("dropped") or {}).values())
    ids = [_id(producer.get(key)) for key in _PRODUCER[:4]]
    who = producer.get("process") or (f"{producer['tenancies']:,} producers" if "tenancies" in producer else None)
    return [*ids, who, producer.get("metrics"), producer.get("events"), dropped]


def _metric_cells(metric: dict[str, Any]) -> list[object]:
    values = [statistic(metric[key]) for key in ("last", "min", "max")]
    return [metric["name"], metric["kind"], metric["count"], *values]

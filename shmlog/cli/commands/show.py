"""``shmlog show``: the description of a run, its producers and its metrics."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shmlog.base.times import duration, read_time
from shmlog.cli.find import recover_dead, resolve_run
from shmlog.cli.output import command, print_json, say
from shmlog.cli.parser import FOUND, add_command, add_run_argument
from shmlog.cli.text import clean, paragraph, plural, relative, statistic, table
from shmlog.errors import UnreadableError
from shmlog.reader.summary import summarise

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.reader.stored import StoredRun

_EXAMPLE = """
shmlog show                      the newest run below ./runs
shmlog show runs/digits          the newest run of one experiment
shmlog show --json | jq .status
"""

_ANNOTATED = ("tags", "description", "notes", "group", "pinned")
_PRODUCER = ("lane", "pid", "rank", "worker", "process", "metrics", "events", "dropped")
_METRIC = ("name", "kind", "count", "last", "min", "max")


def add_parser(commands: Commands) -> None:
    """Add the command ``show``."""
    summary = "show a run's status, producers, metrics and drops"
    add_run_argument(add_command(commands, "show", run, summary, _EXAMPLE))


def run(args: argparse.Namespace) -> int:
    """Show one run."""
    import shmlog

    run_dir = resolve_run(args.path)
    recover_dead([run_dir])
    description = describe(shmlog.load(run_dir))
    if args.json:
        print_json(description)
    else:
        for line in _lines(description):
            print(line)
    if description["error"]:
        say(f"shmlog: error: {description['error']}")
    return FOUND if description["error"] else 0


def describe(stored: StoredRun) -> dict[str, Any]:
    """Return what ``show`` shows, as it goes into JSON.

    Damaged metrics are reported as ``error``; the rest is complete all the same.
    """
    metadata = {**stored.metadata, **stored.annotations}
    times = ("created_at", "started_at", "ended_at")
    return {
        "run_dir": str(stored.dir),
        "id": stored.id,
        "experiment": stored.experiment,
        "name": metadata.get("name"),
        "status": stored.status,
        "live": stored.live,
        "unrecovered": stored.unrecovered,
        **{key: metadata.get(key) for key in times},
        "host": metadata.get("host"),
        "git": metadata.get("git"),
        "environment": metadata.get("environment"),
        **{key: metadata.get(key) for key in _ANNOTATED},
        "attempts": stored.attempts,
        "paused_s": stored.paused_s,
        "config": stored.config,
        "dropped": stored.dropped,
        "lost": stored.lost,
        "segment_lost": stored.segment_lost,
        "producers": stored.producers,
        **_metrics(stored),
    }


def _metrics(stored: StoredRun) -> dict[str, Any]:
    """Return the metrics and their count, both without superseded records, as readers return them."""
    counts = stored.counts
    try:
        with warnings.catch_warnings(record=True) as left_out:
            warnings.simplefilter("always")
            summary = summarise(stored.portions(superseded=True))
    except UnreadableError as damage:
        return {"counts": counts, "metrics": [], "error": str(damage)}
    counts = {**counts, "metrics": summary.records, "superseded": summary.superseded}
    error = "; ".join(dict.fromkeys(str(warning.message) for warning in left_out)) or None
    return {"counts": counts, "metrics": summary.rows, "error": error}


def _lines(description: dict[str, Any]) -> Iterator[str]:
    yield from _head(description)
    if description["producers"]:
        yield ""
        yield from table(_PRODUCER, map(_producer_cells, description["producers"]), left=("process",))
    if description["metrics"]:
        yield ""
        yield from table(_METRIC, map(_metric_cells, description["metrics"]), left=("name", "kind"))
    drops = {reason: count for reason, count in description["dropped"].items() if count}
    if drops:
        yield ""
        yield from table(("dropped because", "records"), drops.items(), left=("dropped because",))


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
        "notes": description["notes"],
        "pinned": "not deleted by prune or rm" if description["pinned"] else None,
        "records": _records(description),
        "config": ", ".join(f"{key}={item}" for key, item in description["config"].items()),
    }
    for title, fact in facts.items():
        if fact:
            yield from paragraph(title, clean(fact), indent=9)


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
    began = f"{start:%Y-%m-%d %H:%M:%S} UTC"
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
    # Ids are names, not amounts: no thousands separators in them.
    ids = [str(producer[key]) if producer.get(key) is not None else None for key in _PRODUCER[:4]]
    who = producer.get("process") or (f"{producer['tenancies']:,} producers" if "tenancies" in producer else None)
    return [*ids, who, producer.get("metrics"), producer.get("events"), dropped]


def _metric_cells(metric: dict[str, Any]) -> list[object]:
    values = [statistic(metric[key]) for key in ("last", "min", "max")]
    return [metric["name"], metric["kind"], metric["count"], *values]

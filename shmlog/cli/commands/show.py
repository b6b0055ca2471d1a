"""``shmlog show``: the description of a run, its producers and its metrics."""

from __future__ import annotations

import argparse
import warnings
from typing import TYPE_CHECKING, Any

from shmlog.cli.details import lines
from shmlog.cli.find import recover_dead, resolve_run
from shmlog.cli.output import print_json, say
from shmlog.cli.parser import FOUND, add_command, add_run_argument
from shmlog.errors import UnreadableError
from shmlog.reader.summary import summarise

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.reader.stored import StoredRun

_EXAMPLE = """
shmlog show                      the newest run below ./runs
shmlog show runs/digits          the newest run of one experiment
shmlog show digits --metric 'val/*'
shmlog show --json | jq .status
"""

_ANNOTATED = ("tags", "description", "notes", "group", "pinned")


def add_parser(commands: Commands) -> None:
    """Add the command ``show``."""
    summary = "show a run's status, error, parameters, results, producers and metrics"
    parser = add_command(commands, "show", run, summary, _EXAMPLE)
    add_run_argument(parser)
    parser.add_argument("--metric", metavar="GLOB", help="only metrics of these names, such as 'val/*'")
    text = "each producer, parameter, artifact and metric, however many there are"
    parser.add_argument("--all", action="store_true", dest="everything", help=text)


def run(args: argparse.Namespace) -> int:
    """Show one run."""
    import shmlog

    run_dir = resolve_run(args.path, args.root)
    recover_dead([run_dir])
    description = describe(shmlog.load(run_dir))
    if args.json:
        print_json(description)
    else:
        for line in lines(description, everything=args.everything, pattern=args.metric):
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
        "failure": _failure(stored),
        "results": {key: item for event in stored.events("result") for key, item in _data_of(event).items()},
        "artifacts": [
            {"name": artifact.name, "size_bytes": artifact.size_bytes, "digest": artifact.digest}
            for artifact in stored.artifacts
        ],
        "dropped": stored.dropped,
        "lost": stored.lost,
        "segment_lost": stored.segment_lost,
        "producers": stored.producers,
        **_metrics(stored),
    }


def _failure(stored: StoredRun) -> dict[str, Any] | None:
    """Return the last error that was logged, if the run did not end well."""
    if stored.status not in ("failed", "crashed"):
        return None
    error = next((event for event in reversed(stored.events("error")) if _data_of(event)), None)
    return error and {**error, "data": _data_of(error)}


def _data_of(event: dict[str, Any]) -> dict[str, Any]:
    return data if isinstance(data := event.get("data"), dict) else {}


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

"""``shmlog experiments``: the experiments of a store."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shmlog.cli.find import open_store
from shmlog.cli.output import print_json, say
from shmlog.cli.parser import add_command, add_root_option
from shmlog.cli.text import local_time, table
from shmlog.folder.root import Root

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.reader.model import ExperimentRecord, RunRecord

_EXAMPLE = """
shmlog experiments
shmlog experiments --root /data/runs --json
"""

_HEAD = ("experiment", "runs", "running", "failed", "newest", "description", "tags")


def add_parser(commands: Commands) -> None:
    """Add the command ``experiments``."""
    add_root_option(add_command(commands, "experiments", run, "list the experiments of a store", _EXAMPLE))


def run(args: argparse.Namespace) -> int:
    """List the experiments."""
    store = open_store(args.root)
    experiments = store.experiments()
    if args.json:
        print_json([experiment.to_dict() for experiment in experiments])
        return 0
    if not experiments:
        say(f"shmlog: {Root(args.root).content()}")
        return 0
    rows = [_row(experiment, store.runs(experiment.name)) for experiment in experiments]
    for line in table(_HEAD, rows, left=("experiment", "newest", "description", "tags")):
        print(line)
    for experiment in experiments:
        for problem in experiment.problems:
            say(f"shmlog: warning: {problem}")
    return 0


def _row(experiment: ExperimentRecord, runs: Sequence[RunRecord]) -> tuple[object, ...]:
    statuses = [str(record.status) for record in runs]
    failed = sum(statuses.count(status) for status in ("failed", "crashed"))
    newest = local_time(runs[0].began_at) if runs else None
    is_named = experiment.display_name != experiment.name
    about = ": ".join(filter(None, [experiment.display_name if is_named else None, experiment.description]))
    return (experiment.name, len(runs), statuses.count("running"), failed, newest, about, ", ".join(experiment.tags))

"""``shmlog demo``: a real training in several processes, logged into one run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from shmlog.cli.output import command, print_json, python, say
from shmlog.cli.parser import FOUND, UsageError, add_command, default_root, natural, path, positive
from shmlog.cli.text import clean, plural, relative, size, table

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.demo.books import Account
    from shmlog.demo.main import Result

_EXAMPLE = """
shmlog demo                          two workers and a trainer, some ten seconds
shmlog demo --kill-a-worker          the same, and one worker is killed midway
shmlog demo --workers 4 --steps 1000 --start-method spawn
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``demo``."""
    summary = "train a small model in several processes that all log"
    parser = add_command(commands, "demo", run, summary, _EXAMPLE)
    add, default = parser.add_argument, "(default: %(default)s)"
    add("--root", type=path, default=default_root(), help=f"folder of the runs {default}")
    add("--workers", type=positive, default=2, metavar="N", help=f"processes that read {default}")
    add("--steps", type=positive, default=200, metavar="N", help=f"steps to train {default}")
    methods = ("fork", "spawn", "forkserver")
    add("--start-method", choices=methods, help="how workers start (default: Python's own)")
    add("--kill-a-worker", action="store_true", help="kill one with SIGKILL midway")
    add("--seed", type=natural, default=0, metavar="N", help=f"seed of all choices {default}")


def run(args: argparse.Namespace) -> int:
    """Run the demo and print its result; the exit code is `FOUND` if records were dropped or lost."""
    if args.kill_a_worker and args.workers < 2:
        raise UsageError("--kill-a-worker needs --workers 2 or more: one has to go on")
    from shmlog.demo.main import DemoOptions, run_demo

    options = DemoOptions(
        root=Path(args.root),
        workers=args.workers,
        steps=args.steps,
        start_method=args.start_method,
        kill_a_worker=args.kill_a_worker,
        seed=args.seed,
    )
    try:
        result = run_demo(options, say)
    except KeyboardInterrupt:
        say("shmlog: interrupted: the workers are gone, the run is kept as cancelled")
        raise
    if args.json:
        print_json(_as_dict(result))
    else:
        for line in _lines(result):
            print(line)
    for failure in result.failures:
        say(f"shmlog: error: {failure}")
    return 0 if result.ok else FOUND


def _as_dict(result: Result) -> dict[str, object]:
    accounts = [asdict(account) | {"balanced": account.balanced} for account in result.accounts]
    return asdict(result) | {"accounts": accounts, "ok": result.ok}


def _lines(result: Result) -> Iterator[str]:
    counts = plural(result.metrics, "metric"), plural(result.events, "event")
    yield ""
    yield f"run      {clean(relative(result.run_dir))}"
    yield f"status   {result.status}, {result.seconds:.1f} s"
    yield f"records  {', '.join(counts)}, {sum(result.dropped.values()):,} dropped"
    ends = f"{result.first_loss:.3f} -> {result.last_loss:.3f}"
    yield f"loss     {ends}  (means of the first and last 10 steps)"
    yield ""
    yield from _books(result.accounts)
    yield ""
    for name, count in result.files:
        yield f"{size(count):>8}  {clean(name)}"
    yield ""
    yield "look further:"
    yield from (f"  {line}" for line in _commands(result.run_dir))


def _books(accounts: list[Account]) -> Iterator[str]:
    head = ("producer", "pid", "logged", "on disk", "dropped", "books")
    rows = [(a.name, str(a.pid), a.logged, a.on_disk, a.dropped, _verdict(a)) for a in accounts]
    yield from table(head, rows, left=("producer", "books"))


def _verdict(account: Account) -> str:
    if not account.balanced:
        return "do not balance"
    if not account.killed:
        return "balance"
    cut_off = account.logged - account.on_disk - account.dropped
    return f"balance (killed {'in a call' if cut_off else 'between two calls'})"


def _commands(run_dir: Path) -> Iterator[str]:
    folder = relative(run_dir)
    yield command("show", folder)
    yield command("tail", "-n", "5", folder)
    yield command("verify", folder)
    yield f"{python()} -c {quote(_query(folder))}"


def _query(folder: str) -> str:
    """Return a line of Python that opens the files without shmlog, by an installed library."""
    files, metrics = json.dumps(f"{folder}/metrics/*/*.parquet"), json.dumps(f"{folder}/metrics")
    if find_spec("duckdb"):
        return f'import duckdb; print(duckdb.read_parquet({files}).aggregate("name, count(*), avg(value)"))'
    if find_spec("polars"):
        return f"import polars; print(polars.read_parquet({files}))"
    if find_spec("pandas"):
        return f"import pandas; print(pandas.read_parquet({metrics}))"
    return f"import pyarrow.dataset as d; print(d.dataset({metrics}).to_table())"

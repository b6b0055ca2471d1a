"""``shmlog tail``: print the last records of a run, and then new ones."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from shmlog.cli.find import recover_dead, resolve_run
from shmlog.cli.lines import text
from shmlog.cli.output import command, say, to_json
from shmlog.cli.parser import add_command, add_run_argument, natural
from shmlog.cli.text import relative

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.reader.event_lines import Event
    from shmlog.reader.follow import Follower

POLL_S = 0.2

_EXAMPLE = """
shmlog tail                      follow the newest run below ./runs
shmlog tail -n 50 --no-follow    the last 50 lines, and no more
shmlog tail --json | jq .data
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``tail``."""
    summary = "print a run's last events and metrics, and follow it"
    parser = add_command(commands, "tail", run, summary, _EXAMPLE)
    add_run_argument(parser)
    lines = "lines to begin with (default: %(default)s)"
    parser.add_argument("-n", "--lines", type=natural, default=10, metavar="N", help=lines)
    parser.add_argument("--no-follow", action="store_true", help="end after these lines")


def run(args: argparse.Namespace) -> int:
    """Print the last lines of a run; follow it until it ends."""
    from shmlog.reader.follow import Follower

    run_dir = resolve_run(args.path, args.root)
    recover_dead([run_dir])
    follower = Follower(run_dir)
    had_ended = follower.ended()  # asked first, so that the history of an ended run is complete
    _print(follower.history(args.lines), args.json)
    if args.no_follow:
        return 0
    if not had_ended:
        _follow(follower, args.json)
    _say_end(run_dir, follower)
    return 0


def _follow(follower: Follower, as_json: bool) -> None:
    """Print new lines until the run ends."""
    while not follower.ended():
        _print(follower.poll(), as_json)
        time.sleep(POLL_S)
    _print(follower.rest(), as_json)


def _print(lines: Iterable[Event], as_json: bool) -> None:
    from shmlog.reader.event_lines import says_metrics

    for line in lines:
        if as_json:
            print(to_json(line))
        elif not says_metrics(line):  # its records are lines, too
            for printed in text(line):
                print(printed)
    sys.stdout.flush()


def _say_end(run_dir: Path, follower: Follower) -> None:
    stored = follower.stored
    say(f"shmlog: the run has ended: {stored.status}")
    if stored.unrecovered:
        say(f"shmlog: unrecovered records are left; finish it: {command('recover', relative(run_dir))}")

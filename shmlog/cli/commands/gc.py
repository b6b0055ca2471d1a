"""``shmlog gc``: remove from shared memory what no process uses any more."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shmlog.cli.output import command, one_line, print_json, say
from shmlog.cli.parser import FAILED, add_command
from shmlog.cli.text import relative, size, table

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.segment.gc import Stale

_EXAMPLE = """
shmlog gc                        list what would be removed
shmlog gc --force                remove it
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``gc``."""
    summary = "list what is left in shared memory, and remove it with --force"
    parser = add_command(commands, "gc", run, summary, _EXAMPLE)
    parser.add_argument("--force", action="store_true", help="remove them; without it nothing is changed")


def run(args: argparse.Namespace) -> int:
    """List stale segments and locks; with --force, remove them once their records are in the files."""
    from shmlog.segment.gc import find_stale

    stale = find_stale()
    errors = [_clean_up(entry) if args.force else None for entry in stale]
    if args.json:
        pairs = zip(stale, errors, strict=True)
        print_json([_as_dict(entry, args.force, error) for entry, error in pairs])
    else:
        _print(stale, errors, args.force)
    return FAILED if any(errors) else 0


def _clean_up(stale: Stale) -> str | None:
    """Recover the run that a segment belongs to, and remove what is left; return why that failed, or None."""
    from shmlog.flusher.recover import recover
    from shmlog.segment.gc import find_stale, remove

    try:
        if stale.run_dir is not None:
            recover(stale.run_dir)
        # Recovery has removed it, unless a process has just attached.
        if any(other.name == stale.name for other in find_stale()):
            remove(stale)
    except Exception as error:  # reported below, and by the exit code; the others must not suffer
        return f"{stale.name}: kept, since its run could not be recovered: {one_line(error)}"
    return None


def _as_dict(stale: Stale, removed: bool, error: str | None) -> dict[str, object]:
    return {**stale._asdict(), "removed": removed and error is None, "error": error}


def _print(stale: Sequence[Stale], errors: Sequence[str | None], removed: bool) -> None:
    if not stale:
        say("shmlog: nothing is left in shared memory")
        return
    rows = [(s.name, size(s.bytes), s.reason, s.run_dir and relative(s.run_dir)) for s in stale]
    for line in table(("name", "size", "reason", "run"), rows, left=("name", "reason", "run")):
        print(line)
    failed = [error for error in errors if error]
    for error in failed:
        say(f"shmlog: error: {error}")
    if removed:
        say(f"shmlog: {len(stale) - len(failed):,} removed")
    else:
        say(f"shmlog: nothing is changed; to recover their runs and remove them: {command('gc', '--force')}")

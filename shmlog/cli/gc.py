"""``shmlog gc``: remove shared memory that no process uses any more."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shmlog.cli.output import command, one_line, print_json, say
from shmlog.cli.parser import add_command
from shmlog.cli.text import plural, relative, size, table

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.segment.gc import StaleSegment

_EXAMPLE = """
shmlog gc                        list what would be removed
shmlog gc --force                remove it
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``gc``."""
    summary = "list stale shared-memory segments, and remove them with --force"
    parser = add_command(commands, "gc", run, summary, _EXAMPLE)
    parser.add_argument("--force", action="store_true", help="remove them; without it nothing is changed")


def run(args: argparse.Namespace) -> int:
    """List stale segments; remove them if told to, after what they hold is in the files."""
    from shmlog.segment.gc import stale_segments

    stale = stale_segments()
    errors = [_clean_up(segment) if args.force else None for segment in stale]
    if args.json:
        pairs = zip(stale, errors, strict=True)
        print_json([_as_dict(segment, args.force, error) for segment, error in pairs])
    else:
        _print(stale, errors, args.force)
    return 1 if any(errors) else 0


def _clean_up(segment: StaleSegment) -> str | None:
    """Recover the run that a segment belongs to, remove the segment; return why that failed."""
    from shmlog.flusher.recover import recover
    from shmlog.segment.gc import remove, stale_segments

    try:
        if segment.run_dir is not None:
            recover(segment.run_dir)
        # Recovering has removed it, or found that somebody has just attached.
        if any(other.name == segment.name for other in stale_segments()):
            remove(segment)
    except Exception as error:  # told below, and by the exit code; the others are not its fault
        return f"{segment.name}: kept, since its run could not be recovered: {one_line(error)}"
    return None


def _as_dict(segment: StaleSegment, removed: bool, error: str | None) -> dict[str, object]:
    return {**segment._asdict(), "removed": removed and error is None, "error": error}


def _print(stale: Sequence[StaleSegment], errors: Sequence[str | None], removed: bool) -> None:
    if not stale:
        say("shmlog: no stale segments")
        return
    rows = [(s.name, size(s.bytes), s.reason, s.run_dir and relative(s.run_dir)) for s in stale]
    for line in table(("segment", "size", "reason", "run"), rows, left=("segment", "reason", "run")):
        print(line)
    failed = [error for error in errors if error]
    for error in failed:
        say(f"shmlog: error: {error}")
    if removed:
        say(f"shmlog: {plural(len(stale) - len(failed), 'segment')} removed")
    else:
        say(f"shmlog: nothing is changed; to recover their runs and remove them: {command('gc', '--force')}")

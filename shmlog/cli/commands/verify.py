"""``shmlog verify``: check every promise that the files of a run can prove."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from shmlog.cli.find import resolve_run
from shmlog.cli.output import print_json
from shmlog.cli.parser import FOUND, add_command, add_run_argument
from shmlog.cli.text import clean, plural, relative

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.reader.verify.report import Report

_EXAMPLE = """
shmlog verify                    check the newest run below ./runs
shmlog verify runs/digits        check the newest run of one experiment
shmlog verify --write-manifest   if it is as it should be, list its files in manifest.json
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``verify``."""
    summary = "check a run's checksums, counts, gaps and duplicates"
    parser = add_command(commands, "verify", run, summary, _EXAMPLE)
    add_run_argument(parser)
    text = "if nothing is wrong, write manifest.json anew, as the end of a run does"
    parser.add_argument("--write-manifest", action="store_true", help=text)


def run(args: argparse.Namespace) -> int:
    """Verify one run and print the findings."""
    from shmlog.reader.verify.verify import verify
    from shmlog.store.rebuild import write_manifest

    run_dir = resolve_run(args.path, args.root)
    report = verify(run_dir)
    if args.write_manifest and report.ok:
        write_manifest(run_dir)
    if args.json:
        print_json(_as_dict(report))
    else:
        _print(report)
    return 0 if report.ok else FOUND


def _as_dict(report: Report) -> dict[str, object]:
    return {
        "run_dir": report.run_dir,
        "ok": report.ok,
        "findings": [finding._asdict() for finding in report.findings],
        "counts": report.counts,
    }


def _print(report: Report) -> None:
    for finding in report.findings:
        print(clean(f"{finding.severity}: {relative(finding.file)}: {finding.message}"))
    counts = ", ".join(plural(count, what.removesuffix("s")) for what, count in report.counts.items())
    verdict = "ok" if report.ok else "damaged"
    print(clean(f"{relative(report.run_dir)}: {verdict} ({counts})"))

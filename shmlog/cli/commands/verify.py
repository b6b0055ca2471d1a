"""``shmlog verify``: check every promise that the files of a run can prove."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from shmlog.cli.find import resolve_run
from shmlog.cli.output import print_json, say
from shmlog.cli.parser import FOUND, RUN, add_command, add_root_option, path
from shmlog.cli.text import clean, plural, relative
from shmlog.folder.root import Root, has_description, runs_below

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.reader.verify.report import Report

_EXAMPLE = """
shmlog verify                    check the newest run below ./runs
shmlog verify digits             check the newest run of one experiment
shmlog verify runs               check all runs in a folder
shmlog verify --write-manifest   if it is as it should be, list its files in manifest.json
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``verify``."""
    summary = "check a run's checksums, counts, gaps and duplicates"
    parser = add_command(commands, "verify", run, summary, _EXAMPLE)
    text = f"{RUN} (default: latest); or a folder of runs, for all of them"
    parser.add_argument("path", nargs="?", metavar="RUN|FOLDER", type=path, help=text)
    add_root_option(parser)
    text = "if nothing is wrong, write manifest.json anew, as the end of a run does"
    parser.add_argument("--write-manifest", action="store_true", help=text)


def run(args: argparse.Namespace) -> int:
    """Verify runs and print the findings."""
    run_dirs = _chosen(args.path, args.root)
    documents, all_ok = [], True
    for run_dir in run_dirs:
        report = _verify(run_dir, args.write_manifest)
        all_ok = all_ok and report.ok
        if args.json:
            documents.append(_as_dict(report))
        else:
            _print(report)
    if args.json:
        print_json(documents if _is_folder_of_runs(args.path) else documents[0])
    elif len(run_dirs) > 1:
        say(f"shmlog: {plural(len(run_dirs), 'run')}, {'all ok' if all_ok else 'some damaged'}")
    return 0 if all_ok else FOUND


def _chosen(text: str | None, root: str) -> list[Path]:
    """Return all runs in the folder that is named, or else the run."""
    if text is not None and _is_folder_of_runs(text):
        return Root(root).runs(text).folders
    return [resolve_run(text, root)]


def _is_folder_of_runs(text: str | None) -> bool:
    return text is not None and not has_description(Path(text)) and bool(runs_below(Path(text)))


def _verify(run_dir: Path, is_to_write_manifest: bool) -> Report:
    from shmlog.reader.verify.verify import verify
    from shmlog.store.rebuild import write_manifest

    report = verify(run_dir)
    if is_to_write_manifest and report.ok:
        write_manifest(run_dir)
    return report


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

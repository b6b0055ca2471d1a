"""Put the figures of benchmarks/results into the README and docs/benchmarks.md, between markers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from harness import HERE, number

README = HERE.parent / "README.md"
PAGE = HERE.parent / "docs" / "benchmarks.md"
OWN, PEERS = "benchmarks", "peers"
"""The names of the markers."""

SHORT = (
    "metric(value, step)",
    "run.log(dict of 10, step=step), each metric",
    "attach() in a new process, shmlog imported",
    "1 producer, log to sealed Parquet",
    "on disk, training curves, full precision",
    "one of 10 metrics, 1,000,000 points each, read / by pyarrow",
    "resident memory of a worker that logs, over bare Python",
    "idle flusher",
)
"""The rows of the README."""


def short_table(result: dict[str, Any]) -> str:
    """Return the figures of the README as a Markdown table."""
    rows = [f"| {name} | {cells(result['figures'][name])} |" for name in SHORT]
    return "\n".join(["| what | median | quartiles |", "|---|---|---|", *rows, "", about(result["machine"])])


def table(result: dict[str, Any]) -> str:
    """Return all figures of one machine as a Markdown table."""
    rows = [
        f"| {name} | {cells(figure)} | {aim(figure)} |"
        for name, figure in result["figures"].items()
        if not name.startswith(" ")
    ]
    return "\n".join(
        ["| what | median | quartiles | target |", "|---|---|---|---|", *rows, "", about(result["machine"])]
    )


def cells(figure: dict[str, Any]) -> str:
    """Return the cells of a figure's median and quartiles."""
    return f"{number(figure['median'])} {figure['unit']} | {number(figure['low'])} … {number(figure['high'])}"


def about(machine: dict[str, Any]) -> str:
    """Return what was measured, and where."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    place = f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['python']}"
    return f"{place}, {versions}; commit {machine['commit']}."


def aim(figure: dict[str, Any]) -> str:
    """Return the target and whether the median met it."""
    return f"{figure['target']}, {'met' if figure['met'] else 'missed'}" if figure["target"] else ""


def peers_table(result: dict[str, Any]) -> str:
    """Return what a call costs elsewhere, as a Markdown table."""
    figures = result["figures"]
    rows = [
        f"| {name} | {number(figure['median'])} | {number(ratio['median'])} "
        f"| {number(ratio['low'])} … {number(ratio['high'])} |"
        for name, figure in figures.items()
        if (ratio := figures.get(f"{name} / empty C call"))
    ]
    head = ["| call | ns | of an empty C call | quartiles |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, "", about(result["machine"])])


def render(page: str, marker: str, tables: list[str], command: str) -> str:
    """Return the page with the tables between the markers of that name."""
    begin, end = f"<!-- {marker}: begin -->\n", f"<!-- {marker}: end -->\n"
    before, _, rest = page.partition(begin)
    after = rest.partition(end)[2]
    how = f"Measured by `{command}`, which runs on your machine too."
    return before + begin + ("\n\n".join(tables) + f"\n\n{how}\n" if tables else "") + end + after


def results(folder: Path) -> list[dict[str, Any]]:
    """Return what a folder of results holds, one entry a machine."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def pages() -> dict[Path, str]:
    """Return each page as it has to be."""
    own, peers = results(HERE / "results"), results(HERE / "results" / "peers")
    page = render(PAGE.read_text(), OWN, [table(result) for result in own], "python benchmarks/run.py")
    peers_tables = [peers_table(result) for result in peers]
    return {
        README: render(README.read_text(), OWN, [short_table(result) for result in own], "python benchmarks/run.py"),
        PAGE: render(page, PEERS, peers_tables, "python benchmarks/bench_peers.py"),
    }


if __name__ == "__main__":
    for page, wanted in pages().items():
        if "--check" in sys.argv and page.read_text() != wanted:
            raise SystemExit(f"{page} does not show benchmarks/results: run python benchmarks/table.py")
        page.write_text(wanted)

"""Put the figures of benchmarks/results into the README and docs/benchmarks.md, between two markers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from harness import HERE, number

README = HERE.parent / "README.md"
PEERS = HERE.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- benchmarks: begin -->\n", "<!-- benchmarks: end -->\n"


def table(result: dict[str, Any]) -> str:
    """Return the figures of one machine as a Markdown table."""
    machine = result["machine"]
    rows = [
        f"| {name} | {number(figure['median'])} {figure['unit']} "
        f"| {number(figure['low'])} … {number(figure['high'])} | {aim(figure)} |"
        for name, figure in result["figures"].items()
        if not name.startswith(" ")
    ]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    about = (
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['python']}, "
        f"{versions}; commit {machine['commit']}."
    )
    return "\n".join(["| what | median | quartiles | target |", "|---|---|---|---|", *rows, "", about])


def aim(figure: dict[str, Any]) -> str:
    """Return the target and whether the median met it."""
    return f"{figure['target']}, {'met' if figure['met'] else 'missed'}" if figure["target"] else ""


def peers_table(result: dict[str, Any]) -> str:
    """Return what a call costs elsewhere, as a Markdown table."""
    machine, figures = result["machine"], result["figures"]
    rows = [
        f"| {name} | {number(figure['median'])} | {number(ratio['median'])} "
        f"| {number(ratio['low'])} … {number(ratio['high'])} |"
        for name, figure in figures.items()
        if (ratio := figures.get(f"{name} / empty C call"))
    ]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    about = f"{machine['cpu']}, {machine['cores']} cores, {machine['python']}, {versions}; commit {machine['commit']}."
    head = ["| call | ns | of an empty C call | quartiles |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, "", about])


def render(page: str, tables: list[str], command: str) -> str:
    """Return the page with the tables in it."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    how = f"Measured by `{command}`, which runs on your machine too."
    return before + BEGIN + ("\n\n".join(tables) + f"\n\n{how}\n" if tables else "") + END + after


def results(folder: Path) -> list[dict[str, Any]]:
    """Return what a folder of results holds, one entry a machine."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def pages() -> dict[Path, str]:
    """Return each page as it has to be."""
    own = [table(result) for result in results(HERE / "results")]
    peers = [peers_table(result) for result in results(HERE / "results" / "peers")]
    return {
        README: render(README.read_text(), own, "python benchmarks/run.py"),
        PEERS: render(PEERS.read_text(), peers, "python benchmarks/bench_peers.py"),
    }


if __name__ == "__main__":
    for page, wanted in pages().items():
        if "--check" in sys.argv and page.read_text() != wanted:
            raise SystemExit(f"{page} does not show benchmarks/results: run python benchmarks/table.py")
        page.write_text(wanted)

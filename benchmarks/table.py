"""Put the figures of benchmarks/results into the README, between its two markers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from harness import HERE, number

README = HERE.parent / "README.md"
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


def render(readme: str, results: list[dict[str, Any]]) -> str:
    """Return the README with the figures in it."""
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    tables = "\n\n".join(table(result) for result in results)
    how = "Measured by `python benchmarks/run.py`, which runs on your machine too."
    return before + BEGIN + (f"{tables}\n\n{how}\n" if tables else "") + END + after


def results() -> list[dict[str, Any]]:
    """Return what benchmarks/results holds, one entry a machine."""
    return [json.loads(path.read_text()) for path in sorted((HERE / "results").glob("*.json"))]


if __name__ == "__main__":
    wanted = render(README.read_text(), results())
    if "--check" in sys.argv and README.read_text() != wanted:
        raise SystemExit("README.md does not show benchmarks/results: run python benchmarks/table.py")
    Path(README).write_text(wanted)

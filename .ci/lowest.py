"""Print the lowest versions that pyproject.toml allows of what shmlog needs, as pip requirements."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def lowest(pyproject: str) -> list[str]:
    """Return each dependency with ``>=`` made ``==``."""
    requirements: list[str] = tomllib.loads(pyproject)["project"]["dependencies"]
    for requirement in requirements:
        if requirement.count(">=") != 1:
            raise SystemExit(f"pyproject.toml: {requirement!r} has no lower bound of its own")
    return [requirement.replace(">=", "==") for requirement in requirements]


if __name__ == "__main__":
    print("\n".join(lowest(Path(sys.argv[1]).read_text())))

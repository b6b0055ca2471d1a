"""Print the commands of a README section, one a line: the lines of its first `sh` block."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def commands(text: str, heading: str) -> list[str]:
    """Return the lines of the first ``sh`` block below ``## heading``."""
    section = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    block = section and re.search(r"^```sh\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)
    if not block:
        raise SystemExit(f"README.md: no sh block below '## {heading}'")
    return [line for line in block[1].splitlines() if line and not line.startswith("#")]


if __name__ == "__main__":
    print("\n".join(commands(Path(sys.argv[1]).read_text(), sys.argv[2])))

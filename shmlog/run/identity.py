"""Who logs: what the caller says of this process, and the name of its script."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple


class Identity(NamedTuple):
    """What the caller said of this process; what is None is detected."""

    rank: int | None = None
    local_rank: int | None = None
    worker: int | None = None


def script_name() -> str:
    """Return the name of the script, or of the package that is run with ``python -m``."""
    script = sys.argv[0] if getattr(sys, "argv", None) else ""
    folder, name = os.path.split(script)
    return (os.path.basename(folder) if name == "__main__.py" else name) or "python"

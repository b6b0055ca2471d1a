"""What `import shmlog` costs a worker: milliseconds more than bare Python."""

from __future__ import annotations

import subprocess
import sys

from harness import Bench, alternate, main, seconds

LOGS = "import shmlog; shmlog.init"  # what it offers is imported on first use
HEAVY = ("numpy", "pyarrow", "pandas", "yaml")


def start_python(code: str, folder: str) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


def benchmark(bench: Bench) -> None:
    """Measure whole processes, side by side; fail if a heavy package is imported."""
    folder = str(bench.folder)
    start_python(f"import shmlog, sys; shmlog.init; sys.exit([n for n in {HEAVY} if n in sys.modules] or 0)", folder)
    pairs = alternate(
        bench.size(60, 10),
        lambda: seconds(lambda: start_python(LOGS, folder)),
        lambda: seconds(lambda: start_python("pass", folder)),
    )
    bench.record("import shmlog and its init, over bare Python", "ms", [(a - b) * 1e3 for a, b in pairs], "<= 60")
    bench.record("  bare Python", "ms", [b * 1e3 for _, b in pairs])


if __name__ == "__main__":
    main([benchmark])

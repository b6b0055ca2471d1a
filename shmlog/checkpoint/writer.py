"""The process that writes a snapshot to disk: ``python -m shmlog.checkpoint.writer FD PATH``.

It needs nothing of the trainer but the snapshot, an anonymous file in memory, and
finishes the save even when the trainer has died. The last line on stderr says how it went.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from shmlog.checkpoint.container import read_pieces
from shmlog.checkpoint.publish import publish

# A scheduler that ends a job signals all of its processes: this one must finish first.
_IGNORED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)


def main() -> None:
    """Put the snapshot in place and say so."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    snapshot, path = int(sys.argv[1]), Path(sys.argv[2])
    try:
        with open(snapshot, "rb") as file:
            file.seek(0)
            answer = {"sha256": publish(path, read_pieces(file, os.fstat(snapshot).st_size))}
    except Exception as error:  # the trainer reports it
        answer = {"error": str(error) or type(error).__name__}
    print("\n" + json.dumps(answer), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

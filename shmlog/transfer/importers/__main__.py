"""``python -m shmlog.transfer.importers``: read a source within limits, and hand over what was found.

`shmlog.transfer.limited` starts it and takes that.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from shmlog.transfer.importers import limits
from shmlog.transfer.importers.formats import reader_of
from shmlog.transfer.limited import Order, hand_over, hand_over_error


def main() -> None:
    """Do what the command line says."""
    order = Order.parse(sys.argv[1:])
    limits.end_with(order.parent)
    limits.limit_files_and_time(order.max_bytes, order.seconds)
    table, told = os.fdopen(order.table, "wb"), os.fdopen(order.told, "wb")
    try:
        read = reader_of(order.format)  # before the limit: what it imports is not the source's
        with limits.memory_limited(order.max_bytes) as is_limited:
            if not is_limited:
                limits.refuse_large(Path(order.source))
            hand_over(read(Path(order.source)), table, told)
    except Exception as error:
        hand_over_error(error, told)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is handed over: to take gigabytes apart would be for nothing


if __name__ == "__main__":
    main()

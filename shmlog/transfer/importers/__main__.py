"""``python -m shmlog.transfer.importers PID``: read sources for that process, each in a fork with limits.

`shmlog.transfer.limited` starts it, gives it orders by the socket that is its standard input, and gets exit codes back.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from shmlog.base.extras import do_without_pandas
from shmlog.transfer.imported import ImportedRun
from shmlog.transfer.importers import limits
from shmlog.transfer.importers.formats import reader_of
from shmlog.transfer.limited import DESCRIPTORS, Order, hand_over, hand_over_error

_IDLE_S = 60
_ORDER_BYTES_MAX = 1 << 16


def main() -> None:
    """Carry out orders until the other process ends, or has none for a minute."""
    limits.reset_signals()
    do_without_pandas()
    # Its socket does not say when it ends: a fork of it may hold the other end.
    parent = os.pidfd_open(int(sys.argv[1]))
    with socket.socket(fileno=os.dup(0)) as orders:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        waiting: list[Any] = [orders, parent]
        while parent not in (ready := select.select(waiting, [], [], _IDLE_S)[0]):
            if not ready:
                orders.shutdown(socket.SHUT_RD)  # no order can come from now on; one may be there already
            data, ancillary, _, _ = orders.recvmsg(_ORDER_BYTES_MAX, socket.CMSG_LEN(4 * DESCRIPTORS))
            if not data:
                return
            with ExitStack() as stack:
                files = [stack.enter_context(os.fdopen(fd, "wb")) for fd in array.array("i", ancillary[0][2])]
                code = _read_in_fork(Order(*json.loads(data)), files, waiting)
            orders.send(str(code).encode())


def _read_in_fork(order: Order, files: Sequence[IO[bytes]], waiting: list[Any]) -> int:
    """Read a source in a fork, and return its exit code; end with the fork if nobody waits for it any more."""
    *parts, output = files
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    read = reader_of(order.format)  # imported here, once for all sources of that format
    sys.stdout.flush()
    this = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            limits.end_with(this)
            _read(order, read, parts)
            sys.stdout.flush()
            os._exit(0)  # all is handed over: freeing gigabytes would take time for nothing
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    with open(os.pidfd_open(child), "rb", buffering=0) as end:
        ready, _, _ = select.select([end, *waiting], [], [])
    if end not in ready:
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _read(order: Order, read: Callable[[Path], ImportedRun], parts: Sequence[IO[bytes]]) -> None:
    """Read a source within limits, and hand over the run or the error."""
    table, lines, contents = parts
    limits.limit_files_and_time(order.max_bytes, order.seconds)
    path = Path(order.source)
    try:
        with limits.memory_limited(order.max_bytes) as is_limited:
            if not is_limited:
                limits.refuse_large(path)
            hand_over(read(path), table, lines, contents)
    except Exception as error:
        hand_over_error(error, lines)


if __name__ == "__main__":
    main()

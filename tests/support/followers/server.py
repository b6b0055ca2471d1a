"""A server that keeps actors, and is nobody's child: whoever starts it goes on as soon as it listens."""

import os
import sys
from functools import partial
from multiprocessing.connection import Listener

from tests.support.followers.jobs import fork, serve


def keep_actors(listener: Listener) -> None:
    """Start as many as asked for, one to a connection, and wait until they have ended."""
    with listener.accept() as control:
        count = control.recv()
        for _ in range(count):
            connection = listener.accept()
            fork(partial(serve, connection))
            connection.close()
    for _ in range(count):
        os.wait()


def main() -> None:
    listener = Listener(sys.argv[1])
    if os.fork() == 0 and os.fork() == 0:
        keep_actors(listener)
    os._exit(0)  # the listener stays with who was forked


if __name__ == "__main__":
    main()

"""A lock for data that the threads of a process share; a fork does not leave it locked."""

from __future__ import annotations

import os
from _thread import RLock  # `threading` is slow to import


class Guard:
    """Hold ``guard.lock`` in a ``with``: it admits one thread at a time, and signal handlers in that thread.

    A child forked meanwhile has a lock of its own, which is free; a ``with`` entered before the fork releases the
    parent's lock.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.lock = RLock()

"""A lock for what the threads of a process change together, and that a fork does not leave locked."""

from __future__ import annotations

import os
from _thread import RLock  # `threading` is slow to import


class Guard:
    """Hold ``guard.lock`` by a ``with``: one thread at a time, and whatever a handler of a signal calls in it.

    A child that was forked meanwhile has a lock of its own, which is free; who was in the ``with`` leaves that of
    the parent.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.lock = RLock()

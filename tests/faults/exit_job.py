"""A job whose main process ends in a given way while children of a given kind log.

``python exit_job.py ROOT BOARD CONTEXT END`` for the end of the main process,
``python exit_job.py ROOT BOARD CONTEXT children`` for one child per end.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time

import shmlog
from tests.support.board import Board

CHILDREN = 2
MAINS = 1000  # records of the main process
READY = 300  # records of a child before it says that it is ready
REST = 100  # and after it has heard that the main process ends

SAYS_END = 0  # entries of the board
_COUNT, _STATE = 8, 64
IS_READY, IS_DONE = 1, 2

CONTEXTS = ("none", "fork", "spawn", "forkserver", "daemon", "pool", "pool closed", "executor")
ENDS = (
    "return", "exception", "sys.exit", "sys.exit(143)", "os._exit",
    "SIGTERM", "SIGTERM to all", "SIGINT", "SIGKILL", "SIGSEGV", "SIGHUP",
)  # fmt: skip
TO_ALL = ("SIGINT", "SIGTERM to all")
LATE_IMPORT = ("spawn", "pool", "executor")  # of multiprocessing: its exit hooks then run before ours, else after


def count_entry(child: int) -> int:
    """Return where a child says how many of its calls have returned."""
    return _COUNT + child


def state_entry(child: int) -> int:
    """Return where a child says how far it is."""
    return _STATE + child


def log_until_told(path: str, child: int) -> None:
    """Log 0, 1, 2 … under a name of our own, and some more when the main process says that it ends."""
    board = Board(path)
    metric = shmlog.metric(f"child{child}")
    last = None
    i = 0
    while i != last:
        metric(float(i), i)
        i += 1
        board[count_entry(child)] = i
        if i == READY:
            board[state_entry(child)] = IS_READY
        if i >= READY:
            time.sleep(0.0005)
            if last is None and board[SAYS_END]:
                last = i + REST
    board[state_entry(child)] = IS_DONE


def log_and_end(path: str, child: int) -> None:
    """Log some records and end in the way whose number we have."""
    board = Board(path)
    metric = shmlog.metric(f"child{child}")
    for i in range(READY):
        metric(float(i), i)
    board[count_entry(child)] = READY
    board[state_entry(child)] = IS_DONE
    end_by(ENDS[child], group=False)


def end_by(end: str, *, group: bool) -> None:
    """End this process; a Ctrl-C, and what a batch system sends, goes to its whole group."""
    if end == "return":
        return
    if end == "exception":
        raise RuntimeError("boom")
    if end == "sys.exit":
        sys.exit(3)
    if end == "sys.exit(143)":
        sys.exit(128 + signal.SIGTERM)
    if end == "os._exit":
        os._exit(4)
    number = signal.Signals[end.split()[0]]
    if end in ("SIGSEGV", "SIGHUP"):
        signal.signal(number, signal.SIG_DFL)
    (os.killpg if group and end in TO_ALL else os.kill)(os.getpid(), number)
    time.sleep(60)  # the signal comes first


def wait_for(board: Board, children: int, state: int) -> None:
    """Wait until all children are that far."""
    while any(board[state_entry(child)] < state for child in range(children)):
        time.sleep(0.002)


def start_children(context: str, path: str) -> object:
    """Start children that log until told; what is returned keeps them."""
    if context == "none":
        return None
    import multiprocessing

    method = context if context in ("spawn", "forkserver") else "fork"
    maker = multiprocessing.get_context(method)
    if context.startswith("pool"):
        pool = maker.Pool(CHILDREN)
        results = [pool.apply_async(log_until_told, (path, child)) for child in range(CHILDREN)]
        return pool, results
    if context == "executor":
        from concurrent.futures import ProcessPoolExecutor

        executor = ProcessPoolExecutor(CHILDREN, mp_context=maker)
        return executor, [executor.submit(log_until_told, path, child) for child in range(CHILDREN)]
    children = [
        maker.Process(target=log_until_told, args=(path, child), daemon=context == "daemon")
        for child in range(CHILDREN)
    ]
    for child in children:
        child.start()
    return children


def end_with_children(root: str, path: str, context: str, end: str) -> None:
    """Have children log, and end."""
    if context not in LATE_IMPORT:
        import multiprocessing  # noqa: F401
    board = Board(path)
    run = shmlog.init("exits", root=root, config={"lr": 0.1})
    kept = start_children(context, path)
    for i in range(MAINS):
        run.log("main", float(i), step=i)
    if kept is not None:
        wait_for(board, CHILDREN, IS_READY)
    board[SAYS_END] = 1
    if context == "pool closed":
        pool = kept[0]  # type: ignore[index]
        pool.close()
        pool.join()
    end_by(end, group=True)


def end_children(root: str, path: str, context: str) -> None:
    """Have one child end in each way."""
    import multiprocessing

    board = Board(path)
    method = context if context in ("spawn", "forkserver") else "fork"
    maker = multiprocessing.get_context(method)
    everyone = range(len(ENDS))
    with shmlog.init("children", root=root):
        if context.startswith("pool"):
            pool = maker.Pool(2)
            for child in everyone:
                pool.apply_async(log_and_end, (path, child))
            wait_for(board, len(ENDS), IS_DONE)
            pool.terminate()
        elif context == "executor":
            from concurrent.futures import ProcessPoolExecutor

            for child in everyone:  # a worker that dies breaks its executor
                with ProcessPoolExecutor(1, mp_context=maker) as executor:
                    executor.submit(log_and_end, path, child).exception()
        else:
            daemon = context == "daemon"
            children = [maker.Process(target=log_and_end, args=(path, c), daemon=daemon) for c in everyone]
            for process in children:
                process.start()
            for process in children:
                process.join()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.argv[4] == "children":
        end_children(*sys.argv[1:4])
    else:
        end_with_children(*sys.argv[1:5])

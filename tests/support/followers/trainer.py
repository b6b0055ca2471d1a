"""What the parent of the workers does. Prints, as JSON, what the test needs to know of it.

Run as ``KIND SITUATION FOLDER [OPTION]``. shmlog is imported where a situation says so:
what was there before, and what was not, is what some of them are about.
"""

from __future__ import annotations

import json
import pickle
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.followers import jobs
from tests.support.followers.kinds import KINDS, Calls, Crew, Job, Kind

PER_RUN = 100
BETWEEN, AFTER, LATE = 30, 20, 40
WAYS = ("name", "handle", "dict", "event")


class Program:
    """The kind and the folder of this program, and its arguments of `init`."""

    def __init__(self, kind: str, folder: str) -> None:
        self.kind = KINDS[kind]
        self.folder = Path(folder)

    def crew(self) -> Crew:
        return self.kind.make(self.folder)

    def init(self, **options: Any) -> Any:
        import shmlog

        return shmlog.init("followers", root=self.folder / "runs", **options)

    def carried(self, *runs: Any) -> tuple[Any, ...]:
        """Return what a task carries beside its arguments: workers of other kinds know the runs without."""
        return () if self.kind.descends else runs


def ways_of(kind: Kind) -> list[str]:
    """Return the ways to log that follow: in the process that made a run, a handle of it does not."""
    ways = [way for way in WAYS if kind.processes or way != "handle"]
    return [*ways, "inherited"] if kind.inherits else ways


def do(crew: Crew, job: Job, calls: Calls) -> list[Any]:
    return crew.start(job, calls)()


def do_log(crew: Crew, way: str, values: range, *carried: Any) -> list[tuple[int, int]]:
    """Log the values in four tasks."""
    step = len(values) // 4
    return do(crew, jobs.log, [(way, values[i * step : (i + 1) * step], *carried) for i in range(4)])


def start_waiting(program: Program, crew: Crew, values: range, workers: int) -> Callable[[], list[Any]]:
    """Have workers wait, and log when the file "go" is there; return when they wait."""
    calls = [("name", values[i::workers], program.folder) for i in range(workers)]
    collect = crew.start(jobs.wait_and_log, calls)
    jobs.wait_for(lambda: len(list(program.folder.glob("born.*"))) == workers)
    return collect


def go(program: Program) -> None:
    (program.folder / "go").touch()


# ---- situations ----


def three_runs(program: Program) -> dict[str, Any]:
    """Each way to log has workers of its own, so that none of them follows since another did."""
    ways = ways_of(program.kind)
    crews = {way: program.crew() for way in ways}
    dirs = []
    for number in range(3):
        with program.init() as run:
            if number == 0:
                jobs.inherited = run
                for crew in crews.values():
                    crew.begin(1)
            for way in [*ways[number:], *ways[:number]]:  # loky has no workers apart
                do_log(crews[way], way, range(1000 * number, 1000 * number + PER_RUN), *program.carried(run))
        dirs.append(run.dir)
    for crew in crews.values():
        crew.end()
    return {"runs": dirs}


def two_at_once(program: Program) -> dict[str, Any]:
    """Tasks bring the run, or a metric of it; two of them come when theirs has ended."""
    crew = program.crew()
    one = program.init()
    crew.begin(2)
    two = program.init()
    half = PER_RUN // 2
    given = [one.metric("given"), two, one, two.metric("given")]
    values = [range(half), range(1000, 1000 + half), range(half, PER_RUN), range(1000 + half, 1000 + PER_RUN)]
    do(crew, jobs.log_given, list(zip(given, values, strict=True)))
    late = [pickle.dumps(one.metric("given")), pickle.dumps(one)]
    one.finish()
    if program.kind.processes:
        do(crew, jobs.log_pickled, [(data, range(LATE // 2)) for data in late])
    two.finish()
    crew.end()
    return {"runs": [one.dir, two.dir]}


def ambiguous(program: Program) -> dict[str, Any]:
    """Two threads have made a run each; the workers are of neither."""
    crew = program.crew()
    runs: list[Any] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: runs.append(program.init()))
        thread.start()
        thread.join()
    crew.begin(2)
    done = do_log(crew, "name", range(PER_RUN), *program.carried(*runs))
    for run in runs:
        run.finish()
    crew.end()
    return {"runs": [run.dir for run in runs], "pids": len({pid for pid, _ in done})}


def midway(program: Program) -> dict[str, Any]:
    crew = program.crew()
    first = program.init(max_wait=60.0)
    crew.begin(2)
    collect = crew.start(jobs.log_without_pause, [(program.folder, *program.carried(first))] * 2)
    jobs.wait_for(lambda: [calls > 1000 for calls in jobs.calls_returned(program.folder).values()] == [True, True])
    called = time.monotonic_ns()
    first.finish()
    returned = time.monotonic_ns()
    second = program.init(max_wait=60.0)
    (program.folder / "next").touch()
    calls = dict(collect())
    second.finish()
    crew.end()
    return {"runs": [first.dir, second.dir], "called": called, "returned": returned, "calls": calls}


def born_before(program: Program, imported: str) -> dict[str, Any]:
    """``imported``: whether the parent has imported shmlog before its workers are born, or later."""
    if imported == "before":
        import shmlog  # noqa: F401
    crew = program.crew()
    crew.begin(2)
    collect = start_waiting(program, crew, range(PER_RUN), 2)
    with program.init() as run:
        go(program)
        collect()
        do(crew, jobs.log_given, [(run.metric("given"), range(0, PER_RUN, 2)), (run, range(1, PER_RUN, 2))])
    crew.end()
    return {"runs": [run.dir]}


def born_between(program: Program) -> dict[str, Any]:
    crew = program.crew()
    with program.init() as first:
        first.log("name", 0, step=0)
    crew.begin(2)
    collect = start_waiting(program, crew, range(PER_RUN), 2)
    with program.init() as second:
        go(program)
        collect()
    crew.end()
    return {"runs": [first.dir, second.dir]}


def no_run(program: Program, strict: str) -> dict[str, Any]:
    """Workers log between two runs and after the last one."""
    crew = program.crew()
    options = {"strict": strict == "strict"}
    with program.init(**options) as first:
        crew.begin(1)
        do_log(crew, "name", range(PER_RUN), *program.carried(first))
    between = do(crew, jobs.log, [("name", range(BETWEEN))])
    with program.init(**options) as second:
        do_log(crew, "name", range(1000, 1000 + PER_RUN), *program.carried(second))
    after = do(crew, jobs.log, [("name", range(AFTER))])
    crew.end()
    return {"runs": [first.dir, second.dir], "refused": [between[0][1], after[0][1]]}


def silent(program: Program) -> dict[str, Any]:
    """A worker that has never logged lives on, while its parent takes the run up again."""
    from tests.support.processes import wait_for_end

    crew = program.crew()
    with program.init() as run:
        crew.begin(1)
        collect = start_waiting(program, crew, range(0), 1)
    wait_for_end(run.dir)
    with program.init(resume=run.id) as again:
        again.log("name", 1, step=1)
    go(program)
    collect()
    crew.end()
    return {"runs": [run.dir]}


def killed(program: Program) -> dict[str, Any]:
    """It is the test that ends this one."""
    crew = program.crew()
    run = program.init()
    crew.begin(2)
    collect = crew.start(jobs.log_and_exit, [(program.folder, *program.carried(run))] * 2)
    print(json.dumps({"runs": [str(run.dir)]}), flush=True)
    collect()
    raise AssertionError("nobody has killed this process")


SITUATIONS = {
    function.__name__: function
    for function in (
        three_runs, two_at_once, ambiguous, midway, born_before, born_between, no_run, silent, killed,
    )
}  # fmt: skip


def main() -> None:
    kind, situation, folder, *options = sys.argv[1:]
    told = SITUATIONS[situation](Program(kind, folder), *options)
    print(json.dumps(told, default=str))

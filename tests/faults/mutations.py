"""Deliberate mistakes in the C core and in the flusher, each of which a test must notice.

``python -m tests.faults.mutations`` makes them one by one in copies of the tree, builds, and runs the
test that is said to fail. It ends with 1 if one survives: then a promise is held by no test.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.mistakes_in_c import MISTAKES_IN_C
from tests.faults.mistakes_in_cuts import MISTAKES_IN_CUTS
from tests.faults.mistakes_in_python import MISTAKES_IN_PYTHON
from tests.faults.mistakes_in_recovery import MISTAKES_IN_RECOVERY
from tests.faults.workshop import ROOT, BuildError, Mutation, Verdict, Workshop

MUTATIONS = (*MISTAKES_IN_C, *MISTAKES_IN_CUTS, *MISTAKES_IN_PYTHON, *MISTAKES_IN_RECOVERY)
SEED = 1


class ControlError(Exception):
    """The tests fail without any mistake."""


def try_all(mutations: Sequence[Mutation], folder: Path, seed: int, jobs: int) -> Iterator[tuple[Mutation, Verdict]]:
    """Yield what came of each mutation, in their order.

    Raises
    ------
    ControlError
        If one of their tests fails in a copy without a mistake.
    """
    control = Workshop.copy_of(ROOT, folder / "control")
    control.build()
    verdict = control.test(sorted({mutation.test for mutation in mutations}), seed)
    if not verdict.passed:
        raise ControlError((control.folder / "output").read_text())
    with ThreadPoolExecutor(jobs) as pool:
        yield from zip(
            mutations, pool.map(lambda mutation: try_one(mutation, control, folder, seed), mutations), strict=True
        )


def try_one(mutation: Mutation, control: Workshop, folder: Path, seed: int) -> Verdict:
    """Make one mistake and test."""
    workshop = Workshop.copy_of(control.folder, folder / mutation.name)
    workshop.mutate(mutation)
    try:
        workshop.build()
    except BuildError as error:
        return Verdict(False, f"can't be built:\n{error}")
    return workshop.test([mutation.test], seed)


def show(mutation: Mutation, verdict: Verdict) -> None:
    """Print a row of the table."""
    word = "caught" if verdict.caught else "SURVIVES"
    print(
        f"{mutation.name:28} {word:8} {verdict.seconds:5.1f} s  {mutation.breaks}\n{'':28} {mutation.test}", flush=True
    )
    print(f"{'':28} {verdict.said}", flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what is wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutations", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", help="try this one; may be repeated")
    parser.add_argument("--list", action="store_true", help="print the table and try nothing")
    parser.add_argument("--jobs", type=int, default=1, help="mutations tried at a time (default: 1)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"seed of the tests (default: {SEED})")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the mutations asked for; return the exit status."""
    wanted = parse(arguments)
    chosen = [mutation for mutation in MUTATIONS if wanted.only is None or mutation.name in wanted.only]
    if wanted.list or not chosen:
        for mutation in MUTATIONS:
            print(f"{mutation.name:28} {mutation.file:24} {mutation.breaks}\n{'':28} {mutation.test}")
        return 0 if wanted.list else 2
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        for mutation, verdict in try_all(chosen, Path(folder), wanted.seed, wanted.jobs):
            show(mutation, verdict)
            survivors += not verdict.caught
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())

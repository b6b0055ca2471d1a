"""The places where victims are stepped: what a call is made of, and every state it puts the segment in."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from shmlog import _core
from tests.faults.arena import LAP, Account, Arena, Image
from tests.faults.stepping import (
    CHANGED,
    Parent,
    Region,
    Route,
    Victim,
    compile_producers,
    compile_stepper,
    map_notes,
    spawn,
)

TRACE_ROOM = 1_000_000

A = TypeVar("A", bound=Arena)


class Stage:
    """A place for victims without Python: those of producers.c."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stepper = compile_stepper(folder)
        self.program = compile_producers(folder)
        self.strays = 0
        self._victims: list[Victim] = []
        self._routes: dict[tuple[str, int], Route] = {}

    def arena(self, image: Image | None = None) -> contextlib.AbstractContextManager[Arena]:
        """Give a segment, and clean up what is left of it and of its victims."""
        return self.clean_up(Arena(self.folder, image))

    @contextlib.contextmanager
    def clean_up(self, arena: A) -> Iterator[A]:
        """Clean up what is left of a segment and of its victims."""
        try:
            yield arena
        finally:
            for victim in self._victims:
                victim.clean_up()
                self.strays += victim.strayed
            self._victims.clear()
            arena.close()

    def start(self, arena: Arena, case: str, rounds: int) -> Victim:
        """Start a victim, stopped before it has done anything."""
        notes = arena.folder / "notes"
        mapped = map_notes(notes)
        pid = spawn(self.stepper, self.program, "step", arena.path, notes, arena.who, case, str(rounds))
        return (Parent if case.startswith("fork") else Victim)(self.stepper, case, arena.who, pid, mapped)

    def victim(self, arena: Arena, case: str, rounds: int) -> Victim:
        """Return a victim before its call."""
        rounds = 0 if case in ("attach", "create") else rounds
        victim = self.start(arena, case, rounds)
        self._victims.append(victim)
        victim.prepare(arena, rounds)
        return victim

    def child(self, parent: Victim) -> Victim:
        """Let a victim fork, and return the child before its first instruction."""
        assert isinstance(parent, Parent)
        child = parent.to_fork()
        self._victims.append(child)
        return child

    def step_parent(self, parent: Victim, count: int) -> Victim | None:
        """Execute instructions of a call that forks, and return the child if there is one by then."""
        assert isinstance(parent, Parent)
        child = parent.step(count)
        if child:
            self._victims.append(child)
        return child

    def route(self, case: str, rounds: int) -> Route:
        """Return the instructions of a call. Every victim of this case takes them."""
        if (case, rounds) not in self._routes:
            with self.arena() as arena:
                victim = self.victim(arena, case, rounds)
                traced = self.trace(self.child(victim) if case == "fork_child" else victim)
            self._routes[case, rounds] = self.cut(traced)
        return self._routes[case, rounds]

    def trace(self, victim: Victim) -> list[int]:
        """Step to the mark, and return what was executed."""
        found = (ctypes.c_uint64 * TRACE_ROOM)()
        count = self.stepper.stepper_trace(victim.pid, found, TRACE_ROOM)
        assert count > 0, "the call can't be traced"
        return found[:count]

    def cut(self, traced: list[int]) -> Route:
        """Return the call out of what is executed from mark to mark."""
        return Route(traced, fixed=bool(self.stepper.stepper_fixes_addresses()))

    def snapshots(self, case: str, rounds: int = 1) -> tuple[int, list[Snapshot]]:
        """Step through a call, and keep the segment as it is after each instruction that changes it.

        Returns the number of instructions, and the segment's states.
        """
        with self.arena() as arena, _Shadow(arena) as shadow:
            victim = self.victim(arena, case, rounds)
            shadow.refresh()
            states = [Snapshot(0, shadow.image(), victim.account())]

            def changed(point: int) -> None:
                states.append(Snapshot(point, shadow.image(), victim.account()))

            count = self.stepper.stepper_sweep(victim.pid, shadow.regions, len(shadow.regions), CHANGED(changed))
            assert count > 0, "the call can't be swept"
        return count, states


@dataclass(frozen=True)
class Snapshot:
    """A segment as a kill leaves it."""

    point: int
    image: Image
    account: Account


class _Shadow:
    """The parts of a segment that a few records can change, and a copy of them."""

    def __init__(self, arena: Arena) -> None:
        lanes = arena.segment.lanes
        head = _core.head_bytes(lanes)
        lane_headers = head - -(-lanes * 384 // 4096) * 4096
        names = 4096
        ids, text = names + 128 + 32768 * 4, names + 128 + 32768 * 4 + 16384 * 8
        spans = [(0, ids + 8 * 64), (text, 1024), (lane_headers, head - lane_headers + lanes * LAP * 32)]
        with arena.path.open("r+b") as file:
            self._live = mmap.mmap(file.fileno(), 0)
        self._offsets = [offset for offset, _ in spans]
        self._copies = [(ctypes.c_char * size)() for _, size in spans]
        self._held = ctypes.c_char.from_buffer(self._live)
        base = ctypes.addressof(self._held)
        self.regions = (Region * len(spans))(
            *[
                Region(base + offset, ctypes.addressof(copy), size)
                for (offset, size), copy in zip(spans, self._copies, strict=True)
            ]
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        del self._held
        self._live.close()

    def refresh(self) -> None:
        for offset, copy in zip(self._offsets, self._copies, strict=True):
            copy[:] = self._live[offset : offset + len(copy)]

    def image(self) -> list[tuple[int, bytes]]:
        return [(offset, copy.raw) for offset, copy in zip(self._offsets, self._copies, strict=True)]

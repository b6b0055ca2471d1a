"""I8: what the fast path compiles to, on x86-64 and on aarch64: no lock, no fence, no call out, one release store.

FAULTS P12: the compiled code is what runs, so it is the compiled code that is
read. An instruction that locks or fences would be correct and slow; a release
store that is none would be fast and wrong on aarch64. A machine of the other
kind is not needed, its compiler and objdump are (CONTRIBUTING.md).
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.csource import BINDING, CORE, build_flags, python_flags, run_tool

PROBE = Path(__file__).with_name("fast_path.c")
CALLS_ALLOWED = {"clock_gettime", "memcpy"}  # the first is no system call where the vDSO has it, the second never
FUNCTION = re.compile(r"^[0-9a-f]+ <([^>]+)>:$")
INSTRUCTION = re.compile(r"^\s*[0-9a-f]+:\s+(\S+)\s*(.*)$")
RELOCATION = re.compile(r"^\s*[0-9a-f]+: R_\S+\s+(\.?\w+)")


@dataclass(frozen=True)
class Machine:
    """How to compile for a processor, and what must not come of it."""

    name: str
    compiler: str
    objdump: str
    forbidden: re.Pattern[str]
    """Locked instructions and fences, as ``instruction operands``."""
    release: re.Pattern[str] | None
    """A release store, where it is an instruction of its own."""
    acquire: re.Pattern[str] | None
    calls: tuple[str, ...]


NATIVE_X86 = shutil.which("x86_64-linux-gnu-gcc") is None
MACHINES = {
    "x86-64": Machine(
        name="x86-64",
        compiler="gcc" if NATIVE_X86 else "x86_64-linux-gnu-gcc",
        objdump="objdump" if NATIVE_X86 else "x86_64-linux-gnu-objdump",
        # xchg with memory locks without saying so; with registers alone it is padding.
        forbidden=re.compile(r"lock\b|xchg.*\(|mfence|sfence|lfence|syscall|int\b|cpuid|cmpxchg|xadd"),
        release=None,  # any store is one
        acquire=None,
        calls=("call", "callq"),
    ),
    "aarch64": Machine(
        name="aarch64",
        compiler="aarch64-linux-gnu-gcc",
        objdump="aarch64-linux-gnu-objdump",
        forbidden=re.compile(r"dmb|dsb|isb|ld(a)?xr|st(l)?xr|cas|swp|ldadd|ldset|ldclr|ldeor|stadd|svc"),
        release=re.compile(r"stlr"),
        acquire=re.compile(r"ldap?r\b"),
        calls=("bl", "blr"),
    ),
}


def disassemble(machine: Machine, source: Path, folder: Path, *flags: str) -> dict[str, list[str]]:
    """Compile as the build does; return the instructions of each function, a call as ``call name``."""
    made = folder / f"{source.stem}.o"
    run_tool(machine.compiler, *build_flags(), *flags, f"-I{CORE}", "-c", source, "-o", made)
    functions: dict[str, list[str]] = {}
    body: list[str] = []
    for line in run_tool(machine.objdump, "-dr", "--no-show-raw-insn", made).splitlines():
        if begin := FUNCTION.match(line):
            body = functions.setdefault(begin[1].split(".")[0], [])
        elif target := RELOCATION.match(line):
            if body and body[-1].split()[0] == "call":
                body[-1] = f"call {target[1]}"
        elif found := INSTRUCTION.match(line):
            name = "call" if found[1] in machine.calls else found[1]
            operands = found[2].split("//")[0].split("#")[0].strip()
            body.append(f"{name} {operands}")
    return functions


def faults_of(machine: Machine, body: list[str], *, calls: set[str]) -> list[str]:
    """Return what a body holds that a fast path must not: locks, fences, calls out."""
    found = [line for line in body if machine.forbidden.match(line)]
    for line in body:
        if line.startswith("call "):
            target = line.split(maxsplit=1)[1]
            called = re.search(r"<([^>+]+)", target)
            if (called[1] if called else target) not in calls:
                found.append(line)
    return found


def count(pattern: re.Pattern[str] | None, body: list[str]) -> int:
    assert pattern is not None
    return sum(1 for line in body if pattern.match(line))


def check_put(machine: Machine, body: list[str]) -> list[str]:
    """Return what is wrong with the put of one record."""
    wrong = faults_of(machine, body, calls=CALLS_ALLOWED)
    if machine.release is not None and count(machine.release, body) != 1:
        wrong.append(f"{count(machine.release, body)} release stores, not the one of the commit word")
    return wrong


@pytest.mark.parametrize("name", MACHINES)
def test_the_put_has_one_release_store_and_nothing_that_locks_or_calls(name: str, tmp_path: Path) -> None:
    machine = MACHINES[name]
    body = disassemble(machine, PROBE, tmp_path)["fast_path"]
    assert len(body) > 20, "the function is there"
    assert check_put(machine, body) == [], f"I8 on {name}:\n" + "\n".join(body)


@pytest.mark.parametrize("name", MACHINES)
def test_units_of_several_slots_lock_nothing_and_call_nothing(name: str, tmp_path: Path) -> None:
    machine = MACHINES[name]
    functions = disassemble(machine, CORE / "lane.c", tmp_path)
    own = {function for function in functions if function.startswith(("shmlog_", "write_"))}
    for function, body in functions.items():
        assert faults_of(machine, body, calls=CALLS_ALLOWED | own) == [], f"I8: {function} on {name}"


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("source", ["py_metric.c", "py_log.c", "py_dict.c", "py_extend.c", "py_value.c"])
def test_nothing_between_python_and_the_lane_locks(name: str, source: str, tmp_path: Path) -> None:
    machine = MACHINES[name]
    functions = disassemble(machine, BINDING / source, tmp_path, *python_flags())
    found = {function: [line for line in body if machine.forbidden.match(line)] for function, body in functions.items()}
    assert {function: lines for function, lines in found.items() if lines} == {}, f"I8: {source} on {name}"


def test_the_handle_inlines_the_put(tmp_path: Path) -> None:
    """The release store of ``fast_path`` is in the functions that Python calls: the probe is the product's path."""
    machine = MACHINES["aarch64"]
    functions = disassemble(machine, BINDING / "py_metric.c", tmp_path, *python_flags())
    stores = {function: count(machine.release, body) for function, body in functions.items()}
    assert {function: n for function, n in stores.items() if n} == {
        "metric_log": 1,
        "metric_vectorcall": 1,
        "record_after_end": 1,  # which goes on in the next run
    }
    assert not [line for body in functions.values() for line in body if re.match(r"call .*shmlog_lane", line)]


@pytest.mark.parametrize(
    ("source", "function", "side"),
    [
        ("lane.c", "shmlog_lane_peek", "acquire"),
        ("room.c", "shmlog_producer_make_room", "acquire"),
        ("producer.c", "shmlog_producer_allot", "acquire"),
        ("names.c", "shmlog_name_intern", "acquire"),
        ("segment.c", "shmlog_segment_open", "acquire"),
        ("segment.c", "shmlog_segment_create", "release"),
        ("segment.c", "shmlog_segment_keep_spares", "release"),
        ("lane.c", "shmlog_lane_write_bytes", "release"),
        ("lane.c", "shmlog_lane_write_row", "release"),
        ("drain.c", "shmlog_drain_restore", "release"),
        ("drain.c", "put_frame", "release"),
        ("drain.c", "shmlog_drain_sync", "release"),
    ],
)
def test_each_side_of_a_pair_is_an_instruction_that_orders(
    source: str, function: str, side: str, tmp_path: Path
) -> None:
    """COMMIT, RECLAIM, ALLOT, NAME, CREATE, SYNC: where x86-64 forgives a relaxed order, aarch64 does not."""
    machine = MACHINES["aarch64"]
    body = disassemble(machine, CORE / source, tmp_path)[function]
    assert count(machine.release if side == "release" else machine.acquire, body) >= 1, f"{function}: no {side}"


RELEASE = "memory_order_release);\n}\n\n/* What lies below"
MISTAKES = {
    "a commit word that is stored seq_cst": ("x86-64", RELEASE, RELEASE.replace("release", "seq_cst")),
    "a commit word that is stored relaxed": ("aarch64", RELEASE, RELEASE.replace("release", "relaxed")),
    "a fence before the commit": (
        "both",
        "    /* COMMIT, release side. Before",
        "    atomic_thread_fence(memory_order_seq_cst);\n    /* COMMIT, release side. Before",
    ),
    "a head that is added to": (
        "both",
        "atomic_store_explicit(&shared->head, head, memory_order_relaxed)",
        "atomic_fetch_add_explicit(&shared->head, 1, memory_order_relaxed)",
    ),
    "a call out": (
        "both",
        "    lane->head = head;",
        "    extern int getpid(void);\n    lane->head = head + (getpid() == 0);",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_check_finds(mistake: str, tmp_path: Path) -> None:
    where, right, wrong = MISTAKES[mistake]
    text = (CORE / "lane.h").read_text()
    assert text.count(right) == 1, "the mistake is out of date"
    (tmp_path / "lane.h").write_text(text.replace(right, wrong))
    (tmp_path / "producer.h").write_text((CORE / "producer.h").read_text())  # beside it, so that it includes it
    for name in MACHINES if where == "both" else [where]:
        body = disassemble(MACHINES[name], PROBE, tmp_path, f"-I{tmp_path}")["fast_path"]
        assert check_put(MACHINES[name], body), f"{mistake}: not seen on {name}"

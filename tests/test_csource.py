"""What the C sources promise: a core without Python, and an argued memory order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "shmlog" / "csrc"
SOURCES = sorted(CSRC.rglob("*.[ch]"))
ORDER = re.compile(r"memory_order_(\w+)")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
# A pair is a row in format.h's table of shared words, or has comments at both of its sides.
ROW = re.compile(r"(?:release/acquire|full fences) +([A-Z]+)\b")
SIDE = re.compile(r"\b([A-Z]+), (release|acquire) side")
SIDES = ("release", "acquire")


def pairs() -> set[str]:
    text = "".join(path.read_text() for path in SOURCES)
    sides = set(SIDE.findall(text))
    return set(ROW.findall(text)) | {name for name, _ in sides if {(name, "release"), (name, "acquire")} <= sides}


def statement_start(lines: list[str], at: int) -> int:
    """Return the line where the statement that goes on at line ``at`` begins."""
    while at > 0:
        above = lines[at - 1].split("/*")[0].rstrip()
        if not above or above.endswith((";", "{", "}", ":")) or "*/" in lines[at - 1] or above.startswith("#"):
            return at
        at -= 1
    return at


def comment_for(lines: list[str], at: int) -> str:
    """Return the comments of the statement at line ``at``: inside it, and the one just above."""
    start = statement_start(lines, at)
    inside = " ".join(COMMENT.findall("\n".join(lines[start : at + 1])))
    above: list[str] = []
    row = start - 1
    if row >= 0 and lines[row].rstrip().endswith("*/"):
        while row >= 0:
            above.insert(0, lines[row])
            if "/*" in lines[row]:
                break
            row -= 1
    return inside + " ".join(" ".join(COMMENT.findall("\n".join(above))).split())


def unargued(text: str, names: set[str]) -> list[str]:
    """Return the uses of a memory order in ``text`` that say no reason."""
    lines = text.splitlines()
    found = []
    for number, line in enumerate(lines):
        code = COMMENT.sub("", line)
        for order in ORDER.findall(code):
            comment = comment_for(lines, number)
            named = set(re.findall(r"[A-Z]+", comment))
            argued = "relaxed:" in comment if order == "relaxed" else bool(names & named)
            if not argued:
                found.append(f"{number + 1}: {line.strip()}")
    return found


def test_the_pairs_are_found() -> None:
    assert {"COMMIT", "RECLAIM"} <= pairs()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_memory_order_says_why(path: Path) -> None:
    assert unargued(path.read_text(), pairs()) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_order_is_left_to_the_default(path: Path) -> None:
    code = COMMENT.sub("", path.read_text())
    implicit = r"\batomic_(load|store|exchange|compare_exchange_\w+|fetch_\w+)\s*\("
    assert [m[0] for m in re.finditer(implicit, code) if "_explicit" not in m[0]] == []
    fence = r"\batomic_(thread|signal)_fence\(memory_order_seq_cst\)"  # where a store must come before a load
    assert "seq_cst" not in re.sub(fence, "", code)


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parent.name == "core"], ids=lambda path: path.name)
def test_the_core_knows_no_python(path: Path) -> None:
    text = path.read_text()
    assert "Python.h" not in text
    assert '"py_' not in text
    assert "/py_" not in text
    assert not re.search(r"\bPy[A-Z_]\w*", COMMENT.sub("", text))


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("x = load(&a, memory_order_acquire); /* COMMIT */", 0),
        ("/* COMMIT, release side. */\nstore(&a,\n      memory_order_release);", 0),
        ("/* COMMIT, release side,\n * of a slot. */\nstore(&a, memory_order_release);", 0),
        ("/* relaxed: a hint. */\nuint64_t x = load(&a, memory_order_relaxed);", 0),
        ("/* relaxed: a hint. */\nf();\nload(&a, memory_order_relaxed);", 1),
        ("/* a hint */\nload(&a, memory_order_relaxed);", 1),
        ("/* relaxed: a hint. */\nload(&a, memory_order_acquire);", 1),
        ("load(&a, memory_order_release);", 1),
        ("/* COMMIT */\n\nload(&a, memory_order_acquire);", 1),
    ],
)
def test_the_check_itself(code: str, count: int) -> None:
    assert len(unargued(code, {"COMMIT"})) == count

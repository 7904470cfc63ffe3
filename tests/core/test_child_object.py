"""What the child's objects may call: nothing of libc, nothing of Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

OBJECTS = ["child.c", "fallback.c", "idmap.c", "rawfork.c", "report.c", "clone.S"]
ALLOWED = {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}
"""Besides the child's own names. Compilers make calls of the first two out of assignments."""


def symbols(build: Path, name: str, *options: str) -> set[str]:
    (found,) = (build / "csrc" / "libtaskclone_child.a.p").glob(f"*{name}.o")
    text = subprocess.run(["nm", *options, found], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in text.splitlines()}


@pytest.mark.parametrize("name", OBJECTS)
def test_what_an_object_calls_is_on_the_list(build: Path, name: str) -> None:
    undefined = symbols(build, name, "-u")
    assert {symbol for symbol in undefined if not symbol.startswith("tc_")} <= ALLOWED


def test_what_they_call_of_each_other_is_there(build: Path) -> None:
    undefined = set().union(*(symbols(build, name, "-u") for name in OBJECTS))
    defined = set().union(*(symbols(build, name, "--defined-only") for name in OBJECTS))
    assert {symbol for symbol in undefined if symbol.startswith("tc_")} <= defined


def test_the_list_would_find_a_slip(build: Path) -> None:
    text = subprocess.run(
        ["nm", "-u", build / "csrc" / "testing" / "steps"], capture_output=True, text=True, check=True
    ).stdout
    assert "fopen" in text


def test_all_objects_of_the_library_are_looked_at(build: Path) -> None:
    found = {path.name for path in (build / "csrc" / "libtaskclone_child.a.p").glob("*.o")}
    assert len(found) == len(OBJECTS)
    assert all(any(name.endswith(f"{ours}.o") for ours in OBJECTS) for name in found)
